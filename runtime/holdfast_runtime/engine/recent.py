"""Results of invocations that are not retained, kept for three minutes: a request that is sent again in that time still finds its answer,
and so does who has waited for it at an owner that was lost. Who asks for the first time does not (http-api §1.8). Edits of state are
remembered likewise, by the page of their key in place of an invocation.

`X/<shard>/recent` = {minute: [number of pages, bytes in the last]}, pages `X/<shard>/recent/<minute>/<n>` = {invocation: [result, request
id]}, with a third member when it is forgotten or the id lives again: then the result answers only the request that had made it.
"""

from __future__ import annotations

from typing import Any

from holdfast_runtime.engine import model
from holdfast_runtime.engine.payload import Result, size_of
from holdfast_runtime.engine.transaction import Transaction


def remember(tx: Transaction, invocation: str, result: Result, request: bytes, *, hidden: bool = False) -> None:
    """hidden: from all but that request."""
    index_id = model.recent_index(tx.shard)
    minute = tx.now // 60_000
    pages, fill = (tx.get(index_id) or {}).get(minute, (0, model.RECENT_BYTES))
    size = 60 + (min(size_of(result[1]), 100) if result[0] == "v" and not isinstance(result[1], bytes) else len(str(result[1])))
    is_full = fill + size > model.RECENT_BYTES
    if is_full or invocation in (tx.get(model.recent_page(tx.shard, minute, pages - 1)) or {}):  # each life has an entry of its own
        tx.absent(model.recent_page(tx.shard, minute, pages))
        pages, fill = pages + 1, 0
    tx.put(model.recent_page(tx.shard, minute, pages - 1), (invocation,), [result, request, 1] if hidden else [result, request])
    tx.merge(index_id, {minute: [pages, fill + size]})


def recall(tx: Transaction, invocation: str, request: bytes | None = None) -> Result | None:
    """The result; with `request` only of the life that it had made: an id that is derived may have had several."""
    for _, (result, made_by, *_) in _entries(tx, invocation):
        if request is None or (request and request == made_by):
            return list(result)
    return None


def result_of(tx: Transaction, invocation: str) -> Result | None:
    """For who asks by the id alone: not what was forgotten, nor the result of a life before the last one."""
    return next((list(entry[0]) for _, entry in _entries(tx, invocation) if len(entry) == 2), None)


def supersede(tx: Transaction, invocation: str) -> None:
    """The id lives again."""
    for page_id, entry in _entries(tx, invocation):
        if len(entry) == 2:
            tx.put(page_id, (invocation,), [*entry, 1])


def _entries(tx: Transaction, invocation: str) -> list[tuple[str, list[Any]]]:
    """(page, entry), in the order of the lives."""
    index: dict[int, Any] = tx.get(model.recent_index(tx.shard)) or {}
    page_ids = [model.recent_page(tx.shard, minute, number) for minute, (pages, _) in index.items() for number in range(pages)]
    found = ((page_id, (tx.get(page_id) or {}).get(invocation)) for page_id in page_ids)
    return [(page_id, entry) for page_id, entry in found if entry is not None]


def is_due(index: dict[int, Any] | None, now: int) -> bool:
    return any((minute + 1) * 60_000 + model.RECENT_MS <= now for minute in index or ())


def forget(tx: Transaction) -> None:
    """Drop the pages that are over."""
    index_id = model.recent_index(tx.shard)
    index: dict[int, Any] = tx.get(index_id) or {}
    for minute, (pages, _) in list(index.items()):
        if (minute + 1) * 60_000 + model.RECENT_MS <= tx.now:
            for number in range(pages):
                tx.drop(model.recent_page(tx.shard, minute, number))
            tx.delete(index_id, (minute,))
