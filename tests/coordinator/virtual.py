"""A real coordinator over the memory store, in virtual time: deployments that are told what to answer, and nothing that waits.

@in_virtual_time
async def test_something() -> None:
    world = await World.start(...)
    await asyncio.sleep(3600)       # an hour passes at once
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from holdfast.protocol import frames, messages
from holdfast.protocol.ids import InvocationId
from holdfast.protocol.messages import MessageType as M
from holdfast_runtime.adapters.memory import memory_store
from holdfast_runtime.coordinator.coordinator import Coordinator
from holdfast_runtime.coordinator.deployments import Deployments
from holdfast_runtime.coordinator.front import NewInvocation, NotFound, Outcome, RegisterDeployment, Scan, Target
from holdfast_runtime.coordinator.node import Node
from holdfast_runtime.coordinator.registry_document import default_settings
from holdfast_runtime.coordinator.settings import Settings
from holdfast_runtime.engine.registry import Address, HttpAddress
from holdfast_runtime.ports.endpoint import EndpointFailure, EndpointRequest, EndpointResponse
from holdfast_runtime.ports.store import Store
from tests.simulation.loop import SimLoop, running

EPOCH_MS = 1_800_000_000_000
A_YEAR_S = 365 * 86_400.0

Frame = tuple[int, Any]
Answer = Sequence[Frame] | EndpointResponse | EndpointFailure


def in_virtual_time(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    @functools.wraps(test)
    def run() -> None:
        loop = SimLoop()  # type: ignore[abstract]
        with running(loop):
            task = loop.create_task(test())
            task.add_done_callback(lambda _: setattr(loop, "stopped", True))
            loop.run_until(A_YEAR_S)
            assert task.done(), "the test waits for something that does not happen"
            task.result()

    del run.__wrapped__  # pytest would look at it and find a coroutine
    return run


class LoopClock:
    def now_ms(self) -> int:
        return EPOCH_MS + round(asyncio.get_running_loop().time() * 1000)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class NoJitter:
    """Delays are exactly what the policy says."""

    def __init__(self) -> None:
        self._random = Random(1)

    def bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def fraction(self) -> float:
        return 0.0


@dataclass(frozen=True)
class Attempt:
    """One request to a handler. at_s: virtual second. journal: types of the entries it was given."""

    at_s: float
    uri: str
    path: str
    timeout_s: float
    start: Any
    journal: Sequence[str]
    entries: Sequence[Any]


@dataclass
class Endpoint:
    """manifests: uri -> what is served there. answer: what a handler does with an attempt; attempts: all there were."""

    manifests: dict[str, Mapping[str, Any]]
    answer: Callable[[Attempt], Answer]
    attempts: list[Attempt] = field(default_factory=list)

    async def request(self, address: Address, request: EndpointRequest, *, timeout_s: float) -> EndpointResponse:
        assert isinstance(address, HttpAddress)
        if request.path == "/discover":
            content = json.dumps(self.manifests[address.uri]).encode()
            return EndpointResponse(200, {"content-type": "application/vnd.restate.endpointmanifest.v4+json"}, content)
        entries = list(frames.split(request.body))
        given = [messages.parse(frame.type, frame.body) for frame in entries]
        now, types = asyncio.get_running_loop().time(), [M(frame.type).name for frame in entries[1:]]
        attempt = Attempt(now, address.uri, request.path, timeout_s, given[0], types, given[1:])
        self.attempts.append(attempt)
        answer = self.answer(attempt)
        if isinstance(answer, EndpointFailure):
            raise answer
        if isinstance(answer, EndpointResponse):
            return answer
        body = b"".join(frames.encode(type_, message.SerializeToString()) for type_, message in answer)
        return EndpointResponse(200, {"content-type": request.headers["content-type"]}, body)

    async def close(self) -> None:
        return


FIRST, SECOND = "http://first/", "http://second/"


class World:
    """One coordinator; its `front` is what the surfaces see."""

    def __init__(self, manifest: Mapping[str, Any], answer: Callable[[Attempt], Answer], settings: Settings, store: Store) -> None:
        clock, entropy = LoopClock(), NoJitter()
        self.endpoint = Endpoint({FIRST: manifest}, answer)
        self.deployments = Deployments(store.registry, self.endpoint, clock, entropy, default_settings(settings), resolver=_nobody)
        self.node = Node(
            store=store, endpoint=self.endpoint, clock=clock, entropy=entropy, registry=lambda: self.deployments.view, settings=settings
        )
        self.front = Coordinator(self.node, self.deployments)

    @classmethod
    async def start(
        cls,
        manifest: Mapping[str, Any],
        answer: Callable[[Attempt], Answer],
        settings: Settings | None = None,
        store: Store | None = None,
    ) -> World:
        world = cls(manifest, answer, settings or Settings(exclusive_store=True), store or memory_store(2))
        await world.register(FIRST)
        await world.node.start()
        await world.node.until_ready(60.0)
        return world

    async def register(self, uri: str, manifest: Mapping[str, Any] | None = None) -> str:
        """The deployment's id."""
        if manifest is not None:
            self.endpoint.manifests[uri] = manifest
        return (await self.front.register(RegisterDeployment(uri=uri))).deployment.id

    async def send(self, handler: str = "Greeter/greet", *, key: str | None = None, idempotency_key: str | None = None) -> InvocationId:
        service, _, name = handler.partition("/")
        invocation = NewInvocation(Target(service, name, key), b"in", [], idempotency_key)
        invocation_id = self.front.mint(invocation)
        await self.front.send(invocation_id, invocation)
        return invocation_id

    async def result(self, invocation_id: InvocationId) -> Outcome | NotFound:
        return await self.front.attach(invocation_id)

    async def row(self, invocation_id: InvocationId, *columns: str) -> list[Any] | None:
        """Of SQL introspection; None: there is none."""
        scanned = await self.front.scan(Scan("invocations", columns, {"id": [str(invocation_id)]}))
        return list(scanned.rows[0]) if scanned.rows else None

    async def until(self, invocation_id: InvocationId, status: str) -> None:
        while await self.row(invocation_id, "status") != [status]:
            await self.node.clock.sleep(0.01)

    def instants(self) -> list[float]:
        """When attempts began, since the first."""
        first = self.endpoint.attempts[0].at_s
        return [round(attempt.at_s - first, 3) for attempt in self.endpoint.attempts]


