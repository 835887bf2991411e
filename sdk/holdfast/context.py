"""What an `async def` handler works with.

Rules: every operation that has a result returns a `DurableFuture`; await it here, in the handler's own task, or
combine it with `gather`, `select`, `as_completed`. Operations are sent in the order they are called, whether or
not they are awaited; a run is executed when it is awaited.
"""

from __future__ import annotations

import typing
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Generic, TypeVar, TypeVarTuple, Unpack, cast, overload

from holdfast import _attempt, _calls, _misuse, _pending
from holdfast._attempt import Attempt, Request
from holdfast._pending import Pending, Selected
from holdfast.errors import TerminalError
from holdfast.logs import AttemptLogger
from holdfast.options import RetryPolicy
from holdfast.serde import Serde

if typing.TYPE_CHECKING:
    from random import Random
    from uuid import UUID

    from holdfast.service import Handler

T = TypeVar("T")
S = TypeVar("S")
In = TypeVar("In")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
Ts = TypeVarTuple("Ts")


class DurableFuture(Generic[T]):
    """A result recorded in the journal. Awaiting it again gives the same result."""

    __slots__ = ("_attempt", "_pending")

    def __init__(self, attempt: Attempt, pending: Pending[T]) -> None:
        self._attempt = attempt
        self._pending = pending

    def __await__(self) -> Generator[Any, None, T]:
        return _wait(self._attempt, self._pending).__await__()

    def done(self) -> bool:
        """Whether the result has arrived, as far as this handler has waited. The same on replay."""
        return self._pending.done()

    if not typing.TYPE_CHECKING:

        def __bool__(self) -> bool:
            raise TypeError("a durable future is neither true nor false; await it, or give it to ctx.gather or ctx.select")


class CallFuture(DurableFuture[T]):
    """The result of a call, and the id of the invocation it started."""

    __slots__ = ("invocation_id",)

    def __init__(self, attempt: Attempt, id: Pending[str], result: Pending[T]) -> None:
        super().__init__(attempt, result)
        self.invocation_id = DurableFuture(attempt, id)


class SendHandle:
    """A one-way call. `await handle.invocation_id` gives the id of the invocation it started."""

    __slots__ = ("invocation_id",)

    def __init__(self, attempt: Attempt, id: Pending[str]) -> None:
        self.invocation_id = DurableFuture(attempt, id)


class Awakeable(DurableFuture[T]):
    """Completed from outside by `id`: hand it to whoever will answer, then await this."""

    __slots__ = ("id",)

    def __init__(self, attempt: Attempt, id: str, pending: Pending[T]) -> None:
        super().__init__(attempt, pending)
        self.id = id


class DurablePromise(DurableFuture[T]):
    """A named result inside a workflow: awaited by some of its handlers, completed once by another."""

    __slots__ = ("_type", "name")

    def __init__(self, attempt: Attempt, name: str, type: Any) -> None:
        super().__init__(attempt, attempt.get_promise(name, type))
        self.name = name
        self._type = type

    def peek(self) -> DurableFuture[T | None]:
        """The value now, or None while it is not completed; raises if it was rejected."""
        return DurableFuture(self._attempt, self._attempt.peek_promise(self.name, self._type))

    def resolve(self, value: T) -> DurableFuture[None]:
        """Completes it; awaiting raises TerminalError 409 if it was completed before."""
        return DurableFuture(self._attempt, self._attempt.resolve_promise(self.name, value, self._type))

    def reject(self, message: str, code: int = 500) -> DurableFuture[None]:
        """Completes it with a failure."""
        return DurableFuture(self._attempt, self._attempt.reject_promise(self.name, message, code))


class InvocationHandle:
    """Another invocation, by id."""

    __slots__ = ("_attempt", "id")

    def __init__(self, attempt: Attempt, id: str) -> None:
        self._attempt = attempt
        self.id = id

    def signal(self, name: str, value: Any = None, *, serde: Any = None) -> None:
        """Sends a named signal."""
        if not name:
            raise ValueError("a signal needs a name")
        self._attempt.send_signal(self.id, name, value, serde)

    def cancel(self) -> None:
        """Asks it to stop: its handler sees CancelledError and may clean up."""
        self._attempt.send_signal(self.id, 1, None, None)

    @overload
    def attach(self) -> DurableFuture[Any]: ...
    @overload
    def attach(self, type: type[T]) -> DurableFuture[T]: ...
    def attach(self, type: Any = Any) -> DurableFuture[Any]:
        """Its result, once it ends."""
        return DurableFuture(self._attempt, self._attempt.attach(self.id, type))

    @overload
    def output(self) -> DurableFuture[Any]: ...
    @overload
    def output(self, type: type[T]) -> DurableFuture[T | None]: ...
    def output(self, type: Any = Any) -> DurableFuture[Any]:
        """Its result now, or None while it runs."""
        return DurableFuture(self._attempt, self._attempt.output(self.id, type))


