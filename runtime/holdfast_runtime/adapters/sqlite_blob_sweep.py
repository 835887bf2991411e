"""Deleting the blobs of the embedded store that nothing refers to any more: mark and sweep, in bounded steps.

References to a blob are passed on between invocations, state and results, so no single owner could delete it.
A sweep, once a day:

1. Candidates are the blobs that were put long enough ago (rule 4). Every put, also of an id that is there
   already, gives the blob a new, larger `number`: put again after that moment it is no candidate any more.
2. Mark: read all log rows, then all pages; candidates that they refer to are kept. A page that outgrew an item
   is read from its blob. While a sweep is under way the housekeeper deletes neither log rows nor pages.
3. Sweep: in one transaction read the log rows that came since they were last read, then delete candidates
   that are not marked. There may be several such transactions; each begins with the log.
4. Long enough: before the oldest of `Pace.notes` notes. The newest number is noted, at most once in
   `Pace.note_every_s` seconds, and only when the event loop has turned since the last note. When a write has
   failed all notes are forgotten.
5. After `Pace.give_up_s` the sweep is given up, so that the log does not grow without end; it begins anew the
   next day. So it does after an error: what cannot be read might refer to anything.

Why no blob is lost that is needed, now or later. Let a blob be referred to when its deletion commits:

- By page P of the durable state (stored pages with the log applied). The change that brought the reference into
  P, and that still stands, is in some batch n. If the checkpoint was not behind n when the sweep began, the
  rows of n were in the log then or were appended since; none was deleted, and all were read before the
  deletion (2, 3). If it was behind n, the stored P held that change already, and so did every later version of
  P; the scan goes by page id and no page disappears, so it has read one of them. Where the reference was
  before, and whether it is moving from log to page or between pages, does not matter: the argument holds for
  each place alone.
- By operations in memory that are not in the log yet. Either they copy the reference from a page of the
  durable state: that is the case above, because the page loses it only by a later record. Or the blob was put
  for them a moment ago: blobs are written first, the record follows once its pages are loaded, in seconds.
  Then it is no candidate (4). Notes are counted, not seconds, because a record may stay in memory for long
  while the process or its event loop stands still (suspended laptop, debugger) or the log cannot be written
  (disk full): no note is taken, or none is kept. What another process put before this one started has nobody
  in memory.
- By a message between shards: it is in the sender's pages until the receiver's record of it is durable.
- By nothing but a local variable, between reading a reference and reading its blob (a result that is fetched
  while its invocation is purged): as a rule the record that brought the reference is in the log for thousands
  of positions more. At worst that one read finds nothing.

A crash in the middle loses the marks, which live in memory, and nothing else: every deletion is right by
itself. Marks are numbers of candidates: some 12 bytes for each blob of 32 KB and more.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final

from holdfast_runtime.adapters.sqlite_file import POSITION_BITS
from holdfast_runtime.engine import blob_ids
from holdfast_runtime.ports.system import Clock

_READ_LOG: Final = "SELECT id, operations FROM log WHERE id > ? AND id < ? ORDER BY id"
_READ_PAGES: Final = "SELECT id, document FROM pages WHERE id > ? ORDER BY id"
_MARK: Final = "INSERT OR IGNORE INTO temp.marked_blobs SELECT number FROM main.blobs WHERE id = ? AND number <= ?"
_READ_CANDIDATES: Final = """SELECT b.number, m.number IS NOT NULL FROM main.blobs b LEFT JOIN temp.marked_blobs m ON m.number = b.number
    WHERE b.number > ? AND b.number <= ? ORDER BY b.number LIMIT 64"""


@dataclass(frozen=True, slots=True)
class Pace:
    """When a sweep begins, and how old a blob must be. The first begins when there are `notes` notes: a quarter of an hour after start."""

    note_every_s: float = 60.0
    notes: int = 16
    every_s: float = 86_400.0
    give_up_s: float = 3_600.0


class BlobSweep:
    """Lives on the writer's thread and uses its connection."""

    def __init__(self, connection: sqlite3.Connection, clock: Clock, pace: Pace | None = None) -> None:
        self._connection = connection
        self._clock = clock
        self._pace = pace or Pace()
        connection.execute("PRAGMA temp_store = MEMORY")  # the marks: a folder for temporary files may be missing or full
        self._notes: deque[int] = deque(maxlen=self._pace.notes)  # the newest number at that time
        self._note_at = clock.monotonic()
        self._loop_turned = False
        self._due_at = clock.monotonic()
        self._give_up_at = 0.0
        self._work: Iterator[None] | None = None  # one item per step
        self._end = 0.0  # of the present step
        self._limit = 0  # candidates have a number up to this one
        self._read_to: dict[int, int] = {}  # by shard, the id of the last log row read
        self._page_read = ""  # id of the last page read
        self._looked_at = 0  # number of the last candidate that was deleted or left

    # What makes blobs old.

    def loop_turned(self) -> None:
        """The event loop is not stuck. Called on the event loop."""
        self._loop_turned = True

    def write_failed(self) -> None:
        """A write may have to wait in memory: what was put so far is young again."""
        self._notes.clear()

    def _note(self) -> None:
        now = self._clock.monotonic()
        if self._loop_turned and now >= self._note_at:
            self._loop_turned = False
            self._note_at = now + self._pace.note_every_s
            self._notes.append(self._connection.execute("SELECT coalesce(max(number), 0) FROM blobs").fetchone()[0])

    # Steps.

    @property
    def under_way(self) -> bool:
        return self._work is not None

    def step(self, end: float) -> bool:
        """Work until `end` on the clock, and at least on one row. False: nothing to do now.

        Raises sqlite3.Error; the sweep is given up then, its transaction still open.
        """
        self._note()
        if self._work is None and not self._begin():
            return False
        assert self._work is not None
        if self._clock.monotonic() >= self._give_up_at:
            self._finish()
            return True
        self._end = end
        try:
            next(self._work)
        except StopIteration:
            self._finish()
        except BaseException:
            self._work = None
            raise
        return True

    def _begin(self) -> bool:
        now = self._clock.monotonic()
        if now < self._due_at or len(self._notes) < self._pace.notes:
            return False
        self._due_at = now + self._pace.every_s
        self._limit = self._notes[0]
        if self._connection.execute("SELECT 1 FROM blobs WHERE number <= ? LIMIT 1", (self._limit,)).fetchone() is None:
            return False
        self._give_up_at = now + self._pace.give_up_s
        self._read_to = {shard: shard << POSITION_BITS for (shard,) in self._connection.execute("SELECT shard FROM shards")}
        self._page_read, self._looked_at = "", 0
        self._connection.execute("DROP TABLE IF EXISTS temp.marked_blobs")  # of a sweep that was given up
        self._connection.execute("CREATE TEMP TABLE marked_blobs (number INTEGER PRIMARY KEY)")
        self._work = self._sweep()
        return True

    def _finish(self) -> None:
        self._work = None
        self._connection.execute("DROP TABLE IF EXISTS temp.marked_blobs")

    def _sweep(self) -> Iterator[None]:
        for work in (self._read_log, self._read_pages, self._delete):
            while not work():
                yield

    # Mark: each True when nothing is left to read.

    def _read_log(self) -> bool:
        """From where the last call stopped, so also what came since."""
        found: set[str] = set()
        done = self._collect_log(found)
        self._mark(found)
        return done

    def _collect_log(self, found: set[str]) -> bool:
        for shard, read_to in self._read_to.items():
            for row_id, operations in self._rows(_READ_LOG, (read_to, (shard + 1) << POSITION_BITS)):
                found.update(blob_ids.referenced(operations))
                self._read_to[shard] = row_id
                if self._is_over():
                    return False
        return True

    def _read_pages(self) -> bool:
        found: set[str] = set()
        done = self._collect_pages(found)
        self._mark(found)
        return done

    def _collect_pages(self, found: set[str]) -> bool:
        for page_id, document in self._rows(_READ_PAGES, (self._page_read,)):
            self._page_read = page_id
            if document is not None:
                self._collect_page(document, found)
            if self._is_over():
                return False
        return True

    def _collect_page(self, document: bytes, found: set[str]) -> None:
        found.update(blob_ids.referenced(document))
        outgrown = blob_ids.outgrown(document)
        if outgrown is not None:
            for (content,) in self._rows("SELECT content FROM blobs WHERE id = ?", (outgrown,)):
                found.update(blob_ids.referenced(content))

    def _rows(self, statement: str, parameters: tuple[Any, ...]) -> Iterator[Any]:
        """One at a time, because a row may have 350 KB. An unfinished query must not outlive its step."""
        with contextlib.closing(self._connection.execute(statement, parameters)) as cursor:
            yield from cursor

    def _mark(self, found: Collection[str]) -> None:
        if not found:
            return
        alone = not self._connection.in_transaction
        if alone:
            self._connection.execute("BEGIN")  # one for all marks; nothing else changes, so nothing goes to the disk
        self._connection.executemany(_MARK, [(blob_id, self._limit) for blob_id in found])
        if alone:
            self._connection.execute("COMMIT")

    # Sweep.

    def _delete(self) -> bool:
        self._connection.execute("BEGIN IMMEDIATE")
        done = self._read_log() and self._delete_unmarked()
        self._connection.execute("COMMIT")
        return done

    def _delete_unmarked(self) -> bool:
        while rows := self._connection.execute(_READ_CANDIDATES, (self._looked_at, self._limit)).fetchall():
            for number, marked in rows:
                if not marked:
                    self._connection.execute("DELETE FROM blobs WHERE number = ?", (number,))
                self._looked_at = number
                if self._is_over():
                    return False
        return True

    def _is_over(self) -> bool:
        return self._clock.monotonic() >= self._end
