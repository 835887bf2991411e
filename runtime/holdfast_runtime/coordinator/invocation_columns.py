"""The columns of an invocation (http-api §4.3), each as a function of what is known of it: its row in the packed index, or its page.

Rules: what the row knows is computed a page of rows at a time (OF_ROW), anything else from the invocation's page (OF_PAGE); NEEDS says in
which statuses a column is not empty, so that a page is read for those alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from holdfast.protocol import messages
from holdfast.protocol.awaiting import Combinator
from holdfast.protocol.messages import MessageType
from holdfast_runtime.coordinator.listed import RAW, Item, status_of
from holdfast_runtime.engine import listing, model
from holdfast_runtime.engine.model import Document, Status
from holdfast_runtime.engine.payload import Entry, entry_type

if TYPE_CHECKING:
    from holdfast_runtime.coordinator.shard import Shard

_KINDS: Final = {"service": "service", "exclusive": "virtual_object", "shared": "virtual_object", "run": "workflow"}
_CODES: Final = {500: "500 Internal"}
_NO_RETRY: Final = (0, 0, None, None)
TRIED: Final = (Status.RUNNING, Status.PAUSED)  # what has a last failure, if it has failed
_RAW: Final[Mapping[int, str]] = {int(status): name for status, name in RAW.items()}  # statuses of rows are plain numbers
_SHOWN: Final[Mapping[int, str]] = {**_RAW, Status.QUEUED: "pending"}


class Invocation:
    """row: as the packed index has it. document: its page, once it was read. further: the journal pages behind it, likewise."""

    __slots__ = ("document", "further", "id", "row", "shard")

    def __init__(self, shard: Shard, invocation: str, row: Document, document: Document | None = None) -> None:
        self.shard = shard
        self.id = invocation
        self.row = row
        self.document = document
        self.further: list[Document] = []

    def read(self, document: Document) -> None:
        """Its page says more than its row, and may be younger."""
        self.document = document
        self.row = listing.row_of(document)

    @property
    def status(self) -> Status:
        return Status(status_of(self.row))

    @property
    def in_flight(self) -> bool:
        return self.shard.attempts.in_flight(self.id)

    @property
    def retry(self) -> list[Any]:
        """[failed attempts, of them since the last stored entry, due ms, failure]

        The failure of an attempt that waits because the platform refused to start it is that refusal.
        """
        stored: list[Any] = (self.document or {}).get(model.RETRY) or []
        found = [*stored, *_NO_RETRY[len(stored) :]]
        waiting = self.shard.attempts.refused(self.id)
        return found if waiting is None else [*found[:3], waiting.reason()]

    def entries(self) -> Iterator[tuple[int, Entry]]:
        """The whole journal; `further` must have been read."""
        assert self.document is not None
        for page in (self.document[model.JOURNAL], *self.further):
            yield from sorted(page.items())


# ---- Of rows


def _in_target(position: int) -> Callable[[Shard, Sequence[Item]], list[Any]]:
    return lambda _, items: [row["t"][position] for _, row in items]


def _targets(_shard: Shard, items: Sequence[Item]) -> list[Any]:
    found = []
    for _, row in items:
        service, handler, key, _kind = row["t"]
        found.append(f"{service}/{handler}" if key is None else f"{service}/{key}/{handler}")
    return found


def _statuses(shard: Shard, items: Sequence[Item]) -> list[Any]:
    found = []
    for invocation, row in items:
        if "x" in row:
            found.append("completed")
            continue
        status = status_of(row)
        if status != Status.RUNNING:
            found.append(_SHOWN[status])
        elif shard.attempts.in_flight(invocation):
            found.append("running")
        else:
            found.append("ready" if _state(row)[3] is None else "backing-off")
    return found


def _state(row: Document) -> Sequence[Any]:
    """[status, modified ms, pinned deployment, retry due ms, deployment that failed last] of a live row; of an older version's only the
    status is known, and the last of a row only after a failure."""
    state = row["s"]
    return state if isinstance(state, list) else (state, None, None, None)


def _types(shard: Shard, items: Sequence[Item]) -> list[Any]:
    services = shard.environment.registry().services
    workflows = {name for name, revision in services.items() if any(handler.kind.value == "run" for handler in revision.handlers.values())}
    # a shared handler may also be one of a workflow
    return ["workflow" if row["t"][3] == "shared" and row["t"][0] in workflows else _KINDS[row["t"][3]] for _, row in items]


def _results(_: Shard, items: Sequence[Item]) -> list[Any]:
    return [("failure" if row["f"] else "success") if "x" in row else None for _, row in items]


def _modified_at(_: Shard, items: Sequence[Item]) -> list[Any]:
    return [row["e"] if "x" in row else _state(row)[1] for _, row in items]


def _inboxed_at(_: Shard, items: Sequence[Item]) -> list[Any]:
    return [_state(row)[1] if status_of(row) == Status.QUEUED else None for _, row in items]


def _pinned(_: Shard, items: Sequence[Item]) -> list[Any]:
    return [row.get("d") if "x" in row else _state(row)[2] for _, row in items]


def _next_retry_at(shard: Shard, items: Sequence[Item]) -> list[Any]:
    return [
        _state(row)[3] if status_of(row) == Status.RUNNING and not shard.attempts.in_flight(invocation) else None
        for invocation, row in items
    ]


def _last_deployments(shard: Shard, items: Sequence[Item]) -> list[Any]:
    """Of the attempt in flight, else of the last that failed. One in flight that is not pinned yet may go anywhere."""
    found: list[str | None] = []
    for invocation, row in items:
        state = _state(row) if status_of(row) in TRIED else ()
        if len(state) > 2 and state[0] == Status.RUNNING and state[2] is not None and shard.attempts.in_flight(invocation):
            found.append(state[2])
        else:
            found.append((state[4] or None) if len(state) > 4 else None)
    return found


def _last_servers(shard: Shard, items: Sequence[Item]) -> list[Any]:
    deployments = shard.environment.registry().deployments
    return [deployments[id_].sdk_version if id_ is not None and id_ in deployments else None for id_ in _last_deployments(shard, items)]


OF_ROW: Final[Mapping[str, Callable[[Shard, Sequence[Item]], list[Any]]]] = {
    "id": lambda _, items: [invocation for invocation, _ in items],
    "partition_key": lambda _, items: [model.partition_key_of(invocation) for invocation, _ in items],
    "target": _targets,
    "target_service_name": _in_target(0),
    "target_handler_name": _in_target(1),
    "target_service_key": _in_target(2),
    "kind": _in_target(3),
    "target_service_ty": _types,
    "created_at": lambda _, items: [row["c"] for _, row in items],
    "status": _statuses,
    "raw_status": lambda _, items: [_RAW[status_of(row)] for _, row in items],
    "in_flight": lambda shard, items: [shard.attempts.in_flight(invocation) for invocation, _ in items],
    "completed_at": lambda _, items: [row.get("e") for _, row in items],
    "completion_result": _results,
    "modified_at": _modified_at,
    "inboxed_at": _inboxed_at,
    "pinned_deployment_id": _pinned,
    "next_retry_at": _next_retry_at,
    "last_attempt_deployment_id": _last_deployments,
    "last_attempt_server": _last_servers,
}
_IN_ALL_ROWS: Final = frozenset(
    {
        "id",
        "partition_key",
        "target",
        "target_service_name",
        "target_handler_name",
        "target_service_key",
        "kind",
        "target_service_ty",
        "created_at",
        "raw_status",
        "in_flight",
        "completed_at",
        "completion_result",
    }
)


# ---- Of the page


def _field(name: str) -> Callable[[Invocation], Any]:
    return lambda found: (found.document or {}).get(name)


def _invoked_by(found: Invocation) -> str:
    document = found.document or {}
    if document.get(model.SOURCE):
        return "service"
    return "restart_as_new" if document.get(model.RESTARTED_FROM) else "ingress"


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


def _trace(found: Invocation) -> str | None:
    """Of the caller's `traceparent` (https://www.w3.org/TR/trace-context/): the handler sees that header, so the input has it."""
    entry = (found.document or {}).get(model.JOURNAL, {}).get(0)
    if not isinstance(entry, bytes) or b"traceparent" not in entry:
        return None
    command: Any = messages.parse(MessageType.INPUT_COMMAND, entry[8:])
    parent = next((header.value for header in command.headers if header.key == "traceparent"), "")
    parts = parent.split("-")
    return parts[1] if len(parts) >= 4 and len(parts[1]) == 32 else None


