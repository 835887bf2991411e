"""The embedded store: one SQLite file, for one process (storage design §2; the default outside AWS).

1. Writes go to one thread that commits whatever waits as one group (`sqlite_writer`); acknowledged means on
   disk.
2. Reads run on the event loop, on a connection of their own: a lookup takes 10 µs, handing it to a thread
   and back takes 100, and in WAL mode a reader never waits for the writer. Long reads yield after every few
   rows. A read sees every acknowledged write, because each statement starts on the newest commit.
3. Member records stay in memory: the file serves one process, so none of them can outlive it.
4. The number of shards is fixed when the file is made; opening it with another number keeps the file's.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from holdfast_runtime.adapters.sqlite_file import (
    MAX_SHARDS,
    POSITION_BITS,
    POSITION_MASK,
    FileLock,
    connect,
    failure,
    open_database,
    prepare_path,
)
from holdfast_runtime.adapters.sqlite_housekeeping import Housekeeper
from holdfast_runtime.adapters.sqlite_writer import Writer
from holdfast_runtime.adapters.system import SystemClock
from holdfast_runtime.ports.store import (
    LogItem,
    Member,
    ShardRecord,
    Store,
    StoredPage,
    StoreUnavailable,
    refuse_oversize,
)
from holdfast_runtime.ports.system import Clock

READ_CHUNK: Final = 256  # rows per turn of the event loop: about a millisecond of small pages
LOG_CHUNK: Final = 64  # log items are larger: at most 22 MB
TOMBSTONE_MS: Final = 7 * 86_400_000  # storage design §4.3

_PAGE_COLUMNS: Final = "SELECT id, lsn, document FROM pages WHERE id IN "
_UPSERT_PAGE: Final = """INSERT INTO pages (id, lsn, expires_at_ms, document) VALUES (?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET lsn = excluded.lsn, expires_at_ms = excluded.expires_at_ms,
    document = excluded.document WHERE pages.lsn < excluded.lsn"""
_READ_LOG: Final = f"""SELECT id & {POSITION_MASK}, epoch, nonce, first, part, parts, operations
    FROM log WHERE id >= ? ORDER BY id LIMIT ?"""


async def open_sqlite_store(path: str | os.PathLike[str], *, shards: int = 4, clock: Clock | None = None) -> SqliteStore:
    """Open the store in file `path`, creating file and folders if need be. Close it on the same event loop.

    shards: 1 to 256, used for a new file only. clock: for expiry and housekeeping; the system's by default.
    Raises StoreBroken (not ours, newer schema, read-only, used by another process), StoreUnavailable (disk
    full).
    """
    if not 1 <= shards <= MAX_SHARDS:
        raise ValueError(f"shards must be between 1 and {MAX_SHARDS}, not {shards}")
    return _open(Path(path).absolute(), shards, clock or SystemClock())  # noqa: ASYNC240 - no file access


def _open(path: Path, shards: int, clock: Clock) -> SqliteStore:
    # Blocks the event loop for some milliseconds, once: a coordinator has nothing else to do without its
    # store.
    lock = prepare_path(path)
    try:
        return SqliteStore(path, lock, shards, clock)
    except BaseException:
        lock.release()
        raise


class SqliteStore:
    """An open file; `store` is what the coordinator gets."""

    def __init__(self, path: Path, lock: FileLock, shards: int, clock: Clock) -> None:
        writes = open_database(path, shards)
        try:
            self._reader = Reader(path)
        except BaseException:
            writes.close()
            raise
        self._lock: FileLock | None = lock
        self._writer = Writer(path, writes, Housekeeper(writes, clock))
        self.store = Store(
            SqliteLog(self._reader, self._writer),
            SqlitePages(self._reader, self._writer, clock),
            SqliteLeases(self._reader, self._writer),
            SqliteRegistry(self._reader, self._writer),
            SqliteBlobs(self._reader, self._writer),
            self._reader.all("SELECT count(*) FROM shards")[0][0],
        )

    async def set_max_bytes(self, limit: int | None) -> None:
        """Let the database grow to at most `limit` bytes (None: no limit); beyond it writes are
        StoreUnavailable.

        Holds until close. A limit below the present size stops the growth at the present size. The WAL file
        beside the database is not counted.
        """

        def apply(connection: sqlite3.Connection) -> None:
            size: int = connection.execute("PRAGMA page_size").fetchone()[0]
            pages = 0xFFFFFFFE if limit is None else max(1, limit // size)
            connection.execute(f"PRAGMA max_page_count = {pages}")

        await self._writer.submit(apply)

    async def close(self) -> None:
        """Finish the writes that wait, then let go of the file. May be called twice."""
        await self._writer.close()
        self._reader.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None


class Reader:
    """The read connection, used on the event loop only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._closed = False
        try:
            self._connection = connect(path)
        except sqlite3.Error as error:
            raise failure(path, error) from error

    def all(self, statement: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Every row, read to the end at once: an open cursor would hold back the WAL's checkpoints."""
        if self._closed:
            raise StoreUnavailable(f"store {self._path} is closed")
        try:
            return self._connection.execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            raise failure(self._path, error) from error

    def close(self) -> None:
        self._closed = True
        self._connection.close()


class SqliteLog:
    def __init__(self, reader: Reader, writer: Writer) -> None:
        self._reader = reader
        self._writer = writer

    async def put(self, shard: int, item: LogItem) -> LogItem | None:
        refuse_oversize(item.operations)
        assert 0 < item.position <= POSITION_MASK, item.position
        there = await self._writer.put_item((shard << POSITION_BITS | item.position, *item[1:]))
        return None if there is None else LogItem(there[0] & POSITION_MASK, *there[1:])

    async def read(self, shard: int, first: int, limit: int) -> Sequence[LogItem]:
        run: list[LogItem] = []
        while len(run) < limit:
            chunk = self._read_chunk(shard, first + len(run), min(LOG_CHUNK, limit - len(run)))
            run += chunk
            if len(chunk) < LOG_CHUNK:
                break
            await asyncio.sleep(0)
        return run

    def _read_chunk(self, shard: int, first: int, limit: int) -> list[LogItem]:
        # The next shard's rows follow this one's: their positions start again at 1 and so end the run, too.
        rows = self._reader.all(_READ_LOG, (shard << POSITION_BITS | first, limit))
        run = [LogItem._make(row) for index, row in enumerate(rows) if row[0] == first + index]
        if not run:
            self._refuse_pruned(shard, first)
        return run

    def _refuse_pruned(self, shard: int, position: int) -> None:
        rows = self._reader.all("SELECT pruned FROM shards WHERE shard = ? AND pruned >= ?", (shard, position))
        if rows:
            raise StoreUnavailable(
                f"position {position} of the log of shard {shard} is deleted, as all up to {rows[0][0]}; "
                "read the shard's record again and start at its checkpoint"
            )


class SqlitePages:
    def __init__(self, reader: Reader, writer: Writer, clock: Clock) -> None:
        self._reader = reader
        self._writer = writer
        self._clock = clock

    async def get(self, page_ids: Sequence[str]) -> Mapping[str, StoredPage]:
        found: dict[str, StoredPage] = {}
        for start in range(0, len(page_ids), READ_CHUNK):
            if start:
                await asyncio.sleep(0)
            for page_id, lsn, document in self._read_chunk(page_ids[start : start + READ_CHUNK]):
                found[page_id] = StoredPage(lsn, document)
        return found

    def _read_chunk(self, page_ids: Sequence[str]) -> list[Any]:
        # Filled up to a power of two with NULLs (equal to nothing), so that 9 prepared statements serve
        # every number.
        places = 1 << (len(page_ids) - 1).bit_length()
        statement = f"{_PAGE_COLUMNS} (?{', ?' * (places - 1)})"
        return self._reader.all(statement, (*page_ids, *[None] * (places - len(page_ids))))

    async def put(self, page_id: str, page: StoredPage, *, expires_at_ms: int | None = None) -> bool:
        refuse_oversize(page.document)
        if page.document is None and expires_at_ms is None:
            expires_at_ms = self._clock.now_ms() + TOMBSTONE_MS
        row = (page_id, page.lsn, expires_at_ms, page.document)
        stored: bool = await self._writer.submit(lambda c: c.execute(_UPSERT_PAGE, row).rowcount == 1)
        return stored


class SqliteLeases:
    def __init__(self, reader: Reader, writer: Writer) -> None:
        self._reader = reader
        self._writer = writer
        self._members: dict[str, Member] = {}

    async def read(self) -> tuple[Mapping[int, ShardRecord], Mapping[str, Member]]:
        rows = self._reader.all("SELECT shard, epoch, owner, checkpoint, tip FROM shards ORDER BY shard")
        return {row[0]: ShardRecord(*row) for row in rows}, dict(self._members)

    async def acquire(self, shard: int, *, seen_epoch: int, owner: str) -> ShardRecord | None:
        def apply(connection: sqlite3.Connection) -> ShardRecord | None:
            changed = connection.execute(
                "UPDATE shards SET epoch = epoch + 1, owner = ? WHERE shard = ? AND epoch = ?",
                (owner, shard, seen_epoch),
            ).rowcount
            if not changed:
                return None
            columns = "SELECT shard, epoch, owner, checkpoint, tip FROM shards WHERE shard = ?"
            return ShardRecord(*connection.execute(columns, (shard,)).fetchone())

        record: ShardRecord | None = await self._writer.submit(apply)
        return record

    async def checkpoint(self, shard: int, *, epoch: int, checkpoint: int, tip: int) -> bool:
        statement = "UPDATE shards SET checkpoint = ?, tip = ? WHERE shard = ? AND epoch = ? AND checkpoint <= ?"
        return await self._update(statement, (checkpoint, tip, shard, epoch, checkpoint))

    async def release(self, shard: int, *, epoch: int) -> bool:
        statement = "UPDATE shards SET epoch = epoch + 1, owner = '' WHERE shard = ? AND epoch = ?"
        return await self._update(statement, (shard, epoch))

    async def _update(self, statement: str, parameters: tuple[int, ...]) -> bool:
        done: bool = await self._writer.submit(lambda c: c.execute(statement, parameters).rowcount == 1)
        return done

    async def heartbeat(self, member: Member) -> None:
        self._members[member.process_id] = member

    async def leave(self, process_id: str) -> None:
        self._members.pop(process_id, None)


class SqliteRegistry:
    def __init__(self, reader: Reader, writer: Writer) -> None:
        self._reader = reader
        self._writer = writer

    async def load(self, name: str) -> tuple[int, bytes]:
        rows = self._reader.all("SELECT version, document FROM registry WHERE name = ?", (name,))
        return rows[0] if rows else (0, b"")

    async def store(self, name: str, document: bytes, *, expected_version: int) -> bool:
        if expected_version == 0:
            statement = "INSERT INTO registry (name, version, document) VALUES (?, 1, ?) ON CONFLICT DO NOTHING"
            parameters: tuple[Any, ...] = (name, document)
        else:
            statement = "UPDATE registry SET version = version + 1, document = ? WHERE name = ? AND version = ?"
            parameters = (document, name, expected_version)
        stored: bool = await self._writer.submit(lambda c: c.execute(statement, parameters).rowcount == 1)
        return stored


class SqliteBlobs:
    def __init__(self, reader: Reader, writer: Writer) -> None:
        self._reader = reader
        self._writer = writer

    async def put(self, blob_id: str, content: bytes) -> None:
        # A repeated put gives the blob a new number: a sweep that began before does not take it (`sqlite_blob_sweep`).
        statement = "INSERT OR REPLACE INTO blobs (id, content) VALUES (?, ?)"
        await self._writer.submit(lambda c: c.execute(statement, (blob_id, content)).rowcount)

    async def get(self, blob_id: str) -> bytes:
        rows = self._reader.all("SELECT content FROM blobs WHERE id = ?", (blob_id,))
        if not rows:
            raise KeyError(blob_id)
        content: bytes = rows[0][0]
        return content

    async def delete(self, blob_ids: Sequence[str]) -> None:
        rows = [(blob_id,) for blob_id in blob_ids]
        await self._writer.submit(lambda c: c.executemany("DELETE FROM blobs WHERE id = ?", rows).rowcount)
