"""The journal: entries 0, 1, 2 ... of an invocation; the first 48 KB in its own page, the rest in pages that never change once full."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from holdfast.protocol import awaiting, messages
from holdfast.protocol.awaiting import Key, Outcome
from holdfast_runtime.engine import model
from holdfast_runtime.engine.model import Document
from holdfast_runtime.engine.payload import Entry, entry_type, stored_size
from holdfast_runtime.engine.transaction import Transaction

# Ends the invocation: with a full journal nothing it may do is recorded, however often it is tried, and no operator can make room.
FULL: Final = (
    f"the journal has reached its limit of {model.MAX_JOURNAL} entries; let the handler call itself with what is left to do "
    "and end, or move parts of the work into calls"
)


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


def lay_out(tx: Transaction, invocation: str, journal: Sequence[Entry]) -> Document:
    """The fields of a new invocation that begins with `journal`; what does not fit in its page is put into pages beside it."""
    pages: list[Document] = [{}]
    starts: list[int] = []
    inline = fill = 0
    for index, entry in enumerate(journal):
        size = stored_size(entry) + 8
        if fill + size > model.JOURNAL_PAGE_BYTES and index:
            pages.append({})
            starts.append(index)
            fill = 0
        pages[-1][index] = entry
        fill += size
        inline += 0 if starts else size
    for number, page in enumerate(pages[1:]):
        tx.absent(model.journal_page(invocation, number))
        tx.put(model.journal_page(invocation, number), (), page)
    fields = {model.JOURNAL: pages[0], model.LENGTH: len(journal), model.INLINE: inline}
    return fields | ({model.PAGES: starts, model.PAGE_FILL: fill} if starts else {})


def clear(tx: Transaction, invocation: str, document: Document) -> None:
    """Forget the journal of an invocation that is over; everything else of it stays. Doing it again changes nothing."""
    page_id = model.invocation_page(invocation)
    _drop_pages(tx, invocation, document)
    for field in (model.JOURNAL, model.PENDING, model.SIGNALLED):
        tx.put(page_id, (field,), {})
    tx.merge(page_id, {model.LENGTH: 0, model.INLINE: 0, model.PAGES: [], model.PAGE_FILL: 0})


def drop(tx: Transaction, invocation: str, document: Document) -> None:
    """Forget the invocation with its journal."""
    _drop_pages(tx, invocation, document)
    tx.drop(model.invocation_page(invocation))


def _drop_pages(tx: Transaction, invocation: str, document: Document) -> None:
    for page_id in page_ids(invocation, document):
        tx.overwritten(page_id)
        tx.drop(page_id)


def is_gone(document: Document, now: int) -> bool:
    """Of a finished invocation: was the journal purged, never kept, or is its retention over? The timer that drops it may be late."""
    kept_ms: int = min(document[model.JOURNAL_RETENTION], document[model.RETENTION])
    return not document[model.LENGTH] or bool(document[model.COMPLETED_AT] + kept_ms <= now)


def is_full(document: Document) -> bool:
    """No room for one more entry beside the completions that are awaited: those must always find a place."""
    return bool(document[model.LENGTH] + len(document[model.PENDING]) >= model.MAX_JOURNAL)


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