class _Timeout:
    """`async with ctx.timeout(...)`."""

    def __init__(self, attempt: Attempt, after: timedelta) -> None:
        self._attempt = attempt
        self._after = after

    if not typing.TYPE_CHECKING:

        def __enter__(self) -> None:
            raise TypeError("this handler is async: write `async with ctx.timeout(...)`")

        def __exit__(self, *_: object) -> None: ...

    async def __aenter__(self) -> None:
        self._deadline = self._attempt.enter_deadline(self._after)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._attempt.leave_deadline(self._deadline)


class _Saga:
    """`async with ctx.saga()`."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    if not typing.TYPE_CHECKING:

        def __enter__(self) -> None:
            raise TypeError("this handler is async: write `async with ctx.saga(...)`")

        def __exit__(self, *_: object) -> None: ...

    async def __aenter__(self) -> None:
        self._saga = self._attempt.enter_saga()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        steps = self._attempt.leave_saga(self._saga, error)
        with self._attempt.shielded():
            for step in steps:
                try:
                    await _wait(self._attempt, step())
                except TerminalError as failed:
                    self._attempt.compensation_failed(error, failed)


class Context:
    """The context of a service handler."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    if not typing.TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            _misuse.no_such_attribute(self, name)

    @property
    def request(self) -> Request:
        """Invocation id, service, handler, key, headers, attempt and raw body."""
        return self._attempt.request

    @property
    def logger(self) -> AttemptLogger:
        """Carries invocation id, service, handler, key and attempt; silent while replaying."""
        return self._attempt.logger

    # ---- Side effects and time

    @overload
    def run(
        self,
        function: Callable[[Unpack[Ts]], Awaitable[T]],
        *args: *Ts,
        name: str | None = None,
        retry: RetryPolicy | None = None,
        serde: Serde[T] | type[T] | None = None,
    ) -> DurableFuture[T]: ...
    @overload
    def run(
        self,
        function: Callable[[Unpack[Ts]], T],
        *args: *Ts,
        name: str | None = None,
        retry: RetryPolicy | None = None,
        serde: Serde[T] | type[T] | None = None,
    ) -> DurableFuture[T]: ...
    def run(
        self,
        function: Callable[[Unpack[Ts]], Any],
        *args: *Ts,
        name: str | None = None,
        retry: RetryPolicy | None = None,
        serde: Any = None,
    ) -> DurableFuture[Any]:
        """Executes `function(*args)` and records its result: once it is recorded it is never executed again.

        A failure is retried by `retry`, else by the policy of the invocation; TerminalError is recorded as is.
        The result is read back by the function's return annotation, or by `serde`: a type or a Serde.
        """
        pending = self._attempt.run(function, args, name=name, retry=retry, serde=serde)
        return DurableFuture(self._attempt, pending)

    def sleep(self, duration: timedelta, *, name: str | None = None) -> DurableFuture[None]:
        """Waits without holding compute. The time starts when this is called, not when it is awaited."""
        return DurableFuture(self._attempt, self._attempt.sleep(duration, name))

    def timeout(self, after: timedelta) -> _Timeout:
        """`async with ctx.timeout(...)`: waits inside raise DeadlineExceededError once the time is over."""
        return _Timeout(self._attempt, after)

    def now(self) -> DurableFuture[datetime]:
        """The current time in UTC, recorded."""
        return DurableFuture(self._attempt, self._attempt.now())

    @property
    def random(self) -> Random:
        """Seeded with the invocation: the same numbers in every attempt. Not for use inside `run`."""
        return cast("Random", self._attempt.random)

    def uuid4(self) -> UUID:
        """A random UUID, the same in every attempt."""
        return cast("UUID", self._attempt.uuid4())

    # ---- Other handlers

    @overload
    def call(
        self,
        target: Handler[None, T],
        /,
        *,
        key: str | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> CallFuture[T]: ...
    @overload
    def call(
        self,
        target: Handler[In, T],
        argument: In,
        /,
        *,
        key: str | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> CallFuture[T]: ...
    @overload
    def call(
        self,
        target: str,
        argument: Any = None,
        /,
        *,
        key: str | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        name: str | None = None,
        returns: type[T],
    ) -> CallFuture[T]: ...
    @overload
    def call(
        self,
        target: str,
        argument: Any = None,
        /,
        *,
        key: str | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> CallFuture[Any]: ...
    def call(
        self,
        target: Any,
        argument: Any = None,
        /,
        *,
        key: str | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        name: str | None = None,
        returns: Any = None,
    ) -> CallFuture[Any]:
        """Calls a handler and gives its result; a terminal failure of it is raised here.

        `target`: a handler object, or `'service/handler'` with `returns` for the type of the result.
        """
        call = _calls.resolve(
            target,
            argument,
            key=key,
            idempotency_key=idempotency_key,
            headers=headers,
            name=name,
            returns=returns,
        )
        return CallFuture(self._attempt, *self._attempt.call(call.target, call.parameter, call.result))

    @overload
    def send(
        self,
        target: Handler[None, Any],
        /,
        *,
        key: str | None = None,
        delay: timedelta | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> SendHandle: ...
    @overload
    def send(
        self,
        target: Handler[In, Any],
        argument: In,
        /,
        *,
        key: str | None = None,
        delay: timedelta | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> SendHandle: ...
    @overload
    def send(
        self,
        target: str,
        argument: Any = None,
        /,
        *,
        key: str | None = None,
        delay: timedelta | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> SendHandle: ...
    def send(
        self,
        target: Any,
        argument: Any = None,
        /,
        *,
        key: str | None = None,
        delay: timedelta | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> SendHandle:
        """Starts a handler, now or after `delay`, without waiting for it."""
        call = _calls.resolve(target, argument, key=key, idempotency_key=idempotency_key, headers=headers, name=name)
        return SendHandle(self._attempt, self._attempt.send(call.target, call.parameter, delay))

    def invocation(self, id: str) -> InvocationHandle:
        """Another invocation: signal it, cancel it, wait for it."""
        return InvocationHandle(self._attempt, id)

    # ---- Results from outside

    @overload
    def awakeable(self) -> Awakeable[Any]: ...
    @overload
    def awakeable(self, type: type[T]) -> Awakeable[T]: ...
    def awakeable(self, type: Any = Any) -> Awakeable[Any]:
        """A result that somebody outside completes by its id."""
        return Awakeable(self._attempt, *self._attempt.awakeable(type))

    def resolve_awakeable(self, id: str, value: Any = None, *, serde: Any = None) -> None:
        """Completes the awakeable of another invocation."""
        self._attempt.resolve_awakeable(id, value, serde)

    def reject_awakeable(self, id: str, message: str, code: int = 500) -> None:
        """Fails the awakeable of another invocation: its wait raises TerminalError."""
        self._attempt.reject_awakeable(id, message, code)

    @overload
    def signal(self, name: str) -> DurableFuture[Any]: ...
    @overload
    def signal(self, name: str, type: type[T]) -> DurableFuture[T]: ...
    def signal(self, name: str, type: Any = Any) -> DurableFuture[Any]:
        """The next signal of this name sent to this invocation; signals of one name form a queue."""
        return DurableFuture(self._attempt, self._attempt.signal(name, type))

    # ---- Combining

    @overload
    def gather(self, a: DurableFuture[A], /) -> DurableFuture[tuple[A]]: ...
    @overload
    def gather(self, a: DurableFuture[A], b: DurableFuture[B], /) -> DurableFuture[tuple[A, B]]: ...
    @overload
    def gather(self, a: DurableFuture[A], b: DurableFuture[B], c: DurableFuture[C], /) -> DurableFuture[tuple[A, B, C]]: ...
    @overload
    def gather(
        self, a: DurableFuture[A], b: DurableFuture[B], c: DurableFuture[C], d: DurableFuture[D], /
    ) -> DurableFuture[tuple[A, B, C, D]]: ...
    @overload
    def gather(self, *futures: DurableFuture[T]) -> DurableFuture[tuple[T, ...]]: ...
    def gather(self, *futures: DurableFuture[Any]) -> DurableFuture[Any]:
        """All results in order. Runs among them execute concurrently; the first failure is raised."""
        pendings = [_durable(future, "gather") for future in futures]
        return DurableFuture(self._attempt, _pending.gather(pendings, tuple))

    def select(self, **futures: DurableFuture[Any]) -> DurableFuture[Selected]:
        """The first to resolve, as `(name, value)`; raises if that one failed. Replay chooses the same."""
        pendings = {name: _durable(future, "select") for name, future in futures.items()}
        return DurableFuture(self._attempt, _pending.select(pendings))

    async def as_completed(self, futures: Iterable[DurableFuture[T]]) -> AsyncIterator[DurableFuture[T]]:
        """The futures in the order they resolve; await each to get its value."""
        left = {str(index): future for index, future in enumerate(futures)}
        while left:
            pendings = {name: _durable(future, "as_completed") for name, future in left.items()}
            name = await _wait(self._attempt, _pending.select_name(pendings))
            yield left.pop(name)

    @overload
    def map(
        self,
        function: Callable[[S], Awaitable[T]],
        items: Iterable[S],
        *,
        concurrency: int = ...,
        name: str | None = None,
        retry: RetryPolicy | None = None,
        serde: Serde[T] | type[T] | None = None,
    ) -> DurableFuture[list[T]]: ...
    @overload
    def map(
        self,
        function: Callable[[S], T],
        items: Iterable[S],
        *,
        concurrency: int = ...,
        name: str | None = None,
        retry: RetryPolicy | None = None,
        serde: Serde[T] | type[T] | None = None,
    ) -> DurableFuture[list[T]]: ...
    def map(
        self,
        function: Callable[[Any], Any],
        items: Iterable[Any],
        *,
        concurrency: int = _attempt.DEFAULT_CONCURRENCY,
        name: str | None = None,
        retry: RetryPolicy | None = None,
        serde: Any = None,
    ) -> DurableFuture[list[Any]]:
        """One `run` per item, at most `concurrency` at a time; each result is recorded by itself."""
        pending = self._attempt.map(function, list(items), concurrency=concurrency, name=name, retry=retry, serde=serde)
        return DurableFuture(self._attempt, pending)

    # ---- Undoing

    def saga(self) -> _Saga:
        """`async with ctx.saga()`: a terminal error or cancellation leaving it runs the compensations."""
        return _Saga(self._attempt)

    def compensate(
        self,
        function: Callable[[Unpack[Ts]], Any],
        *args: *Ts,
        name: str | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        """Registers the step that undoes what comes next; it is executed as a `run`, last registered first."""
        self._attempt.compensate(function, args, name, retry)

    @overload
    def compensate_call(
        self,
        target: Handler[None, Any],
        /,
        *,
        key: str | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> None: ...
    @overload
    def compensate_call(
        self,
        target: Handler[In, Any],
        argument: In,
        /,
        *,
        key: str | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> None: ...
    @overload
    def compensate_call(
        self,
        target: str,
        argument: Any = None,
        /,
        *,
        key: str | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> None: ...
    def compensate_call(
        self,
        target: Any,
        argument: Any = None,
        /,
        *,
        key: str | None = None,
        idempotency_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        """Registers a call of another handler that undoes what comes next; it is waited for, like any other step of the saga."""
        call = _calls.resolve(target, argument, key=key, idempotency_key=idempotency_key, headers=headers, name=name)
        self._attempt.compensate_call(call.target, call.parameter, call.result)


class SharedObjectContext(Context):
    """The context of a shared handler: reads state, runs at any time."""

    @property
    def key(self) -> str:
        """The key of the object or workflow."""
        return self._attempt.request.key

    @overload
    def get(self, name: str) -> DurableFuture[Any]: ...
    @overload
    def get(self, name: str, type: type[T]) -> DurableFuture[T | None]: ...
    @overload
    def get(self, name: str, type: type[T], *, default: T) -> DurableFuture[T]: ...
    def get(self, name: str, type: Any = Any, *, default: Any = None) -> DurableFuture[Any]:
        """A state entry, or `default` when it is missing."""
        return DurableFuture(self._attempt, self._attempt.get_state(name, type, default))

    def keys(self) -> DurableFuture[list[str]]:
        """The names of all state entries."""
        return DurableFuture(self._attempt, self._attempt.state_keys())


class ObjectContext(SharedObjectContext):
    """The context of an exclusive handler: reads and writes state, one at a time per key."""

    def set(self, name: str, value: Any, *, serde: Any = None) -> None:
        """Writes a state entry."""
        self._attempt.set_state(name, value, serde)

    def clear(self, name: str) -> None:
        """Removes a state entry."""
        self._attempt.clear_state(name)

    def clear_all(self) -> None:
        """Removes all state entries."""
        self._attempt.clear_all_state()


class SharedWorkflowContext(SharedObjectContext):
    """The context of a workflow's other handlers: reads state, completes and awaits promises."""

    @overload
    def promise(self, name: str) -> DurablePromise[Any]: ...
    @overload
    def promise(self, name: str, type: type[T]) -> DurablePromise[T]: ...
    def promise(self, name: str, type: Any = Any) -> DurablePromise[Any]:
        """A durable promise of this workflow and key."""
        return DurablePromise(self._attempt, name, type)


class WorkflowContext(ObjectContext, SharedWorkflowContext):
    """The context of a workflow's main handler."""


async def _wait(attempt: Attempt, pending: Pending[T]) -> T:
    """Waits in the handler's own task; runs are executed on the way."""
    from holdfast import _drive  # loads asyncio

    await _drive.settle(attempt, pending.node)
    return pending.value()


def _durable(future: Any, where: str) -> Pending[Any]:
    if not isinstance(future, DurableFuture):
        if hasattr(future, "close"):
            future.close()  # a coroutine: no warning about never awaiting it on top
        _misuse.not_durable(future, where)
    return future._pending
