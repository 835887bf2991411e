"""Running handlers for a test: the SDK's own endpoint and attempts, with what tests add to them.

Rules: what a test adds happens at the places where a real process could die, fail or start again, and nowhere else; without options an
attempt here is the attempt of production.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from holdfast import _drive, _drive_sync
from holdfast._attempt import Attempt, Closure, Request
from holdfast.endpoint import Endpoint
from holdfast.errors import TerminalError
from holdfast.logs import AttemptLogger, Log
from holdfast.protocol import frames
from holdfast.protocol.frames import encode
from holdfast.protocol.machine import Machine, Suspended
from holdfast.protocol.messages import Message, MessageType, Start, is_command, parse
from holdfast.protocol.outcomes import Leaf, Node
from holdfast.protocol.versions import content_type
from holdfast.service import Handler, ServiceBase
from holdfast.testing import _engine
from holdfast.testing.faults import Crash, Faults, StepFault
from holdfast.testing.mocks import Mock, as_tested, standing_for, stub_of
from holdfast.testing.replay import WatchedMachine
from holdfast_runtime.ports.endpoint import EndpointFailure, EndpointRequest, EndpointResponse


class Handlers(Endpoint):
    """The services of a test runtime, as the coordinator reaches them.

    now_ms: the virtual clock. on_failure: told of every error that is retried, with the handler and the invocation.
    """

    def __init__(
        self,
        services: Sequence[ServiceBase],
        *,
        faults: Faults,
        now_ms: Callable[[], int],
        on_failure: Callable[[str, str, BaseException], None],
        always_replay: bool = False,
        disable_retries: bool = False,
        logger: Log | None = None,
    ) -> None:
        super().__init__(services, logger=logger)
        for name, service in self.services.items():
            served = as_tested(service)
            self.services[name] = without_retries(served) if disable_retries else served
        self.faults = faults
        self.now_ms = now_ms
        self.on_failure = on_failure
        self.always_replay = always_replay
        self.disable_retries = disable_retries
        self._mocks: dict[tuple[str, str], Handler[Any, Any]] = {}
        self._last_errors: dict[str, str] = {}

    def mock(self, mock: Mock[Any, Any]) -> bool:
        """Put a mock in place; True when discovery has to be repeated."""
        handler = mock.handler
        name = handler.service_name, handler.name
        self._mocks[name] = standing_for(handler, mock)
        service = self.services.get(handler.service_name)
        if service is not None and handler.name in service.handlers:
            return False
        if service is None:
            self.services[handler.service_name] = service = stub_of(handler)
        service.handlers[handler.name] = self._mocks[name]
        return True

    def attempt(self, version: int, body: bytes, handler: Handler[Any, Any]) -> Attempt:
        return TestAttempt(TestMachine(version, body), handler, self._log, self)

    def is_new(self, invocation: str, error: BaseException) -> bool:
        """Whether this invocation did not fail like this the last time."""
        text = f"{type(error).__name__}: {error}"
        before, self._last_errors[invocation] = self._last_errors.get(invocation), text
        return before != text

    def _find(self, service: str, handler: str) -> Handler[Any, Any] | str:
        return self._mocks.get((service, handler)) or super()._find(service, handler)

    async def request(self, request: EndpointRequest, *, timeout_s: float) -> EndpointResponse:
        """One exchange as the coordinator sees it. Raises EndpointFailure, Crash."""
        path = request.path.removeprefix("/invoke/")
        if request.method == "POST" and (fault := self.faults.endpoint_fault(path)) is not None:
            raise EndpointFailure(fault.message, code=fault.status, error_code="RT0010")
        routed = self.route(request.method, request.path, request.headers, request.body)
        if not isinstance(routed, TestAttempt):
            status, headers, body = routed if isinstance(routed, tuple) else (500, {}, b"")
            return EndpointResponse(status, headers, body)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._run(routed, request)
        except TimeoutError:
            text = f"no complete response of {path} within {timeout_s:g} s (abort timeout, in real time); the handler was cancelled"
            raise EndpointFailure(text, error_code="RT0001") from None

    async def _run(self, attempt: TestAttempt, request: EndpointRequest) -> EndpointResponse:
        """The attempt, and with `always_replay` its repetitions, as one response."""
        produced, body = b"", request.body
        fatal: Crash | None = None
        while True:
            response = await self._drive(attempt)
            produced += response
            fatal = fatal or attempt.fatal
            if not attempt.cut:
                break
            body = longer(body, response, attempt.machine.version)
            again = self.attempt(attempt.machine.version, body, attempt.handler)
            assert isinstance(again, TestAttempt)
            attempt = again
        headers: Mapping[str, str] = {"content-type": content_type(attempt.machine.version)}
        if attempt.lost is not None:
            return EndpointResponse(200, headers, produced, broken=f"the test let it crash ({attempt.lost})")
        answer = EndpointResponse(200, headers, produced)
        if fatal is not None:
            raise _engine.Crash(answer if fatal.stored else None)
        return answer

    async def _drive(self, attempt: TestAttempt) -> bytes:
        if attempt.handler.is_async:
            return await _drive.drive(attempt)
        return await _drive.in_thread(lambda: _drive_sync.drive(attempt))


class _OnceLogger(AttemptLogger):
    """Logs an error once, and not again for every retry that virtual time brings within milliseconds."""

    def __init__(self, log: Log, request: Request, machine: Machine, is_new: Callable[[str, BaseException], bool]) -> None:
        super().__init__(log, request, machine)
        self._invocation = request.invocation_id
        self._is_new = is_new

    def attempt_failed(self, error: BaseException) -> None:
        if self._is_new(self._invocation, error):
            super().attempt_failed(error)


class TestMachine(WatchedMachine):
    """Tells its attempt of every entry before it is added."""

    __test__ = False

    def __init__(self, version: int, body: bytes) -> None:
        super().__init__(version, body)
        self.before: Callable[[int], Crash | None] = lambda entry: None
        self.delays = True  # whether an error may say when to try again

    def error(self, message: str, *, next_retry_delay_ms: int | None = None, **details: Any) -> None:
        super().error(message, next_retry_delay_ms=next_retry_delay_ms if self.delays else None, **details)

    def _emit(self, type: MessageType, message: Message) -> None:
        if not (is_command(type) or type == MessageType.PROPOSE_RUN_COMPLETION):
            return super()._emit(type, message)
        crash = self.before(1 + self.recorded_entries + self.new_entries)
        if crash is None:
            return super()._emit(type, message)
        if crash.stored:
            super()._emit(type, message)
        self._over = Suspended()
        raise self._over

    def cut(self) -> None:
        """End the attempt here, as if it had suspended."""
        self._over = Suspended()


class TestAttempt(Attempt):
    """An attempt that can be lost, cut or given failing steps.

    cut: it ended to be repeated with what it recorded. lost: how it was lost. fatal: the crash that its response is to the coordinator.
    """

    __test__ = False
    machine: TestMachine

    def __init__(self, machine: TestMachine, handler: Handler[Any, Any], log: Log, handlers: Handlers) -> None:
        super().__init__(machine, handler, log)
        self.logger = _OnceLogger(log, self.request, machine, handlers.is_new)
        self._handlers = handlers
        self._name = handler.full_name
        self.cut = False
        self.lost: Crash | None = None
        self.fatal: Crash | None = None
        self._prepared: set[Leaf] = set()
        machine.delays = not handlers.disable_retries
        machine.before = self._before

    def now_ms(self) -> int:
        return self._handlers.now_ms()

    def _before(self, entry: int) -> Crash | None:
        """What happens at this entry to the attempt; the coordinator's crashes wait for the response."""
        crash = self._handlers.faults.crash_at(self._name, self.request.invocation_id, entry)
        if crash is None or crash.of == "coordinator":
            self.fatal = self.fatal or crash
            return None
        self.lost = crash
        return crash

    # ---- always_replay: whatever was recorded is repeated before the handler goes on

    def _must_repeat(self) -> bool:
        return self._handlers.always_replay and self.machine.new_entries > 0 and not self.machine.ended

    def step(self, node: Node, *, may_run: bool = True) -> tuple[Leaf, ...]:
        runs = super().step(node, may_run=may_run)
        if not runs and self._must_repeat():
            self._cut()
            raise Suspended
        return runs

    def returned(self, value: Any) -> None:
        if self._must_repeat():
            self._cut()
        else:
            super().returned(value)

    def raised(self, error: BaseException) -> None:
        if isinstance(error, TerminalError) and self.machine.disagreed is None and self._must_repeat():
            self._cut()
            return
        super().raised(error)
        if self.machine.disagreed is not None:
            self._tell(self.machine.disagreed)

    def _cut(self) -> None:
        self.cut = True
        self.machine.cut()

    # ---- Failing

    def closure(self, leaf: Leaf) -> Closure:
        if leaf not in self._prepared:  # a closure runs once in an attempt, so a fault counts once
            self._prepared.add(leaf)
            closure = self._closures[leaf]
            if self._handlers.disable_retries:
                closure = closure.but(retry=None)
            fault = self._handlers.faults.step_fault(self._name, leaf.name)
            self._closures[leaf] = closure if fault is None else closure.but(function=_failing(closure, fault))
        return super().closure(leaf)

    def _error(self, error: BaseException, run: Leaf | None = None, delay_ms: int | None = None) -> None:
        super()._error(error, run, delay_ms)
        self._tell(error)

    def _tell(self, error: BaseException) -> None:
        self._handlers.on_failure(self._name, self.request.invocation_id, error)


