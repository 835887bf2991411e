"""The store: log, pages, leases, registry and blobs.

Nothing here is richer than a conditional put, a conditional update, a get and a range query, because that is
what DynamoDB gives (storage design §2). Every read is strongly consistent. A lost race is returned; a broken
or slow store raises `StoreUnavailable`, and then the outcome of a write is UNKNOWN: it may have happened, may
still happen, or never will.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

MAX_ITEM_BYTES: Final = 350_000  # a DynamoDB item, keys and attribute names included, must stay under 400 KB


def refuse_oversize(content: bytes | None) -> None:
    """Raise ValueError for what DynamoDB would not hold: what fails in production fails on a laptop too."""
    if content is not None and len(content) > MAX_ITEM_BYTES:
        raise ValueError(
            f"an item holds at most {MAX_ITEM_BYTES} bytes, this one has {len(content)}; "
            "split the batch into parts, the page into pages, or move large values to blobs"
        )


class StoreUnavailable(Exception):
    """No answer in time, throttled, or full: try again later. A write's outcome is unknown."""


class StoreBroken(Exception):
    """Not usable at all (read-only file, wrong schema, locked by another process): an operator must act."""


class LogItem(NamedTuple):
    """One position of a shard's log. `operations`: concatenated encoded operations; empty for a seal."""

    position: int
    epoch: int
    nonce: bytes  # names the writer (one per take-over), so that a retried put recognises its own first try
    first: int  # position of part 0 of the batch: the batch's LSN
    part: int
    parts: int
    operations: bytes


class StoredPage(NamedTuple):
    """A page as the store holds it. `document` is None for a tombstone."""

    lsn: int
    document: bytes | None


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """The `M` item of a shard. `owner`: empty when nobody holds it. `tip`: a lower bound of the log's end.

    Never held: epoch 0, no owner, checkpoint and tip 1 (the first position).
    """

    shard: int
    epoch: int
    owner: str
    checkpoint: int
    tip: int


@dataclass(frozen=True, slots=True)
class Member:
    """The `H` item of a process. It is alive while `counter` moves; `address` is where its peers reach it."""

    process_id: str
    counter: int
    address: str


class Log(Protocol):
    """Positions count from 1. The store may delete what is behind the checkpoint, never at or beyond it."""

    async def put(self, shard: int, item: LogItem) -> LogItem | None:
        """Write `item` if its position is free. None: written. Otherwise the item that is there.

        That may be our own earlier try (same nonce). In a deleted position: an empty item with nonce b"".
        """
        ...

    async def read(self, shard: int, first: int, limit: int) -> Sequence[LogItem]:
        """Items at positions first, first+1, ... in order, at most `limit`; ends before the first free one.

        A deleted position answers nothing or raises StoreUnavailable: start again at the checkpoint.
        """
        ...


class PageStore(Protocol):
    async def get(self, page_ids: Sequence[str]) -> Mapping[str, StoredPage]:
        """The stored pages among `page_ids`, tombstones included; absent ones are missing from the answer."""
        ...

    async def put(self, page_id: str, page: StoredPage, *, expires_at_ms: int | None = None) -> bool:
        """Store `page` if absent or stored with a smaller LSN. False: the same or a newer one is there.

        `expires_at_ms`: the store may delete the item after this instant, possibly much later; a tombstone
        without one, after 7 days.
        """
        ...


class Leases(Protocol):
    async def read(self) -> tuple[Mapping[int, ShardRecord], Mapping[str, Member]]:
        """All shard records (from the first moment one for each shard) and all member records."""
        ...

    async def acquire(self, shard: int, *, seen_epoch: int, owner: str) -> ShardRecord | None:
        """Set epoch = seen + 1 and the owner, if the epoch still is `seen_epoch`. None: it is not."""
        ...

    async def checkpoint(self, shard: int, *, epoch: int, checkpoint: int, tip: int) -> bool:
        """Advance the checkpoint, if the epoch is still `epoch` and the stored checkpoint is not larger."""
        ...

    async def release(self, shard: int, *, epoch: int) -> bool:
        """Set epoch + 1 and no owner, if the epoch still is `epoch`."""
        ...

    async def heartbeat(self, member: Member) -> None:
        """Write the process's own member record."""
        ...

    async def leave(self, process_id: str) -> None:
        """Delete the process's own member record (graceful stop)."""
        ...


class Registry(Protocol):
    """Named small documents with compare-and-set: deployments, services, settings."""

    async def load(self, name: str) -> tuple[int, bytes]:
        """(version, document); (0, b"") when it was never stored."""
        ...

    async def store(self, name: str, document: bytes, *, expected_version: int) -> bool:
        """Store as version expected + 1. False: the stored version is another one."""
        ...


class Blobs(Protocol):
    """Large values by id. Ids contain a digest of the content: a repeated put overwrites nothing else."""

    async def put(self, blob_id: str, content: bytes) -> None:
        """Store `content` under an id that is new or already has this very content."""
        ...

    async def get(self, blob_id: str) -> bytes:
        """Raises KeyError when it does not exist."""
        ...

    async def delete(self, blob_ids: Sequence[str]) -> None:
        """Delete those that exist."""
        ...


@dataclass(frozen=True, slots=True)
class Store:
    """The five ports of one store, and how many shards it was set up with (fixed for its life)."""

    log: Log
    pages: PageStore
    leases: Leases
    registry: Registry
    blobs: Blobs
    shards: int
