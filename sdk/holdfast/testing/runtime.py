"""`TestRuntime`: what a test talks to.

Rules: time moves only while the test waits, for a result or in `advance`; every reading (`state`, `journal`, `status`) first lets happen
whatever can happen without time moving on; `call` and `send` are typed by the handler object, as `ctx.call` is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypedDict, TypeVar, Unpack, overload

from holdfast import _calls
from holdfast._calls import IngressOptions, IngressSendOptions
from holdfast._pending import ANY_SERDE, write_any
from holdfast.client import AsyncClient
from holdfast.logs import Log
from holdfast.options import milliseconds
from holdfast.protocol import ids
from holdfast.serde import AnyForm, As, Serde, serde_for
from holdfast.service import Handler, ServiceBase, Workflow
from holdfast.testing import _deployed
from holdfast.testing._backend import Backend
from holdfast.testing._clients import AsyncRuntimeClient
from holdfast.testing._memory import Memory
from holdfast.testing.errors import NotDeterministic, NotKept, Stuck
from holdfast.testing.faults import Crash, EndpointFault, Faults, StepFault
from holdfast.testing.journal import Journal, journal_of, plain
from holdfast.testing.mocks import Mock
from holdfast.testing.replay import Replayed, exported, replay

In = TypeVar("In")
T = TypeVar("T")

PATIENCE = timedelta(seconds=60)


class Options(TypedDict, total=False):
    """Keyword arguments of a runtime; what they mean stands with `TestRuntime`."""

    always_replay: bool
    crash_at: int | Crash | Iterable[Crash] | None
    disable_retries: bool
    start_at: datetime | None
    seed: int
    shards: int
    patience: timedelta
    logger: Log | None


class State(dict[str, Any]):
    """The state of one key: names to plain JSON values. `raw` has the bytes."""

    def __init__(self, raw: Mapping[str, bytes]) -> None:
        super().__init__({name: plain(value) for name, value in raw.items()})
        self.raw = dict(raw)

    @overload
    def value(self, name: str, type: type[As[T]]) -> T: ...
    @overload
    def value(self, name: str, type: type[T]) -> T: ...
    @overload
    def value(self, name: str, type: Any) -> Any: ...
    def value(self, name: str, type: Any) -> Any:
        """One entry, read as `type`. Raises KeyError."""
        return serde_for(type).deserialize(self.raw[name])


class Invocation(Generic[T]):
    """An invocation that the test has started, or knows the id of."""

    def __init__(self, backend: Backend, invocation_id: str, result: Serde[T], *, accepted_before: bool = False) -> None:
        self._backend = backend
        self._serde = result
        self.invocation_id = invocation_id
        self.accepted_before = accepted_before  # the idempotency key or the workflow was seen earlier

    def __repr__(self) -> str:
        return f"<invocation {self.invocation_id}>"

    async def result(self) -> T:
        """Its result; time moves until it is there. Raises TerminalError, and Stuck when it can never come."""
        return self._serde.deserialize(await self._backend.result(self.invocation_id))

    async def journal(self) -> Journal:
        """What it has recorded so far."""
        return journal_of(await self._row())

    async def export(self) -> dict[str, Any]:
        """The journal as `holdfast invocations export` writes it: to keep as JSON, and for `runtime.replay` of changed code."""
        row = await self._row()
        if not row["journal"]:
            raise NotKept(f"the journal of {self.invocation_id} is empty: it was purged, or its retention is over")
        return exported(row)

    async def status(self) -> str:
        """`running`, `suspended`, `backing-off`, `paused`, `scheduled`, `pending`, `completed` ..."""
        status: str = (await self._row())["status"]
        return status

    async def cancel(self) -> None:
        """Its next wait raises CancelledError."""
        await self._backend.operate("cancel", self.invocation_id)

    async def kill(self) -> None:
        """It ends here and now, without clean-up."""
        await self._backend.operate("kill", self.invocation_id)

    async def pause(self) -> None:
        """It starts no more attempts until `resume`."""
        await self._backend.operate("pause", self.invocation_id)

    async def resume(self) -> None:
        """It tries again at once: after a pause, or instead of waiting for its next retry."""
        await self._backend.operate("resume", self.invocation_id)

    async def signal(self, name: str, value: Any = None) -> None:
        """Send it a named signal (`ctx.signal`)."""
        await self._backend.signal(self.invocation_id, name, write_any(value))

    def awakeable_id(self, number: int = 0) -> str:
        """The id of the handler's awakeable: 0 is the first it made."""
        return ids.awakeable_id(ids.InvocationId.parse(self.invocation_id), ids.FIRST_AWAKEABLE_SIGNAL + number)

    async def _row(self) -> Mapping[str, Any]:
        row = await self._backend.describe(self.invocation_id)
        if row is None:
            raise NotKept(f"{self.invocation_id} is not known: was it purged, or is its retention over?")
        return row