async def _nobody(host: str) -> list[str]:
    return []


# ---- What handlers answer


def serves(
    *handlers: Mapping[str, Any], name: str = "Greeter", low: int = 5, high: int = 6, ty: str = "SERVICE", **more: Any
) -> dict[str, Any]:
    """A manifest with one service."""
    service = {"name": name, "ty": ty, "handlers": list(handlers or [{"name": "greet"}]), **more}
    return {"protocolMode": "REQUEST_RESPONSE", "minProtocolVersion": low, "maxProtocolVersion": high, "services": [service]}


def done(value: bytes = b"out") -> list[Frame]:
    return [(M.OUTPUT_COMMAND, messages.OutputCommand(value=messages.Value(content=value))), (M.END, messages.End())]


def failed(message: str = "no", *, code: int = 500, delay_ms: int | None = None) -> list[Frame]:
    error = messages.Error(code=code, message=message)
    if delay_ms is not None:
        error.next_retry_delay = delay_ms
    return [(M.ERROR, error)]


def runs(completion_id: int) -> list[Frame]:
    """A side effect that is done and recorded."""
    proposal = messages.ProposeRunCompletion(result_completion_id=completion_id, value=b"ran")
    return [(M.RUN_COMMAND, messages.RunCommand(result_completion_id=completion_id)), (M.PROPOSE_RUN_COMPLETION, proposal)]


def waits(*completion_ids: int, names: Sequence[str] = ()) -> list[Frame]:
    return [(M.SUSPENSION, messages.Suspension(waiting_completions=completion_ids, waiting_named_signals=names))]


def sleeps(completion_id: int, seconds: float) -> list[Frame]:
    at = EPOCH_MS + round((asyncio.get_running_loop().time() + seconds) * 1000)
    return [(M.SLEEP_COMMAND, messages.SleepCommand(wake_up_time=at, result_completion_id=completion_id)), *waits(completion_id)]
