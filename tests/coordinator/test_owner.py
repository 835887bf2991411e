"""What the owner of a shard does with requests, where the shard is lost under them."""

from __future__ import annotations

import asyncio
import gc

import pytest

from holdfast.protocol.ids import InvocationId
from holdfast_runtime.adapters.memory import memory_store
from holdfast_runtime.coordinator import owner, requests
from holdfast_runtime.coordinator.shard import Fenced
from holdfast_runtime.engine import model
from holdfast_runtime.engine.events import Arrive, Restart, Verb
from holdfast_runtime.engine.payload import input_entry, success
from holdfast_runtime.ports.store import LogItem
from tests.coordinator.replica import BOUND_S, SHARDS, Replica, addition

UNKNOWN = str(InvocationId(bytes(24)))
EFFECTLESS = {
    "signal": requests.signal(UNKNOWN, 17, success(b"yes")),
    "cancel": requests.operate(Verb.CANCEL, UNKNOWN, b"once"),
    "restart": requests.restart(Restart(UNKNOWN, str(InvocationId(bytes(23) + b"1")), b"once", 0)),
    "edit of another state": {"ask": "edit", "service": "Counter", "key": "k", "values": [], "expected": "another"},
}


@pytest.mark.parametrize("what", EFFECTLESS)
async def test_an_owner_that_was_overtaken_and_does_not_know_it_acknowledges_nothing(what: str) -> None:
    """It may tell what it knows, for as long as its lease is fresh; that there is nothing to do it must prove by a write."""
    store = memory_store(1)
    replica = Replica(store)
    await replica.start()
    try:
        shard = replica.node.shards[0]
        seal = LogItem(shard.open, shard.epoch + 1, b"another owner", shard.open, 0, 1, b"")
        assert await store.log.put(0, seal) is None
        with pytest.raises(Fenced):
            await asyncio.wait_for(owner.serve(shard, EFFECTLESS[what]), BOUND_S)
    finally:
        await replica.stop()


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
