"""What a plain `def` handler works with: the names of the async contexts, without `await`.

Rules: an operation that has a result blocks and returns it; `ctx.start` has the same operations and returns a
`DurableFuture` instead, for `gather`, `select` and `as_completed`. Where the handler can only wait, the attempt
ends by a BaseException that unwinds it: let it pass, as you would KeyboardInterrupt.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Generic, TypeVar, TypeVarTuple, Unpack, cast, overload

from holdfast import _attempt, _calls, _drive_sync, _misuse, _pending
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
    """A result recorded in the journal."""

    __slots__ = ("_attempt", "_pending")

    def __init__(self, attempt: Attempt, pending: Pending[T]) -> None:
        self._attempt = attempt
        self._pending = pending

    def result(self) -> T:
        """Blocks until it is there; raises TerminalError when it failed. May be asked again."""
        return _drive_sync.wait(self._attempt, self._pending)

    def done(self) -> bool:
        """Whether the result has arrived, as far as this handler has waited. The same on replay."""
        return self._pending.done()

    if not typing.TYPE_CHECKING:

        def __bool__(self) -> bool:
            raise TypeError("a durable future is neither true nor false; ask it for its result(), or give it to ctx.gather or ctx.select")


class CallFuture(DurableFuture[T]):
    """The result of a call, and the id of the invocation it started."""

    __slots__ = ("_id",)

    def __init__(self, attempt: Attempt, id: Pending[str], result: Pending[T]) -> None:
        super().__init__(attempt, result)
        self._id = id

    @property
    def invocation_id(self) -> str:
        """Blocks until the id is known."""
        return _drive_sync.wait(self._attempt, self._id)


class SendHandle:
    """A one-way call."""

    __slots__ = ("_attempt", "_id")

    def __init__(self, attempt: Attempt, id: Pending[str]) -> None:
        self._attempt = attempt
        self._id = id

    @property
    def invocation_id(self) -> str:
        """The id of the invocation it started; blocks until it is known."""
        return _drive_sync.wait(self._attempt, self._id)


class Awakeable(DurableFuture[T]):
    """Completed from outside by `id`: hand it to whoever will answer, then take `result()`."""

    __slots__ = ("id",)

    def __init__(self, attempt: Attempt, id: str, pending: Pending[T]) -> None:
        super().__init__(attempt, pending)
        self.id = id


class DurablePromise(DurableFuture[T]):
    """A named result inside a workflow: `result()` in some of its handlers, completed once by another."""

    __slots__ = ("_type", "name")

    def __init__(self, attempt: Attempt, name: str, type: Any) -> None:
        super().__init__(attempt, attempt.get_promise(name, type))
        self.name = name
        self._type = type

    def peek(self) -> T | None:
        """The value now, or None while it is not completed; raises if it was rejected."""
        value = _drive_sync.wait(self._attempt, self._attempt.peek_promise(self.name, self._type))
        return cast("T | None", value)

    def resolve(self, value: T) -> None:
        """Completes it; raises TerminalError 409 if it was completed before."""
        _drive_sync.wait(self._attempt, self._attempt.resolve_promise(self.name, value, self._type))

    def reject(self, message: str, code: int = 500) -> None:
        """Completes it with a failure."""
        _drive_sync.wait(self._attempt, self._attempt.reject_promise(self.name, message, code))


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
    def attach(self) -> Any: ...
    @overload
    def attach(self, type: type[T]) -> T: ...
    def attach(self, type: Any = Any) -> Any:
        """Its result, once it ends."""
        return _drive_sync.wait(self._attempt, self._attempt.attach(self.id, type))

    @overload
    def output(self) -> Any: ...
    @overload
    def output(self, type: type[T]) -> T | None: ...
    def output(self, type: Any = Any) -> Any:
        """Its result now, or None while it runs."""
        return _drive_sync.wait(self._attempt, self._attempt.output(self.id, type))


class _Timeout:
    """`with ctx.timeout(...)`."""

    def __init__(self, attempt: Attempt, after: timedelta) -> None:
        self._attempt = attempt
        self._after = after

    if not typing.TYPE_CHECKING:

        async def __aenter__(self) -> None:
            raise TypeError("this handler is a plain def: write `with ctx.timeout(...)`")

        async def __aexit__(self, *_: object) -> None: ...

    def __enter__(self) -> None:
        self._deadline = self._attempt.enter_deadline(self._after)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._attempt.leave_deadline(self._deadline)


class _Saga:
    """`with ctx.saga()`."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    if not typing.TYPE_CHECKING:

        async def __aenter__(self) -> None:
            raise TypeError("this handler is a plain def: write `with ctx.saga(...)`")

        async def __aexit__(self, *_: object) -> None: ...

    def __enter__(self) -> None:
        self._saga = self._attempt.enter_saga()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        steps = self._attempt.leave_saga(self._saga, error)
        with self._attempt.shielded():
            for step in steps:
                try:
                    _drive_sync.wait(self._attempt, step())
                except TerminalError as failed:
                    self._attempt.compensation_failed(error, failed)


