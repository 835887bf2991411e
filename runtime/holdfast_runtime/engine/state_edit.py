"""An operator replaces the whole state of a key. It takes its turn in the key's queue, so that no running handler sees half of it
(http-api §2.7)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from holdfast_runtime.engine import key_pages, key_state, model
from holdfast_runtime.engine.payload import BlobRef, Payload

if TYPE_CHECKING:
    from holdfast_runtime.engine.transaction import Transaction


def apply(tx: Transaction, service: str, key: str, change: list[Any]) -> None:
    """Replace the state; nothing happens when it is no longer the one the operator had seen."""
    values, expected = change
    before, _ = key_state.read_all(tx, service, key)
    if expected is not None and fingerprint(before) != expected:
        return
    wanted = {name for name, _ in values}
    for name, _ in before:
        if name not in wanted:
            key_state.remove(tx, service, key, name)
    for name, value in values:
        key_state.write(tx, service, key, name, value)
    page_id = model.key_page(service, key)
    document = tx.get(page_id)
    if document is not None:
        key_pages.drop_if_empty(tx, page_id, document)


def fingerprint(values: Iterable[tuple[str, Payload]]) -> bytes:
    """Equal for equal states. Large values count by their reference, which names their content."""
    digest = hashlib.sha256()
    for name, value in sorted(values, key=lambda item: item[0].encode()):
        content = value.id.rpartition("/")[2].encode() if isinstance(value, BlobRef) else value
        digest.update(b"%d:%b%d:%b" % (len(name.encode()), name.encode(), len(content), content))
    return digest.digest()


def version_of(state: dict[str, bytes]) -> str:
    """The hash by which clients name a state (http-api §2.7)."""
    digest = hashlib.sha256()
    for number, (name, value) in enumerate(sorted(state.items(), key=lambda item: item[0].encode())):
        digest.update(number.to_bytes(8, "big") + b"\x01" + name.encode() + b"\x02" + value + b"\x03")
    return base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
