"""What the operations of a plain `def` handler give: futures with `result()`, handles, and the blocks of `with`."""

from __future__ import annotations

import typing
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar, cast, overload

from holdfast import _drive_sync, _misuse
from holdfast._attempt import Attempt
from holdfast._pending import Pending
from holdfast._recorded import Addressed, Recorded
from holdfast.errors import TerminalError
from holdfast.serde import AnyForm, As

T = TypeVar("T")


class DurableFuture(Recorded[T]):
    """A result recorded in the journal."""

    __slots__ = ()

    def result(self) -> T:
        """Blocks until it is there; raises TerminalError when it failed. May be asked again."""
        return _drive_sync.wait(self._attempt, self._pending)

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


class InvocationHandle(Addressed):
    """Another invocation, by id."""

    __slots__ = ()

    @overload
    def attach(self, type: type[As[T]]) -> T: ...
    @overload
    def attach(self, type: type[T]) -> T: ...
    @overload
    def attach(self, type: AnyForm = ...) -> Any: ...
    def attach(self, type: Any = Any) -> Any:
        """Its result, once it ends."""
        return _drive_sync.wait(self._attempt, self._attempt.attach(self.id, type))

    @overload
    def output(self, type: type[As[T]]) -> T | None: ...
    @overload
    def output(self, type: type[T]) -> T | None: ...
    @overload
    def output(self, type: AnyForm = ...) -> Any: ...
    def output(self, type: Any = Any) -> Any:
        """Its result now, or None while it runs."""
        return _drive_sync.wait(self._attempt, self._attempt.output(self.id, type))


class Timeout:
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


class Saga:
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


def durable(future: Any, where: str) -> Pending[Any]:
    if isinstance(future, DurableFuture):
        return future._pending
    if isinstance(future, list | tuple | set | dict):
        _misuse.not_durable(future, where)
    raise TypeError(
        f"{where} combines durable futures, found {type(future).__qualname__}; begin the work with "
        f"ctx.start, e.g. ctx.{where}(ctx.start.run(f), ctx.start.call(g))"
    )