class Starter:
    """`ctx.start`: the operations of the context, begun but not waited for."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def run(
        self,
        function: Callable[[Unpack[Ts]], T],
        *args: *Ts,
        name: str | None = None,
        retry: RetryPolicy | None = None,
        serde: Serde[T] | type[T] | None = None,
    ) -> DurableFuture[T]:
        """Executes `function(*args)` and records its result: once it is recorded it is never executed again.

        A failure is retried by `retry`, else by the policy of the invocation; TerminalError is recorded as is.
        The result is read back by the function's return annotation, or by `serde`: a type or a Serde.
        """
        pending = self._attempt.run(function, args, name=name, retry=retry, serde=serde)
        return DurableFuture(self._attempt, pending)

    def sleep(self, duration: timedelta, *, name: str | None = None) -> DurableFuture[None]:
        """Waits without holding compute. The time starts when this is called, not when its result is asked for."""
        return DurableFuture(self._attempt, self._attempt.sleep(duration, name))

    def now(self) -> DurableFuture[datetime]:
        """The current time in UTC, recorded."""
        return DurableFuture(self._attempt, self._attempt.now())

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
    def signal(self, name: str) -> DurableFuture[Any]: ...
    @overload
    def signal(self, name: str, type: type[T]) -> DurableFuture[T]: ...
    def signal(self, name: str, type: Any = Any) -> DurableFuture[Any]:
        """The next signal of this name sent to this invocation; signals of one name form a queue."""
        return DurableFuture(self._attempt, self._attempt.signal(name, type))

    def map(
        self,
        function: Callable[[S], T],
        items: Iterable[S],
        *,
        concurrency: int = _attempt.DEFAULT_CONCURRENCY,
        name: str | None = None,
        retry: RetryPolicy | None = None,
        serde: Serde[T] | type[T] | None = None,
    ) -> DurableFuture[list[T]]:
        """One `run` per item, at most `concurrency` at a time; each result is recorded by itself."""
        pending = self._attempt.map(function, list(items), concurrency=concurrency, name=name, retry=retry, serde=serde)
        return DurableFuture(self._attempt, pending)

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

    @overload
    def attach(self, id: str) -> DurableFuture[Any]: ...
    @overload
    def attach(self, id: str, type: type[T]) -> DurableFuture[T]: ...
    def attach(self, id: str, type: Any = Any) -> DurableFuture[Any]:
        """The result of another invocation, once it ends."""
        return DurableFuture(self._attempt, self._attempt.attach(id, type))


class Context:
    """The context of a plain `def` handler of a service."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self.start = Starter(attempt)

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

    def run(
        self,
        function: Callable[[Unpack[Ts]], T],
        *args: *Ts,
        name: str | None = None,
        retry: RetryPolicy | None = None,
        serde: Serde[T] | type[T] | None = None,
    ) -> T:
        """Executes `function(*args)` and records its result: once it is recorded it is never executed again.

        A failure is retried by `retry`, else by the policy of the invocation; TerminalError is recorded as is.
        The result is read back by the function's return annotation, or by `serde`: a type or a Serde.
        """
        pending: Pending[T] = self._attempt.run(function, args, name=name, retry=retry, serde=serde)
        return _drive_sync.wait(self._attempt, pending)

    def sleep(self, duration: timedelta, *, name: str | None = None) -> None:
        """Waits without holding compute."""
        return _drive_sync.wait(self._attempt, self._attempt.sleep(duration, name))

    def timeout(self, after: timedelta) -> _Timeout:
        """`with ctx.timeout(...)`: waits inside raise DeadlineExceededError once the time is over."""
        return _Timeout(self._attempt, after)

    def now(self) -> datetime:
        """The current time in UTC, recorded."""
        return _drive_sync.wait(self._attempt, self._attempt.now())

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
    ) -> T: ...
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
    ) -> T: ...
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
    ) -> T: ...
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
    ) -> Any: ...
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
    ) -> Any:
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
        _, result = self._attempt.call(call.target, call.parameter, call.result)
        return _drive_sync.wait(self._attempt, result)

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
    def signal(self, name: str) -> Any: ...
    @overload
    def signal(self, name: str, type: type[T]) -> T: ...
    def signal(self, name: str, type: Any = Any) -> Any:
        """The next signal of this name sent to this invocation; signals of one name form a queue."""
        return _drive_sync.wait(self._attempt, self._attempt.signal(name, type))

    # ---- Combining

    @overload
    def gather(self, a: DurableFuture[A], /) -> tuple[A]: ...
    @overload
    def gather(self, a: DurableFuture[A], b: DurableFuture[B], /) -> tuple[A, B]: ...
    @overload
    def gather(self, a: DurableFuture[A], b: DurableFuture[B], c: DurableFuture[C], /) -> tuple[A, B, C]: ...
    @overload
    def gather(self, a: DurableFuture[A], b: DurableFuture[B], c: DurableFuture[C], d: DurableFuture[D], /) -> tuple[A, B, C, D]: ...
    @overload
    def gather(self, *futures: DurableFuture[T]) -> tuple[T, ...]: ...
    def gather(self, *futures: DurableFuture[Any]) -> Any:
        """All results in order. Runs among them execute concurrently; the first failure is raised."""
        pendings = [_durable(future, "gather") for future in futures]
        return _drive_sync.wait(self._attempt, _pending.gather(pendings, tuple))

    def select(self, **futures: DurableFuture[Any]) -> Selected:
        """The first to resolve, as `(name, value)`; raises if that one failed. Replay chooses the same."""
        pendings = {name: _durable(future, "select") for name, future in futures.items()}
        return _drive_sync.wait(self._attempt, _pending.select(pendings))

    def as_completed(self, futures: Iterable[DurableFuture[T]]) -> Iterator[DurableFuture[T]]:
        """The futures in the order they resolve; take `result()` of each."""
        left = {str(index): future for index, future in enumerate(futures)}
        while left:
            pendings = {name: _durable(future, "as_completed") for name, future in left.items()}
            name = _drive_sync.wait(self._attempt, _pending.select_name(pendings))
            yield left.pop(name)

    def map(
        self,
        function: Callable[[S], T],
        items: Iterable[S],
        *,
        concurrency: int = _attempt.DEFAULT_CONCURRENCY,
        name: str | None = None,
        retry: RetryPolicy | None = None,
        serde: Serde[T] | type[T] | None = None,
    ) -> list[T]:
        """One `run` per item, at most `concurrency` at a time; each result is recorded by itself."""
        pending = self._attempt.map(function, list(items), concurrency=concurrency, name=name, retry=retry, serde=serde)
        return _drive_sync.wait(self._attempt, pending)

    # ---- Undoing

    def saga(self) -> _Saga:
        """`with ctx.saga()`: a terminal error or cancellation leaving it runs the compensations."""
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
    def get(self, name: str) -> Any: ...
    @overload
    def get(self, name: str, type: type[T]) -> T | None: ...
    @overload
    def get(self, name: str, type: type[T], *, default: T) -> T: ...
    def get(self, name: str, type: Any = Any, *, default: Any = None) -> Any:
        """A state entry, or `default` when it is missing."""
        return _drive_sync.wait(self._attempt, self._attempt.get_state(name, type, default))

    def keys(self) -> list[str]:
        """The names of all state entries."""
        return _drive_sync.wait(self._attempt, self._attempt.state_keys())


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


def _durable(future: Any, where: str) -> Pending[Any]:
    if isinstance(future, DurableFuture):
        return future._pending
    if isinstance(future, list | tuple | set | dict):
        _misuse.not_durable(future, where)
    raise TypeError(
        f"{where} combines durable futures, found {type(future).__qualname__}; begin the work with "
        f"ctx.start, e.g. ctx.{where}(ctx.start.run(f), ctx.start.call(g))"
    )
