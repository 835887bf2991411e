"""The backend in memory: the real coordinator beside the test, in virtual time."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from holdfast._calls import Call
from holdfast.client import IngressError
from holdfast.errors import JournalMismatchError, TerminalError
from holdfast.logs import Log
from holdfast.options import milliseconds
from holdfast.protocol import ids
from holdfast.protocol.ids import IdError, InvocationId
from holdfast.service import ServiceBase
from holdfast.testing._backend import Verb
from holdfast.testing._engine import Engine, Nothing, Process
from holdfast.testing._handlers import Handlers
from holdfast.testing.errors import HandlerFailed, NotDeterministic, NotKept, Stuck
from holdfast.testing.faults import EndpointFault, Faults, StepFault
from holdfast.testing.journal import Journal, first_line, journal_of
from holdfast.testing.mocks import CONTROL, Mock
from holdfast_runtime.coordinator import requests
from holdfast_runtime.coordinator.front import (
    Accepted,
    Done,
    InvocationFilter,
    NewInvocation,
    NotFound,
    NotReady,
    Outcome,
    RegistrationError,
    Success,
    Target,
)
from holdfast_runtime.engine import model
from holdfast_runtime.engine.payload import success
from holdfast_runtime.engine.registry import HandlerKind

T = TypeVar("T")
OVER: Final = "completed"
LISTED: Final = 10_000
SHOWN: Final = 20  # invocations in a message


class Memory:
    """`Backend` without anything outside."""

    def __init__(
        self,
        services: Sequence[ServiceBase],
        *,
        faults: Faults,
        always_replay: bool,
        disable_retries: bool,
        start_ms: int,
        seed: int,
        shards: int,
        patience_s: float,
        logger: Log | None,
    ) -> None:
        self.faults = faults
        self._disable_retries = disable_retries
        self._handlers = Handlers(
            services,
            faults=faults,
            now_ms=self._now_ms,
            on_failure=self._failed,
            always_replay=always_replay,
            disable_retries=disable_retries,
            logger=logger,
        )
        self._engine = Engine(self._handlers, shards=shards, start_ms=start_ms, seed=seed, patience_s=patience_s)
        self._engine.after_attempt = self._after_attempt
        self._failures: dict[str, BaseException] = {}  # the last error of each invocation
        self._news: list[tuple[str, str, BaseException]] = []
        # Of what this test started, also past its retention: results, and what `describe` said at the end.
        self._kept: dict[str, Outcome] = {}
        self._kept_rows: dict[str, Mapping[str, Any]] = {}

    # ---- Invocations

    async def send(self, call: Call, delay: timedelta | None) -> tuple[str, bool]:
        target = call.target
        where = "/".join(part for part in ("", target.service, target.key, target.handler) if part or part == "")
        headers = [("x-restate-ingress-path", where), *((name.lower(), value) for name, value in target.headers)]
        if call.content_type is not None:
            headers.append(("content-type", call.content_type))
        new = NewInvocation(
            Target(target.service, target.handler, target.key or None),
            call.parameter,
            headers,
            target.idempotency_key,
            None if delay is None else milliseconds(delay),
        )
        minted: list[InvocationId] = []

        async def work(process: Process, repeated: bool) -> Accepted:
            front = process.coordinator
            self._check(process, new.target)
            if not minted:
                minted.append(front.mint(new))
            # A coordinator that died may have accepted it, and an id is not to be accepted twice.
            if repeated and await front.describe(minted[0]) is not None:
                return Accepted(minted[0], True)
            accepted = await front.send(minted[0], new)
            process.loop.create_task(self._keep(process, minted[0]))
            return accepted

        accepted = await self._ask(work)
        return str(accepted.invocation_id), not accepted.new

    def _check(self, process: Process, target: Target) -> None:
        registry = process.coordinator.registry
        service = registry.services.get(target.service)
        if service is None:
            known = ", ".join(sorted(registry.services)) or "none"
            raise AssertionError(
                f"no service '{target.service}' in this runtime; it has {known}. Pass it to TestRuntime, or mock its handler"
            )
        handler = registry.handler(target.service, target.handler)
        if handler is None:
            raise AssertionError(
                f"service '{target.service}' has no handler '{target.handler}'; it has {', '.join(sorted(service.handlers))}"
            )
        keyed = handler.kind is not HandlerKind.SERVICE
        if keyed and target.key is None:
            raise AssertionError(f"{target.service}/{target.handler} needs key=")
        if not keyed and target.key is not None:
            raise AssertionError(f"{target.service}/{target.handler} belongs to a plain service, which has no keys")

    async def _keep(self, process: Process, invocation_id: InvocationId) -> None:
        outcome = await process.coordinator.attach(invocation_id)
        if isinstance(outcome, NotFound):
            return
        self._kept[str(invocation_id)] = outcome
        if (row := await process.coordinator.describe(invocation_id)) is not None:
            self._kept_rows[str(invocation_id)] = row

    async def result(self, invocation_id: str, *, kept: bool = True) -> bytes:
        parsed = _parsed(invocation_id)
        read = self._outcome if kept else _attached
        try:
            outcome = await self._ask(lambda process, _: read(process, parsed), moves_time=True)
        except Nothing:
            raise await self._stuck(invocation_id) from self._failures.get(invocation_id)
        except NotDeterministic as error:
            text = f"{error}\n\n{await self._timeline(error.invocation_id)}"
            raise NotDeterministic(text, invocation_id=error.invocation_id) from error.__cause__
        if isinstance(outcome, NotFound):
            raise NotKept(f"{invocation_id} is not known: was it purged, or is its retention over?")
        return _content(outcome)

    async def output(self, invocation_id: str) -> bytes:
        parsed = _parsed(invocation_id)
        await self.settle()
        outcome = await self._ask(lambda process, _: process.coordinator.output(parsed))
        if isinstance(outcome, NotReady):
            raise IngressError(470, "the invocation exists but has not completed yet")
        if isinstance(outcome, NotFound):
            raise IngressError(404, "invocation not found")
        return _content(outcome)

    async def _outcome(self, process: Process, invocation_id: InvocationId) -> Outcome | NotFound:
        kept = self._kept.get(str(invocation_id))
        if kept is not None:
            return kept
        outcome = await process.coordinator.attach(invocation_id)
        return self._kept.get(str(invocation_id), outcome) if isinstance(outcome, NotFound) else outcome

    async def describe(self, invocation_id: str) -> Mapping[str, Any] | None:
        parsed = _parsed(invocation_id)
        await self.settle()
        row = await self._ask(lambda process, _: process.coordinator.describe(parsed))
        return row if row is not None else self._kept_rows.get(invocation_id)

    async def list(self, service: str | None, status: str | None) -> Sequence[Mapping[str, Any]]:
        await self.settle()
        where = InvocationFilter(service=service, status=status, limit=LISTED)
        rows = await self._ask(lambda process, _: process.coordinator.list_invocations(where))
        return [row for row in rows if row["target_handler_name"] != CONTROL]

    async def operate(self, verb: Verb, invocation_id: str) -> None:
        parsed = _parsed(invocation_id)
        done = await self._ask(lambda process, _: getattr(process.coordinator, verb)(parsed))
        if done not in (Done.APPLIED, Done.ACCEPTED):
            raise AssertionError(f"cannot {verb} {invocation_id}: it is {done.value}")

    # ---- State, awakeables, signals, promises

    async def state(self, service: str, key: str) -> Mapping[str, bytes]:
        await self.settle()
        return await self._ask(lambda process, _: process.coordinator.state(service, key))

    async def set_state(self, service: str, key: str, state: Mapping[str, bytes]) -> None:
        await self._ask(lambda process, _: process.coordinator.edit_state(service, key, state, None))
        await self.settle()

    async def resolve_awakeable(self, id: str, value: bytes) -> None:
        invocation, index = _awakeable(id)
        await self._ask(lambda process, _: process.coordinator.resolve_awakeable(invocation, index, value))

    async def reject_awakeable(self, id: str, message: str) -> None:
        invocation, index = _awakeable(id)
        await self._ask(lambda process, _: process.coordinator.reject_awakeable(invocation, index, message))

    async def signal(self, invocation_id: str, name: str, value: bytes) -> None:
        parsed = _parsed(invocation_id)
        shard = model.shard_of_key(parsed.partition_key, self._engine.store.shards)
        request = requests.signal(invocation_id, name, success(value))
        await self._ask(lambda process, _: process.node.ask(shard, request))

    async def promise(self, workflow: str, key: str, wish: Mapping[str, Any]) -> Any:
        served = self._handlers.services.get(workflow)
        if served is None or CONTROL not in served.handlers:
            raise AssertionError(f"'{workflow}' is not a workflow of this runtime")
        handler = served.handlers[CONTROL]
        from holdfast import _calls

        id, _ = await self.send(_calls.resolve(handler, dict(wish), key=key), None)
        content = await self.result(id)
        return json.loads(content) if content else None

    # ---- Time

    def _now_ms(self) -> int:
        return self._engine.clock.now_ms()

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._engine.clock.now_ms() / 1000, UTC)

    async def advance(self, by: timedelta) -> None:
        await self._engine.until(self._engine.clock.now_ms() + milliseconds(by))

    async def settle(self) -> None:
        """Everything that can happen without time moving on has happened."""
        await self.advance(timedelta(0))

    # ---- Trouble

    async def crash_coordinator(self) -> None:
        await self.settle()
        self._engine.kill()

    def mock(self, mock: Mock[Any, Any]) -> None:
        if self._handlers.mock(mock):
            self._engine.handlers_version += 1

    def add_fault(self, fault: EndpointFault | StepFault) -> None:
        if isinstance(fault, EndpointFault):
            self.faults.endpoint.append(fault)
        else:
            self.faults.steps.append(fault)

    def close(self) -> None:
        self._engine.end()

    # ---- Inside

    async def _ask(self, work: Callable[[Process, bool], Coroutine[Any, Any, T]], *, moves_time: bool = False) -> T:
        try:
            return await self._engine.ask(work, moves_time=moves_time)
        except RegistrationError as error:
            raise AssertionError(f"these services cannot be served: {error}") from error

    def _failed(self, handler: str, invocation_id: str, error: BaseException) -> None:
        """Called in the handler's thread."""
        self._failures[invocation_id] = error
        if self._disable_retries or isinstance(error, JournalMismatchError):
            self._news.append((handler, invocation_id, error))

    def _after_attempt(self) -> None:
        """A test that waits hears at once of what no retry can heal."""
        if not self._news:
            return
        handler, invocation_id, error = self._news[0]
        self._news.clear()
        where = f"{handler} ({invocation_id})"
        failed: AssertionError
        if isinstance(error, JournalMismatchError):
            failed = NotDeterministic(f"{where} is not deterministic: {error}", invocation_id=invocation_id)
        else:
            failed = HandlerFailed(f"{where} failed, and retries are disabled: {type(error).__name__}: {error}")
        failed.__cause__ = error
        self._engine.fail(failed)

    async def story(self) -> str:
        """The journals of this runtime as they are, for whoever looks at a failed test."""
        where = InvocationFilter(limit=SHOWN)
        rows = await self._ask(lambda process, _: process.coordinator.list_invocations(where))
        shown = [row["id"] for row in reversed(rows) if row["target_handler_name"] != CONTROL]
        head = f"virtual time {self.now().isoformat()}"
        return "\n\n".join([head, *[await self._timeline(id) for id in shown]])

    async def _timeline(self, invocation_id: str) -> str:
        row = await self._ask(lambda process, _: process.coordinator.describe(_parsed(invocation_id)))
        return "" if row is None else str(journal_of(row))

    async def _stuck(self, invocation_id: str) -> Stuck:
        """Why nothing can happen any more."""
        awaited = await self._ask(lambda process, _: process.coordinator.describe(_parsed(invocation_id)))
        rows = [row for row in await self.list(None, None) if row["status"] != OVER and row["id"] != invocation_id]
        lines = ["the test waits for a result that nothing can bring about: no timer is due, and no handler runs."]
        if awaited is not None:
            journal = journal_of(awaited)
            lines += [f"It waits for {reason(journal)}.", "", str(journal)]
        if rows:
            lines += ["", "Other invocations that are not over:"]
        for row in rows[:SHOWN]:
            other = await self.describe(row["id"])
            if other is not None:
                lines.append(f"  {row['target']}  {row['id']}  {row['status']}: waits for {reason(journal_of(other))}")
        return Stuck("\n".join(lines))


