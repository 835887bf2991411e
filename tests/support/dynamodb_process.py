"""One coordinator over a table, with handlers in this process and a meter, without the surfaces: for costs and benchmarks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from holdfast_runtime.adapters.dynamodb import DynamoDbStore, open_dynamodb_store
from holdfast_runtime.adapters.dynamodb_client import Meter, Patience
from holdfast_runtime.adapters.dynamodb_table import DynamoDbTable
from holdfast_runtime.adapters.endpoints import Endpoints
from holdfast_runtime.adapters.in_process import Handle
from holdfast_runtime.adapters.system import SystemClock, SystemEntropy
from holdfast_runtime.coordinator.coordinator import Coordinator
from holdfast_runtime.coordinator.deployments import Deployments
from holdfast_runtime.coordinator.front import NewInvocation, Success, Target
from holdfast_runtime.coordinator.node import Node
from holdfast_runtime.coordinator.registry_document import default_settings
from holdfast_runtime.coordinator.settings import Settings
from holdfast_runtime.ports.store import Log, LogItem
from holdfast_runtime.ports.system import Clock
from tests.support.dynamodb import PATIENCE

SERVICE: Final = "Bench"  # of bench.services.own
HEADERS: Final = (("x-restate-ingress-path", "/Bench"), ("content-type", "application/json"))
START_S: Final = 60.0


class SlowLog:
    """Appends take `delay_s` longer, as with the service a network away."""

    def __init__(self, log: Log, delay_s: float) -> None:
        self._log = log
        self._delay_s = delay_s
        self.read = log.read

    async def put(self, shard: int, item: LogItem) -> LogItem | None:
        await asyncio.sleep(self._delay_s)
        return await self._log.put(shard, item)


class Metered:
    """`call` or `send`, then `stop`; `meter` has what the table was asked for, and `forget` sets it to nothing."""

    def __init__(self, opened: DynamoDbStore, meter: Meter, endpoints: Endpoints, deployments: Deployments, node: Node) -> None:
        self._opened = opened
        self._endpoints = endpoints
        self.meter = meter
        self.node = node
        self.coordinator = Coordinator(node, deployments)

    async def call(self, service: str, handler: str, body: bytes = b"", *, key: str | None = None) -> bytes:
        invocation = NewInvocation(Target(service, handler, key), body, HEADERS)
        outcome = await self.coordinator.call(self.coordinator.mint(invocation), invocation)
        assert isinstance(outcome, Success), outcome
        return outcome.value

    async def send(self, service: str, handler: str, body: bytes = b"") -> None:
        invocation = NewInvocation(Target(service, handler, None), body, HEADERS)
        await self.coordinator.send(self.coordinator.mint(invocation), invocation)

    def forget(self) -> None:
        self.meter.calls.clear()
        self.meter.units.clear()

    def written(self, kind: str) -> float:
        """Write units of items of that kind since `forget`; of all pages for "page"."""
        return sum(units for (name, of), units in self.meter.units.items() if name == "PutItem" and of.partition(" ")[0] == kind)

    async def stop(self) -> None:
        """Hand over: everything is flushed."""
        await self.node.stop()
        await self._endpoints.close()
        await self._opened.close()


async def started(
    table: str,
    handlers: Mapping[str, Handle],
    *,
    retained: bool = True,
    settings: Settings | None = None,
    append_delay_s: float = 0.0,
    clock: Clock | None = None,
    patience: Patience = PATIENCE,
) -> Metered:
    """Ready when it owns every shard. retained: finished invocations are kept for a day, which is the default."""
    settings = settings or Settings(take_interval_s=0.0)
    if not retained:
        settings = replace(settings, default_journal_retention_ms=0, default_idempotency_retention_ms=0)
    meter, clock, entropy = Meter(), clock or SystemClock(), SystemEntropy()
    opened = await open_dynamodb_store(DynamoDbTable(table), clock=clock, entropy=entropy, meter=meter, patience=patience)
    store = replace(opened.store, log=SlowLog(opened.store.log, append_delay_s)) if append_delay_s else opened.store
    endpoints = Endpoints(clock)
    for name, handle in handlers.items():
        endpoints.in_process.register(name, handle)
    deployments = Deployments(store.registry, endpoints, clock, entropy, default_settings(settings))
    await deployments.load()
    node = Node(store=store, endpoint=endpoints, clock=clock, entropy=entropy, registry=lambda: deployments.view, settings=settings)
    for name in handlers:
        await deployments.register_in_process(name)
    await node.start()
    async with asyncio.timeout(START_S):
        while len(node.shards) < store.shards:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    return Metered(opened, meter, endpoints, deployments, node)
