"""The store in memory: the reference the other stores must agree with (storage design §2).

Every method runs to its end without an await, so each is one atomic step whoever shares the store: several
coordinators of one process may, and the simulation wraps it with faults. Nothing expires and nothing is
pruned: both are permissions, not duties.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace

from holdfast_runtime.ports.blob_sweep import Candidate
from holdfast_runtime.ports.store import (
    LogItem,
    Member,
    ShardRecord,
    Store,
    StoredPage,
    refuse_oversize,
)


def memory_store(shards: int) -> Store:
    """A new, empty store of `shards` shards."""
    return Store(MemoryLog(), MemoryPages(), MemoryLeases(shards), MemoryRegistry(), MemoryBlobs(), shards)


class MemoryLog:
    def __init__(self) -> None:
        self._items: defaultdict[int, dict[int, LogItem]] = defaultdict(dict)

    async def put(self, shard: int, item: LogItem) -> LogItem | None:
        refuse_oversize(item.operations)
        there = self._items[shard].setdefault(item.position, item)
        return None if there is item else there

    async def read(self, shard: int, first: int, limit: int) -> Sequence[LogItem]:
        items = self._items[shard]
        run: list[LogItem] = []
        while len(run) < limit and (item := items.get(first + len(run))) is not None:
            run.append(item)
        return run


class MemoryPages:
    def __init__(self) -> None:
        self._pages: dict[str, StoredPage] = {}

    async def get(self, page_ids: Sequence[str]) -> Mapping[str, StoredPage]:
        return {page_id: self._pages[page_id] for page_id in page_ids if page_id in self._pages}

    async def put(self, page_id: str, page: StoredPage, *, expires_at_ms: int | None = None) -> bool:
        refuse_oversize(page.document)
        there = self._pages.get(page_id)
        if there is not None and there.lsn >= page.lsn:
            return False
        self._pages[page_id] = page
        return True


class MemoryLeases:
    def __init__(self, shards: int) -> None:
        self._shards = {number: ShardRecord(number, 0, "", 1, 1) for number in range(shards)}
        self._members: dict[str, Member] = {}

    async def read(self) -> tuple[Mapping[int, ShardRecord], Mapping[str, Member]]:
        return dict(self._shards), dict(self._members)

    async def acquire(self, shard: int, *, seen_epoch: int, owner: str) -> ShardRecord | None:
        record = self._shards[shard]
        if record.epoch != seen_epoch:
            return None
        self._shards[shard] = record = replace(record, epoch=seen_epoch + 1, owner=owner)
        return record

    async def checkpoint(self, shard: int, *, epoch: int, checkpoint: int, tip: int) -> bool:
        record = self._shards[shard]
        if record.epoch != epoch or record.checkpoint > checkpoint:
            return False
        self._shards[shard] = replace(record, checkpoint=checkpoint, tip=tip)
        return True

    async def release(self, shard: int, *, epoch: int) -> bool:
        record = self._shards[shard]
        if record.epoch != epoch:
            return False
        self._shards[shard] = replace(record, epoch=epoch + 1, owner="")
        return True

    async def heartbeat(self, member: Member) -> None:
        self._members[member.process_id] = member

    async def leave(self, process_id: str) -> None:
        self._members.pop(process_id, None)


class MemoryRegistry:
    def __init__(self) -> None:
        self._documents: dict[str, tuple[int, bytes]] = {}

    async def load(self, name: str) -> tuple[int, bytes]:
        return self._documents.get(name, (0, b""))

    async def store(self, name: str, document: bytes, *, expected_version: int) -> bool:
        version, _ = self._documents.get(name, (0, b""))
        if version != expected_version:
            return False
        self._documents[name] = (expected_version + 1, document)
        return True


class MemoryBlobs:
    """now_ms: for sweeps, which ask how old a value is."""

    def __init__(self, now_ms: Callable[[], int] = lambda: 0) -> None:
        self._blobs: dict[str, bytes] = {}
        self._now_ms = now_ms
        self._puts = 0
        self._put: dict[str, tuple[int, int]] = {}  # when, and which put of all
        self._condemned: set[str] = set()

    async def put(self, blob_id: str, content: bytes) -> None:
        self._blobs.setdefault(blob_id, content)
        self._puts += 1
        self._put[blob_id] = self._now_ms(), self._puts
        self._condemned.discard(blob_id)

    async def get(self, blob_id: str) -> bytes:
        return self._blobs[blob_id]

    async def delete(self, blob_ids: Sequence[str]) -> None:
        for blob_id in blob_ids:
            self._blobs.pop(blob_id, None)

    # What a sweep asks, of a store whose other parts are given (port `SweptBlobs`).

    def swept(self, log: MemoryLog, pages: MemoryPages) -> SweptMemory:
        return SweptMemory(self, log, pages)


class SweptMemory:
    """Condemned values stay until `bury`, which stands for the time that other stores keep them."""

    def __init__(self, blobs: MemoryBlobs, log: MemoryLog, pages: MemoryPages) -> None:
        self._blobs = blobs
        self._log = log
        self._pages = pages

    def key_of(self, blob_id: str) -> str:
        return blob_id

    async def candidates(self, put_before_ms: int, limit: int) -> AsyncIterator[Candidate]:
        for key, (at_ms, put) in list(self._blobs._put.items())[:limit]:
            if key in self._blobs._blobs and at_ms < put_before_ms:
                yield Candidate(key, str(put), key in self._blobs._condemned)

    async def encoded(self) -> AsyncIterator[tuple[bytes, bool]]:
        for page_id in list(self._pages._pages):
            document = self._pages._pages[page_id].document
            if document is not None:
                yield document, True
        for items in list(self._log._items.values()):
            for item in list(items.values()):
                yield item.operations, False

    async def condemn(self, candidate: Candidate) -> bool:
        if self._blobs._put[candidate.key][1] != int(candidate.version):
            return False
        self._blobs._condemned.add(candidate.key)
        return True

    async def reprieve(self, candidate: Candidate) -> None:
        self._blobs._condemned.discard(candidate.key)

    def bury(self) -> None:
        for key in self._blobs._condemned:
            self._blobs._blobs.pop(key, None)
