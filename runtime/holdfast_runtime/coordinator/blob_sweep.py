"""Removing large values that nothing refers to any more from a store that several processes share (storage design §5).

References are passed on between invocations, state and results, so no owner could delete a value. A sweep does, once a week:

1. Note each shard's checkpoint.
2. Candidates are the values that were put longer ago than `AGE_MS` and not again since.
3. Mark: read every stored page and log item, and then what came to each log since the checkpoints that were noted. What is referred to
   is no candidate; a page that outgrew an item is read from its blob.
4. Condemn the rest: each only if it was not put again, and not for good. A condemned value is read as before for `KEPT_DAYS`, longer
   than five more sweeps, each of which reprieves it when it finds a reference; only then it is gone.

Why nothing is lost that is needed. Let T be the end of reading pages, before the logs are read again, and let a value be referred to
at some instant after T. Follow the reference back from copy to copy:

- until a place of the durable state held it at T. If the record that brought it there is in the log still, it was read in 3: with the
  pages, or when the log was read again (records are appended behind the checkpoints that were noted, and those logs are read to their
  end). If it has expired it was written two weeks ago, lies behind the checkpoint, and the stored page holds what it brought in every
  version since: so the page was read with it, whenever in 3 that was.
- or until it was put after T, or shortly before by a request whose record had not been written. Then it is no candidate, and if it was put
  again after 2, it has another version and is not condemned. "Shortly": whoever puts a value writes its record in seconds, or gives up; to
  come later than `AGE_MS` a process would have to stand still for two weeks between the two, and yet go on.

Step 4 is a second line for what these arguments overlook: a fault in them costs nothing that five more sweeps do not repair.

A sweep that dies in the middle has condemned some of what it may. Two at a time do no harm. What cannot be read ends it: it might refer
to anything.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from holdfast_runtime.engine import blob_ids
from holdfast_runtime.ports.blob_sweep import Candidate, SweptBlobs
from holdfast_runtime.ports.store import Store
from holdfast_runtime.ports.system import Clock

log = logging.getLogger("holdfast.sweep")

DAY_MS: Final = 86_400_000
AGE_MS: Final = 14 * DAY_MS  # as long as the log is kept: far beyond any pause between a put and its record
KEPT_DAYS: Final = 40  # of what is condemned: five more sweeps, and longer than a table can be restored to (35 days)
LONGEST_MS: Final = DAY_MS  # a sweep; what takes longer than the age allows for would weaken the argument
MOST: Final = 200_000  # candidates in memory, some 200 bytes each; those beyond are left to the next sweep
READ_AHEAD: Final = 64


class SweepGivenUp(Exception):
    """Nothing was condemned; the message says why."""


@dataclass(slots=True)
class Report:
    """Of one sweep. orphans: keys of what was condemned, or would be. read: pages and log items. seconds: on the wall clock."""

    candidates: int = 0
    read: int = 0
    orphans: int = 0
    condemned: int = 0
    reprieved: int = 0
    put_again: int = 0
    seconds: float = 0.0


class BlobSweep:
    def __init__(self, store: Store, blobs: SweptBlobs, clock: Clock, *, progress: Callable[[str], None] = lambda _: None) -> None:
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._progress = progress
        self._open: dict[str, Candidate] = {}  # candidates to which no reference has been found yet
        self._reprieved: list[Candidate] = []
        self._began_ms = 0

    async def run(self, *, delete: bool) -> Report:
        """delete: False only reports. Raises StoreUnavailable, SweepGivenUp."""
        self._began_ms = self._clock.now_ms()
        report = Report()
        records, _ = await self._store.leases.read()
        async for candidate in self._blobs.candidates(self._began_ms - AGE_MS, MOST):
            self._open[candidate.key] = candidate
        report.candidates = len(self._open)
        self._progress(f"{report.candidates} large values were put more than {AGE_MS // DAY_MS} days ago")
        if self._open:
            await self._mark(report)
            for record in records.values():
                await self._mark_log(record.shard, record.checkpoint, report)
        orphans = [candidate for candidate in self._open.values() if not candidate.condemned]
        report.orphans = len(orphans)
        if delete:
            for candidate in self._reprieved:
                await self._blobs.reprieve(candidate)
                report.reprieved += 1
            for candidate in orphans:
                if await self._blobs.condemn(candidate):
                    report.condemned += 1
                else:
                    report.put_again += 1
        report.seconds = (self._clock.now_ms() - self._began_ms) / 1000
        return report

    async def _mark(self, report: Report) -> None:
        async for encoded, is_page in self._blobs.encoded():
            report.read += 1
            if report.read % 10_000 == 0:
                self._progress(f"{report.read} pages and log records read, {len(self._open)} values without a reference so far")
            self._see(encoded)
            outgrown = blob_ids.outgrown(encoded) if is_page else None
            if outgrown is not None:
                self._see(await self._outgrown(outgrown))

    async def _outgrown(self, blob_id: str) -> bytes:
        try:
            return await self._store.blobs.get(blob_id)
        except KeyError:
            raise SweepGivenUp(f"the page in {blob_id} cannot be read, and might refer to anything; nothing was removed") from None

    async def _mark_log(self, shard: int, position: int, report: Report) -> None:
        """From `position` to the end, as it is by now."""
        while found := await self._store.log.read(shard, position, READ_AHEAD):
            for item in found:
                report.read += 1
                self._see(item.operations)
            position += len(found)

    def _see(self, encoded: bytes) -> None:
        if self._clock.now_ms() - self._began_ms > LONGEST_MS:
            raise SweepGivenUp(f"reading takes longer than {LONGEST_MS // DAY_MS} day; allow it more units a second. Nothing was removed")
        for blob_id in blob_ids.referenced(encoded):
            candidate = self._open.pop(self._blobs.key_of(blob_id), None)
            if candidate is not None and candidate.condemned:
                self._reprieved.append(candidate)
