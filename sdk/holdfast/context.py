"""What an `async def` handler works with.

Rules: every operation that has a result returns a `DurableFuture`; await it here, in the handler's own task, or
combine it with `gather`, `select`, `as_completed`. Operations are sent in the order they are called, whether or
not they are awaited; a run is executed when it is awaited.
"""

from __future__ import annotations

import typing
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, TypeVar, TypeVarTuple, Unpack, cast, overload

from holdfast import _attempt, _calls, _misuse, _pending
from holdfast._attempt import Attempt, Request
from holdfast._calls import CallOptions, SendOptions
from holdfast._futures import (
    Awakeable,
    CallFuture,
    DurableFuture,
    DurablePromise,
    InvocationHandle,
    Saga,
    SendHandle,
    Timeout,
    durable,
    wait,
)
from holdfast._pending import Selected
from holdfast.logs import AttemptLogger
from holdfast.options import RetryPolicy
from holdfast.serde import AnyForm, As, Serde

if typing.TYPE_CHECKING:
    from random import Random
    from uuid import UUID

    from holdfast.service import Handler

__all__ = [
    "Awakeable",
    "CallFuture",
    "Context",
    "DurableFuture",
    "DurablePromise",
    "InvocationHandle",
    "ObjectContext",
    "SendHandle",
    "SharedObjectContext",
    "SharedWorkflowContext",
    "WorkflowContext",
]

