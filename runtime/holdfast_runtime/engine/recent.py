"""Results of invocations that are not retained, kept for three minutes: a request that is sent again in that time still finds its answer,
and so does who has waited for it at an owner that was lost. Who asks for the first time does not (http-api §1.8).

`X/<shard>/recent` = {minute: [number of pages, bytes in the last]}, pages `X/<shard>/recent/<minute>/<n>` = {invocation: [result, request
id]}.
"""

from __future__ import annotations

from typing import Any

from holdfast_runtime.engine import model
from holdfast_runtime.engine.payload import Result, size_of
from holdfast_runtime.engine.transaction import Transaction


def remember(tx: Transaction, invocation: str, result: Result, request: bytes) -> None:
    index_id = model.recent_index(tx.shard)
    minute = tx.now // 60_000
    pages, fill = (tx.get(index_id) or {}).get(minute, (0, model.RECENT_BYTES))
    size = 60 + (min(size_of(result[1]), 100) if result[0] == "v" and not isinstance(result[1], bytes) else len(str(result[1])))
    if fill + size > model.RECENT_BYTES:
        tx.absent(model.recent_page(tx.shard, minute, pages))
        pages, fill = pages + 1, 0
    tx.put(model.recent_page(tx.shard, minute, pages - 1), (invocation,), [result, request])
    tx.merge(index_id, {minute: [pages, fill + size]})


def recall(tx: Transaction, invocation: str) -> tuple[Result, bytes] | None:
    """(result, id of the request that had created it)."""
    index: dict[int, Any] = tx.get(model.recent_index(tx.shard)) or {}
    for minute, (pages, _) in index.items():
        for number in range(pages):
            found = (tx.get(model.recent_page(tx.shard, minute, number)) or {}).get(invocation)
            if found is not None:
                return found[0], found[1]
    return None


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
