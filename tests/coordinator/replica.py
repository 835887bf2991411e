"""A whole coordinator, but for the process: several of them share one store and reach each other over real sockets."""

from __future__ import annotations

import socket
from contextlib import AsyncExitStack

import holdfast
from holdfast.endpoint import Endpoint as SdkEndpoint
from holdfast_runtime.adapters.endpoints import Endpoints
from holdfast_runtime.adapters.peers import PeerNetwork, PeerServer, cluster_secret
from holdfast_runtime.adapters.system import SystemClock, SystemEntropy
from holdfast_runtime.coordinator.coordinator import Coordinator
from holdfast_runtime.coordinator.deployments import Deployments
from holdfast_runtime.coordinator.front import NewInvocation, Success, Target
from holdfast_runtime.coordinator.node import Node
from holdfast_runtime.coordinator.settings import Settings
from holdfast_runtime.ports.store import Store
from holdfast_runtime.ports.system import Clock
from holdfast_runtime.ports.wakeups import Wakeups

SHARDS = 48  # so many that it does not happen that one of three replicas gets none
BOUND_S = 240.0
SETTINGS = Settings(heartbeat_s=0.1, take_interval_s=0.0)

counter = holdfast.VirtualObject("Counter")


@counter.handler()
async def add(ctx: holdfast.ObjectContext, by: int) -> int:
    total = (await ctx.get("total", int) or 0) + by
    ctx.set("total", total)
    return total


class Replica:
    """One coordinator process, but for the process."""

    def __init__(self, store: Store, *, clock: Clock | None = None, wakeups: Wakeups | None = None) -> None:
        self._store = store
        self._clock = clock or SystemClock()
        self._wakeups = wakeups
        self._ending = AsyncExitStack()
        self.node: Node
        self.coordinator: Coordinator

    async def start(self) -> None:
        clock, entropy = self._clock, SystemEntropy()
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
            wakeups=self._wakeups,
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
        request = addition(key, by)
        outcome = await self.coordinator.call(self.coordinator.mint(request), request)
        assert isinstance(outcome, Success), outcome
        return int(outcome.value)


def addition(key: str, by: int, *, delay_ms: int | None = None) -> NewInvocation:
    return NewInvocation(Target("Counter", "add", key), str(by).encode(), [("content-type", "application/json")], delay_ms=delay_ms)
