"""The real coordinator, in memory, beside the test: a loop of its own for it, the test's loop for the handlers.

Rules: the coordinator runs in a `VirtualLoop` and touches nothing outside but handlers; handlers run as ordinary tasks of the test's own
event loop (plain ones in threads), so whatever they use works: sockets, aiohttp, boto3 under moto. Therefore the system is idle exactly
when the virtual loop has nothing ready and no handler is running; there is nothing to guess. Time moves only then, only while
somebody waits for a result or for time to pass, and it moves straight to the next timer that counts.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from holdfast.testing._loop import SeededEntropy, VirtualClock, VirtualLoop
from holdfast.testing.errors import OutOfPatience
from holdfast_runtime.adapters.memory import memory_store
from holdfast_runtime.coordinator.coordinator import Coordinator
from holdfast_runtime.coordinator.deployments import Deployments
from holdfast_runtime.coordinator.node import Node
from holdfast_runtime.coordinator.settings import Settings
from holdfast_runtime.ports.endpoint import Address, EndpointFailure, EndpointRequest, EndpointResponse
from holdfast_runtime.ports.store import LogItem

T = TypeVar("T")

NAME: Final = "tests"  # of the deployment
# Nobody competes for the store, and a jump of thirty days must not look like a process that slept for thirty days.
SETTINGS: Final = Settings(
    exclusive_store=True,
    lease_s=math.inf,
    timer_horizon_s=200 * 365 * 86_400.0,  # every timer is near: a jump ends at the next one, whenever that is
    memory_limit_bytes=1 << 30,
    log_limit_bytes=1 << 30,
)
READY_S: Final = 3_600.0
MAX_JUMPS: Final = 100_000  # to timers, for one result: a service that wakes itself for ever must not hang a test
REST: Final = 2  # rounds of the test's loop before time moves, so that the test's own ready tasks come first


class Served(Protocol):
    """What runs handlers. Raises EndpointFailure, and Crash for an exchange that the coordinator does not survive."""

    async def request(self, request: EndpointRequest, *, timeout_s: float) -> EndpointResponse: ...


class Nothing(Exception):
    """Nothing can happen any more, and somebody waits."""


@dataclass(eq=False)
class Crash(Exception):
    """Raised by a handler's exchange: the coordinator dies. `response`: what it stores before; None: it never got it."""

    response: EndpointResponse | None


@dataclass(eq=False, slots=True)
class _Request(Generic[T]):
    """Something the test wants of the coordinator; asked again of the next one when this one dies."""

    work: Callable[[Process, bool], Coroutine[Any, Any, T]]  # the process to ask, and whether an earlier one was asked before
    answer: asyncio.Future[T]
    moves_time: bool
    asked: bool = False
    waiting: bool = False  # given to the process that lives now
    jumps: int = 0


@dataclass(eq=False, slots=True)
class _Until:
    """Somebody waits until the system is idle at `at_ms`."""

    at_ms: int
    reached: asyncio.Future[None]


@dataclass(frozen=True, eq=False, slots=True)
class _Flight:
    """A handler that runs, and the coordinator that waits for it."""

    handler: str
    process: Process
    answer: asyncio.Future[EndpointResponse]


class Process:
    """One life of the coordinator, over the store that outlives it."""

    def __init__(self, engine: Engine) -> None:
        self.loop = VirtualLoop(engine.clock)  # type: ignore[abstract]  # what it lacks needs an outside
        self.deployments = Deployments(engine.store.registry, engine, engine.clock, engine.entropy)
        self.node = Node(
            store=engine.store,
            endpoint=engine,
            clock=engine.clock,
            entropy=engine.entropy,
            registry=lambda: self.deployments.view,
            settings=SETTINGS,
        )
        self.coordinator = Coordinator(self.node, self.deployments)
        self._known = -1  # version of the handlers that is registered
        self._engine = engine
        self._ready = self.loop.create_task(self._start())

    async def _start(self) -> None:
        await self.deployments.load()
        await self.node.start()
        await self.node.until_ready(READY_S)

    async def ready(self) -> None:
        """Started, with the handlers as they are now registered. Raises RegistrationError."""
        await asyncio.shield(self._ready)
        version = self._engine.handlers_version
        if self._known != version:
            await self.deployments.register_in_process(NAME)
            self._known = version

    def next_due_ms(self) -> int | None:
        """When the first durable timer or retry is due."""
        due = [shard.timers.next_due_ms() for shard in self.node.shards.values()]
        return min((at for at in due if at is not None), default=None)


