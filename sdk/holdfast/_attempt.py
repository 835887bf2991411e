"""One attempt, between the state machine and the two kinds of handlers.

Rules: here arguments become commands and results become values; nothing here awaits or blocks, the drivers do.
A closure given to `run` is executed when its result is first awaited, then its result is proposed and the attempt
suspends: the value the handler gets always comes from the journal (service protocol §3.5).
"""

from __future__ import annotations

import inspect
import threading
import time
import traceback
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Any, Final, NoReturn, TypeVar

from holdfast._misuse import check_step, end_of, place_of
from holdfast._pending import (
    Pending,
    decode_leaf,
    gather,
    is_empty,
    loose_serde,
    outcome_of,
    result_serde,
    texted,
    valued,
)
from holdfast.errors import (
    CancelledError,
    DeadlineExceededError,
    JournalMismatchError,
    RetryableError,
    TerminalError,
    to_failed,
)
from holdfast.logs import AttemptLogger, Log
from holdfast.options import RetryPolicy, milliseconds
from holdfast.protocol.errors import ProtocolError
from holdfast.protocol.ids import InvocationId, parse_awakeable_id
from holdfast.protocol.machine import CallTarget, Cancelled, Expired, Machine, Ready, StartRuns, Suspended
from holdfast.protocol.outcomes import EMPTY, Failed, Keys, Leaf, Node, Success
from holdfast.protocol.records import Record
from holdfast.serde import Serde, serde_for, utc_from_ms

if typing.TYPE_CHECKING:
    from holdfast.service import Handler

T = TypeVar("T")

# Closures not started after this long wait for the next attempt, so that finished ones become durable first.
LONGEST_WAVE_S: Final = 60.0
DEFAULT_CONCURRENCY: Final = 10
_IN_RUN: Final[ContextVar[bool]] = ContextVar("holdfast_in_run", default=False)


class Request(Record):
    """What the handler was called with. `attempt` counts from 1 since the last progress."""

    invocation_id: str
    service: str
    handler: str
    key: str
    headers: Mapping[str, str]  # lower-case names; of repeated headers the last
    body: bytes
    attempt: int


class Closure(Record):
    """A side effect still to be executed. `gate`: shared by the runs of one `map`, limits how many at once."""

    function: Callable[[], Any]
    serde: Serde[Any]
    retry: RetryPolicy | None
    gate: Gate | None = None
    is_async: bool = False


class Gate:
    """At most `limit` closures of one `map` run at once."""

    def __init__(self, limit: int) -> None:
        self.limit = limit


class _Deadline:
    def __init__(self, leaf: Leaf, after: timedelta) -> None:
        self.leaf = leaf
        self.after = after


class Saga:
    """Compensations registered so far, in order."""

    def __init__(self) -> None:
        self.steps: list[Callable[[], Pending[Any]]] = []


