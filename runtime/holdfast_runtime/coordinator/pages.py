"""Stored pages as documents."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from holdfast_runtime.engine import model
from holdfast_runtime.engine.model import Document
from holdfast_runtime.engine.operations import decode
from holdfast_runtime.engine.payload import BlobRef
from holdfast_runtime.engine.transaction import Page
from holdfast_runtime.ports.store import StoredPage


async def document_of(stored: StoredPage | None, read_blob: Callable[[str], Awaitable[bytes]]) -> Document | None:
    """The document of a stored page; None when it is absent or a tombstone. One that outgrew an item is read from its blob."""
    if stored is None or stored.document is None:
        return None
    document = decode(stored.document)
    if isinstance(document, BlobRef):
        document = decode(await read_blob(document.id))
    return document  # type: ignore[no-any-return]


def note_end(page_id: str, page: Page) -> None:
    """After each change: remember when the result of an invocation is over, for what is left of its page in the store (flush.py)."""
    if page_id[0] == "I" and page.document is not None:
        page.over_at = max(page.over_at, page.document.get(model.EXPIRES_AT) or 0)
