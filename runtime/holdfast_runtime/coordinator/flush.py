"""Writing pages back, advancing the checkpoint, forgetting what is cold (storage design §4.3, §4.4).

A page is dirty from its first change that is not in the store. It is written only as it stood after some closed batch, and only when that
batch is durable: the write-ahead rule. The checkpoint is the first batch that any dirty page still needs.
Finished invocations go to the store together, as packs (packing.py): all that began in the same minutes when the first of them is due.

A page that is empty again, and that this owner has already written as empty, is not written: lists of what runs, whenever it is their turn.
The item keeps its older LSN. A replay from any checkpoint comes to the same, because what it puts there it also takes away. It must be this
owner's own write: no earlier owner made a newer change durable, so what one of them has sent and arrives late is refused.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict, deque
from itertools import takewhile
from typing import TYPE_CHECKING, Final

from holdfast_runtime.coordinator.packing import Packer
from holdfast_runtime.coordinator.pages import note_end
from holdfast_runtime.engine import blob_ids, listing, model, packs, recent
from holdfast_runtime.engine.events import Forget
from holdfast_runtime.engine.operations import encode
from holdfast_runtime.engine.payload import BlobRef
from holdfast_runtime.engine.transaction import Page
from holdfast_runtime.ports.store import StoredPage

if TYPE_CHECKING:
    from holdfast_runtime.coordinator.shard import Shard

log = logging.getLogger("holdfast.flush")

TICK_S: Final = 1.0
LOG_MS: Final = 48 * 3600 * 1000  # how long the log may still be replayed onto a page: until then the store must not delete it
TOMBSTONE_MS: Final = 7 * 24 * 3600 * 1000
OVERSIZE: Final = 340_000  # bytes of an encoded page; a store item holds 350 KB with its keys
OVERHEAD_BYTES: Final = 400  # of a page beside its document, in the same measure
RECENTLY_S: Final = 10.0
UNKNOWN_BYTES: Final = 600  # assumed size of a page that was never encoded
EMPTY: Final = encode({})


class Flusher:
    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._dirty: OrderedDict[str, Page] = OrderedDict()  # since when; its first is found at once, which a dict does not promise
        self._bytes: dict[str, int] = {}  # encoded size of the pages in memory, as far as known
        self._total = 0
        self._vanished: deque[tuple[str, Page, int]] = deque()  # dropped before they were ever stored, with the batch that dropped them
        self._checkpoint = -1
        self._packable: dict[str, int] = {}  # dirty pages that may go into a pack, with the ms when their ids were made
        self._packer = Packer(shard, self)
        self._lock = asyncio.Lock()  # a hand-over flushes while our own loop may: one write of a page at a time
        self._is_overdue = False  # as said last
        self._marks: deque[tuple[int, int]] = deque([(shard.next, 0)])  # a position of the log, and what we had written before it

    def dirtied(self, touched: dict[str, Page], open_batch: int, now: float) -> None:
        """Pages were changed in the open batch."""
        for page_id, page in touched.items():
            note_end(page_id, page)
            self._note(page_id, page)
            if page.first is None:
                page.first = open_batch
                page.first_at = now
                self._dirty[page_id] = page
                if page_id not in self._bytes:
                    self._count(page_id, UNKNOWN_BYTES)
            if page.document is None and not page.stored:
                self._vanished.append((page_id, page, open_batch))

    def _note(self, page_id: str, page: Page) -> None:
        """A page has changed: is it of an invocation that has ended, and may it be packed?"""
        if page_id[0] != "I":
            return
        self._packable.pop(page_id, None)
        if page.document is not None and not page.stored and packs.is_packable(page.document):
            minted = packs.minted_ms(page_id)
            if minted is not None:
                self._packable[page_id] = minted

    def loaded(self, page_id: str, size: int) -> None:
        """A page was brought into memory; `size` encoded bytes."""
        self._count(page_id, size)

    def _count(self, page_id: str, size: int) -> None:
        size += OVERHEAD_BYTES
        self._total += size - self._bytes.get(page_id, 0)
        self._bytes[page_id] = size

    def _drop(self, page_id: str) -> None:
        """Forget a clean page."""
        self._shard.pages.pop(page_id, None)
        self._total -= self._bytes.pop(page_id, 0)

    def recovered(self) -> None:
        """Pages that recovery changed are dirty from the batch that changed them first."""
        for page_id, page in self._shard.pages.items():
            self._count(page_id, UNKNOWN_BYTES)
            if page.first is not None:
                self._dirty[page_id] = page

    async def run(self) -> None:
        """Flush what is old, checkpoint, evict, for ever."""
        shard, settings = self._shard, self._shard.environment.settings
        checkpoint_at = shard.environment.clock.monotonic() + settings.checkpoint_interval_s
        while True:
            await shard.environment.clock.sleep(TICK_S)
            shard.tire()
            shard.check_lease()
            self._sweep()
            await self._flush_due()
            if shard.environment.clock.monotonic() >= checkpoint_at:
                await self.checkpoint()
                await self._forget()
                checkpoint_at = shard.environment.clock.monotonic() + settings.checkpoint_interval_s
            self.evict()

    async def flush_all(self) -> None:
        """Everything, then the checkpoint: what a hand-over leaves behind needs no replay."""
        while self._dirty:
            await self._flush_pages(list(self._dirty))
        await self.checkpoint()

    def is_all_written(self) -> bool:
        """Does the checkpoint say that nothing of the log is needed any more?"""
        return not self._dirty and self._checkpoint >= self._shard.next

    def _sweep(self) -> None:
        """Forget pages that came and went without ever being stored, once their drop is durable: nothing has to be written for them."""
        while self._vanished and self._vanished[0][2] <= self._shard.durable:
            page_id, page, lsn = self._vanished.popleft()
            if page.lsn == lsn and page.document is None and not page.stored:
                self._cleaned(page_id, page, lsn)

    async def _flush_due(self) -> None:
        shard, settings = self._shard, self._shard.environment.settings
        share = shard.environment.owned_shards()
        if shard.log_bytes > settings.log_limit_bytes // share:
            await self._flush_pages(list(self._dirty))
            await self.checkpoint()
            shard.log_bytes = 0
            return
        excess = self._total - settings.memory_limit_bytes // share
        if excess > 0:  # the oldest, so that there is something to evict; all at once would stall what is going on
            oldest = self._oldest(excess + settings.memory_limit_bytes // share // 4)
            await self._flush_pages(self._with_those_of(oldest, packs.WIDTHS_MS[-2]))
            self.evict()
            return
        old = shard.environment.clock.monotonic() - settings.flush_after_s
        due = list(takewhile(lambda page_id: self._dirty[page_id].first_at <= old, self._dirty))
        if due:
            await self._flush_pages(self._with_those_of(due, packs.WIDTHS_MS[0]))

    def _with_those_of(self, page_ids: list[str], width_ms: int) -> list[str]:
        """And what may be packed with one of them, in a pack of that width: so that no pack is written twice."""
        spans = {self._packable[page_id] // width_ms for page_id in page_ids if page_id in self._packable}
        if not spans:  # most times, and there may be a hundred thousand that could be packed
            return page_ids
        chosen = set(page_ids)
        return page_ids + [p for p, minted in self._packable.items() if minted // width_ms in spans and p not in chosen]

    def _oldest(self, size: int) -> list[str]:
        """The dirty pages that have been so for longest, about `size` encoded bytes of them."""
        chosen: list[str] = []
        for page_id in self._dirty:
            if size <= 0:
                break
            chosen.append(page_id)
            size -= self._bytes.get(page_id, UNKNOWN_BYTES)
        return chosen

    async def _flush_pages(self, page_ids: list[str]) -> None:
        async with self._lock:
            self._shard.check_lease()
            page_ids = await self._packer.pack(page_ids)
            parallel = self._shard.environment.settings.flush_parallel
            for start in range(0, len(page_ids), parallel):
                self._shard.check_lease()
                await asyncio.gather(*map(self._flush, page_ids[start : start + parallel]))

    async def _flush(self, page_id: str) -> None:
        shard = self._shard
        page = self._dirty.get(page_id)
        if page is None:
            return
        while page.lsn >= shard.open:  # changed in the open batch: wait until that is closed and durable
            await shard.until_durable(shard.open)
        lsn, document = page.lsn, page.document
        if document is None and not page.stored:
            await shard.until_durable(lsn)
            self._cleaned(page_id, page, lsn)
            return
        page.stored = True  # from here on it goes into no pack
        encoded = encode(document) if document is not None else None
        if encoded is not None and len(encoded) > OVERSIZE:
            encoded = await self._set_aside(page_id, lsn, encoded)
        expires_at = _expires_at(page_id, page, shard.environment.clock.now_ms())
        await shard.until_durable(lsn)
        if encoded == EMPTY and page.empty_there:
            self._cleaned(page_id, page, lsn)
            return
        page.empty_there = False  # until the outcome is known
        await shard.insist(lambda: shard.environment.store.pages.put(page_id, StoredPage(lsn, encoded), expires_at_ms=expires_at))
        shard.check()
        page.empty_there = encoded == EMPTY
        self.written(page_id, page, lsn, len(encoded) if encoded is not None else 0)

    def written(self, page_id: str, page: Page, lsn: int, size: int) -> None:
        """The store holds the page as of batch `lsn`, in `size` bytes."""
        if page_id in self._bytes:
            self._count(page_id, size)
        self._cleaned(page_id, page, lsn)

    # -- for packs

    def minted(self, page_id: str) -> int | None:
        """When the id of a dirty page was made, if it may go into a pack: it has ended, and is not on its way to the store."""
        page = self._dirty.get(page_id)
        return self._packable.get(page_id) if page is not None and not page.stored else None

    def dirty_page(self, page_id: str) -> Page | None:
        return self._dirty.get(page_id)

    def kept_until(self, page_id: str, page: Page) -> int:
        """When the store may delete a page of an invocation that has ended."""
        expires_at = _expires_at(page_id, page, self._shard.environment.clock.now_ms())
        assert expires_at is not None
        return expires_at

    async def _set_aside(self, page_id: str, lsn: int, encoded: bytes) -> bytes:
        """The rare page that outgrew an item (tens of thousands of results awaited at once) goes to a blob; the page refers to it."""
        reference = BlobRef(blob_ids.of_page(page_id, lsn), len(encoded))
        await self._shard.insist(lambda: self._shard.environment.store.blobs.put(reference.id, encoded))
        return encode(reference)

    def _cleaned(self, page_id: str, page: Page, lsn: int) -> None:
        """Nothing of the page up to batch `lsn` need be written any more."""
        if self._shard.pages.get(page_id) is not page:
            return  # forgotten while it was written, and perhaps made anew
        self._dirty.pop(page_id, None)
        self._packable.pop(page_id, None)
        if page.lsn != lsn:  # changed again while it was written: dirty from then on
            page.first = lsn + 1
            page.first_at = self._shard.environment.clock.monotonic()
            self._dirty[page_id] = page
            return
        page.first = None
        if page.document is None and not model.is_own_page(page_id) and not self._shard.is_loading(page_id):
            self._drop(page_id)

    @property
    def dirty(self) -> int:
        """Pages that are not in the store as they are."""
        return len(self._dirty)

    @property
    def bytes_in_memory(self) -> int:
        """Of pages, encoded."""
        return self._total

    def bytes_behind(self) -> int:
        """What recovery would have to read of the log that we wrote; too much by what came between two looks at the checkpoint."""
        return self._shard.written - self._marks[0][1]

    def oldest_age_s(self) -> float:
        """Seconds since the page that has been dirty for longest became so; 0 when all are clean."""
        oldest = next(iter(self._dirty.values()), None)  # they are in the order in which they became dirty
        return self._shard.environment.clock.monotonic() - oldest.first_at if oldest is not None else 0.0

    def is_overdue(self) -> bool:
        """Writing back does not get on, and the log it would relieve expires one day: take no new work (storage design §4.4)."""
        return self.oldest_age_s() >= self._shard.environment.settings.overdue_s

    def watch(self) -> None:
        """Say so, when it begins and when it is over. Asked by the heartbeat, because our own loop may be what is stuck."""
        if self.is_overdue() is self._is_overdue:
            return
        self._is_overdue = not self._is_overdue
        facts = {"shard": self._shard.number, "pages": self.dirty, "oldest_s": round(self.oldest_age_s())}
        if self._is_overdue:
            log.critical("pages.overdue", extra=facts)
        else:
            log.info("pages.written", extra=facts)

    async def checkpoint(self) -> None:
        """Nothing before it is needed by recovery any more."""
        shard = self._shard
        if shard.open > self._marks[-1][0]:
            self._marks.append((shard.open, shard.written))
        first = min((page.first for page in self._dirty.values() if page.first is not None), default=shard.next)
        checkpoint = min(first, shard.next)
        if checkpoint <= self._checkpoint:
            return
        tip = shard.next
        done = await shard.insist(
            lambda: shard.environment.store.leases.checkpoint(shard.number, epoch=shard.epoch, checkpoint=checkpoint, tip=tip)
        )
        shard.check()
        if not done:
            # Either another owner raised the epoch, or an earlier try of ours landed late with a larger value: the lease tells which.
            log.info("checkpoint.refused", extra={"shard": shard.number, "checkpoint": checkpoint})
            return
        self._checkpoint = checkpoint
        while len(self._marks) > 1 and self._marks[1][0] <= checkpoint:
            self._marks.popleft()

    def evict(self) -> None:
        """Forget clean pages until memory is well within its limit, those used lately last. Never the shard's own pages."""
        shard = self._shard
        limit = shard.environment.settings.memory_limit_bytes // shard.environment.owned_shards()
        if self._total <= limit:
            return
        for used_before in (shard.environment.clock.monotonic() - RECENTLY_S, math.inf):
            for page_id, page in list(shard.pages.items()):  # oldest in memory first
                if self._total <= limit * 3 // 4:
                    return
                if page.first is None and page.used < used_before and not model.is_own_page(page_id) and not shard.is_loading(page_id):
                    self._drop(page_id)

    async def _forget(self) -> None:
        shard = self._shard
        now = shard.environment.clock.now_ms()
        index = shard.pages[model.recent_index(shard.number)].document
        finished = shard.pages[model.listing_index(shard.number)].document
        if recent.is_due(index, now) or listing.is_due(finished, now):
            await shard.perform(Forget(), lazy=True)
        for page_id in [p for p, page in shard.pages.items() if page.document is None and page.first is None and model.is_own_page(p)]:
            if not _is_root(page_id):
                self._drop(page_id)


def _is_root(page_id: str) -> bool:
    """Own pages that are looked up without asking the store: they stay in memory even when they do not exist."""
    return "/recent/" not in page_id and page_id.count("/") <= 3


def _expires_at(page_id: str, page: Page, now: int) -> int | None:
    if page.document is None:  # what is left of it in a pack is of no harm once it is over
        return max(now + TOMBSTONE_MS, page.over_at + LOG_MS)
    if page_id.startswith("I/"):
        expires_at: int | None = page.document.get(model.EXPIRES_AT)
        return max(expires_at, now) + LOG_MS if expires_at is not None else None
    return None
