"""What holds when nothing moves any more: the packed indexes say what the pages say, and nothing is left of what is gone.

All of it about the pages as the whole log makes them. Pages that the store deletes when they are over are still among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from holdfast_runtime.coordinator import far_timers
from holdfast_runtime.engine import blob_ids, listing, model
from holdfast_runtime.engine.model import Status
from holdfast_runtime.engine.operations import encode

if TYPE_CHECKING:
    from .checkers import Oracle

LATE_MS: Final = 20_000  # a timer fires this soon when nothing fails; the slowest is one that falls due between two looks
_CONTENT: Final = (model.STATE, model.SPILLED, model.PROMISES, model.PROMISES_SPILLED)
Pages = dict[str, Any]


def check(oracle: Oracle) -> None:
    for shard, replica in enumerate(oracle.shards):
        pages = {page_id: document for page_id, document in replica.pages.items() if document is not None}
        _indexes(oracle, shard, pages)
        _keys(oracle, shard, pages)
        _orphans(oracle, pages)
        _timers(oracle, shard, pages)
        _journals(oracle, pages)
        _blobs(oracle, shard, pages)


def _invocations(pages: Pages) -> Iterator[tuple[str, Any]]:
    return ((page_id[2:], document) for page_id, document in pages.items() if page_id[0] == "I")


def _indexes(oracle: Oracle, shard: int, pages: Pages) -> None:
    """Every row is that of its page, and stands where the page says."""
    index = pages.get(model.listing_index(shard)) or {}
    live = {model.live_page(shard, number): number for number in index.get("p", {})}
    finished = {
        model.finished_page(shard, bucket, number): [bucket, number]
        for bucket, (last, _) in index.get("a", {}).items()
        for number in range(last + 1)
    }
    for page_id, place in [*live.items(), *finished.items()]:
        for name, row in (pages.get(page_id) or {}).items():
            oracle.demand(model.invocation_page(name) in pages, f"listing: {page_id} lists {name}, which is gone")
            document = pages[model.invocation_page(name)]
            oracle.demand(document[model.LISTED] == place, f"listing: {page_id} lists {name}, whose page names {document[model.LISTED]}")
            oracle.demand(row == listing.row_of(document), f"listing: the row of {name} is {row}, its page says {listing.row_of(document)}")
    stray = [page_id for page_id in pages if page_id[0] in "NA" and page_id not in live and page_id not in finished]
    oracle.demand(not stray, f"listing: {stray} are in no index")


def _keys(oracle: Oracle, shard: int, pages: Pages) -> None:
    """The keys with state or promises are listed, and no others."""
    index = pages.get(model.listing_index(shard)) or {}
    listed = {
        model.key_page(service, key): number
        for number in index.get("kp", {})
        for service, keys in (pages.get(model.keys_page(shard, number)) or {}).items()
        for key in keys
    }
    full = {page_id: document[model.KEY_LISTED] for page_id, document in _full_keys(pages)}
    oracle.demand(listed == full, f"key listing: {listed} are listed, {full} have state or promises")
    stray = [page_id for page_id in pages if page_id[0] == "L" and int(page_id.split("/")[2]) not in index.get("kp", {})]
    oracle.demand(not stray, f"key listing: {stray} are in no index")


def _full_keys(pages: Pages) -> Iterator[tuple[str, Any]]:
    for page_id, document in pages.items():
        if page_id[0] == "K" and any(document[field] for field in _CONTENT):
            yield page_id, document


def _orphans(oracle: Oracle, pages: Pages) -> None:
    """Pages beside a page exist as long as that one says so."""
    named = {model.journal_page(name, n) for name, document in _invocations(pages) for n in range(len(document.get(model.PAGES, ())))}
    for page_id, document in pages.items():
        if page_id[0] == "K":
            _, service, key = page_id.split("/")
            named |= {model.state_page(service, key, name) for name in document[model.SPILLED]}
            named |= {model.promise_page(service, key, name) for name in document[model.PROMISES_SPILLED]}
            queue = range(document.get(model.HEAD, 0), document.get(model.TAIL, 0))
            named |= {model.queue_page(service, key, number // model.QUEUE_PAGE) for number in queue}
    left = [page_id for page_id, document in pages.items() if page_id[0] in "JSPQ" and page_id not in named and document]
    oracle.demand(not left, f"purge: {left} are left and belong to nobody")


def _timers(oracle: Oracle, shard: int, pages: Pages) -> None:
    """What is due has fired; every page of far timers has its wake-up in time."""
    world = oracle.world
    for hour, last in (pages.get(model.timer_index(shard)) or {}).items():
        for number in range(last + 1):
            timers = pages.get(model.timer_page(shard, hour, number)) or {}
            late = {key: at for key, (at, _) in timers.items() if at < world.earliest_ms() - LATE_MS}
            oracle.demand(not late, f"invariant 13: the timers {late} of shard {shard} are due since long")
            far = [at for at, _ in timers.values() if at > world.latest_ms() + world.settings.timer_horizon_s * 1000]
            if far and world.operated:
                arranged = world.wakeups.get((shard, hour, number))
                wanted = min(far) - far_timers.AHEAD_MS + far_timers.EARLIER_MS
                in_time = arranged is not None and arranged <= wanted
                oracle.demand(in_time, f"wake-ups: {(shard, hour, number)} begins at {min(far)}, its wake-up is at {arranged}")


def _journals(oracle: Oracle, pages: Pages) -> None:
    for name, document in _invocations(pages):
        kept = document[model.JOURNAL_RETENTION]
        if document[model.STATUS] == Status.DONE and document[model.LENGTH] and kept < document[model.RETENTION]:
            kept_until, late = document[model.COMPLETED_AT] + kept, oracle.world.earliest_ms() - LATE_MS
            oracle.demand(kept_until > late, f"expiry: the journal of {name} was kept until {kept_until}, it is there at {late}")


def _blobs(oracle: Oracle, shard: int, pages: Pages) -> None:
    """Whatever a page refers to is there."""
    for page_id, document in pages.items():
        if page_id[0] == "I" and document.get(model.EXPIRES_AT, 1 << 62) < oracle.world.earliest_ms():
            continue
        missing = [
            blob_id for blob_id in blob_ids.referenced(encode(document)) if "/" in blob_id and not oracle.world.store.has_blob(blob_id)
        ]
        oracle.demand(not missing, f"blobs: {page_id} of shard {shard} refers to {missing}, which are gone")
