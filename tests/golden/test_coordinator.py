"""The coordinator against captured traffic: it is given the recorded responses and must make the recorded requests.

Every invocation keeps its recorded id and every child gets its recorded one, so that journals compare byte for byte. Not compared:
durations, the random seed and times, which another run has otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Final

import pytest

from holdfast.protocol import frames, messages
from holdfast.protocol.ids import InvocationId
from holdfast.protocol.manifest import HandlerManifest, HandlerType, ServiceType
from holdfast.protocol.messages import MessageType as M
from holdfast.protocol.versions import parse_content_type
from holdfast_runtime.engine import key_state, model
from holdfast_runtime.engine.commands import call
from holdfast_runtime.engine.decide import transaction
from holdfast_runtime.engine.events import Arrive, AttemptFailed, AttemptOver, Deliver, TimerDue
from holdfast_runtime.engine.payload import VOID, entry_size, entry_type, success
from holdfast_runtime.engine.registry import (
    Deployment,
    HandlerKind,
    HandlerRevision,
    InProcessAddress,
    RegistryView,
    RetryPolicy,
    ServiceRevision,
)
from holdfast_runtime.engine.response import read_response
from holdfast_runtime.engine.snapshot import Snapshot, snapshot
from holdfast_runtime.engine.transaction import NeedPages, Page, Transaction
from holdfast_runtime.ports.endpoint import EndpointResponse
from holdfast_runtime.ports.outcomes import failure_of
from tests.engine.machine import Machine
from tests.golden.summary import Body, bodies, load, names

START_FIELDS: Final = ("id", "debug_id", "known_entries", "partial_state", "key")
DEPLOYMENT: Final = "dp_1golden"
ELSEWHERE: Final = {"33", "34", "35"}  # ask for an invocation that was made before the recording began
PLAYED: Final = [name for name in names() if ("02" <= name[:2] <= "36" or name[:2] == "39") and name[:2] not in ELSEWHERE]
BEFORE: Final = 1_700_000_000_000  # earlier than any recorded instant, so that no timer is due by accident
STATE: Final = {"17-state-lazy": {"count": b"12"}}  # what earlier requests had left


class Golden(Machine):
    """A shard that serves whatever the vector calls."""

    def __init__(self, vector: Mapping[str, Any]) -> None:
        super().__init__()
        self.now = BEFORE
        self.view = view_of(vector)
        self.state = STATE.get(vector["name"], {})

    def transaction(self) -> Transaction:
        return transaction(self.pages, shard=0, shards=1, now=self.now, registry=self.view)

    def snapshot(self, invocation: str) -> Snapshot | None:
        while True:
            try:
                return snapshot(self.transaction(), invocation)
            except NeedPages as needed:
                self.pages |= {page_id: Page(None, -1, stored=False) for page_id in needed.page_ids}

    def fire_next_timer(self) -> bool:
        """Let time pass until the next timer is due."""
        due = [
            (at, hour, number, key)
            for hour, last in (self.page(model.timer_index(0)) or {}).items()
            for number in range(last + 1)
            for key, (at, _) in (self.page(model.timer_page(0, hour, number)) or {}).items()
        ]
        if not due:
            return False
        at, hour, number, key = min(due)
        self.now = max(self.now, at)
        self.after(TimerDue(hour, number, key))
        return True


def view_of(vector: Mapping[str, Any]) -> RegistryView:
    """The services a vector's requests and calls name: keyed ones as objects, those with promises or a run as workflows."""
    kinds: dict[str, dict[str, bool]] = {}
    workflows = {"Approval"}
    for exchange in invocations_of(vector):
        _, _, service, handler = path_of(exchange).split("/")
        keyed = any(name.lower() == "x-restate-service-key" for name in exchange["request"]["headers"])
        kinds.setdefault(service, {})[handler] = keyed
    lazy = {
        path_of(exchange).split("/")[2]
        for exchange in invocations_of(vector)
        for item in exchange["response"].get("decoded", ())
        if item["name"].startswith("GetLazyState")
    }
    services = {}
    for service, handlers in kinds.items():
        type_ = ServiceType.SERVICE
        if any(handlers.values()):
            type_ = ServiceType.WORKFLOW if service in workflows else ServiceType.VIRTUAL_OBJECT
        revisions = {name: _handler(name, type_, lazy_state=service in lazy) for name in handlers}
        services[service] = ServiceRevision(service, type_, 1, DEPLOYMENT, True, revisions)
    deployment = Deployment(DEPLOYMENT, InProcessAddress("golden"), "RequestResponse", 5, 7, 6, 0, services=services)
    return RegistryView(1, {DEPLOYMENT: deployment}, services)


def _handler(name: str, service: ServiceType, *, lazy_state: bool) -> HandlerRevision:
    kind = HandlerKind.SERVICE
    if service is ServiceType.WORKFLOW:
        kind = HandlerKind.RUN if name == "run" else HandlerKind.SHARED
    elif service is ServiceType.VIRTUAL_OBJECT:
        kind = HandlerKind.EXCLUSIVE
    manifest = HandlerManifest(name=name, type=None if kind is HandlerKind.SERVICE else HandlerType.SHARED)
    hour = 3_600_000
    return HandlerRevision(name, kind, True, 60_000, hour, hour, hour, lazy_state, RetryPolicy(10, 2.0, 100, None), manifest)


