"""A simulated process: one real `Node` with its real `Coordinator`, on a clock, a generator, a store, a network and an endpoint of the
world."""

from __future__ import annotations

import asyncio
from contextvars import Context, copy_context
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from holdfast.protocol import frames, messages
from holdfast.protocol.messages import MessageType as M
from holdfast.protocol.versions import content_type
from holdfast_runtime.coordinator.coordinator import Coordinator
from holdfast_runtime.coordinator.node import Node
from holdfast_runtime.engine import model
from holdfast_runtime.engine.registry import InProcessAddress, RegistryView
from holdfast_runtime.ports.endpoint import Address, EndpointFailure, EndpointRequest, EndpointResponse, Refusal
from holdfast_runtime.ports.store import StoreUnavailable

from .deployed import DEPLOYMENT, EPOCH_MS, VIEW
from .handlers import Run
from .loop import PROCESS, SimProcess
from .network import SimPeers, SimWakeups

if TYPE_CHECKING:
    from .world import World

__all__ = ["DEPLOYMENT", "EPOCH_MS", "VIEW", "Process", "run"]


class SimClock:
    def __init__(self, world: World, skew_ms: int) -> None:
        self._loop = world.loop
        self.skew_ms = skew_ms

    def now_ms(self) -> int:
        return EPOCH_MS + self.skew_ms + int(self._loop.time() * 1000)

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class SimEntropy:
    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def fraction(self) -> float:
        return self._random.random()


class Process(SimProcess):
    """`connections`: callers that wait for an answer of this process; they see the connection break when it dies."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(name)
        self.world = world
        self.clock = SimClock(world, world.random.choice(world.skews))
        self.context: Context = copy_context()
        self.context.run(PROCESS.set, self)
        self.connections: dict[int, asyncio.Future[Any]] = {}
        self.stopping = False
        self.view = world.view
        self._connected = 0
        self.node: Node = Node(
            store=world.store.ports,
            endpoint=SimEndpoint(world),
            clock=self.clock,
            entropy=SimEntropy(world.random.randrange(1 << 60)),
            registry=lambda: self.view,
            settings=world.settings,
            peers=SimPeers(world),
            address=name,
            wakeups=SimWakeups(world, world.operators.chance) if world.operated else None,
        )
        self.coordinator = Coordinator(self.node, Registered(self))  # type: ignore[arg-type]
        world.loop.create_task(self._start(), context=self.context.copy())

    async def _start(self) -> None:
        while True:
            try:
                await self.node.start()
                return
            except StoreUnavailable:
                await asyncio.sleep(0.2)

    def connect(self, answer: asyncio.Future[Any]) -> int:
        """Somebody waits for an answer of this process; the number of the connection."""
        self._connected += 1
        self.connections[self._connected] = answer
        return self._connected

    def learn(self, view: RegistryView) -> None:
        """It has looked at the registry."""
        if view.version > self.view.version:
            self.view = view

    def serves(self) -> bool:
        return self.alive and not self.stopping


@dataclass(frozen=True, slots=True)
class Registered:
    process: Process

    @property
    def view(self) -> RegistryView:
        return self.process.view


class SimEndpoint:
    """Runs handlers in the world: what a process asked for happens whether or not the process lives to see the answer."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def request(self, address: Address, request: EndpointRequest, *, timeout_s: float) -> EndpointResponse:
        world, loop, random = self._world, self._world.loop, self._world.random
        invocation = request.headers["x-restate-invocation-id"]
        number = model.shard_of(invocation, world.shards)
        world.oracle.acts(PROCESS.get(), number)
        assert isinstance(address, InProcessAddress)
        exchange = world.sends(PROCESS.get(), number, invocation, address.name)
        answer: asyncio.Future[EndpointResponse] = loop.create_future()
        loop.call_later(0.001 + random.random() * 0.03, self._arrive, request, answer, context=world.context)
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise EndpointFailure(f"no answer within {timeout_s} s", code=504) from None
        finally:
            world.exchanges[exchange] -= 1

    async def close(self) -> None:
        return

    def _arrive(self, request: EndpointRequest, answer: asyncio.Future[EndpointResponse]) -> None:
        world, random = self._world, self._world.random
        fate = random.random() / world.fault_rate if world.fault_rate else 1.0
        if fate < 0.05:
            world.count("endpoint refused")
            self._later(answer, _refused(random))
            return
        if fate < 0.08:
            world.count("endpoint answered 500")
            self._later(answer, EndpointResponse(500, {}, b"no"))
            return
        body = world.attempt(request)
        broken = None
        if world.sick and world.operators.chance.random() < 0.6:
            fate = 0.1  # as while a broken version is deployed
        if fate < 0.13:
            world.count("handler failed")
            body = _failing(body, random)
        elif fate < 0.18:
            world.count("response was cut")
            body, broken = body[: random.randrange(len(body) + 1)], "the connection was lost"
        elif fate < 0.23:
            world.count("response was lost")
            return
        delay = random.choice([0.5, 3.0, 8.0]) if fate < 0.4 else 0.0
        if delay:
            world.count("response was late")
        self._later(answer, EndpointResponse(200, {"content-type": request.headers["content-type"]}, body, broken), delay)

    def _later(self, answer: asyncio.Future[EndpointResponse], outcome: EndpointResponse | EndpointFailure, delay: float = 0.0) -> None:
        loop = self._world.loop
        loop.call_later(delay + 0.001 + self._world.random.random() * 0.01, _set, answer, outcome, context=self._world.context)


def _set(answer: asyncio.Future[EndpointResponse], outcome: EndpointResponse | EndpointFailure) -> None:
    if answer.done():
        return
    if isinstance(outcome, EndpointFailure):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)


def _refused(random: Random) -> EndpointFailure:
    """By a platform at its limit or in trouble, or a failed attempt."""
    refusal = random.choice([Refusal.LIMIT, Refusal.TROUBLE, None, None])
    return EndpointFailure("refused", code=503, refusal=refusal)


def _failing(body: bytes, random: Random) -> bytes:
    """Some of the new commands, then an Error."""
    new = list(frames.split(body))[:-1]
    kept = new[: random.randint(0, len(new))]
    error = messages.Error(code=500, message="failed")
    if random.random() < 0.3:
        error.next_retry_delay = random.choice([0, 300])
    return b"".join([*map(frames.raw, kept), frames.encode(M.ERROR, error.SerializeToString())])


def run(request: EndpointRequest, *, now_ms: int, unique: Any) -> Run:
    assert request.headers["content-type"] == content_type(6)
    return Run(request.body, now_ms=now_ms, unique=unique)
