"""When large values that nothing refers to are swept: once a week, by the owner of the first shard, in a process of its own.

Rules: the registry says when a sweep was last begun, and whoever writes that begins it; one that dies or fails is made up for a week later;
reading a table takes a core for minutes, so it is a process of low priority, and the coordinator's loop only waits for its end.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Container
from contextlib import suppress
from typing import Final

from holdfast_runtime.adapters.dynamodb_table import DynamoDbTable
from holdfast_runtime.adapters.system import SystemClock
from holdfast_runtime.coordinator.blob_sweep import DAY_MS, BlobSweep, Report
from holdfast_runtime.ports.store import Registry, StoreUnavailable
from holdfast_runtime.ports.system import Clock

log = logging.getLogger("holdfast.sweep")

EVERY_MS: Final = 7 * DAY_MS
LOOK_S: Final = 3_600.0  # how often whether a sweep is due is looked up; the first time after this
DOCUMENT: Final = "blob-sweep"
FIRST_SHARD: Final = 0
NICE: Final = 10


async def sweep_table(table: DynamoDbTable, *, delete: bool, units_per_s: float) -> Report:
    """One sweep. Raises StoreBroken, StoreUnavailable, SweepGivenUp."""
    from holdfast_runtime.adapters.dynamodb import open_dynamodb_store  # loads the AWS libraries

    clock = SystemClock()
    held = await open_dynamodb_store(table, clock=clock)
    try:
        return await BlobSweep(held.store, held.swept(units_per_s=units_per_s), clock).run(delete=delete)
    finally:
        await held.close()


class WeeklySweep:
    """owned: the shards of this process, as they are. sweep: does it."""

    def __init__(self, registry: Registry, owned: Callable[[], Container[int]], clock: Clock, sweep: Callable[[], Awaitable[None]]) -> None:
        self._registry = registry
        self._owned = owned
        self._clock = clock
        self._sweep = sweep

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._clock.sleep(LOOK_S)
            try:
                if FIRST_SHARD in self._owned() and await self._is_mine():
                    await self._sweep()
            except StoreUnavailable as problem:
                log.warning("sweep.failed", extra={"error": str(problem)})

    async def _is_mine(self) -> bool:
        """Whether a sweep is due, and this process was the first to say that it begins it."""
        version, document = await self._registry.load(DOCUMENT)
        began_ms = json.loads(document)["began_ms"] if document else 0
        now_ms = self._clock.now_ms()
        if now_ms - began_ms < EVERY_MS:
            return False
        return await self._registry.store(DOCUMENT, json.dumps({"began_ms": now_ms}).encode(), expected_version=version)


async def in_a_process(table: DynamoDbTable) -> None:
    """`holdfast store sweep --delete`; what it says goes to the log. Ends it when cancelled."""
    command = [sys.executable, "-m", "holdfast_runtime.app.cli", "store", "sweep", str(table), "--delete", "--json"]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe)
    try:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
        out, err = await process.communicate()
    except BaseException:
        with suppress(ProcessLookupError):
            process.kill()
        raise
    if process.returncode == 0:
        log.info("sweep.done", extra=json.loads(out))
    else:
        log.warning("sweep.failed", extra={"error": err.decode(errors="replace").strip()[-500:]})
