"""What keeps the embedded store's file small: prune the log, delete expired pages and orphaned blobs, give space back.

1. Log rows are deleted behind the checkpoint minus a margin: 10,000 positions, or where the checkpoint was
   an hour ago, whichever is less log. Never at or beyond the checkpoint; `pruned` remembers how far, in the
   same transaction.
2. Pages are deleted once their `expires_at_ms` has passed (tombstones always have one).
3. Free pages go back to the file system when they are more than a quarter of the file.
4. Once a day blobs that nothing refers to are deleted (`sqlite_blob_sweep`). Meanwhile 1 and 2 rest: the sweep
   must see what it has not read yet.
5. A step is short (10 ms and its commit), runs on the writer's thread when it is idle, and at least once a
   second under load.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import deque
from typing import Final

from holdfast_runtime.adapters.sqlite_blob_sweep import BlobSweep
from holdfast_runtime.adapters.sqlite_file import POSITION_BITS
from holdfast_runtime.ports.system import Clock

MARGIN_POSITIONS: Final = 10_000  # kept behind the checkpoint for whoever is still reading there
MARGIN_S: Final = 3_600.0
NOTE_EVERY_S: Final = 300.0  # how often the checkpoints are noted: 13 notes cover the hour
STEP_S: Final = 0.010  # a put waits this long at most, and for the step's commit
CHUNK_ROWS: Final = 32
LOOK_EVERY_S: Final = 5.0  # when the last look found nothing to do
MAX_WAIT_S: Final = 1.0  # under load, with work left
VACUUM_PAGES: Final = 256
MIN_FREE_PAGES: Final = 2_000  # 8 MB: below that the next writes may as well use them


class Housekeeper:
    """Lives on the writer's thread and uses its connection. `pruned`: by shard, the last position deleted."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        clock: Clock,
        *,
        sweep: BlobSweep | None = None,
        margin_positions: int = MARGIN_POSITIONS,
    ) -> None:
        self._connection = connection
        self._sweep = sweep or BlobSweep(connection, clock)
        self._margin_positions = margin_positions
        self._clock = clock
        self._notes: deque[tuple[float, dict[int, int]]] = deque()  # (when, checkpoint by shard)
        self._next_step = clock.monotonic()
        self.pruned: dict[int, int] = dict(connection.execute("SELECT shard, pruned FROM shards"))

    def overdue(self) -> bool:
        return self._clock.monotonic() >= self._next_step

    def loop_turned(self) -> None:
        """Called on the event loop after a step."""
        self._sweep.loop_turned()

    def write_failed(self) -> None:
        """A write was refused by SQLite; whoever asked for it may try again for long."""
        self._sweep.write_failed()

    def step(self) -> float:
        """Do a bounded piece of work. Answers the seconds until the next is wanted, 0: more is waiting."""
        more = False
        with contextlib.suppress(sqlite3.Error):  # disk full, say: the writes report it, the next look tries again
            more = self._sweep.step(self._deadline()) or self._prune_log() or self._delete_expired() or self._shrink()
        if self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
        self._next_step = self._clock.monotonic() + (MAX_WAIT_S if more else LOOK_EVERY_S)
        return 0 if more else LOOK_EVERY_S

    def _prune_log(self) -> bool:
        """Delete log rows, whole steps of one shard. True: something was done."""
        checkpoints = dict(self._connection.execute("SELECT shard, checkpoint FROM shards"))
        self._note(checkpoints)
        for shard, checkpoint in checkpoints.items():
            last = max(checkpoint - self._margin_positions, self._an_hour_ago(shard)) - 1
            if last > self.pruned[shard]:
                self._prune_shard(shard, last)
                return True
        return False

    def _prune_shard(self, shard: int, last: int) -> None:
        """Delete positions up to `last`, as many as one step allows."""
        end, base, done = self._deadline(), shard << POSITION_BITS, self.pruned[shard]
        self._connection.execute("BEGIN IMMEDIATE")
        while done < last and self._clock.monotonic() < end:
            upto = min(done + CHUNK_ROWS, last)
            self._connection.execute("DELETE FROM log WHERE id > ? AND id <= ?", (base + done, base + upto))
            done = upto
        self._connection.execute("UPDATE shards SET pruned = ? WHERE shard = ?", (done, shard))
        self._connection.execute("COMMIT")
        self.pruned[shard] = done

    def _note(self, checkpoints: dict[int, int]) -> None:
        now = self._clock.monotonic()
        if not self._notes or now - self._notes[-1][0] >= NOTE_EVERY_S:
            self._notes.append((now, checkpoints))
        while len(self._notes) > 1 and now - self._notes[1][0] >= MARGIN_S:
            self._notes.popleft()

    def _an_hour_ago(self, shard: int) -> int:
        """Where the checkpoint was an hour ago; 0 while this process is younger than that."""
        noted_at, checkpoints = self._notes[0]
        return checkpoints[shard] if self._clock.monotonic() - noted_at >= MARGIN_S else 0

    def _delete_expired(self) -> bool:
        """True: something was done."""
        now_ms, end = self._clock.now_ms(), self._deadline()
        due = "SELECT rowid FROM pages WHERE expires_at_ms <= ? LIMIT ?"
        if self._connection.execute(due, (now_ms, 1)).fetchone() is None:
            return False
        self._connection.execute("BEGIN IMMEDIATE")
        deleted = CHUNK_ROWS
        while deleted == CHUNK_ROWS and self._clock.monotonic() < end:
            deleted = self._connection.execute(
                f"DELETE FROM pages WHERE rowid IN ({due})",
                (now_ms, CHUNK_ROWS),
            ).rowcount
        self._connection.execute("COMMIT")
        return True

    def _shrink(self) -> bool:
        """True: something was done."""
        free: int = self._connection.execute("PRAGMA freelist_count").fetchone()[0]
        pages: int = self._connection.execute("PRAGMA page_count").fetchone()[0]
        if free < MIN_FREE_PAGES or free * 4 < pages:
            return False
        self._connection.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
        return True

    def _deadline(self) -> float:
        return self._clock.monotonic() + STEP_S
