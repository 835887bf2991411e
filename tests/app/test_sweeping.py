"""When sweeps happen, and one in a process of its own on a table (what a sweep does: tests/contract/test_blob_sweep.py)."""

from __future__ import annotations

import asyncio
import logging

import pytest

from holdfast_runtime.adapters.dynamodb import open_dynamodb_store
from holdfast_runtime.adapters.dynamodb_table import DynamoDbTable
from holdfast_runtime.adapters.memory import MemoryRegistry
from holdfast_runtime.app.sweeping import WeeklySweep, in_a_process
from tests.contract.test_blob_sweep import Shifted
from tests.coordinator.virtual import LoopClock, in_virtual_time
from tests.support.dynamodb import aws as aws
from tests.support.dynamodb import dynamodb_url as dynamodb_url
from tests.support.dynamodb import new_table_name, set_up

DAY_S = 86_400.0


@in_virtual_time
async def test_once_a_week_by_the_owner_of_the_first_shard_whoever_that_is() -> None:
    registry, clock, swept = MemoryRegistry(), LoopClock(), list[tuple[str, float]]()
    owned = {"a": {0, 1}, "b": {2, 3}}

    def process(name: str) -> asyncio.Task[None]:
        async def sweep() -> None:
            swept.append((name, asyncio.get_running_loop().time()))

        return asyncio.create_task(WeeklySweep(registry, lambda: owned[name], clock, sweep).run())

    running = [process("a"), process("a"), process("b")]  # the second stands for one that has lost the shard and not seen it yet
    await asyncio.sleep(DAY_S)
    owned["a"], owned["b"] = {2, 3}, {0, 1}
    await asyncio.sleep(13 * DAY_S)
    for task in running:
        task.cancel()
    assert [name for name, _ in swept] == ["a", "b"]
    assert 7 * DAY_S <= swept[1][1] - swept[0][1] <= 7 * DAY_S + 2 * 3_600


async def test_one_on_a_table_in_a_process_of_its_own(aws: None, caplog: pytest.LogCaptureFixture) -> None:
    table, long_ago = DynamoDbTable(new_table_name()), Shifted()
    set_up(table.name, 2)
    long_ago.days = -20
    held = await open_dynamodb_store(table, clock=long_ago)
    try:
        await held.store.blobs.put("inv_1/0123", b"nobody's" * 5_000)
    finally:
        await held.close()
    with caplog.at_level(logging.INFO, logger="holdfast.sweep"):
        await in_a_process(table)
        await in_a_process(DynamoDbTable("there-is-none"))
    done, failed = caplog.records
    assert (done.message, vars(done)["candidates"], vars(done)["condemned"]) == ("sweep.done", 1, 1)
    assert failed.message == "sweep.failed"
    assert "holdfast store init" in vars(failed)["error"]