class Attempt:
    """Everything a context stands on."""

    def __init__(self, machine: Machine, handler: Handler[Any, Any], log: Log) -> None:
        self.machine = machine
        self.handler = handler
        start = machine.start
        self.request = Request(
            invocation_id=start.debug_id,
            service=handler.service_name,
            handler=handler.name,
            key=start.key,
            headers={pair.key.lower(): pair.value for pair in machine.input.headers},
            body=machine.input.value.content,
            attempt=start.retry_count_since_last_stored_entry + 1,
        )
        self.logger = AttemptLogger(log, self.request, machine)
        self.began_at = time.monotonic()
        self._thread = threading.get_ident()
        self.task: object = None  # the asyncio task of an async handler
        self.ended = False  # the response is complete
        self._closures: dict[Leaf, Closure] = {}
        self._deadlines: list[_Deadline] = []
        self._sagas: list[Saga] = []
        self._shields = 0
        self._random: Any = None

    # ---- Arguments in, output out

    def argument(self) -> Any:
        """The handler's argument; unreadable input is the caller's error and terminal."""
        try:
            return self.handler.input.deserialize(self.request.body)
        except (ValueError, TypeError) as error:
            raise TerminalError(f"invalid input for {self.handler.full_name}: {error}", code=400) from error

    def invoke(self) -> Any:
        """Calls the handler: its result, or the coroutine that gives it."""
        context = self.handler.context(self)
        absent = not self.request.body and self.handler.has_default
        arguments = (self.argument(),) if self.handler.takes_argument and not absent else ()
        result = self.handler.function(context, *arguments)
        if not self.handler.is_async and inspect.iscoroutine(result):
            result.close()
            misuse(
                f"handler {self.handler.full_name} is a plain `def` that returned a coroutine; write `async def`, below its decorators too"
            )
        return result

    def returned(self, value: Any) -> None:
        """The handler's result."""
        content = self.handler.output.serialize(value)
        self._warn_about_unawaited()
        self.machine.output(Success(content))

    def raised(self, error: BaseException) -> None:
        """The handler's failure: terminal ones end the invocation, all others fail the attempt."""
        try:
            if self.machine.mismatch is None and isinstance(error, TerminalError):
                self.machine.output(to_failed(error))
            elif self.machine.mismatch is None and not isinstance(error, Suspended):
                self._error(error)
        except (JournalMismatchError, Suspended):
            pass  # the response says why
        mismatch = self.machine.mismatch
        if mismatch is not None:
            place = place_of(mismatch.__traceback__) or end_of(self.handler.function)
            if place is not None:
                mismatch.at(place)
            self.machine.error(str(mismatch), code=mismatch.code, stacktrace="".join(traceback.format_exception(mismatch)))

    def _error(self, error: BaseException, run: Leaf | None = None, delay_ms: int | None = None) -> None:
        if delay_ms is None and isinstance(error, RetryableError) and error.retry_after is not None:
            delay_ms = milliseconds(error.retry_after)
        self.logger.attempt_failed(error)
        self.machine.error(
            describe_error(error),
            stacktrace="".join(traceback.format_exception(error)),
            related_run=run,
            next_retry_delay_ms=delay_ms,
        )

    def _warn_about_unawaited(self) -> None:
        for leaf in self._closures:
            if not leaf.awaited:
                self.logger.warning("holdfast.run_never_awaited: run '%s' was never awaited, so it was never executed", leaf.name)

    # ---- Waiting, one step at a time

    def step(self, node: Node, *, may_run: bool = True) -> tuple[Leaf, ...]:
        """Empty when the node is resolved, else the runs to execute first.

        Raises what ends the wait otherwise: Suspended, CancelledError, DeadlineExceededError.
        """
        self.check()
        deadlines = [deadline.leaf for deadline in self._deadlines]
        progress = self.machine.progress(node, deadlines=deadlines, shielded=self._shields > 0, may_run=may_run)
        match progress:
            case Ready():
                return ()
            case StartRuns(runs):
                return runs
            case Expired(index):
                deadline = self._deadlines.pop(index)  # it strikes once; clean-up in the block may wait again
                raise DeadlineExceededError(f"not done within {deadline.after}")
            case Cancelled():
                raise CancelledError
            case _:
                raise Suspended

    def closure(self, leaf: Leaf) -> Closure:
        """What to execute for a run."""
        return self._closures[leaf]

    @contextmanager
    def executing(self) -> Iterator[None]:
        """Around the execution of a closure: the context must not be used inside."""
        token = _IN_RUN.set(True)
        try:
            yield
        finally:
            _IN_RUN.reset(token)

    def conclude(self, results: Mapping[Leaf, Any], failures: Mapping[Leaf, BaseException]) -> None:
        """Proposes what finished; then fails the attempt when a run has to be retried. Results first: they count."""
        retries, since_ms = self.machine.inherited_retries()
        elapsed_ms = since_ms + (time.monotonic() - self.began_at) * 1000
        for leaf, value in results.items():
            self.machine.propose(leaf, self._recordable(leaf, value))
        to_retry: list[tuple[Leaf, BaseException, int | None]] = []
        for leaf, error in failures.items():
            policy = self._closures[leaf].retry
            if isinstance(error, TerminalError):
                self.machine.propose(leaf, to_failed(error))
            elif policy is not None and policy.exhausted(retries + 1, elapsed_ms):
                self.machine.propose(leaf, Failed(500, describe_error(error)))
            else:
                to_retry.append((leaf, error, policy.delay_ms(retries + 1) if policy else None))
        for leaf, error, delay_ms in to_retry[:1]:
            chosen = isinstance(error, RetryableError) and error.retry_after is not None
            self._error(error, run=leaf, delay_ms=None if chosen else delay_ms)
            raise Suspended

    def _recordable(self, leaf: Leaf, value: Any) -> Success | Failed:
        """The side effect happened: a result that cannot be recorded must not repeat it, so it fails terminally."""
        try:
            return Success(self._closures[leaf].serde.serialize(value))
        except (TypeError, ValueError) as error:
            return Failed(500, f"run '{leaf.name}' was executed, but its result cannot be recorded: {error}")

    # ---- Operations

    def run(
        self,
        function: Callable[..., Any],
        arguments: Sequence[Any],
        *,
        name: str | None = None,
        retry: RetryPolicy | None = None,
        serde: Any = None,
        gate: Gate | None = None,
    ) -> Pending[Any]:
        """A side effect."""
        self.check()
        check_step("run", function)
        if not callable(function):
            if inspect.iscoroutine(function):
                function.close()  # no warning about never awaiting it on top
            raise TypeError(f"run takes a function and its arguments, found {function!r}; write ctx.run(f, x), not ctx.run(f(x))")
        if retry is not None and not isinstance(retry, RetryPolicy):
            raise TypeError(f"retry is a RetryPolicy, found {retry!r}; write RetryPolicy(max_attempts=...)")
        chosen = result_serde(function) if serde is None else serde_for(serde)
        leaf = self.machine.run(name or _label(function))
        if leaf.kind == "run":
            self._closures[leaf] = Closure(lambda: function(*arguments), chosen, retry, gate, inspect.iscoroutinefunction(function))
        return valued(leaf, chosen)

    def map(
        self,
        function: Callable[[Any], Any],
        items: Sequence[Any],
        *,
        concurrency: int,
        name: str | None,
        retry: RetryPolicy | None,
        serde: Any,
    ) -> Pending[list[Any]]:
        """One run per item."""
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, found {concurrency}")
        gate = Gate(concurrency)
        runs = [self.run(function, (item,), name=name, retry=retry, serde=serde, gate=gate) for item in items]
        return gather(runs, list)

    def sleep(self, duration: timedelta, name: str | None = None) -> Pending[None]:
        """A durable timer."""
        self.check()
        leaf = self.machine.sleep(self.now_ms() + milliseconds(duration), name or "")
        return Pending(leaf, _nothing)

    def now(self) -> Pending[datetime]:
        """The time of the first execution."""
        pending = self.run(self.now_ms, (), name="now", serde=int)
        return Pending(pending.node, lambda: utc_from_ms(pending.value()))

    def call(self, address: Address, parameter: bytes, result: Serde[Any]) -> tuple[Pending[str], Pending[Any]]:
        """A call: the callee's invocation id, and its result."""
        self.check()
        id_leaf, leaf = self.machine.call(address, parameter)
        return texted(id_leaf), valued(leaf, result)

    def send(self, address: Address, parameter: bytes, delay: timedelta | None) -> Pending[str]:
        """A one-way call: the callee's invocation id."""
        self.check()
        at_ms = 0 if delay is None else self.now_ms() + milliseconds(delay)
        return texted(self.machine.send(address, parameter, at_ms))

    def awakeable(self, type: Any) -> tuple[str, Pending[Any]]:
        """A result completed by id from outside."""
        self.check()
        serde = serde_for(type)
        text, leaf = self.machine.awakeable()
        return text, valued(leaf, serde)

    def resolve_awakeable(self, id: str, value: Any, serde: Any) -> None:
        self.check()
        self.machine.complete_awakeable(_awakeable(id), Success(loose_serde(serde).serialize(value)))

    def reject_awakeable(self, id: str, message: str, code: int) -> None:
        self.check()
        self.machine.complete_awakeable(_awakeable(id), Failed(code, message))

    def signal(self, name: str, type: Any) -> Pending[Any]:
        """The next signal of this name."""
        self.check()
        _named(name, "a signal")
        serde = serde_for(type)
        return valued(self.machine.signal(name), serde)

    def send_signal(self, target: str, signal: int | str, value: Any, serde: Any) -> None:
        self.check()
        outcome = Success(loose_serde(serde).serialize(value)) if isinstance(signal, str) else EMPTY
        self.machine.send_signal(_invocation(target), signal, outcome)

    def attach(self, target: str, type: Any) -> Pending[Any]:
        self.check()
        return valued(self.machine.attach(_invocation(target)), serde_for(type))

    def output(self, target: str, type: Any) -> Pending[Any]:
        self.check()
        return valued(self.machine.get_output(_invocation(target)), serde_for(type))

    def get_promise(self, name: str, type: Any) -> Pending[Any]:
        _named(name, "a promise")
        serde = serde_for(type)
        pending: Pending[Any]

        def ask() -> Node:
            self.check()
            return self.machine.get_promise(name)

        pending = Pending(ask, lambda: decode_leaf(pending.node, serde))
        return pending

    def peek_promise(self, name: str, type: Any) -> Pending[Any]:
        self.check()
        return valued(self.machine.peek_promise(name), serde_for(type))

    def resolve_promise(self, name: str, value: Any, type: Any) -> Pending[None]:
        self.check()
        content = serde_for(type).serialize(value)
        return Pending(self.machine.complete_promise(name, Success(content)), _nothing)

    def reject_promise(self, name: str, message: str, code: int) -> Pending[None]:
        self.check()
        return Pending(self.machine.complete_promise(name, Failed(code, message)), _nothing)

    def get_state(self, name: str, type: Any, default: Any) -> Pending[Any]:
        self.check()
        _named(name, "a state entry")
        serde = serde_for(type)
        leaf = self.machine.get_state(name.encode())
        return Pending(leaf, lambda: default if is_empty(leaf) else decode_leaf(leaf, serde))

    def state_keys(self) -> Pending[list[str]]:
        self.check()
        leaf = self.machine.get_state_keys()

        def decode() -> list[str]:
            outcome = outcome_of(leaf)
            assert isinstance(outcome, Keys)
            return [key.decode() for key in outcome.keys]

        return Pending(leaf, decode)

    def set_state(self, name: str, value: Any, serde: Any) -> None:
        self.check()
        _named(name, "a state entry")
        self.machine.set_state(name.encode(), loose_serde(serde).serialize(value))

    def clear_state(self, name: str) -> None:
        self.check()
        self.machine.clear_state(name.encode())

    def clear_all_state(self) -> None:
        self.check()
        self.machine.clear_all_state()

    # ---- Scopes

    def enter_deadline(self, after: timedelta) -> _Deadline:
        """A timer that ends waits until `leave_deadline`."""
        self.check()
        deadline = _Deadline(self.machine.sleep(self.now_ms() + milliseconds(after), "timeout"), after)
        self._deadlines.append(deadline)
        return deadline

    def leave_deadline(self, deadline: _Deadline) -> None:
        self._deadlines = [other for other in self._deadlines if other is not deadline]

    def enter_saga(self) -> Saga:
        self.check()
        self._sagas.append(Saga())
        return self._sagas[-1]

    def leave_saga(self, saga: Saga, error: BaseException | None) -> list[Callable[[], Pending[Any]]]:
        """The compensations to run now, last registered first; none unless a terminal error leaves the block."""
        self._sagas.remove(saga)
        return saga.steps[::-1] if isinstance(error, TerminalError) else []

    def compensate(self, function: Callable[..., Any], arguments: Sequence[Any], name: str | None, retry: RetryPolicy | None) -> None:
        saga = self._saga("compensate")
        check_step("compensate", function)
        if not callable(function):
            raise TypeError(f"compensate takes a function and its arguments, found {function!r}")
        saga.steps.append(lambda: self.run(function, arguments, name=name, retry=retry))

    def compensate_call(self, address: Address, parameter: bytes, result: Serde[Any]) -> None:
        self._saga("compensate_call").steps.append(lambda: self.call(address, parameter, result)[1])

    def _saga(self, method: str) -> Saga:
        self.check()
        if not self._sagas:
            raise RuntimeError(f"ctx.{method} belongs inside a `with ctx.saga():` block")
        return self._sagas[-1]

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Inside, cancellations and outer deadlines do not interrupt waits."""
        deadlines, self._deadlines = self._deadlines, []
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
            self._deadlines = deadlines

    @property
    def random(self) -> Any:
        """A `random.Random` seeded with the invocation."""
        self.check()
        if self._random is None:
            import random  # a cold start should not pay for it

            self._random = random.Random(self.machine.random_seed)
        return self._random

    def uuid4(self) -> Any:
        """A random UUID from `random`."""
        import uuid  # a cold start should not pay for it

        return uuid.UUID(int=self.random.getrandbits(128), version=4)

    def compensation_failed(self, cause: BaseException | None, failed: TerminalError) -> None:
        """The remaining compensations still run, and the first error still leaves the block."""
        self.logger.error("holdfast.compensation_failed: %s", failed)
        if cause is not None:
            cause.add_note(f"a compensation failed: {failed}")

    def check(self) -> None:
        """Refuses uses of the context that replay cannot repeat."""
        if self.ended:
            misuse(f"the context of an attempt of {self.handler.full_name} was used after its end; do not keep a context")
        if _IN_RUN.get():
            misuse("the context was used inside a function given to ctx.run; do it outside and pass the result in")
        if threading.get_ident() != self._thread:
            misuse("the context was used from another thread; start work with ctx.run, ctx.gather or ctx.map")

    def adopt_thread(self) -> None:
        """The handler runs in the calling thread."""
        self._thread = threading.get_ident()

    def now_ms(self) -> int:
        """Wall clock, milliseconds since the Unix epoch; tests have another one."""
        return time.time_ns() // 1_000_000


Address = CallTarget


def _named(name: Any, what: str) -> None:
    if not isinstance(name, str) or not name:
        raise ValueError(f"{what} needs a name that is a text, found {name!r}")


def _invocation(id: Any) -> str:
    """An id is data, often the caller's: a wrong one is a result, because no retry makes it right."""
    try:
        InvocationId.parse(id)
    except (ProtocolError, AttributeError, TypeError) as error:
        raise TerminalError(f"{id!r} is not an invocation id; expected inv_1 and 33 characters", 400) from error
    return str(id)


def _awakeable(id: Any) -> str:
    try:
        parse_awakeable_id(id)
    except (ProtocolError, AttributeError, TypeError) as error:
        raise TerminalError(f"{id!r} is not an awakeable id; expected sign_1 and 38 characters", 400) from error
    return str(id)


def _label(function: Callable[..., Any]) -> str:
    """The function's name, through functools.partial."""
    inner = getattr(function, "func", function)
    return str(getattr(inner, "__name__", type(inner).__name__)).strip("<>")


def describe_error(error: BaseException) -> str:
    """One line about an exception."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def misuse(message: str) -> NoReturn:
    raise RuntimeError(message)


def _nothing() -> None:
    return None
