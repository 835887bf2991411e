"""Packed indexes of live and of finished invocations, so that a list never loads the invocations' own pages (storage design §6, Reads).

`N/<shard>/<n>` lists live ones, `A/<shard>/<bucket>/<n>` finished and retained ones by the time they ended; `X/<shard>/index` says which
pages exist: {"n": page being filled, "p": {n: 1}, "a": {bucket: [last page, over ms]}}.
"""

from __future__ import annotations

from holdfast_runtime.engine import model
from holdfast_runtime.engine.model import Document, Status
from holdfast_runtime.engine.transaction import Transaction


def list_new(tx: Transaction, invocation: str, target: list[object], status: Status, created_at: int) -> int:
    """Enter a new invocation; the number of the page that lists it."""
    index_id = model.listing_index(tx.shard)
    index = tx.get(index_id) or {}
    number: int = index.get("n", 0)
    page_id = model.live_page(tx.shard, number)
    if number not in index.get("p", {}):
        tx.absent(page_id)
        tx.put(index_id, ("p", number), 1)
    elif len(tx.get(page_id) or ()) >= model.INDEX_ENTRIES:
        number += 1
        page_id = model.live_page(tx.shard, number)
        tx.absent(page_id)
        tx.merge(index_id, {"n": number})
        tx.put(index_id, ("p", number), 1)
    tx.put(page_id, (invocation,), {"t": target, "c": created_at, "s": int(status)})
    return number


def list_status(tx: Transaction, invocation: str, document: Document, status: Status) -> None:
    tx.put(model.live_page(tx.shard, document[model.LISTED]), (invocation, "s"), int(status))


def unlist(tx: Transaction, invocation: str, document: Document) -> None:
    number = document[model.LISTED]
    page_id = model.live_page(tx.shard, number)
    tx.delete(page_id, (invocation,))
    index_id = model.listing_index(tx.shard)
    index = tx.get(index_id) or {}
    if not tx.get(page_id) and number != index.get("n", 0):
        tx.drop(page_id)
        tx.delete(index_id, ("p", number))


def list_finished(tx: Transaction, invocation: str, document: Document, *, failed: bool, expires_at: int) -> tuple[int, int]:
    """Enter a finished invocation; (bucket, page) that lists it."""
    index_id = model.listing_index(tx.shard)
    bucket = tx.now // model.FINISHED_BUCKET_MS
    number, over_at = (tx.get(index_id) or {}).get("a", {}).get(bucket, (-1, 0))
    row = {"t": document[model.TARGET], "c": document[model.CREATED_AT], "e": tx.now, "f": int(failed), "x": expires_at}
    before = number, over_at
    if number < 0 or len(tx.get(model.finished_page(tx.shard, bucket, number)) or ()) >= model.INDEX_ENTRIES:
        number += 1
        tx.absent(model.finished_page(tx.shard, bucket, number))
    if expires_at > over_at:  # rounded up, so that it changes once in a bucket's time and not with every row
        over_at = (expires_at // model.FINISHED_BUCKET_MS + 1) * model.FINISHED_BUCKET_MS
    if (number, over_at) != before:
        tx.put(index_id, ("a", bucket), [number, over_at])
    tx.put(model.finished_page(tx.shard, bucket, number), (invocation,), row)
    return bucket, number


def unlist_finished(tx: Transaction, invocation: str, document: Document) -> None:
    bucket, number = document[model.LISTED]
    tx.delete(model.finished_page(tx.shard, bucket, number), (invocation,))


def forget_expired(tx: Transaction) -> None:
    """Drop the pages of the buckets whose invocations are all past their retention."""
    index_id = model.listing_index(tx.shard)
    for bucket, (last, over_at) in list((tx.get(index_id) or {}).get("a", {}).items()):
        if over_at <= tx.now:
            for number in range(last + 1):
                tx.overwritten(model.finished_page(tx.shard, bucket, number))
                tx.drop(model.finished_page(tx.shard, bucket, number))
            tx.delete(index_id, ("a", bucket))


def is_due(index: Document | None, now: int) -> bool:
    return any(over_at <= now for _, over_at in (index or {}).get("a", {}).values())
