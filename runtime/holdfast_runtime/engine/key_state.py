"""State of a key: small values in the page of the key, the rest value by value in pages of their own, large ones as blobs (design §5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from holdfast_runtime.engine import key_listing, model
from holdfast_runtime.engine.key_pages import key_document
from holdfast_runtime.engine.model import Document
from holdfast_runtime.engine.payload import BlobRef, Payload
from holdfast_runtime.engine.transaction import Transaction

VALUE: Final = "v"  # the one field of a state page


def read(tx: Transaction, service: str, key: str, name: str) -> Payload | None:
    """One value; None when it is not set."""
    document = tx.get(model.key_page(service, key))
    if document is None:
        return None
    if name in document[model.SPILLED]:
        page = tx.get(model.state_page(service, key, name))
        return page[VALUE] if page is not None else None
    found: Payload | None = document[model.STATE].get(name)
    return found


def read_all(tx: Transaction, service: str, key: str, *, limit: int | None = None) -> tuple[list[tuple[str, Payload]], bool]:
    """(name, value) pairs by name, and whether they are all; collection stops before the value that would exceed `limit` bytes."""
    document = tx.get(model.key_page(service, key))
    if document is None:
        return [], True
    sizes = {name: _size(value) for name, value in document[model.STATE].items()} | document[model.SPILLED]
    total, chosen = 0, []
    for name in sorted(sizes):
        total += len(name) + sizes[name]
        if limit is not None and total > limit:
            break
        chosen.append(name)
    tx.need(*(model.state_page(service, key, name) for name in chosen if name in document[model.SPILLED]))
    return list(_values(tx, service, key, chosen)), len(chosen) == len(sizes)


def write(tx: Transaction, service: str, key: str, name: str, value: Payload) -> None:
    page_id = model.key_page(service, key)
    document = key_document(tx, page_id)
    key_listing.entered(tx, service, key, document)
    size = _stored(name, value)
    old = document[model.STATE].get(name)
    fill = document[model.STATE_BYTES] - (_stored(name, old) if old is not None else 0)
    spilled = name in document[model.SPILLED]
    if not spilled and fill + size <= model.STATE_INLINE_BYTES:
        tx.put(page_id, (model.STATE, name), value)
        tx.merge(page_id, {model.STATE_BYTES: fill + size})
        return
    if old is not None:
        tx.delete(page_id, (model.STATE, name))
        tx.merge(page_id, {model.STATE_BYTES: fill})
    extra = model.state_page(service, key, name)
    tx.overwritten(extra)
    tx.put(extra, (), {VALUE: value})
    tx.put(page_id, (model.SPILLED, name), _size(value))


def remove(tx: Transaction, service: str, key: str, name: str) -> None:
    """Unset one value."""
    document = tx.get(model.key_page(service, key))
    if document is not None:
        _remove(tx, service, key, document, name)


def _remove(tx: Transaction, service: str, key: str, document: Document, name: str) -> None:
    page_id = model.key_page(service, key)
    old = document[model.STATE].get(name)
    if old is not None:
        tx.delete(page_id, (model.STATE, name))
        tx.merge(page_id, {model.STATE_BYTES: document[model.STATE_BYTES] - _stored(name, old)})
    elif name in document[model.SPILLED]:
        tx.delete(page_id, (model.SPILLED, name))
        extra = model.state_page(service, key, name)
        tx.overwritten(extra)
        tx.drop(extra)
    key_listing.emptied(tx, service, key, document)


def _values(tx: Transaction, service: str, key: str, names: list[str]) -> Iterator[tuple[str, Payload]]:
    for name in names:
        value = read(tx, service, key, name)
        if value is not None:
            yield name, value


def _size(value: Payload) -> int:
    return value.size if isinstance(value, BlobRef) else len(value)


def _stored(name: str, value: Payload) -> int:
    return len(name) + (100 if isinstance(value, BlobRef) else len(value))
