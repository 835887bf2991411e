"""Several coordinators over one store, connected by real sockets: any takes any request, and one that leaves takes nothing with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from holdfast.protocol.ids import keyed_partition_key
from holdfast_runtime.adapters.memory import memory_store
from holdfast_runtime.engine.model import shard_of_key
from tests.coordinator.replica import BOUND_S, SHARDS, Replica


@asynccontextmanager
async def replicas(count: int) -> AsyncIterator[list[Replica]]:
    store = memory_store(SHARDS)
    started: list[Replica] = []
    try:
        for _ in range(count):
            replica = Replica(store)
            started.append(replica)
            await replica.start()
        yield started
    finally:
        for replica in started:
            await replica.stop()


async def spread(running: list[Replica]) -> None:
    """Until every replica owns some shard and all are owned."""
    async with asyncio.timeout(BOUND_S):
        while not (all(r.node.shards for r in running) and sum(len(r.node.shards) for r in running) == SHARDS):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_every_replica_serves_every_key() -> None:
    async with replicas(3) as running:
        await spread(running)
        for expected, replica in enumerate(running * 3, start=1):
            totals = await asyncio.gather(*(replica.add(f"key-{number}", 1) for number in range(20)))
            assert set(totals) == {expected}


async def test_a_replica_that_joins_and_one_that_leaves_under_load_lose_and_double_nothing() -> None:
    async with replicas(2) as running:
        await spread(running)
        acknowledged = dict.fromkeys((f"key-{number}" for number in range(12)), 0)
        done = asyncio.Event()

        async def load(key: str, replica: Replica) -> None:
            while not done.is_set():
                acknowledged[key] += 1
                assert await replica.add(key, 1) == acknowledged[key]

        tasks = [asyncio.create_task(load(key, running[0])) for key in acknowledged]
        third = Replica(running[0].node.store)
        running.append(third)
        await third.start()
        await spread(running)
        leaving = running.pop(1)
        await leaving.stop()
        await spread(running)
        done.set()
        await asyncio.wait_for(asyncio.gather(*tasks), BOUND_S)
        for key, count in acknowledged.items():
            assert await third.add(key, 0) == count > 0


async def test_a_request_that_waits_finds_the_new_owner_before_its_own_process_looks_again() -> None:
    async with replicas(3) as running:
        await spread(running)
        asked, leaving, _ = running
        key = next(f"key-{n}" for n in range(1000) if shard_of(f"key-{n}") in leaving.node.shards)
        assert await asked.add(key, 1) == 1
        for task in asked.node._tasks:
            task.cancel()  # its heartbeat: from now on it only learns what a request asks for
        await running.pop(1).stop()
        assert await asyncio.wait_for(asked.add(key, 1), BOUND_S) == 2


def shard_of(key: str) -> int:
    return shard_of_key(keyed_partition_key(key), SHARDS)