def _commands(found: Invocation) -> int:
    return sum(messages.is_command(entry_type(entry)) for _, entry in found.entries())


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


def _reason(found: Invocation, position: int) -> Any:
    """Of the last failure: [code, message, error code, command index, name, type, stack trace, at ms, deployment]."""
    reason = found.retry[3]
    return reason[position] if reason and found.status in TRIED else None


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
    "last_failure": _last_failure,
    "last_failure_error_code": lambda found: _reason(found, 2),
    "last_failure_related_command_index": lambda found: _reason(found, 3),
    "last_failure_related_command_name": lambda found: _reason(found, 4),
    "last_failure_related_command_type": _last_command,
}
_OF_WAITING: Final[Mapping[str, Callable[[Invocation], Any]]] = {
    "suspended_waiting_for_completions": _waiting(1),
    "suspended_waiting_for_signals": _waiting(2),
    "suspended_waiting_future_json": _future,
}
_OF_PAGE: Final[Mapping[str, Callable[[Invocation], Any]]] = {
    "idempotency_key": _field(model.IDEMPOTENCY_KEY),
    "invoked_by": _invoked_by,
    "invoked_by_id": _caller(0),
    "invoked_by_service_name": _caller(1),
    "invoked_by_target": _caller_target,
    "restarted_from": _field(model.RESTARTED_FROM),
    "pinned_service_protocol_version": _field(model.VERSION),
    "journal_size": _field(model.LENGTH),
    "journal_commands_size": _commands,
    "trace_id": _trace,
    "scheduled_at": _scheduled_at,
    "scheduled_start_at": _field(model.EXECUTE_AT),
    "running_at": _field(model.STARTED_AT),
    "completion_retention": _field(model.RETENTION),
    "journal_retention": _field(model.JOURNAL_RETENTION),
    "completion_failure": _failure,
}