class Engine:
    """Coordinator, store and clock. It implements the coordinator's `Endpoint` port: attempts leave the virtual loop here."""

    def __init__(self, served: Served, *, shards: int, start_ms: int, seed: int, patience_s: float) -> None:
        self.clock = VirtualClock(start_ms)
        self.entropy = SeededEntropy(seed)
        self.store = memory_store(shards)
        self.handlers_version = 0  # raised when the set of handlers changes
        self.closed = False
        self.after_attempt: Callable[[], None] = lambda: None  # called in the test's loop whenever a handler's attempt is over
        self._served = served
        self._patience_s = patience_s
        self._process: Process | None = None
        self._graves: list[VirtualLoop] = []
        self._requests: list[_Request[Any]] = []
        self._untils: list[_Until] = []
        self._running: dict[asyncio.Task[EndpointResponse], _Flight] = {}
        self._real: asyncio.AbstractEventLoop | None = None
        self._context: Context | None = None
        self._scheduled = False
        self._rested = 0
        self._ended_attempts = 0
        self._dies_after_put: EndpointResponse | None = None
        self._put = self.store.log.put
        self.store.log.put = self._put_and_die  # type: ignore[method-assign]

    # ---- For the test

    async def ask(self, work: Callable[[Process, bool], Coroutine[Any, Any, T]], *, moves_time: bool = False) -> T:
        """Have the coordinator do something. moves_time: time jumps from timer to timer until it is done.

        Raises what `work` raises, Nothing, OutOfPatience.
        """
        loop = self._attach()
        request = _Request(work, loop.create_future(), moves_time)
        self._requests.append(request)
        try:
            return await self._patiently(request.answer)
        finally:
            if request in self._requests:
                self._requests.remove(request)

    async def until(self, at_ms: int) -> None:
        """Return when everything that happens up to `at_ms` has happened."""
        loop = self._attach()
        until = _Until(at_ms, loop.create_future())
        self._untils.append(until)
        try:
            await self._patiently(until.reached)
        finally:
            if until in self._untils:
                self._untils.remove(until)

    async def _patiently(self, answer: asyncio.Future[T]) -> T:
        loop = asyncio.get_running_loop()
        self._rested = 0
        self._kick()
        alarm = loop.call_later(self._patience_s, self._give_up, answer, self._ended_attempts)
        try:
            return await answer
        finally:
            alarm.cancel()

    def _give_up(self, answer: asyncio.Future[Any], seen: int) -> None:
        """`seen`: attempts that had ended when the alarm was set."""
        if answer.done():
            return
        if self._ended_attempts > seen and self._real is not None:
            self._real.call_later(self._patience_s, self._give_up, answer, self._ended_attempts)
            return
        busy = ", ".join(sorted(flight.handler for flight in self._running.values())) or "none"
        text = f"nothing has ended in {self._patience_s:g} s of real time; handlers that are running: {busy}."
        hint = "Time stands still while a handler runs: does one wait for something outside, or for the test?"
        answer.set_exception(OutOfPatience(f"{text} {hint}"))

    def fail(self, error: BaseException) -> None:
        """End every wait for a result with `error`."""
        for request in self._requests:
            if request.moves_time and not request.answer.done():
                request.answer.set_exception(error)
        for until in self._untils:
            if not until.reached.done():
                until.reached.set_exception(error)

    def end(self) -> None:
        """End everything; handlers that still run are cancelled."""
        self.closed = True
        for task in self._running:
            if not task.get_loop().is_closed():
                task.cancel()
        self._running.clear()
        if self._process is not None:
            self._graves.append(self._process.loop)
            self._process = None
        for loop in self._graves:
            loop.close()

    def _attach(self) -> asyncio.AbstractEventLoop:
        """From now on handlers run in the loop of the caller."""
        if self.closed:
            raise RuntimeError("this test runtime is closed; use it inside its `with` block, or as a fixture of the same test")
        loop = asyncio.get_running_loop()
        if loop is not self._real:
            self._scheduled = False
            for task in [task for task in self._running if task.get_loop() is not loop]:
                flight = self._running.pop(task)
                if flight.process is self._process:  # the handler is gone with its loop, as with a process
                    flight.answer.set_exception(EndpointFailure("the event loop of the handler has ended", error_code="RT0006"))
            self._real = loop
        self._context = copy_context()
        return loop

    # ---- Turning

    def _kick(self) -> None:
        if not self._scheduled and self._real is not None and not self.closed:
            self._scheduled = True
            self._real.call_soon(self._pump)

    def _pump(self) -> None:
        self._scheduled = False
        if self.closed:
            return
        try:
            self._play()
            if not self._running and self._anybody_waits():
                if self._rested < REST:
                    self._rested += 1
                    self._kick()
                else:
                    self._idle()
        except Exception as error:  # a bug of ours: the test must hear of it instead of waiting
            self._fail_all(error)

    def _play(self) -> None:
        """Everything that can happen without handlers or time."""
        while True:
            if self._process is None:
                self._process = Process(self)
                for request in self._requests:
                    request.waiting = False
            process = self._process
            for request in self._requests:
                if not request.waiting and not request.answer.done():
                    request.waiting = True
                    process.loop.create_task(self._serve(process, request))
            process.loop.play()
            if self._process is process:
                return

    async def _serve(self, process: Process, request: _Request[Any]) -> None:
        repeated, request.asked = request.asked, True
        try:
            await process.ready()
            answer = await request.work(process, repeated)
        except Exception as error:
            if not request.answer.done():
                request.answer.set_exception(error)
        else:
            if not request.answer.done():
                request.answer.set_result(answer)

    def _anybody_waits(self) -> bool:
        return any(not request.answer.done() for request in self._requests) or any(not until.reached.done() for until in self._untils)

    def _idle(self) -> None:
        """Nothing is ready and no handler runs: time may move."""
        assert self._process is not None
        self._rested = 0
        waiting = [request for request in self._requests if not request.answer.done()]
        if any(not request.moves_time for request in waiting):
            self._housekeeping()  # the coordinator itself waits a moment before it tries something again
            return
        if self._reach():
            return
        due = self._process.next_due_ms()
        limit = min((until.at_ms for until in self._untils if not until.reached.done()), default=None)
        if limit is not None and (due is None or due > limit) and not (waiting and due is not None):
            self._move(limit)
        elif due is not None:
            for request in waiting:
                request.jumps += 1
                if request.jumps > MAX_JUMPS:
                    request.answer.set_exception(AssertionError(f"time has jumped to {MAX_JUMPS} timers and the result is still not there"))
            self._move(due)
        else:
            for request in waiting:
                request.answer.set_exception(Nothing())

    def _housekeeping(self) -> None:
        assert self._process is not None
        when = self._process.loop.next_timer()
        if when is None:
            self._fail_all(RuntimeError("the coordinator waits for nothing; this is a bug of Holdfast"))
            return
        self._move(self.clock.at_ms + max(1, math.ceil((when - self.clock.monotonic()) * 1000)))

    def _move(self, at_ms: int) -> None:
        moved = at_ms > self.clock.at_ms
        self.clock.at_ms = max(self.clock.at_ms, at_ms)
        if not moved and self._process is not None and self._process.next_due_ms() == at_ms:
            self.clock.at_ms += 1  # due this instant and not taken: the coordinator looks again a moment later
        self._kick()

    def _reach(self) -> bool:
        """Whether somebody waited for this moment, and nothing is left to happen up to it."""
        assert self._process is not None
        due = self._process.next_due_ms()
        reached = [until for until in self._untils if not until.reached.done() and until.at_ms <= self.clock.at_ms]
        reached = [until for until in reached if due is None or due > until.at_ms]
        for until in reached:
            until.reached.set_result(None)
        if reached:
            self._kick()  # others may wait for more
        return bool(reached)

    def _fail_all(self, error: BaseException) -> None:
        for answer in [*(request.answer for request in self._requests), *(until.reached for until in self._untils)]:
            if not answer.done():
                answer.set_exception(error)

    # ---- Attempts

    async def request(self, address: Address, request: EndpointRequest, *, timeout_s: float) -> EndpointResponse:
        """One exchange: the handler runs in the test's loop, this coroutine waits in the virtual one."""
        if request.method == "GET":
            return await self._served.request(request, timeout_s=timeout_s)  # discovery: needs nothing of the outside
        process, real = self._process, self._real
        assert process is not None and real is not None and self._context is not None
        answer: asyncio.Future[EndpointResponse] = process.loop.create_future()
        work = self._exchange(request, timeout_s)
        task = real.create_task(work, name=f"holdfast {request.path}", context=self._context.copy())
        self._running[task] = _Flight(request.path.removeprefix("/invoke/"), process, answer)
        task.add_done_callback(self._ended)
        return await answer

    async def _exchange(self, request: EndpointRequest, timeout_s: float) -> EndpointResponse:
        return await self._served.request(request, timeout_s=timeout_s)

    def _ended(self, task: asyncio.Task[EndpointResponse]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        flight = self._running.pop(task, None)
        if flight is None or self.closed:
            return
        self._rested = 0
        self._ended_attempts += 1
        self._kick()
        self.after_attempt()
        if flight.process is not self._process:
            return  # the coordinator that asked is dead: nobody hears the answer
        if isinstance(error, Crash):
            self._crash(flight.answer, error)
        elif isinstance(error, asyncio.CancelledError):
            flight.answer.set_exception(EndpointFailure("the handler was cancelled", error_code="RT0006"))
        elif error is not None:
            flight.answer.set_exception(error)
        else:
            flight.answer.set_result(task.result())

    async def close(self) -> None:
        """The port has it; `end` does it."""

    # ---- Crashes

    def _crash(self, answer: asyncio.Future[EndpointResponse], crash: Crash) -> None:
        if crash.response is None:
            self.kill()
        else:
            self._dies_after_put = crash.response
            answer.set_result(crash.response)

    async def _put_and_die(self, shard: int, item: LogItem) -> LogItem | None:
        """The log of the store; the batch after a fatal response is the last this process writes."""
        there = await self._put(shard, item)
        if self._dies_after_put is not None and item.part == item.parts - 1:
            self._dies_after_put = None
            self.kill()
            await asyncio.get_running_loop().create_future()  # never comes
        return there

    def kill(self) -> None:
        """The coordinator dies here and now; the next one starts over the same store."""
        self._dies_after_put = None
        if self._process is not None:
            self._process.loop.die()
            self._graves.append(self._process.loop)
            self._process = None
        self._kick()