T = TypeVar("T")
S = TypeVar("S")
In = TypeVar("In")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
Ts = TypeVarTuple("Ts")


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
        serde: Serde[T] | type[As[T]] | type[T] | AnyForm | None = None,
    ) -> DurableFuture[T]: ...
    @overload
    def run(
        self,
        function: Callable[[Unpack[Ts]], T],
        *args: *Ts,
        name: str | None = None,
        retry: RetryPolicy | None = None,
        serde: Serde[T] | type[As[T]] | type[T] | AnyForm | None = None,
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

    def timeout(self, after: timedelta) -> Timeout:
        """`async with ctx.timeout(...)`: waits inside raise DeadlineExceededError once the time is over."""
        return Timeout(self._attempt, after)

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
    def call(self, target: Handler[None, T], /, **options: Unpack[CallOptions]) -> CallFuture[T]: ...
    @overload
    def call(self, target: Handler[In, T], argument: In, /, **options: Unpack[CallOptions]) -> CallFuture[T]: ...
    @overload
    def call(self, target: str, argument: Any = None, /, *, returns: type[As[T]], **options: Unpack[CallOptions]) -> CallFuture[T]: ...
    @overload
    def call(self, target: str, argument: Any = None, /, *, returns: type[T], **options: Unpack[CallOptions]) -> CallFuture[T]: ...
    @overload
    def call(
        self, target: str, argument: Any = None, /, *, returns: AnyForm | None = None, **options: Unpack[CallOptions]
    ) -> CallFuture[Any]: ...
    def call(self, target: Any, argument: Any = None, /, *, returns: Any = None, **options: Unpack[CallOptions]) -> CallFuture[Any]:
        """Calls a handler and gives its result; a terminal failure of it is raised here.

        `target`: a handler object, or `'service/handler'` with `returns` for the type of the result.
        """
        call = _calls.resolve(target, argument, returns=returns, **options)
        return CallFuture(self._attempt, *self._attempt.call(call.target, call.parameter, call.result))

    @overload
    def send(self, target: Handler[None, Any], /, **options: Unpack[SendOptions]) -> SendHandle: ...
    @overload
    def send(self, target: Handler[In, Any], argument: In, /, **options: Unpack[SendOptions]) -> SendHandle: ...
    @overload
    def send(self, target: str, argument: Any = None, /, **options: Unpack[SendOptions]) -> SendHandle: ...
    def send(self, target: Any, argument: Any = None, /, **options: Unpack[SendOptions]) -> SendHandle:
        """Starts a handler, now or after `delay`, without waiting for it."""
        call, delay = _calls.delayed(target, argument, **options)
        return SendHandle(self._attempt, self._attempt.send(call.target, call.parameter, delay))

    def invocation(self, id: str) -> InvocationHandle:
        """Another invocation: signal it, cancel it, wait for it."""
        return InvocationHandle(self._attempt, id)

    # ---- Results from outside

    @overload
    def awakeable(self, type: type[As[T]]) -> Awakeable[T]: ...
    @overload
    def awakeable(self, type: type[T]) -> Awakeable[T]: ...
    @overload
    def awakeable(self, type: AnyForm = ...) -> Awakeable[Any]: ...
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
    def signal(self, name: str, type: type[As[T]]) -> DurableFuture[T]: ...
    @overload
    def signal(self, name: str, type: type[T]) -> DurableFuture[T]: ...
    @overload
    def signal(self, name: str, type: AnyForm = ...) -> DurableFuture[Any]: ...
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
        pendings = [durable(future, "gather") for future in futures]
        return DurableFuture(self._attempt, _pending.gather(pendings, tuple))

    def select(self, **futures: DurableFuture[Any]) -> DurableFuture[Selected]:
        """The first to resolve, as `(name, value)`; raises if that one failed. Replay chooses the same."""
        pendings = {name: durable(future, "select") for name, future in futures.items()}
        return DurableFuture(self._attempt, _pending.select(pendings))

    async def as_completed(self, futures: Iterable[DurableFuture[T]]) -> AsyncIterator[DurableFuture[T]]:
        """The futures in the order they resolve; await each to get its value."""
        left = {str(index): future for index, future in enumerate(futures)}
        while left:
            pendings = {name: durable(future, "as_completed") for name, future in left.items()}
            name = await wait(self._attempt, _pending.select_name(pendings))
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
        serde: Serde[T] | type[As[T]] | type[T] | AnyForm | None = None,
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
        serde: Serde[T] | type[As[T]] | type[T] | AnyForm | None = None,
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

    def saga(self) -> Saga:
        """`async with ctx.saga()`: a terminal error or cancellation leaving it runs the compensations."""
        return Saga(self._attempt)

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
    def compensate_call(self, target: Handler[None, Any], /, **options: Unpack[CallOptions]) -> None: ...
    @overload
    def compensate_call(self, target: Handler[In, Any], argument: In, /, **options: Unpack[CallOptions]) -> None: ...
    @overload
    def compensate_call(self, target: str, argument: Any = None, /, **options: Unpack[CallOptions]) -> None: ...
    def compensate_call(self, target: Any, argument: Any = None, /, **options: Unpack[CallOptions]) -> None:
        """Registers a call of another handler that undoes what comes next; it is waited for, like any other step of the saga."""
        call = _calls.resolve(target, argument, **options)
        self._attempt.compensate_call(call.target, call.parameter, call.result)


class SharedObjectContext(Context):
    """The context of a shared handler: reads state, runs at any time."""

    @property
    def key(self) -> str:
        """The key of the object or workflow."""
        return self._attempt.request.key

    @overload
    def get(self, name: str, type: type[As[T]]) -> DurableFuture[T | None]: ...
    @overload
    def get(self, name: str, type: type[As[T]], *, default: T) -> DurableFuture[T]: ...
    @overload
    def get(self, name: str, type: type[T]) -> DurableFuture[T | None]: ...
    @overload
    def get(self, name: str, type: type[T], *, default: T) -> DurableFuture[T]: ...
    @overload
    def get(self, name: str, type: AnyForm = ..., *, default: Any = None) -> DurableFuture[Any]: ...
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
    def promise(self, name: str, type: type[As[T]]) -> DurablePromise[T]: ...
    @overload
    def promise(self, name: str, type: type[T]) -> DurablePromise[T]: ...
    @overload
    def promise(self, name: str, type: AnyForm = ...) -> DurablePromise[Any]: ...
    def promise(self, name: str, type: Any = Any) -> DurablePromise[Any]:
        """A durable promise of this workflow and key."""
        return DurablePromise(self._attempt, name, type)


class WorkflowContext(ObjectContext, SharedWorkflowContext):
    """The context of a workflow's main handler."""
