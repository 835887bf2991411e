"""The columns of an invocation (http-api §4.3), each as a function of what is known of it: its row in the packed index, or its page.

Columns named in PAGED need the page; of an invocation that is done, those in ABSENT_WHEN_DONE do not, because they are empty then.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from holdfast.protocol import messages
from holdfast.protocol.awaiting import Combinator
from holdfast.protocol.messages import MessageType
from holdfast_runtime.engine import model
from holdfast_runtime.engine.model import Document, Status
from holdfast_runtime.engine.payload import Entry, entry_type

if TYPE_CHECKING:
    from holdfast_runtime.coordinator.shard import Shard

RAW: Final = {
    Status.SCHEDULED: "scheduled",
    Status.QUEUED: "inboxed",
    Status.RUNNING: "invoked",
    Status.SUSPENDED: "suspended",
    Status.PAUSED: "paused",
    Status.DONE: "completed",
}
_KINDS: Final = {"service": "service", "exclusive": "virtual_object", "shared": "virtual_object", "run": "workflow"}
_CODES: Final = {500: "500 Internal"}
_NO_RETRY: Final = (0, 0, None, None)


class Invocation:
    """row: as the packed index has it. document: its page, once it was read. further: the journal pages behind it, likewise."""

    __slots__ = ("document", "further", "id", "row", "shard")

    def __init__(self, shard: Shard, invocation: str, row: Document, document: Document | None = None) -> None:
        self.shard = shard
        self.id = invocation
        self.row = row
        self.document = document
        self.further: list[Document] = []

    @property
    def done(self) -> bool:
        return "x" in self.row

    @property
    def status(self) -> Status:
        return Status.DONE if "x" in self.row else Status(self.row["s"])

    @property
    def in_flight(self) -> bool:
        return self.shard.attempts.in_flight(self.id)

    @property
    def retry(self) -> list[Any]:
        """[failed attempts, of them since the last stored entry, due ms, failure]"""
        stored: list[Any] = (self.document or {}).get(model.RETRY) or []
        return [*stored, *_NO_RETRY[len(stored) :]]

    def entries(self) -> Iterator[tuple[int, Entry]]:
        """The whole journal; `further` must have been read."""
        assert self.document is not None
        for page in (self.document[model.JOURNAL], *self.further):
            yield from sorted(page.items())


def index_row(document: Document) -> Document:
    """What the packed index would say of it."""
    row = {"t": document[model.TARGET], "c": document[model.CREATED_AT]}
    if document[model.STATUS] != Status.DONE:
        return row | {"s": document[model.STATUS]}
    failed = document[model.RESULT][0] == "f"
    return row | {"e": document[model.COMPLETED_AT], "f": int(failed), "x": document[model.EXPIRES_AT]}


# ---- Of the index


def _target(found: Invocation) -> str:
    service, handler, key, _ = found.row["t"]
    return f"{service}/{handler}" if key is None else f"{service}/{key}/{handler}"


def _status(found: Invocation) -> str:
    status = found.status
    if status is Status.RUNNING:
        return "running" if found.in_flight else "backing-off" if found.retry[2] is not None else "ready"
    return "pending" if status is Status.QUEUED else RAW[status]


def _result(found: Invocation) -> str | None:
    return ("failure" if found.row["f"] else "success") if found.done else None


def _type(found: Invocation) -> str:
    service, _, _, kind = found.row["t"]
    if kind == "shared":  # a shared handler may also be one of a workflow
        revision = found.shard.environment.registry().services.get(service)
        if revision is not None and any(handler.kind.value == "run" for handler in revision.handlers.values()):
            return "workflow"
    return _KINDS[kind]


_OF_INDEX: Final[Mapping[str, Callable[[Invocation], Any]]] = {
    "id": lambda found: found.id,
    "partition_key": lambda found: model.partition_key_of(found.id),
    "target": _target,
    "target_service_name": lambda found: found.row["t"][0],
    "target_handler_name": lambda found: found.row["t"][1],
    "target_service_key": lambda found: found.row["t"][2],
    "target_service_ty": _type,
    "kind": lambda found: found.row["t"][3],
    "created_at": lambda found: found.row["c"],
    "raw_status": lambda found: RAW[found.status],
    "in_flight": lambda found: found.in_flight,
    "completed_at": lambda found: found.row.get("e"),
    "completion_result": _result,
}


# ---- Of the page


def _field(name: str) -> Callable[[Invocation], Any]:
    return lambda found: (found.document or {}).get(name)


def _modified_at(found: Invocation) -> int | None:
    return found.row["e"] if found.done else (found.document or {}).get(model.MODIFIED_AT)


def _caller(position: int) -> Callable[[Invocation], Any]:
    def column(found: Invocation) -> str | None:
        source = (found.document or {}).get(model.SOURCE)
        return source[position] if source else None

    return column


def _caller_target(found: Invocation) -> str | None:
    source = (found.document or {}).get(model.SOURCE)
    if not source:
        return None
    key = source[3] if len(source) > 3 else None
    return f"{source[1]}/{source[2]}" if key is None else f"{source[1]}/{key}/{source[2]}"


def _failure(found: Invocation) -> str | None:
    result = (found.document or {}).get(model.RESULT)
    return f"[{result[1]}] {result[2]}" if result and result[0] == "f" else None


def _commands(found: Invocation) -> int:
    return sum(messages.is_command(entry_type(entry)) for _, entry in found.entries())


def _inboxed_at(found: Invocation) -> int | None:
    return (found.document or {}).get(model.MODIFIED_AT) if found.status is Status.QUEUED else None


def _scheduled_at(found: Invocation) -> int | None:
    document = found.document or {}
    return document.get(model.CREATED_AT) if document.get(model.EXECUTE_AT) is not None else None


def _waiting(position: int) -> Callable[[Invocation], Any]:
    def column(found: Invocation) -> list[Any] | None:
        awaiting = _awaiting(found)
        return sorted({leaf for node in awaiting for leaf in node[position]}) if awaiting else None

    return column


def _awaiting(found: Invocation) -> Sequence[Sequence[Any]] | None:
    return (found.document or {}).get(model.AWAITING) if found.status is Status.SUSPENDED else None


def _future(found: Invocation) -> str | None:
    awaiting = _awaiting(found)
    if not awaiting:
        return None
    stack: list[Any] = []
    for combinator, completions, signals, names, count in awaiting:  # children before parents
        children = stack[len(stack) - count :]
        del stack[len(stack) - count :]
        leaves = [{"CompletionId": leaf} for leaf in completions] + [{"SignalIndex": leaf} for leaf in signals]
        leaves += [{"SignalName": leaf} for leaf in names]
        name = Combinator(combinator).name.title().replace("_", "")
        stack.append({name: [*({"Single": leaf} for leaf in leaves), *children]})
    return json.dumps(stack[0], separators=(",", ":"))


# ---- Of the attempts


def _retry_count(found: Invocation) -> int | None:
    """Attempts started in the present stay. Failures whose delay the SDK dictated are counted since the last stored entry only."""
    if found.status is not Status.RUNNING:
        return None
    return (max(found.retry[0], found.retry[1]) + int(found.in_flight)) or None


def _last_start_at(found: Invocation) -> int | None:
    """When the attempt in flight was due: its retry's time, or when the invocation last began to run."""
    if found.status is not Status.RUNNING or not found.in_flight:
        return None
    due = found.retry[2]
    return due if due is not None else (found.document or {}).get(model.MODIFIED_AT)