OF_PAGE: Final[Mapping[str, Callable[[Invocation], Any]]] = {**_OF_ATTEMPTS, **_OF_WAITING, **_OF_PAGE}
NEEDS: Final[Mapping[str, frozenset[Status]]] = {
    **dict.fromkeys(_OF_ATTEMPTS, frozenset(TRIED)),
    **dict.fromkeys(_OF_WAITING, frozenset({Status.SUSPENDED})),
    **dict.fromkeys(_OF_PAGE, frozenset(Status)),
    "completion_failure": frozenset({Status.DONE}),
}


def values(shard: Shard, column: str, invocations: Sequence[Invocation]) -> list[Any]:
    """The column of each; what `page_needed` says of it must have been read."""
    of_row = OF_ROW.get(column)
    if of_row is not None:
        return of_row(shard, [(found.id, found.row) for found in invocations])
    return list(map(OF_PAGE[column], invocations))


def page_needed(columns: Collection[str]) -> Callable[[Document], bool]:
    """Which rows do not tell all these columns."""
    statuses = frozenset[Status]().union(*(NEEDS[name] for name in columns if name in NEEDS))
    incomplete = not _IN_ALL_ROWS.issuperset(columns)
    return lambda row: status_of(row) in statuses or (incomplete and is_old(row))


def has_old(items: Sequence[Item]) -> bool:
    """A loop of its own: it looks at every row of every page, and a call for each would cost more than all the rest of it."""
    for _, row in items:
        if "x" in row:
            if "d" not in row:
                return True
        elif not isinstance(row["s"], list):
            return True
    return False


def is_old(row: Document) -> bool:
    """Written by a version whose rows told less."""
    return "d" not in row if "x" in row else not isinstance(row["s"], list)
