"""The same runtime for plain test functions: no `async`, no `await`.

Rules: everything is as in `holdfast.testing.runtime`; the handlers run while a method of the runtime runs, in the thread of the test, and
stand still between two of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar, Unpack, overload

from holdfast._calls import IngressOptions, IngressSendOptions
from holdfast.client import Client
from holdfast.serde import AnyForm, As
from holdfast.service import Handler, ServiceBase, Workflow
from holdfast.testing import runtime
from holdfast.testing._clients import Run, RuntimeClient
from holdfast.testing.journal import Journal
from holdfast.testing.mocks import Mock
from holdfast.testing.replay import Replayed
from holdfast.testing.runtime import Options, State

In = TypeVar("In")
T = TypeVar("T")


class Invocation(Generic[T]):
    """An invocation that the test has started, or knows the id of."""

    def __init__(self, inner: runtime.Invocation[T], run: Run) -> None:
        self._inner = inner
        self._run = run

    def __repr__(self) -> str:
        return repr(self._inner)

    @property
    def invocation_id(self) -> str:
        return self._inner.invocation_id

    @property
    def accepted_before(self) -> bool:
        """The idempotency key or the workflow was seen earlier."""
        return self._inner.accepted_before

    def result(self) -> T:
        """Its result; time moves until it is there. Raises TerminalError, and Stuck when it can never come."""
        return self._run(self._inner.result())

    def journal(self) -> Journal:
        """What it has recorded so far."""
        return self._run(self._inner.journal())

    def export(self) -> dict[str, Any]:
        """The journal as `holdfast invocations export` writes it, for `replay`."""
        return self._run(self._inner.export())

    def status(self) -> str:
        """`running`, `suspended`, `backing-off`, `paused`, `scheduled`, `pending`, `completed` ..."""
        return self._run(self._inner.status())

    def cancel(self) -> None:
        """Its next wait raises CancelledError."""
        self._run(self._inner.cancel())

    def kill(self) -> None:
        """It ends here and now, without clean-up."""
        self._run(self._inner.kill())

    def pause(self) -> None:
        """It starts no more attempts until `resume`."""
        self._run(self._inner.pause())

    def resume(self) -> None:
        """It tries again at once."""
        self._run(self._inner.resume())

    def signal(self, name: str, value: Any = None) -> None:
        """Send it a named signal (`ctx.signal`)."""
        self._run(self._inner.signal(name, value))

    def awakeable_id(self, number: int = 0) -> str:
        """The id of the handler's awakeable: 0 is the first it made."""
        return self._inner.awakeable_id(number)


class PromiseHandle:
    """A durable promise of a workflow, seen from the test."""

    def __init__(self, inner: runtime.PromiseHandle[Any], run: Run) -> None:
        self._inner = inner
        self._run = run

    def resolve(self, value: Any = None) -> None:
        """Completes it. Raises TerminalError 409 if it was completed before."""
        self._run(self._inner.resolve(value))

    def reject(self, message: str, code: int = 500) -> None:
        """Fails it: its wait raises TerminalError."""
        self._run(self._inner.reject(message, code))

    def peek(self) -> Any:
        """The value as plain JSON, None while it is not completed."""
        return self._run(self._inner.peek())


