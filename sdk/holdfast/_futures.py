"""What the operations of an `async def` handler give: durable futures, handles, and the blocks of `async with`."""

from __future__ import annotations

import typing
from collections.abc import Generator
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar, overload

from holdfast import _misuse
from holdfast._attempt import Attempt
from holdfast._pending import Pending
from holdfast._recorded import Addressed, Recorded
from holdfast.errors import TerminalError
from holdfast.serde import AnyForm, As

T = TypeVar("T")


class DurableFuture(Recorded[T]):
    """A result recorded in the journal. Awaiting it again gives the same result."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, T]:
        return wait(self._attempt, self._pending).__await__()

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


class InvocationHandle(Addressed):
    """Another invocation, by id."""

    __slots__ = ()

    @overload
    def attach(self, type: type[As[T]]) -> DurableFuture[T]: ...
    @overload
    def attach(self, type: type[T]) -> DurableFuture[T]: ...
    @overload
    def attach(self, type: AnyForm = ...) -> DurableFuture[Any]: ...
    def attach(self, type: Any = Any) -> DurableFuture[Any]:
        """Its result, once it ends."""
        return DurableFuture(self._attempt, self._attempt.attach(self.id, type))

    @overload
    def output(self, type: type[As[T]]) -> DurableFuture[T | None]: ...
    @overload
    def output(self, type: type[T]) -> DurableFuture[T | None]: ...
    @overload
    def output(self, type: AnyForm = ...) -> DurableFuture[Any]: ...
    def output(self, type: Any = Any) -> DurableFuture[Any]:
        """Its result now, or None while it runs."""
        return DurableFuture(self._attempt, self._attempt.output(self.id, type))


class Timeout:
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


class Saga:
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
                    await wait(self._attempt, step())
                except TerminalError as failed:
                    self._attempt.compensation_failed(error, failed)


async def wait(attempt: Attempt, pending: Pending[T]) -> T:
    """Waits in the handler's own task; runs are executed on the way."""
    from holdfast import _drive  # loads asyncio

    await _drive.settle(attempt, pending.node)
    return pending.value()


def durable(future: Any, where: str) -> Pending[Any]:
    if not isinstance(future, DurableFuture):
        if hasattr(future, "close"):
            future.close()  # a coroutine: no warning about never awaiting it on top
        _misuse.not_durable(future, where)
    return future._pending
