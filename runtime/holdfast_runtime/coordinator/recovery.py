"""Taking a shard over: raise the epoch, read the log from the checkpoint, seal it, redo (storage design §4.5).

From the seal on, whatever the previous owner still sends lands on a taken position. Nothing is done in the shard's name before the epoch
was seen
again after the seal.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from holdfast_runtime.coordinator import packing
from holdfast_runtime.coordinator.environment import Environment
from holdfast_runtime.coordinator.pages import document_of, note_end
from holdfast_runtime.coordinator.shard import Shard
from holdfast_runtime.engine import model
from holdfast_runtime.engine.operations import apply, decode_all
from holdfast_runtime.engine.transaction import Page
from holdfast_runtime.ports.store import LogItem, ShardRecord, StoreUnavailable

log = logging.getLogger("holdfast.recovery")

READ_AHEAD: Final = 64
LOAD_PAGES: Final = 500
REDO_BATCHES: Final = 100
SEAL: Final = b""
TRIES: Final = 5
T = TypeVar("T")


async def take(record: ShardRecord, process_id: str, environment: Environment) -> Shard | None:
    """Become the owner of the shard `record` describes. None: somebody else was faster, or overtook us on the way."""
    started = environment.clock.monotonic()
    leases = environment.store.leases
    acquired = await leases.acquire(record.shard, seen_epoch=record.epoch, owner=process_id)
    if acquired is None:
        return None
    nonce = environment.entropy.bytes(8)
    items = await _read_and_seal(acquired, nonce, environment)
    if items is None:
        return None
    sealed_at = acquired.checkpoint + len(items)
    pages = await _redo(acquired, _complete_batches(items), environment)
    await _load_own_pages(acquired.shard, pages, environment)
    # A take-over may itself have been paused: only an epoch seen after the seal proves that nobody has overtaken us.
    seen_at = environment.clock.monotonic()
    shards, _ = await _insist(environment, leases.read)
    now = shards.get(record.shard)
    if now is None or now.epoch != acquired.epoch:
        return None
    shard = Shard(record.shard, acquired.epoch, nonce, environment, pages=pages, sealed_at=sealed_at)
    shard.lease_seen_at = seen_at
    shard.log_bytes = sum(len(item.operations) for item in items)  # owners that die young must not leave more and more to each other
    shard.flusher.recovered()
    elapsed = environment.clock.monotonic() - started
    log.info("shard.taken", extra={"shard": record.shard, "epoch": acquired.epoch, "items": len(items), "seconds": round(elapsed, 3)})
    return shard


async def _read_and_seal(record: ShardRecord, nonce: bytes, environment: Environment) -> list[LogItem] | None:
    """Every item from the checkpoint to the seal, which is written at the first free position.

    None: overtaken, or part of the log is missing. Then nothing is written: a seal in the gap would narrow it with every try, until the
    shard were taken as if all were well.
    """
    store = environment.store
    items: list[LogItem] = []
    while True:
        position = record.checkpoint + len(items)
        read = partial(store.log.read, record.shard, position, READ_AHEAD)
        found: Sequence[LogItem] = await _insist(environment, read)
        if found:
            if any(item.epoch > record.epoch for item in found):
                return None
            items.extend(found)
            continue
        if position < record.tip:
            shards, _ = await _insist(environment, store.leases.read)
            if shards[record.shard].epoch == record.epoch:  # else a later owner has passed us, and what it needs no more may be deleted
                log.critical("log.missing", extra={"shard": record.shard, "end": position, "tip": record.tip})
            return None
        seal = LogItem(position, record.epoch, nonce, position, 0, 1, SEAL)
        there = await _insist(environment, partial(store.log.put, record.shard, seal))
        if there is None or there.nonce == nonce:
            return items
        if not there.nonce:
            return None  # a deleted position: a later owner's checkpoint has passed us


def _complete_batches(items: Sequence[LogItem]) -> list[tuple[int, bytes]]:
    """(LSN, operations) of the batches whose parts are all there; a torn batch never counted.

    Epochs do not decrease along a log. One that does is left over from behind a gap that an operator has accepted, and means nothing.
    """
    batches: list[tuple[int, bytes]] = []
    parts: list[LogItem] = []
    epoch = 0
    for item in items:
        if item.epoch < epoch:
            continue
        epoch = item.epoch
        if item.part == 0:
            parts = []
        if item.part != len(parts) or (parts and (item.first, item.nonce) != (parts[0].first, parts[0].nonce)):
            parts = []
            continue
        parts.append(item)
        if len(parts) == item.parts:
            batches.append((item.first, b"".join(part.operations for part in parts)))
            parts = []
    return batches


async def _redo(record: ShardRecord, batches: list[tuple[int, bytes]], environment: Environment) -> dict[str, Page]:
    """The pages the log touches, with every batch applied that they do not contain yet."""
    pages: dict[str, Page] = {}
    packed: set[str] = set()
    for start in range(0, len(batches), REDO_BATCHES):  # some at a time: decoded, a log takes many times its size
        operations = [(lsn, list(decode_all(encoded))) for lsn, encoded in batches[start : start + REDO_BATCHES] if encoded]
        touched = dict.fromkeys(operation[0] for _, batch in operations for operation in batch)
        pages |= await _load([page_id for page_id in touched if page_id not in pages], environment, packed)
        for lsn, batch in operations:
            _apply(pages, packed, lsn, batch)
    now = environment.clock.monotonic()
    for page in pages.values():
        page.stored = True  # whether the previous owner had flushed it is not known
        page.first_at = page.used = now
    return pages


def _apply(pages: dict[str, Page], packed: set[str], lsn: int, batch: list[list[Any]]) -> None:
    """Apply one batch to the pages that do not contain it; a page contains all of a batch or nothing.

    packed: pages that only packs have, and those may be replaced yet (packing.py, 4): dirty whatever they contain.
    """
    changed: set[str] = set()
    for operation in batch:
        page = pages[operation[0]]
        if page.first is None and operation[0] in packed:
            page.first = lsn
        if page.lsn < lsn or operation[0] in changed:
            changed.add(operation[0])
            page.document = apply(page.document, operation)
            page.lsn = lsn
            note_end(operation[0], page)
            if page.first is None:
                page.first = lsn


async def _load(page_ids: Sequence[str], environment: Environment, packed: set[str] | None = None) -> dict[str, Page]:
    pages: dict[str, Page] = {}
    for start in range(0, len(page_ids), LOAD_PAGES):
        chunk = page_ids[start : start + LOAD_PAGES]
        stored = await packing.find(
            lambda wanted: _insist(environment, partial(environment.store.pages.get, wanted)), chunk, environment.shards, packed
        )
        for page_id in chunk:
            found = stored.get(page_id)
            document = await document_of(found, lambda i: _insist(environment, lambda: environment.store.blobs.get(i)))
            pages[page_id] = page = Page(document, found.lsn if found is not None else -1, stored=found is not None)
            note_end(page_id, page)
    return pages


async def _load_own_pages(shard: int, pages: dict[str, Page], environment: Environment) -> None:
    """The shard's own pages are in memory as long as it is owned."""
    outboxes = [model.outbox_page(shard, destination) for destination in range(environment.shards)]
    roots = [*outboxes, *model.active_pages(shard), model.inbox_page(shard), model.recent_index(shard)]
    roots += [model.listing_index(shard), model.timer_index(shard)]
    pages |= await _load([page_id for page_id in roots if page_id not in pages], environment)
    more: list[str] = []
    for destination, page_id in enumerate(outboxes):
        box: dict[str, Any] = pages[page_id].document or {}
        given, acknowledged = box.get("n", 0), box.get("a", 0)
        if given > acknowledged:
            numbers = range((acknowledged + 1) // model.MESSAGES_PER_PAGE, given // model.MESSAGES_PER_PAGE + 1)
            more += [model.messages_page(shard, destination, n * model.MESSAGES_PER_PAGE) for n in numbers]
    for minute, (count, _) in (pages[model.recent_index(shard)].document or {}).items():
        more += [model.recent_page(shard, minute, number) for number in range(count)]
    pages |= await _load([page_id for page_id in more if page_id not in pages], environment)


async def _insist(environment: Environment, call: Callable[[], Awaitable[T]]) -> T:
    """Repeat a read, or a put that recognises its own first try. Gives up after a few tries: the shard is taken again later."""
    delay = environment.settings.retry_store_s
    for attempt in range(TRIES):
        try:
            return await call()
        except StoreUnavailable:
            if attempt == TRIES - 1:
                raise
            await environment.clock.sleep(delay)
            delay = min(delay * 2, 1.0)
    raise AssertionError
