"""`ctx.start` of a plain `def` handler."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, TypeVar, TypeVarTuple, Unpack, overload

from holdfast import _attempt, _calls, _pending
from holdfast._attempt import Attempt
from holdfast._calls import CallOptions
from holdfast._pending import Selected
from holdfast._sync_futures import CallFuture, DurableFuture, durable
from holdfast.options import RetryPolicy
from holdfast.serde import AnyForm, As, Serde

if typing.TYPE_CHECKING:
    from holdfast.service import Handler

T = TypeVar("T")
S = TypeVar("S")
In = TypeVar("In")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
Ts = TypeVarTuple("Ts")


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
        serde: Serde[T] | type[As[T]] | type[T] | AnyForm | None = None,
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
    def signal(self, name: str, type: type[As[T]]) -> DurableFuture[T]: ...
    @overload
    def signal(self, name: str, type: type[T]) -> DurableFuture[T]: ...
    @overload
    def signal(self, name: str, type: AnyForm = ...) -> DurableFuture[Any]: ...
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
        serde: Serde[T] | type[As[T]] | type[T] | AnyForm | None = None,
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
        pendings = [durable(future, "gather") for future in futures]
        return DurableFuture(self._attempt, _pending.gather(pendings, tuple))

    def select(self, **futures: DurableFuture[Any]) -> DurableFuture[Selected]:
        """The first to resolve, as `(name, value)`; raises if that one failed. Replay chooses the same."""
        pendings = {name: durable(future, "select") for name, future in futures.items()}
        return DurableFuture(self._attempt, _pending.select(pendings))

    @overload
    def attach(self, id: str, type: type[As[T]]) -> DurableFuture[T]: ...
    @overload
    def attach(self, id: str, type: type[T]) -> DurableFuture[T]: ...
    @overload
    def attach(self, id: str, type: AnyForm = ...) -> DurableFuture[Any]: ...
    def attach(self, id: str, type: Any = Any) -> DurableFuture[Any]:
        """The result of another invocation, once it ends."""
        return DurableFuture(self._attempt, self._attempt.attach(id, type))
