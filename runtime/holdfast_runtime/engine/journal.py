"""The journal: entries 0, 1, 2 ... of an invocation; the first 48 KB in its own page, the rest in pages that never change once full."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.protocol import awaiting, messages
from holdfast.protocol.awaiting import Key, Outcome
from holdfast_runtime.engine import model
from holdfast_runtime.engine.model import Document
from holdfast_runtime.engine.payload import Entry, entry_type, stored_size
from holdfast_runtime.engine.transaction import Transaction


def append(tx: Transaction, invocation: str, document: Document, entry: Entry) -> int:
    """Append one entry; its journal index."""
    index: int = document[model.LENGTH]
    size = stored_size(entry) + 8
    page_id = model.invocation_page(invocation)
    pages = document.get(model.PAGES, ())
    fields = {model.LENGTH: index + 1, model.APPENDED_AT: tx.now}
    if not pages and document[model.INLINE] + size <= model.JOURNAL_PAGE_BYTES:
        tx.put(page_id, (model.JOURNAL, index), entry)
        tx.merge(page_id, fields | {model.INLINE: document[model.INLINE] + size})
        return index
    if not pages or document[model.PAGE_FILL] + size > model.JOURNAL_PAGE_BYTES:
        number = len(pages)
        # Its id is new in the life of this invocation; an earlier life with the same id left at most a tombstone, with a smaller LSN.
        tx.absent(model.journal_page(invocation, number))
        tx.merge(page_id, fields | {model.PAGES: [*pages, index], model.PAGE_FILL: size})
    else:
        number = len(pages) - 1
        tx.merge(page_id, fields | {model.PAGE_FILL: document[model.PAGE_FILL] + size})
    tx.put(model.journal_page(invocation, number), (index,), entry)
    return index


def page_ids(invocation: str, document: Document) -> list[str]:
    """The journal pages beyond the invocation's own."""
    return [model.journal_page(invocation, number) for number in range(len(document.get(model.PAGES, ())))]


def entries(tx: Transaction, invocation: str, document: Document, first: int = 0) -> Iterator[tuple[int, Entry]]:
    """(index, entry) from `first` on, in order."""
    starts = document.get(model.PAGES, ())
    inline = document[model.JOURNAL]
    bounds = [*starts, document[model.LENGTH]]
    needed = [n for n in range(len(starts)) if bounds[n + 1] > first]
    tx.need(*(model.journal_page(invocation, n) for n in needed))
    for index in range(first, bounds[0]):
        yield index, inline[index]
    for n in needed:
        page = tx.get(model.journal_page(invocation, n)) or {}
        for index in range(max(first, bounds[n]), bounds[n + 1]):
            yield index, page[index]


def notification_of(entry: Entry) -> tuple[Key, Outcome] | None:
    """What a journal entry resolves; None for a command."""
    type_ = entry_type(entry)
    if not messages.is_notification(type_):
        return None
    if isinstance(entry, list):  # only values are ever kept aside, and the id stands before them
        return _leading_key(entry[0][8:]), Outcome.SUCCEEDED
    message = messages.parse(type_, entry[8:])
    return awaiting.key_of(message), awaiting.outcome_of(message)  # type: ignore[arg-type]


def _leading_key(body: bytes) -> Key:
    """The key in field 1 (completion id), 2 (signal index) or 3 (signal name) at the start of a notification."""
    number, shift, position = 0, 0, 1
    while True:
        byte = body[position]
        number |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            break
    match body[0]:
        case 0x08:
            return ("c", number)
        case 0x10:
            return ("s", number)
        case _:
            return ("n", body[position : position + number].decode())