def _next_retry_at(found: Invocation) -> int | None:
    return found.retry[2] if found.status is Status.RUNNING and not found.in_flight else None


def _last_deployment(found: Invocation) -> str | None:
    if found.status is Status.RUNNING and found.in_flight:
        pinned: str | None = (found.document or {}).get(model.DEPLOYMENT)
        if pinned is not None:
            return pinned
    return _reason(found, 8) or None


def _last_server(found: Invocation) -> str | None:
    deployment = found.shard.environment.registry().deployments.get(_last_deployment(found) or "")
    return deployment.sdk_version if deployment is not None else None


def _reason(found: Invocation, position: int) -> Any:
    """Of the last failure: [code, message, error code, command index, name, type, stack trace, at ms, deployment]."""
    reason = found.retry[3]
    return reason[position] if reason and found.status in (Status.RUNNING, Status.PAUSED) else None


def _last_failure(found: Invocation) -> str | None:
    code, message, stacktrace = (_reason(found, position) for position in (0, 1, 6))
    if code is None:
        return None
    return f"[{_CODES.get(code, code)}] {message}" + (f"\n{stacktrace}" if stacktrace else "")


def _last_command(found: Invocation) -> str | None:
    type_ = _reason(found, 5)
    return command_name(type_) if type_ in set(MessageType) else None


