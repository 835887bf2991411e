"""What the owner of a shard does with requests, where the shard is lost under them."""

from __future__ import annotations

import asyncio
import gc

import pytest

from holdfast_runtime.adapters.memory import memory_store
from holdfast_runtime.coordinator import owner
from holdfast_runtime.coordinator.shard import Fenced
from holdfast_runtime.engine import model
from holdfast_runtime.engine.events import Arrive
from holdfast_runtime.engine.payload import input_entry
from tests.coordinator.replica import BOUND_S, SHARDS, Replica, addition


async def test_a_call_whose_shard_is_lost_before_it_is_durable_leaves_no_forgotten_waiter() -> None:
    replica = Replica(memory_store(SHARDS))
    await replica.start()
    forgotten: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: forgotten.append(context["message"]))
    try:
        async with asyncio.timeout(BOUND_S):
            while len(replica.node.shards) < SHARDS:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
        invocation = str(replica.coordinator.mint(addition("k", 1)))
        event = Arrive(invocation, ["Counter", "add", "k", "exclusive"], input_entry([], b"1"), 0, 0, [])
        shard = replica.node.shards[model.shard_of(invocation, SHARDS)]
        call = asyncio.create_task(owner.arrive(shard, event, wait=True))
        async with asyncio.timeout(BOUND_S):
            while not shard.waiters:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0)
        shard.fence("another owner, say")
        with pytest.raises(Fenced):
            await asyncio.wait_for(call, BOUND_S)
        del call
        gc.collect()
    finally:
        await replica.stop()
    assert forgotten == []
