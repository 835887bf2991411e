"""Several coordinators over one store, connected by real sockets: any takes any request, and one that leaves takes nothing with it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import holdfast
from holdfast.endpoint import Endpoint as SdkEndpoint
from holdfast_runtime.adapters.endpoints import Endpoints
from holdfast_runtime.adapters.memory import memory_store
from holdfast_runtime.adapters.peers import PeerNetwork, PeerServer, cluster_secret
from holdfast_runtime.adapters.system import SystemClock, SystemEntropy
from holdfast_runtime.coordinator.coordinator import Coordinator
from holdfast_runtime.coordinator.deployments import Deployments
from holdfast_runtime.coordinator.front import NewInvocation, Success, Target
from holdfast_runtime.coordinator.node import Node
from holdfast_runtime.coordinator.settings import Settings
from holdfast_runtime.ports.store import Store

SHARDS = 8
BOUND_S = 60.0
SETTINGS = Settings(heartbeat_s=0.1, take_interval_s=0.0)

counter = holdfast.VirtualObject("Counter")


@counter.handler()
async def add(ctx: holdfast.ObjectContext, by: int) -> int:
    total = (await ctx.get("total", int) or 0) + by
    ctx.set("total", total)
    return total


class Replica:
    """One coordinator process, but for the process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ending = AsyncExitStack()
        self.node: Node
        self.coordinator: Coordinator

    async def start(self) -> None:
        clock, entropy = SystemClock(), SystemEntropy()
        endpoints = Endpoints(clock)
        self._ending.push_async_callback(endpoints.close)
        endpoints.in_process.register("app", SdkEndpoint([counter]).handle)
        deployments = Deployments(self._store.registry, endpoints, clock, entropy)
        await deployments.load()
        secret = await cluster_secret(self._store.registry, entropy)
        bound = socket.create_server(("127.0.0.1", 0))
        network = PeerNetwork(secret, entropy)
        self._ending.push_async_callback(network.close)
        self.node = Node(
            store=self._store,
            endpoint=endpoints,
            clock=clock,
            entropy=entropy,
            registry=lambda: deployments.view,
            settings=SETTINGS,
            peers=network,
            address=f"127.0.0.1:{bound.getsockname()[1]}",
        )
        server = PeerServer(secret, entropy, self.node.serve_peer)
        await server.start(bound)
        self._ending.push_async_callback(server.close)
        self.coordinator = Coordinator(self.node, deployments)
        await deployments.register_in_process("app")
        self._ending.push_async_callback(self.node.stop)
        await self.node.start()
        await self.node.until_ready(timeout_s=BOUND_S)

    async def stop(self) -> None:
        await self._ending.aclose()

    async def add(self, key: str, by: int) -> int:
        request = NewInvocation(Target("Counter", "add", key), str(by).encode(), [("content-type", "application/json")])
        outcome = await self.coordinator.call(self.coordinator.mint(request), request)
        assert isinstance(outcome, Success), outcome
        return int(outcome.value)


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