def command_name(type_: int) -> str:
    """`OneWayCall` of ONE_WAY_CALL_COMMAND: how http-api §4.3 names commands and notifications."""
    words = MessageType(type_).name.removesuffix("_COMMAND").removesuffix("_COMPLETION").removesuffix("_NOTIFICATION")
    return words.title().replace("_", "")


_OF_ATTEMPTS: Final[Mapping[str, Callable[[Invocation], Any]]] = {
    "retry_count": _retry_count,
    "last_start_at": _last_start_at,
    "next_retry_at": _next_retry_at,
    "last_attempt_deployment_id": _last_deployment,
    "last_attempt_server": _last_server,
    "last_failure": _last_failure,
    "last_failure_error_code": lambda found: _reason(found, 2),
    "last_failure_related_command_index": lambda found: _reason(found, 3),
    "last_failure_related_command_name": lambda found: _reason(found, 4),
    "last_failure_related_command_type": _last_command,
    "suspended_waiting_for_completions": _waiting(1),
    "suspended_waiting_for_signals": _waiting(2),
    "suspended_waiting_future_json": _future,
    "inboxed_at": _inboxed_at,
    "modified_at": _modified_at,
}
_OF_PAGE: Final[Mapping[str, Callable[[Invocation], Any]]] = {
    "idempotency_key": _field(model.IDEMPOTENCY_KEY),
    "invoked_by": lambda found: "service" if (found.document or {}).get(model.SOURCE) else "ingress",
    "invoked_by_id": _caller(0),
    "invoked_by_service_name": _caller(1),
    "invoked_by_target": _caller_target,
    "pinned_deployment_id": _field(model.DEPLOYMENT),
    "pinned_service_protocol_version": _field(model.VERSION),
    "journal_size": _field(model.LENGTH),
    "journal_commands_size": _commands,
    "scheduled_at": _scheduled_at,
    "scheduled_start_at": _field(model.EXECUTE_AT),
    "running_at": _field(model.STARTED_AT),
    "completion_retention": _field(model.RETENTION),
    "journal_retention": _field(model.JOURNAL_RETENTION),
    "completion_failure": _failure,
}

INDEXED: Final = frozenset(_OF_INDEX)
ABSENT_WHEN_DONE: Final = frozenset(_OF_ATTEMPTS)
PAGED: Final = ABSENT_WHEN_DONE | frozenset(_OF_PAGE)
FUNCTIONS: Final[Mapping[str, Callable[[Invocation], Any]]] = {**_OF_INDEX, "status": _status, **_OF_ATTEMPTS, **_OF_PAGE}
_SHOWN: Final = {RAW[status]: {RAW[status]} for status in Status} | {"inboxed": {"pending"}, "invoked": {"running", "backing-off", "ready"}}


def value(found: Invocation, column: str) -> Any:
    return FUNCTIONS[column](found)


def may_have_status(found: Invocation, where: Mapping[str, Collection[str]]) -> bool:
    """Judged by the index alone; what is running may be one of three."""
    return "status" not in where or not _SHOWN[RAW[found.status]].isdisjoint(where["status"])


def page_needed(columns: Collection[str]) -> Callable[[Invocation], bool]:
    """Which invocations' pages these columns need."""
    of_live = not PAGED.isdisjoint(columns)
    of_done = not (PAGED - ABSENT_WHEN_DONE).isdisjoint(columns)
    status = "status" in columns

    def needed(found: Invocation) -> bool:
        if found.document is not None:
            return False
        if found.done:
            return of_done
        return of_live or (status and found.status is Status.RUNNING and not found.in_flight)

    return needed
