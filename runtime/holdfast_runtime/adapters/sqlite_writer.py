"""The embedded store's only writer: one thread, one connection, one fsync for everything that waits.

1. What the event loop asks for in one of its turns arrives as one group; groups that wait are joined.
2. A group is one transaction. Its answers reach the loop in one call, after the commit has returned:
   acknowledged means on disk. A lost condition is an answer; it never hurts the other writes of its group.
3. When a group fails as a whole, each of its writes is tried alone if that may help (disk full: small ones
   still fit).
4. The thread needs the interpreter lock about five times per group. An event loop at full load lets go of it
   often but for microseconds, which a waiting thread misses: with Python's default of 5 ms appends then take
   seconds. So the switch interval (of the whole process) is lowered; measured by `bench/bench_store.py
   --busy`.
5. Housekeeping runs here too, between groups, in bounded steps.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from holdfast_runtime.adapters.sqlite_file import POSITION_BITS, POSITION_MASK, failure, primary_code
from holdfast_runtime.ports.store import StoreUnavailable

MAX_GROUP: Final = 1024  # writes per transaction: a flush of many pages must not hold up the log for long
MAX_ROWS_PER_INSERT: Final = 64  # 7 columns each: below the 999 parameters that every SQLite build allows

INSERT_ITEM: Final = "INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?)"
_INSERT_ITEMS: Final = [INSERT_ITEM + ", (?, ?, ?, ?, ?, ?, ?)" * more for more in range(MAX_ROWS_PER_INSERT)]
SWITCH_INTERVAL_S: Final = 0.0002  # must be less than what an event loop runs between two system calls

Row = tuple[int, int, bytes, int, int, int, bytes]  # a row of table `log`


class Housekeeping(Protocol):
    """What the writer's thread does beside writing. `pruned`: by shard, the last position deleted."""

    pruned: dict[int, int]

    def step(self) -> float:
        """A bounded piece of work. Answers the seconds until the next is wanted, 0: more is waiting."""
        ...

    def overdue(self) -> bool:
        """True when the next step must not wait for an idle moment any longer."""
        ...

    def loop_turned(self) -> None:
        """Called on the event loop after a step: it is not stuck."""
        ...

    def write_failed(self) -> None:
        """SQLite refused a write; whoever asked for it may try again for long."""
        ...


class Write(NamedTuple):
    """One waiting write: a log row, or `apply`, run on the writer's thread inside the group's transaction."""

    answer: asyncio.Future[Any]
    apply: Callable[[sqlite3.Connection], Any]
    row: Row | None