def _failing(closure: Closure, fault: StepFault) -> Callable[[], Any]:
    async def fail_async() -> Any:
        if fault.after:
            await closure.function()
        raise fault.error

    def fail() -> Any:
        value = closure.function() if fault.after else None
        if inspect.isawaitable(value):  # a lambda around a coroutine function
            return _fail_after(value, fault.error)
        raise fault.error

    return fail_async if closure.is_async else fail


async def _fail_after(value: Any, error: BaseException) -> Any:
    await value
    raise error


def longer(body: bytes, more: bytes, version: int) -> bytes:
    """The request of the next attempt: what was given, and the entries that were added since."""
    given, added = list(frames.split(body)), list(frames.split(more))
    start = parse(given[0].type, given[0].body, version=version)
    assert isinstance(start, Start)
    start.known_entries = len(given) - 1 + len(added)
    return encode(MessageType.START, start.SerializeToString()) + b"".join(map(frames.raw, [*given[1:], *added]))


def without_retries(service: ServiceBase) -> ServiceBase:
    """The same service, whose invocations are paused by their first failure."""
    served = copy.copy(service)
    served.options = {**service.options, "retry_max_attempts": 1, "retry_on_max_attempts": "PAUSE"}
    served.handlers = {}
    for name, handler in service.handlers.items():
        served.handlers[name] = clone = copy.copy(handler)
        clone.options = {option: value for option, value in handler.options.items() if not option.startswith("retry_")}
    return served