def children_of(vector: Mapping[str, Any]) -> dict[tuple[str, int], str]:
    """(caller, notification id) -> the id of the child, as the recorded journals tell."""
    found = {}
    for body in bodies(vector):
        split = list(frames.split(body.content))
        if split and split[0].type == M.START:
            caller = messages.parse(split[0].type, split[0].body)
            for frame in split[1:]:
                if frame.type == M.CALL_INVOCATION_ID_COMPLETION:
                    message: Any = messages.parse(frame.type, frame.body)
                    found[caller.debug_id, message.completion_id] = message.invocation_id  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("name", PLAYED)
def test_the_next_request_is_the_recorded_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vector = load(name)
    children = children_of(vector)
    derive = call._child_id

    def recorded_child(scope: Any, command: Any, *more: Any) -> str:
        return children.get((scope.invocation, command.invocation_id_notification_idx)) or derive(scope, command, *more)

    monkeypatch.setattr(call, "_child_id", recorded_child)
    machine = Golden(vector)
    by_exchange = {int(body.place.split()[1]): body for body in bodies(vector) if body.place.endswith("request")}
    compared = 0
    for exchange in invocations_of(vector):
        body = by_exchange[exchange["n"]]
        taken = _bring_to(machine, body, exchange)
        _compare(taken, body)
        compared += 1
        _answer(machine, taken, exchange, body)
    assert compared == len(invocations_of(vector))


def invocations_of(vector: Mapping[str, Any]) -> list[Any]:
    """The exchanges that are no discovery."""
    return [exchange for exchange in vector["exchanges"] if path_of(exchange).startswith("/invoke/")]


def path_of(exchange: Mapping[str, Any]) -> str:
    request = exchange["request"]
    return str(request["path"] if "path" in request else request["request_line"].split()[1])


def _bring_to(machine: Golden, body: Body, exchange: Mapping[str, Any]) -> Snapshot:
    """Whatever comes from outside or with time, until the attempt may start with the recorded journal."""
    start, *entries = frames.split(body.content)
    message: Any = messages.parse(start.type, start.body)
    invocation = message.debug_id
    if machine.invocation(invocation) is None:
        _, _, service, handler = path_of(exchange).split("/")
        kind = machine.view.services[service].handlers[handler].kind.value
        key = message.key if kind != HandlerKind.SERVICE.value else None
        for item in message.state_map:
            machine.state.setdefault(item.key.decode(), item.value)
        machine.within(lambda tx: [key_state.write(tx, service, message.key, *pair) for pair in machine.state.items()])  # type: ignore[func-returns-value]
        machine.state = {}
        machine.after(Arrive(invocation, [service, handler, key, kind], frames.raw(entries[0]), 3_600_000, 3_600_000, []))
    for _ in range(20):
        document = machine.invocation(invocation)
        if document[model.STATUS] == model.Status.RUNNING and document[model.LENGTH] >= len(entries):
            break
        following = entries[document[model.LENGTH]] if document[model.LENGTH] < len(entries) else None
        if following is not None and following.type == M.SIGNAL_NOTIFICATION:
            signal: Any = messages.parse(following.type, following.body)
            result = VOID if signal.WhichOneof("result") == "void" else success(signal.value.content)
            machine.after(Deliver({"m": "s", "id": invocation, "sig": signal.idx, "r": result}))
        else:
            assert machine.fire_next_timer(), f"{invocation} waits for entry {document[model.LENGTH]}: {following!r}"
    taken = machine.snapshot(invocation)
    assert taken is not None
    return taken


def _compare(taken: Snapshot, body: Body) -> None:
    start, *entries = frames.split(body.content)
    recorded: Any = messages.parse(start.type, start.body)
    for ours, theirs in zip(_sorted(taken.entries), _sorted([frames.raw(frame) for frame in entries]), strict=True):
        assert (ours == theirs) if isinstance(ours, bytes) else (entry_size(ours) == len(theirs))
    for field in START_FIELDS:
        assert getattr(taken.start, field) == getattr(recorded, field), field
    assert {name.encode(): value for name, value in taken.state} == {item.key: item.value for item in recorded.state_map}
    assert InvocationId.from_raw(taken.start.id) == InvocationId.parse(taken.invocation)
    assert (taken.start.retry_count_since_last_stored_entry > 0) == (recorded.retry_count_since_last_stored_entry > 0)


def _sorted(entries: Sequence[Any]) -> list[Any]:
    """Who is told first when one end completes several calls is nobody's promise: notifications side by side are put in order."""
    runs = [
        (is_notification, list(run)) for is_notification, run in groupby(entries, lambda entry: messages.is_notification(entry_type(entry)))
    ]
    return [entry for is_notification, run in runs for entry in (sorted(run, key=repr) if is_notification else run)]


def _answer(machine: Golden, taken: Snapshot, exchange: Mapping[str, Any], body: Body) -> None:
    recorded = exchange["response"]
    headers = {name.lower(): value for name, value in recorded.get("headers", {}).items() if name.lower() != "content-encoding"}
    content = next((b.content for b in bodies({"exchanges": [exchange]}) if b.place.endswith("response")), b"")
    sent_as = {name.lower(): value for name, value in exchange["request"]["headers"].items()}["content-type"]
    assert parse_content_type(sent_as) == body.version
    status = recorded.get("status") or (200 if "decoded" in recorded else 502)
    failed = failure_of(EndpointResponse(status, headers, content), sent_as, now_ms=machine.now)
    if failed is not None:
        event = AttemptOver(taken.invocation, taken.known, [], AttemptFailed(failed.code, str(failed)), DEPLOYMENT, body.version, 0.0)
    else:
        answer = read_response(taken.invocation, content, version=body.version)
        event = AttemptOver(taken.invocation, taken.known, answer.frames, answer.end, DEPLOYMENT, body.version, 0.0)
    machine.after(event)