class Writer:
    """Created and used on one running event loop; `close` ends the thread after the last waiting write."""

    def __init__(self, path: Path, connection: sqlite3.Connection, housekeeping: Housekeeping) -> None:
        self._path = path
        self._connection = connection
        self._housekeeping = housekeeping
        self._loop = asyncio.get_running_loop()
        self._gathered: list[Write] = []  # asked for in this turn of the loop
        self._groups: queue.SimpleQueue[list[Write] | None] = queue.SimpleQueue()
        self._closing = False
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="holdfast-store-writer", daemon=True)
        sys.setswitchinterval(min(SWITCH_INTERVAL_S, sys.getswitchinterval()))
        self._thread.start()

    # On the event loop.

    def put_item(self, row: Row) -> asyncio.Future[Any]:
        """Resolves to None when `row` was inserted, otherwise to the row that is there."""
        return self._submit(_nothing, row)

    def submit(self, apply: Callable[[sqlite3.Connection], Any]) -> asyncio.Future[Any]:
        """Resolves to what `apply` returned, once that is on disk."""
        return self._submit(apply, None)

    def _submit(self, apply: Callable[[sqlite3.Connection], Any], row: Row | None) -> asyncio.Future[Any]:
        if self._closing:
            raise StoreUnavailable(f"store {self._path} is closed")
        # One hand-over per turn of the loop: waking the thread costs more than everything else here.
        if not self._gathered:
            self._loop.call_soon(self._hand_over)
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._gathered.append(Write(answer, apply, row))
        return answer

    def _hand_over(self) -> None:
        if self._gathered:
            self._groups.put(self._gathered)
            self._gathered = []

    async def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._hand_over()
            self._groups.put(None)
        await asyncio.shield(self._ended)
        self._thread.join()

    # On the writer's thread.

    def _run(self) -> None:
        idle, last = 0.0, False
        while not last:
            group, last = self._next_group(idle)
            if group:
                self._tell(_answer_all, group, self._commit(group))
            if not last and (not group or self._housekeeping.overdue()):
                idle = self._housekeeping.step()
                self._tell(self._housekeeping.loop_turned)
        self._connection.close()
        self._tell(_end, self._ended)

    def _next_group(self, idle: float) -> tuple[list[Write], bool]:
        """What is waiting (empty after `idle` seconds without anything), and whether it is the last."""
        group: list[Write] = []
        try:
            arrived = self._groups.get(timeout=idle)
            while arrived is not None:
                group += arrived
                if len(group) >= MAX_GROUP:
                    return group, False
                arrived = self._groups.get_nowait()
        except queue.Empty:
            return group, False
        return group, True

    def _commit(self, group: list[Write]) -> list[Any]:
        """The answers of `group`, in its order; an exception is an answer that raises at the waiter."""
        try:
            return self._transact(group)
        except Exception as error:
            self._roll_back()
            self._housekeeping.write_failed()
            if len(group) == 1 or not _helps_to_split(error):
                return [self._explain(error) for _ in group]
        return [self._commit([write])[0] for write in group]

    def _transact(self, group: list[Write]) -> list[Any]:
        if self._insert_at_once(group):
            return [None] * len(group)
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        answers = [self._put(write.row) if write.row else write.apply(connection) for write in group]
        connection.execute("COMMIT")
        return answers

    def _insert_at_once(self, group: list[Write]) -> bool:
        """The usual group: log puts alone, all positions free. One statement is its own transaction.

        Every call into SQLite releases the interpreter lock and must win it back from a busy event loop.
        """
        if len(group) > MAX_ROWS_PER_INSERT:
            return False
        values: list[Any] = []
        for _, _, row in group:
            if row is None or self._is_pruned(row[0]):
                return False
            values += row
        try:
            self._connection.execute(_INSERT_ITEMS[len(group) - 1], values)
        except sqlite3.IntegrityError:
            return False  # a position is taken; the statement has left nothing behind
        return True

    def _put(self, row: Row) -> Row | None:
        if self._is_pruned(row[0]):
            return self._gravestone(row[0])
        try:
            self._connection.execute(INSERT_ITEM, row)
        except sqlite3.IntegrityError:
            there: Row = self._connection.execute("SELECT * FROM log WHERE id = ?", row[:1]).fetchone()
            return there
        return None

    def _is_pruned(self, row_id: int) -> bool:
        return row_id & POSITION_MASK <= self._housekeeping.pruned[row_id >> POSITION_BITS]

    def _gravestone(self, row_id: int) -> Row:
        """A deleted position is not free: an owner that comes much too late must learn that it is overtaken."""
        shard = (row_id >> POSITION_BITS,)
        (epoch,) = self._connection.execute("SELECT epoch FROM shards WHERE shard = ?", shard).fetchone()
        return (row_id, epoch, b"", row_id & POSITION_MASK, 0, 1, b"")

    def _roll_back(self) -> None:
        # SQLite may have rolled back already (disk full does).
        if self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def _explain(self, error: Exception) -> Exception:
        if not isinstance(error, sqlite3.Error):
            return error
        explained = failure(self._path, error)
        explained.__cause__ = error
        return explained

    def _tell(self, function: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed without closing the store: nobody waits
            self._loop.call_soon_threadsafe(function, *arguments)


def _helps_to_split(error: Exception) -> bool:
    return not isinstance(error, sqlite3.Error) or primary_code(error) in (
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_TOOBIG,
        -1,
    )


def _answer_all(group: list[Write], answers: list[Any]) -> None:
    for (future, _, _), answer in zip(group, answers, strict=True):
        if future.done():
            continue  # the waiter was cancelled; its write stands
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)


def _nothing(connection: sqlite3.Connection) -> None:
    """What a log put applies: its row says all."""


def _end(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)
