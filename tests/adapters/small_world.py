"""A store whose housekeeping moves only when told, and the least that a coordinator does with it: records, pages, checkpoints, recovery."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

from holdfast_runtime.adapters.sqlite import Reader, SqliteBlobs, SqliteLeases, SqliteLog, SqlitePages
from holdfast_runtime.adapters.sqlite_blob_sweep import BlobSweep, Pace
from holdfast_runtime.adapters.sqlite_file import open_database
from holdfast_runtime.adapters.sqlite_housekeeping import STEP_S, Housekeeper
from holdfast_runtime.adapters.sqlite_writer import Writer
from holdfast_runtime.coordinator.pages import document_of
from holdfast_runtime.engine import blob_ids
from holdfast_runtime.engine.operations import apply, decode_all, encode
from holdfast_runtime.engine.payload import BlobRef
from holdfast_runtime.ports.store import LogItem, StoredPage

SHARDS = 2
PACE = Pace(note_every_s=60, notes=3, every_s=86_400, give_up_s=3_600)
ONE_ROW = STEP_S * 0.6  # a tick with which each step of a sweep looks at one row


class TickingClock:
    """Moves by `tick` whenever somebody looks, else when told."""

    def __init__(self) -> None:
        self.seconds = 1_000.0
        self.tick = 0.0

    def now_ms(self) -> int:
        return int(self.seconds * 1000)

    def monotonic(self) -> float:
        self.seconds += self.tick
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("the store does not sleep")


class OnDemand:
    """Housekeeping that the writer runs when asked, and once for each time."""

    def __init__(self, housekeeper: Housekeeper) -> None:
        self._housekeeper = housekeeper
        self.pruned = housekeeper.pruned
        self.wanted = False
        self.done = asyncio.Event()

    def overdue(self) -> bool:
        return self.wanted

    def step(self) -> float:
        if self.wanted:
            self.wanted = False
            self._housekeeper.step()
        return 3_600.0

    def loop_turned(self) -> None:
        self._housekeeper.loop_turned()
        self.done.set()

    def write_failed(self) -> None:
        self._housekeeper.write_failed()


class SmallWorld:
    """Pages are named `<shard>/<name>`; a document is {slot: reference}. `memory` is what a coordinator would know: all that is durable."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = TickingClock()
        self.clock.tick = ONE_ROW

    async def open(self) -> None:
        self.connection = open_database(self.path, SHARDS)
        self.sweep = BlobSweep(self.connection, self.clock, PACE)
        self.housekeeping = OnDemand(Housekeeper(self.connection, self.clock, sweep=self.sweep, margin_positions=2))
        self.reader = Reader(self.path)
        self.writer = Writer(self.path, self.connection, self.housekeeping)
        self.log = SqliteLog(self.reader, self.writer)
        self.pages = SqlitePages(self.reader, self.writer, self.clock)
        self.leases = SqliteLeases(self.reader, self.writer)
        self.blobs = SqliteBlobs(self.reader, self.writer)
        await self._recover()

    async def close(self) -> None:
        await self.writer.close()
        self.reader.close()

    async def crash(self) -> None:
        """Memory is gone, and the marks with it."""
        await self.close()
        await self.open()

    async def _recover(self) -> None:
        self.memory: dict[str, Any] = {}
        self.lsn: dict[str, int] = {}
        self.first: dict[str, int] = {}  # of pages that are not stored as they are
        self.next: dict[int, int] = {}
        self.epoch: dict[int, int] = {}
        for row in self.reader.all("SELECT id FROM pages"):
            stored = (await self.pages.get([row[0]]))[row[0]]
            self.lsn[row[0]] = stored.lsn
            self.memory[row[0]] = await document_of(stored, self.blobs.get)
        for shard, record in (await self.leases.read())[0].items():
            acquired = await self.leases.acquire(shard, seen_epoch=record.epoch, owner="me")
            assert acquired is not None
            self.epoch[shard], self.next[shard] = acquired.epoch, acquired.checkpoint
            for item in await self.log.read(shard, acquired.checkpoint, 10_000):
                self._apply(shard, item.first, list(decode_all(item.operations)))

    def _apply(self, shard: int, lsn: int, operations: list[list[Any]]) -> None:
        touched = {operation[0] for operation in operations if self.lsn.get(operation[0], -1) < lsn}
        for operation in operations:
            if operation[0] in touched:
                self.memory[operation[0]] = apply(self.memory.get(operation[0]), operation)
        for page_id in touched:
            self.lsn[page_id] = lsn
            self.first.setdefault(page_id, lsn)
        self.next[shard] = lsn + 1

    async def record(self, *operations: list[Any]) -> None:
        """Append a batch; all operations are on pages of one shard."""
        shard = int(operations[0][0].split("/")[0])
        lsn = self.next[shard]
        encoded = b"".join(map(encode, operations))
        assert await self.log.put(shard, LogItem(lsn, self.epoch[shard], b"me", lsn, 0, 1, encoded)) is None
        self._apply(shard, lsn, [list(operation) for operation in decode_all(encoded)])

    async def flush(self, page_id: str, *, outgrown: bool = False, expires_at_ms: int | None = None) -> None:
        document, lsn = self.memory[page_id], self.lsn[page_id]
        encoded = encode(document) if document is not None else None
        if outgrown and encoded is not None:
            reference = BlobRef(blob_ids.of_page(page_id, lsn), len(encoded))
            await self.blobs.put(reference.id, encoded)
            encoded = encode(reference)
        await self.pages.put(page_id, StoredPage(lsn, encoded), expires_at_ms=expires_at_ms)
        self.first.pop(page_id, None)

    async def checkpoint(self) -> None:
        for shard in range(SHARDS):
            dirty = [first for page_id, first in self.first.items() if page_id.startswith(f"{shard}/")]
            at = min(dirty, default=self.next[shard])
            assert await self.leases.checkpoint(shard, epoch=self.epoch[shard], checkpoint=at, tip=self.next[shard])

    async def value(self, owner: str, content: bytes = b"large") -> BlobRef:
        reference = BlobRef(blob_ids.of_value(owner, content), len(content))
        await self.blobs.put(reference.id, content)
        return reference

    async def stored(self, page_id: str, reference: BlobRef) -> None:
        """A page that refers to the blob, and nothing in the log that does."""
        await self.record([page_id, [], {"v": reference}])
        await self.flush(page_id)
        await self.settle()

    async def settle(self) -> None:
        """Everything is in pages, and the log holds nothing but what comes to be pruned later."""
        for shard in range(SHARDS):
            for _ in range(3):
                await self.record([f"{shard}/filler", [], {}])
        for page_id in list(self.first):
            await self.flush(page_id)
        await self.checkpoint()

    # -- housekeeping

    async def step(self) -> None:
        self.housekeeping.done.clear()
        self.housekeeping.wanted = True
        await self.writer.submit(_nothing)
        await self.housekeeping.done.wait()

    async def minute(self) -> None:
        self.clock.seconds += PACE.note_every_s
        await self.step()

    async def begin(self) -> None:
        """What is there now becomes old, the log is pruned, and a sweep begins: the first after opening, else the next day's."""
        for _ in range(PACE.notes):
            await self.minute()
        if not self.sweep.under_way:
            for _ in range(10):
                await self.step()
            self.clock.seconds += PACE.every_s
            await self.step()

    async def finish(self) -> int:
        """How many steps it took."""
        steps = 0
        while self.sweep.under_way:
            await self.step()
            steps += 1
            assert steps < 10_000
        return steps

    async def sweep_all(self) -> None:
        await self.begin()
        await self.finish()

    def kept(self) -> set[str]:
        return {row[0] for row in self.reader.all("SELECT id FROM blobs")}

    def needed(self) -> set[str]:
        """Ids that the durable state refers to."""
        return {reference.id for document in self.memory.values() for reference in (document or {}).values()}


def _nothing(connection: sqlite3.Connection) -> None:
    """The writer looks after its housekeeping behind every write."""
