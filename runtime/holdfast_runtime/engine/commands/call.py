"""Call and OneWayCall: start or join another invocation. Its id is journalled right behind the command, before anything can wake the
caller,
because after a cancel the SDK looks for the ids of its children (service protocol §3.3, §6.1)."""

from __future__ import annotations

from typing import Any

from holdfast.protocol import ids
from holdfast.protocol.ids import InvocationId
from holdfast.protocol.messages import MessageType
from holdfast_runtime.engine import model, outbox
from holdfast_runtime.engine.commands.scope import Scope, Violation, content
from holdfast_runtime.engine.events import ReceivedFrame
from holdfast_runtime.engine.payload import input_entry
from holdfast_runtime.engine.registry import HandlerKind, HandlerRevision, retention_of

LOCAL_CHILDREN = 64  # the first children of a caller stay in its shard: no message between shards, one log record for all


def call(scope: Scope, frame: ReceivedFrame) -> None:
    command = frame.message
    child, message = _invoke(scope, frame, execute_at=None)
    index = scope.append(frame.entry)
    scope.complete(MessageType.CALL_INVOCATION_ID_COMPLETION, command.invocation_id_notification_idx, ["i", child])
    scope.expect(command.result_completion_id, MessageType.CALL_COMPLETION, index)
    message["sk"] = scope.sink(command.result_completion_id, int(MessageType.CALL_COMPLETION))
    outbox.send(scope.tx, message)


def one_way(scope: Scope, frame: ReceivedFrame) -> None:
    command = frame.message
    execute_at = command.invoke_time if command.invoke_time > scope.tx.now else None
    child, message = _invoke(scope, frame, execute_at=execute_at)
    scope.append(frame.entry)
    scope.complete(MessageType.CALL_INVOCATION_ID_COMPLETION, command.invocation_id_notification_idx, ["i", child])
    outbox.send(scope.tx, message)


def _invoke(scope: Scope, frame: ReceivedFrame, *, execute_at: int | None) -> tuple[str, dict[str, Any]]:
    command = frame.message
    revision = _target(scope, command)
    idempotency_key = command.idempotency_key if command.HasField("idempotency_key") else None
    if idempotency_key == "":
        raise Violation(
            571,
            f"the call to {command.service_name}/{command.handler_name} has an empty idempotency key; leave it out or give it a value",
        )
    if command.HasField("scope") or command.HasField("limit_key"):
        raise Violation(573, "scope and limit key on a call are not enabled; remove them", "RT0024")
    if revision.kind is HandlerKind.RUN:
        idempotency_key = None  # the workflow key already makes it happen once
    key = command.key if revision.kind is not HandlerKind.SERVICE else None
    child = _child_id(scope, command, revision, key, idempotency_key)
    retention, journal_retention = retention_of(revision, idempotency_key)
    headers = [(header.key, header.value) for header in command.headers]
    message = {
        "m": "i",
        "id": child,
        "tg": [command.service_name, command.handler_name, key, revision.kind.value],
        "in": input_entry(headers, content(frame, command.parameter)),
        "at": execute_at,
        "sk": None,
        "cr": retention,
        "jr": journal_retention,
        "ik": idempotency_key,
        "sr": scope.source,
    }
    return child, message


def _target(scope: Scope, command: Any) -> HandlerRevision:
    service, handler = command.service_name, command.handler_name
    revision = scope.tx.registry.handler(service, handler)
    if revision is None:
        known = "its handlers are known, this one is not" if service in scope.tx.registry.services else "the service is not registered"
        raise Violation(
            404,
            f"cannot call {service}/{handler}: {known}; register a deployment that serves it, the call is retried",
            "RT0018",
        )
    if revision.kind is HandlerKind.SERVICE and command.key:
        raise Violation(
            571,
            f"{service} is a plain service: it is called without a key, the key {command.key!r} was given",
        )
    return revision


def _child_id(scope: Scope, command: Any, revision: HandlerRevision, key: str | None, idempotency_key: str | None) -> str:
    service, handler = command.service_name, command.handler_name
    if revision.kind is HandlerKind.RUN:
        assert key is not None
        return str(ids.workflow_run_id(service, key))
    if idempotency_key is not None:
        return str(ids.idempotent_id(service, handler, idempotency_key, key))
    caller = InvocationId.parse(scope.invocation)
    index: int = scope.document[model.LENGTH]
    if key is not None:
        partition_key = ids.keyed_partition_key(key)
    elif index < 2 * LOCAL_CHILDREN:  # a call takes two entries
        partition_key = caller.partition_key
    else:
        partition_key = ids.keyed_partition_key(f"{scope.invocation}/{index}")
    # A derived id may live again after its result is forgotten: the children of its new life are not those of the old one.
    life: int = scope.document[model.CREATED_AT]
    return str(ids.child_id(caller, life << 20 | index, partition_key))
