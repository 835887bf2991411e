"""Packed indexes of live and of finished invocations, so that a list never loads the invocations' own pages (storage design §6, Reads).

`N/<shard>/<n>` lists live ones, `A/<shard>/<bucket>/<n>` finished and retained ones by the time they ended; `X/<shard>/index` says which
pages exist: {"n": page being filled, "p": {n: 1, or once full [first, last] creation ms in it}, "a": {bucket: [last page, over ms]},
"f": {bucket: creation ms before which nothing in it was created}}.

A row has "t" target and "c" created ms; a live one "s" [status, modified ms, pinned deployment, retry due ms, and after a failure the
deployment that failed]; a finished one "e" ended ms, "f" failed, "x" expires ms and "d" pinned deployment. Rows that older versions wrote
have a bare status in "s" and no "d", their pages have no bounds: what reads them asks the invocation's own page, or every page, instead.
"""

from __future__ import annotations

from typing import Any, Final

from holdfast_runtime.engine import model
from holdfast_runtime.engine.model import Document, Status
from holdfast_runtime.engine.transaction import Transaction

MINUTE_MS: Final = 60_000


def list_new(tx: Transaction, invocation: str, target: list[object], status: Status, created_at: int, deployment: str | None = None) -> int:
    """Enter a new invocation; the number of the page that lists it."""
    index_id = model.listing_index(tx.shard)
    index = tx.get(index_id) or {}
    number: int = index.get("n", 0)
    page_id = model.live_page(tx.shard, number)
    if number not in index.get("p", {}):
        tx.absent(page_id)
        tx.put(index_id, ("p", number), 1)
    elif len(rows := tx.get(page_id) or {}) >= model.INDEX_ENTRIES:
        created = [row["c"] for row in rows.values()]
        tx.put(index_id, ("p", number), [min(created), max(created)])
        number += 1
        page_id = model.live_page(tx.shard, number)
        tx.absent(page_id)
        tx.merge(index_id, {"n": number})
        tx.put(index_id, ("p", number), 1)
    tx.put(page_id, (invocation,), {"t": target, "c": created_at, "s": [int(status), created_at, deployment, None]})
    return number


def list_status(tx: Transaction, invocation: str, document: Document, status: Status) -> None:
    """After its page has changed: `status` is the new one."""
    page_id = model.live_page(tx.shard, document[model.LISTED])
    rows = tx.get(page_id) or {}
    state = _state(document, status)
    if rows[invocation]["s"] != state:
        tx.put(page_id, (invocation, "s"), state)


def _state(document: Document, status: Status) -> list[Any]:
    retry = document.get(model.RETRY)
    due = retry[2] if retry and status is Status.RUNNING else None
    state = [int(status), document[model.MODIFIED_AT], document.get(model.DEPLOYMENT), due]
    failure = retry[3] if retry and len(retry) > 3 and status in (Status.RUNNING, Status.PAUSED) else None
    return [*state, failure[8]] if failure else state


def row_of(document: Document) -> Document:
    """The row of an invocation's page."""
    row = {"t": document[model.TARGET], "c": document[model.CREATED_AT]}
    if document[model.STATUS] != Status.DONE:
        return row | {"s": _state(document, Status(document[model.STATUS]))}
    ended = {"e": document[model.COMPLETED_AT], "f": int(document[model.RESULT][0] == "f"), "x": document[model.EXPIRES_AT]}
    return row | ended | {"d": document.get(model.DEPLOYMENT)}


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
    created_at, deployment = document[model.CREATED_AT], document.get(model.DEPLOYMENT)
    row = {"t": document[model.TARGET], "c": created_at, "e": tx.now, "f": int(failed), "x": expires_at, "d": deployment}
    before = number, over_at
    if number < 0 or len(tx.get(model.finished_page(tx.shard, bucket, number)) or ()) >= model.INDEX_ENTRIES:
        number += 1
        tx.absent(model.finished_page(tx.shard, bucket, number))
    if expires_at > over_at:  # rounded up, so that it changes once in a bucket's time and not with every row
        over_at = (expires_at // model.FINISHED_BUCKET_MS + 1) * model.FINISHED_BUCKET_MS
    if (number, over_at) != before:
        tx.put(index_id, ("a", bucket), [number, over_at])
    _list_first(tx, index_id, bucket, created_at, is_new=before[0] < 0)
    tx.put(model.finished_page(tx.shard, bucket, number), (invocation,), row)
    return bucket, number


def _list_first(tx: Transaction, index_id: str, bucket: int, created_at: int, *, is_new: bool) -> None:
    """Rounded down, so that it changes seldom. A bucket that an older version began stays without."""
    first = created_at // MINUTE_MS * MINUTE_MS
    known = (tx.get(index_id) or {}).get("f", {}).get(bucket)
    if is_new or (known is not None and first < known):
        tx.put(index_id, ("f", bucket), first)


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
            tx.delete(index_id, ("f", bucket))


def is_due(index: Document | None, now: int) -> bool:
    return any(over_at <= now for _, over_at in (index or {}).get("a", {}).values())