class PromiseHandle(Generic[T]):
    """A durable promise of a workflow, seen from the test."""

    def __init__(self, backend: Backend, workflow: str, key: str, name: str) -> None:
        self._backend = backend
        self._where = workflow, key
        self._name = name

    async def resolve(self, value: Any = None) -> None:
        """Completes it. Raises TerminalError 409 if it was completed before."""
        await self._backend.promise(*self._where, {"do": "resolve", "name": self._name, "value": plain(write_any(value))})

    async def reject(self, message: str, code: int = 500) -> None:
        """Fails it: its wait raises TerminalError."""
        await self._backend.promise(*self._where, {"do": "reject", "name": self._name, "message": message, "code": code})

    async def peek(self) -> Any:
        """The value as plain JSON, None while it is not completed."""
        return await self._backend.promise(*self._where, {"do": "peek", "name": self._name})


class TestRuntime:
    """Services on the real coordinator, in memory and in virtual time. Use it in `async with`, or as the fixture `holdfast_runtime`.

    always_replay: what a handler records is replayed at once at every await and at its end, so that non-determinism shows.
    crash_at: journal entry after which an attempt is lost, or `Crash` objects. disable_retries: the first error that would be retried fails
    the test. start_at: the virtual time at the start, default now. seed: of ids and jitter. shards: of the coordinator's store.
    patience: real time without any handler ending after which a wait is given up.
    """

    __test__ = False

    def __init__(
        self,
        *services: ServiceBase,
        always_replay: bool = False,
        crash_at: int | Crash | Iterable[Crash] | None = None,
        disable_retries: bool = False,
        start_at: datetime | None = None,
        seed: int = 0,
        shards: int = 1,
        patience: timedelta = PATIENCE,
        logger: Log | None = None,
    ) -> None:
        self.services = services
        crashes = _crashes(crash_at)
        target = _deployed.target()
        if target is not None:
            _deployed.refuse(
                {
                    "always_replay": always_replay,
                    "crash_at": bool(crashes),
                    "disable_retries": disable_retries,
                    "start_at": start_at is not None,
                }
            )
            self._backend: Backend = _deployed.Deployed(target)
            return
        start = start_at or datetime.now(UTC)
        if start.tzinfo is None:
            raise ValueError(f"start_at needs a time zone, found {start_at!r}; add tzinfo=UTC")
        self._backend = Memory(
            services,
            faults=Faults(crashes),
            always_replay=always_replay,
            disable_retries=disable_retries,
            start_ms=int(start.timestamp() * 1000),
            seed=seed,
            shards=shards,
            patience_s=milliseconds(patience) / 1000,
            logger=logger,
        )

    async def __aenter__(self) -> TestRuntime:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, Exception):
            await self.explain(error)
        self.close()

    async def explain(self, error: BaseException) -> None:
        """Note the journals of this runtime on the error a test fails with."""
        if isinstance(error, Stuck | NotDeterministic) or any("virtual time" in note for note in getattr(error, "__notes__", ())):
            return  # it has them already
        with contextlib.suppress(Exception):  # what is told beside an error must not replace it
            if story := await self._backend.story():
                error.add_note(f"Journals of the test runtime at the failure, {story}")

    def close(self) -> None:
        """End everything. May be called twice."""
        self._backend.close()

    # ---- Starting

    @overload
    async def call(self, target: Handler[None, T], /, **options: Unpack[IngressOptions]) -> T: ...
    @overload
    async def call(self, target: Handler[In, T], argument: In, /, **options: Unpack[IngressOptions]) -> T: ...
    @overload
    async def call(self, target: str, argument: Any = None, /, *, returns: type[As[T]], **options: Unpack[IngressOptions]) -> T: ...
    @overload
    async def call(self, target: str, argument: Any = None, /, *, returns: type[T], **options: Unpack[IngressOptions]) -> T: ...
    @overload
    async def call(
        self, target: str, argument: Any = None, /, *, returns: AnyForm | None = None, **options: Unpack[IngressOptions]
    ) -> Any: ...
    async def call(self, target: Any, argument: Any = None, /, *, key: str | None = None, returns: Any = None, **options: Any) -> Any:
        """Calls a handler and waits for its result; time moves until it is there."""
        call = _calls.resolve(target, argument, key=key, returns=returns, **options)
        started = await self._started(call, None)
        if started.accepted_before and getattr(target, "kind", None) == "WORKFLOW":
            from holdfast.errors import TerminalError

            raise TerminalError("the workflow method was already invoked", code=409)
        return await started.result()

    @overload
    async def send(self, target: Handler[None, T], /, **options: Unpack[IngressSendOptions]) -> Invocation[T]: ...
    @overload
    async def send(self, target: Handler[In, T], argument: In, /, **options: Unpack[IngressSendOptions]) -> Invocation[T]: ...
    @overload
    async def send(self, target: str, argument: Any = None, /, **options: Unpack[IngressSendOptions]) -> Invocation[Any]: ...
    async def send(
        self, target: Any, argument: Any = None, /, *, key: str | None = None, delay: timedelta | None = None, **options: Any
    ) -> Invocation[Any]:
        """Starts a handler, now or after `delay`, without waiting for it."""
        return await self._started(_calls.resolve(target, argument, key=key, **options), delay)

    async def _started(self, call: _calls.Call, delay: timedelta | None) -> Invocation[Any]:
        id, before = await self._backend.send(call, delay)
        return Invocation(self._backend, id, call.result, accepted_before=before)

    @overload
    def invocation(self, invocation_id: str, type: type[As[T]]) -> Invocation[T]: ...
    @overload
    def invocation(self, invocation_id: str, type: type[T]) -> Invocation[T]: ...
    @overload
    def invocation(self, invocation_id: str, type: AnyForm = ...) -> Invocation[Any]: ...
    def invocation(self, invocation_id: str, type: Any = Any) -> Invocation[Any]:
        """A handle on an invocation by its id, e.g. one that a handler has sent."""
        return Invocation(self._backend, invocation_id, ANY_SERDE if type is Any else serde_for(type))

    def client(self) -> AsyncClient:
        """A client of this runtime, for code that takes one: `call` and `attach` move time, `output` does not."""
        return AsyncRuntimeClient(self._backend)

    async def invocations(self, service: ServiceBase | str | None = None, *, status: str | None = None) -> list[Invocation[Any]]:
        """Every invocation that is known, oldest first."""
        rows = await self._backend.list(_name(service) if service is not None else None, status)
        rows = sorted(rows, key=lambda row: (row["created_at_ms"], row["id"]))
        return [Invocation(self._backend, row["id"], ANY_SERDE) for row in rows]

    # ---- Time

    def now(self) -> datetime:
        """The virtual time, UTC."""
        return self._backend.now()

    async def advance(self, by: timedelta) -> None:
        """Let time pass; everything that is due on the way happens at its time."""
        await self._backend.advance(by)

    async def settle(self) -> None:
        """Let happen whatever can happen without time moving on: before looking at side effects of one's own."""
        await self._backend.advance(timedelta(0))

    # ---- Looking and touching

    async def state(self, service: ServiceBase | str, key: str) -> State:
        """The state of a virtual object or workflow."""
        return State(await self._backend.state(_name(service), key))

    async def set_state(self, service: ServiceBase | str, key: str, state: Mapping[str, Any]) -> None:
        """Replace the whole state of a key."""
        await self._backend.set_state(_name(service), key, {name: ANY_SERDE.serialize(value) for name, value in state.items()})

    async def journal(self, invocation: Invocation[Any] | str) -> Journal:
        """What an invocation has recorded so far."""
        found = self.invocation(invocation) if isinstance(invocation, str) else invocation
        return await found.journal()

    async def resolve_awakeable(self, id: str, value: Any = None) -> None:
        """Completes an awakeable."""
        await self._backend.resolve_awakeable(id, write_any(value))

    async def reject_awakeable(self, id: str, message: str) -> None:
        """Fails an awakeable: its wait raises TerminalError 500."""
        await self._backend.reject_awakeable(id, message)

    def promise(self, workflow: Workflow | str, key: str, name: str) -> PromiseHandle[Any]:
        """A durable promise of a workflow."""
        return PromiseHandle(self._backend, _name(workflow), key, name)

    # ---- Standing in and failing

    def mock(self, handler: Handler[In, T], answer: T | BaseException | Callable[..., Any] | None = None) -> Mock[In, T]:
        """From now on `handler` gives `answer`: a value, an exception to raise, or a function of the argument (plain or async).

        The handler's service need not be among those of this runtime.
        """
        mock: Mock[In, T] = Mock(handler, answer)
        self._backend.mock(mock)
        return mock

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
        raised = error or RuntimeError(f"the test lets step '{name}' fail")
        self._backend.add_fault(StepFault(name, times, raised, after, handler.full_name if handler is not None else None))

    def fail_endpoint(
        self,
        handler: Handler[Any, Any] | None = None,
        *,
        times: int = 1,
        status: int = 503,
        message: str = "the test lets the endpoint fail",
    ) -> None:
        """The next `times` attempts fail before the handler starts, as if the endpoint were down."""
        self._backend.add_fault(EndpointFault(handler.full_name if handler is not None else None, times, status, message))

    async def crash_coordinator(self) -> None:
        """The coordinator dies now; another one takes over from its store."""
        await self._backend.crash_coordinator()

    # ---- Journals from elsewhere

    async def replay(self, journal: str | Path | Mapping[str, Any]) -> Replayed:
        """Run today's code against a journal that `holdfast invocations export` wrote. Raises ReplayMismatch, which names the entry."""
        return await replay(self.services, journal)


def _crashes(given: int | Crash | Iterable[Crash] | None) -> tuple[Crash, ...]:
    if given is None:
        return ()
    if isinstance(given, int):
        return (Crash(given),)
    return (given,) if isinstance(given, Crash) else tuple(given)


def _name(service: ServiceBase | str) -> str:
    return service if isinstance(service, str) else service.name