def reason(journal: Journal) -> str:
    """What an invocation waits for, in words."""
    if journal.status == "paused":
        return f"somebody to resume it: it is paused after its last failure: {first_line(journal.failure) or 'unknown'}"
    if journal.status in ("pending", "inboxed", "queued"):
        return "its key: another invocation holds it"
    waiting = [step for step in journal.steps if step.state == "waiting"]
    if not waiting:
        return "an awakeable or a signal; complete it with runtime.resolve_awakeable or handle.signal"
    hints = {"await promise": "; complete it with runtime.promise(...).resolve(...)", "run": " (never executed: was it awaited?)"}
    return " and ".join(f"'{step}'{hints.get(step.kind, '')}" for step in waiting)


async def _attached(process: Process, invocation_id: InvocationId) -> Outcome | NotFound:
    return await process.coordinator.attach(invocation_id)


def _content(outcome: Outcome) -> bytes:
    """Raises TerminalError when it failed."""
    if isinstance(outcome, Success):
        return outcome.value
    failed = TerminalError(outcome.message, metadata=outcome.metadata)
    failed.code = outcome.code
    raise failed


def _parsed(invocation_id: str) -> InvocationId:
    try:
        return InvocationId.parse(invocation_id)
    except IdError as error:
        raise AssertionError(f"not an invocation id: {error}") from error


def _awakeable(id: str) -> tuple[InvocationId, int]:
    try:
        parsed = ids.parse_awakeable_id(id)
    except IdError as error:
        raise AssertionError(f"not the id of an awakeable: {error}; handlers get it as ctx.awakeable(...).id") from error
    return parsed.invocation, parsed.index