class TestRuntime:
    """Use it in `with`, or as the fixture `holdfast_runtime_sync`. Options: those of `holdfast.testing.TestRuntime`."""

    __test__ = False

    def __init__(self, *services: ServiceBase, **options: Unpack[Options]) -> None:
        self._runtime = runtime.TestRuntime(*services, **options)
        self._loop: asyncio.AbstractEventLoop | None = None

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            work.close()
            raise RuntimeError("this is the runtime for plain test functions; in an async one use holdfast.testing.TestRuntime and await")
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop.run_until_complete(work)

    def __enter__(self) -> TestRuntime:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, Exception):
            self.explain(error)
        self.close()

    def explain(self, error: BaseException) -> None:
        """Note the journals of this runtime on the error a test fails with."""
        self._run(self._runtime.explain(error))

    def close(self) -> None:
        """End everything. May be called twice."""
        self._runtime.close()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.run_until_complete(_cancel_others())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    # ---- Starting

    @overload
    def call(self, target: Handler[None, T], /, **options: Unpack[IngressOptions]) -> T: ...
    @overload
    def call(self, target: Handler[In, T], argument: In, /, **options: Unpack[IngressOptions]) -> T: ...
    @overload
    def call(self, target: str, argument: Any = None, /, *, returns: type[As[T]], **options: Unpack[IngressOptions]) -> T: ...
    @overload
    def call(self, target: str, argument: Any = None, /, *, returns: type[T], **options: Unpack[IngressOptions]) -> T: ...
    @overload
    def call(self, target: str, argument: Any = None, /, *, returns: AnyForm | None = None, **options: Unpack[IngressOptions]) -> Any: ...
    def call(self, target: Any, argument: Any = None, /, **options: Any) -> Any:
        """Calls a handler and waits for its result; time moves until it is there."""
        call: Any = self._runtime.call
        return self._run(call(target, argument, **options))

    @overload
    def send(self, target: Handler[None, T], /, **options: Unpack[IngressSendOptions]) -> Invocation[T]: ...
    @overload
    def send(self, target: Handler[In, T], argument: In, /, **options: Unpack[IngressSendOptions]) -> Invocation[T]: ...
    @overload
    def send(self, target: str, argument: Any = None, /, **options: Unpack[IngressSendOptions]) -> Invocation[Any]: ...
    def send(self, target: Any, argument: Any = None, /, **options: Any) -> Invocation[Any]:
        """Starts a handler, now or after `delay`, without waiting for it."""
        send: Any = self._runtime.send
        return Invocation(self._run(send(target, argument, **options)), self._run)

    @overload
    def invocation(self, invocation_id: str, type: type[As[T]]) -> Invocation[T]: ...
    @overload
    def invocation(self, invocation_id: str, type: type[T]) -> Invocation[T]: ...
    @overload
    def invocation(self, invocation_id: str, type: AnyForm = ...) -> Invocation[Any]: ...
    def invocation(self, invocation_id: str, type: Any = Any) -> Invocation[Any]:
        """A handle on an invocation by its id."""
        return Invocation(self._runtime.invocation(invocation_id, type), self._run)

    def client(self) -> Client:
        """A client of this runtime, for code that takes one: `call` and `attach` move time, `output` does not."""
        return RuntimeClient(self._runtime.client(), self._run)

    def invocations(self, service: ServiceBase | str | None = None, *, status: str | None = None) -> list[Invocation[Any]]:
        """Every invocation that is known, oldest first."""
        return [Invocation(inner, self._run) for inner in self._run(self._runtime.invocations(service, status=status))]

    # ---- Time

    def now(self) -> datetime:
        """The virtual time, UTC."""
        return self._runtime.now()

    def advance(self, by: timedelta) -> None:
        """Let time pass; everything that is due on the way happens at its time."""
        self._run(self._runtime.advance(by))

    def settle(self) -> None:
        """Let happen whatever can happen without time moving on."""
        self._run(self._runtime.settle())

    # ---- Looking and touching

    def state(self, service: ServiceBase | str, key: str) -> State:
        """The state of a virtual object or workflow."""
        return self._run(self._runtime.state(service, key))

    def set_state(self, service: ServiceBase | str, key: str, state: Mapping[str, Any]) -> None:
        """Replace the whole state of a key."""
        self._run(self._runtime.set_state(service, key, state))

    def journal(self, invocation: Invocation[Any] | str) -> Journal:
        """What an invocation has recorded so far."""
        found = self.invocation(invocation) if isinstance(invocation, str) else invocation
        return found.journal()

    def resolve_awakeable(self, id: str, value: Any = None) -> None:
        """Completes an awakeable."""
        self._run(self._runtime.resolve_awakeable(id, value))

    def reject_awakeable(self, id: str, message: str) -> None:
        """Fails an awakeable: its wait raises TerminalError 500."""
        self._run(self._runtime.reject_awakeable(id, message))

    def promise(self, workflow: Workflow | str, key: str, name: str) -> PromiseHandle:
        """A durable promise of a workflow."""
        return PromiseHandle(self._runtime.promise(workflow, key, name), self._run)

    # ---- Standing in and failing

    def mock(self, handler: Handler[In, T], answer: T | BaseException | Callable[..., Any] | None = None) -> Mock[In, T]:
        """From now on `handler` gives `answer`: a value, an exception to raise, or a function of the argument."""
        return self._runtime.mock(handler, answer)

    def fail_step(
        self,
        name: str,
        error: BaseException | None = None,
        *,
        times: int = 1,
        after: bool = False,
        handler: Handler[Any, Any] | None = None,
    ) -> None:
        """The next `times` executions of the `ctx.run` called `name` raise `error`; `after`: once the function has run."""
        self._runtime.fail_step(name, error, times=times, after=after, handler=handler)

    def fail_endpoint(self, handler: Handler[Any, Any] | None = None, *, times: int = 1, status: int = 503, message: str = "") -> None:
        """The next `times` attempts fail before the handler starts, as if the endpoint were down."""
        self._runtime.fail_endpoint(handler, times=times, status=status, message=message or "the test lets the endpoint fail")

    def crash_coordinator(self) -> None:
        """The coordinator dies now; another one takes over from its store."""
        self._run(self._runtime.crash_coordinator())

    def replay(self, journal: str | Path | Mapping[str, Any]) -> Replayed:
        """Run today's code against an exported journal. Raises ReplayMismatch, which names the entry."""
        return self._run(self._runtime.replay(journal))


async def _cancel_others() -> None:
    """Handlers that still run end with the test."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
