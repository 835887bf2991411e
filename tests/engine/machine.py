"""The state machine alone: (pages, event) -> (operations, effects), without a store and without a clock.

After every event the operations are applied to documents of their own, which must equal the pages: what the log says is what memory holds.
"""

from __future__ import annotations

from typing import Any

from holdfast.protocol import frames, ids, messages
from holdfast.protocol.messages import MessageType as M
from holdfast_runtime.engine import journal, model
from holdfast_runtime.engine.decide import decide, transaction
from holdfast_runtime.engine.effects import Effect
from holdfast_runtime.engine.events import Arrive, AttemptEnd, AttemptOver, Event, ReceivedFrame, TimerDue
from holdfast_runtime.engine.operations import apply, decode, encode
from holdfast_runtime.engine.payload import Entry, input_entry
from holdfast_runtime.engine.registry import RegistryView
from holdfast_runtime.engine.transaction import NeedPages, Page, Transaction
from tests.simulation.processes import DEPLOYMENT, VIEW

NOW = 1_800_000_000_000


class Machine:
    """One shard. `said`: what the last event answered; `effects`: what it asked for. `view`: what is deployed."""

    def __init__(self, shards: int = 1, view: RegistryView = VIEW) -> None:
        self.shards = shards
        self.view = view
        self.now = NOW
        self.pages: dict[str, Page] = {}
        self.log: list[list[Any]] = []
        self.replayed: dict[str, Any] = {}
        self.effects: list[Effect] = []
        self.said: Any = None

    def transaction(self) -> Transaction:
        return transaction(self.pages, shard=0, shards=self.shards, now=self.now, registry=self.view)

    def after(self, *events: Event) -> Machine:
        for event in events:
            self.within(lambda tx, event=event: decide(tx, event))
        return self

    def within(self, work: Any) -> Any:
        """Run `work(tx)` as one transition, loading what it needs: nothing is stored, so what is not in memory is absent."""
        while True:
            tx = self.transaction()
            try:
                self.said = work(tx)
                break
            except NeedPages as needed:
                tx.rollback()
                self.pages |= {page_id: Page(None, -1, stored=False) for page_id in needed.page_ids}
        self.effects = list(tx.effects)
        operations = [decode(encode(operation)) for operation in tx.operations]
        self.log += operations
        for operation in operations:
            self.replayed[operation[0]] = apply(self.replayed.get(operation[0]), operation)
        for page_id, page in self.pages.items():
            assert (self.replayed.get(page_id) or None) == (decode(encode(page.document)) or None), page_id
        return self.said

    def page(self, page_id: str) -> Any:
        found = self.pages.get(page_id)
        return found.document if found is not None else None

    def invocation(self, invocation: str) -> Any:
        return self.page(model.invocation_page(invocation))

    def journal(self, invocation: str) -> list[Entry]:
        found: list[Entry] = self.within(lambda tx: [entry for _, entry in journal.entries(tx, invocation, self.invocation(invocation))])
        return found

    def fire_due(self) -> Machine:
        """Every timer that is due by now, in order."""
        while True:
            due = [
                (at, hour, number, key)
                for hour, last in (self.page(model.timer_index(0)) or {}).items()
                for number in range(last + 1)
                for key, (at, _) in (self.page(model.timer_page(0, hour, number)) or {}).items()
                if at <= self.now
            ]
            if not due:
                return self
            _, hour, number, key = min(due)
            self.after(TimerDue(hour, number, key))

    def status(self, invocation: str) -> model.Status | None:
        document = self.invocation(invocation)
        return model.Status(document[model.STATUS]) if document is not None else None


def named(number: int, key: str | None = None) -> str:
    """An invocation id of its own in shard 0."""
    partition_key = ids.keyed_partition_key(key) if key is not None else number
    return str(ids.random_invocation_id(partition_key, 1, number.to_bytes(10, "big")))


def arrival(invocation: str, service: str = "Plain", handler: str = "run", key: str | None = None, **more: Any) -> Arrive:
    kind = VIEW.services[service].handlers[handler].kind.value
    retention, of_journal = more.pop("retention_ms", 1_000), more.pop("journal_retention_ms", 1_000)
    return Arrive(invocation, [service, handler, key, kind], more.pop("entry", input_entry([], b"in")), retention, of_journal, [], **more)


def response(invocation: str, end: AttemptEnd, *commands: tuple[int, Any], known: int = 1) -> AttemptOver:
    """What an attempt that was given `known` entries answered."""
    received = [ReceivedFrame(type_, frames.encode(type_, message.SerializeToString()), message) for type_, message in commands]
    return AttemptOver(invocation, known, received, end, DEPLOYMENT, 6, 0.0)


def output(value: bytes = b"out") -> tuple[int, Any]:
    return M.OUTPUT_COMMAND, messages.OutputCommand(value=messages.Value(content=value))


def sleep(completion_id: int, at: int) -> tuple[int, Any]:
    return M.SLEEP_COMMAND, messages.SleepCommand(wake_up_time=at, result_completion_id=completion_id)


def set_state(name: str, value: bytes) -> tuple[int, Any]:
    return M.SET_STATE_COMMAND, messages.SetStateCommand(key=name.encode(), value=messages.Value(content=value))


def run(completion_id: int) -> tuple[int, Any]:
    return M.RUN_COMMAND, messages.RunCommand(result_completion_id=completion_id)


def ran(completion_id: int, value: bytes = b"ran") -> tuple[int, Any]:
    return M.PROPOSE_RUN_COMPLETION, messages.ProposeRunCompletion(result_completion_id=completion_id, value=value)


def call(completion_id: int, service: str = "Plain", handler: str = "run", key: str = "", parameter: bytes = b"in") -> tuple[int, Any]:
    """The child's id is notification `completion_id` + 1."""
    command = messages.CallCommand(service_name=service, handler_name=handler, key=key, parameter=parameter)
    command.result_completion_id, command.invocation_id_notification_idx = completion_id, completion_id + 1
    return M.CALL_COMMAND, command
