"""The page of a key: made when it is first needed, gone when nothing is left in it."""

from __future__ import annotations

from holdfast_runtime.engine import key_listing, model
from holdfast_runtime.engine.model import Document
from holdfast_runtime.engine.transaction import Transaction


def new_key() -> Document:
    return {
        model.STATE: {},
        model.STATE_BYTES: 0,
        model.SPILLED: {},
        model.PROMISES: {},
        model.PROMISES_SPILLED: {},
        model.QUEUE: {},
    }


def key_document(tx: Transaction, page_id: str) -> Document:
    """The key's page, created when it does not exist."""
    document = tx.get(page_id)
    if document is None:
        document = new_key()
        tx.put(page_id, (), document)
    return document


def drop_if_empty(tx: Transaction, page_id: str, document: Document) -> None:
    """A key without holder, queue, state and promises needs no page."""
    if document.get(model.LOCK) is None and document.get(model.HEAD, 0) == document.get(model.TAIL, 0):
        fields = (model.STATE, model.SPILLED, model.PROMISES, model.PROMISES_SPILLED)
        if not any(document[field] for field in fields):
            tx.drop(page_id)


def drop_key(tx: Transaction, service: str, key: str) -> None:
    """Forget state and promises of a workflow's key."""
    page_id = model.key_page(service, key)
    document = tx.get(page_id)
    if document is None:
        return
    spilled = [model.state_page(service, key, name) for name in document[model.SPILLED]]
    spilled += [model.promise_page(service, key, name) for name in document[model.PROMISES_SPILLED]]
    for extra in spilled:
        tx.overwritten(extra)
        tx.drop(extra)
    key_listing.leave(tx, service, key, document)
    tx.drop(page_id)
