"""AttachInvocation and GetInvocationOutput: the result of another invocation, when it ends or as it stands (service protocol §6.4)."""

from __future__ import annotations

from typing import Any

from holdfast.protocol import ids
from holdfast.protocol.messages import MessageType
from holdfast_runtime.engine import outbox
from holdfast_runtime.engine.commands.scope import Scope, Violation
from holdfast_runtime.engine.commands.signal import parse_target
from holdfast_runtime.engine.events import ReceivedFrame


def attach(scope: Scope, frame: ReceivedFrame) -> None:
    _ask(scope, frame, MessageType.ATTACH_INVOCATION_COMPLETION, now=False)


def get_output(scope: Scope, frame: ReceivedFrame) -> None:
    _ask(scope, frame, MessageType.GET_INVOCATION_OUTPUT_COMPLETION, now=True)


def _ask(scope: Scope, frame: ReceivedFrame, type_: int, *, now: bool) -> None:
    target = _target(frame.message)
    completion_id = frame.message.result_completion_id
    index = scope.append(frame.entry)
    scope.expect(completion_id, type_, index)
    outbox.send(scope.tx, {"m": "a", "id": target, "to": scope.sink(completion_id, int(type_)), "now": now})


def _target(command: Any) -> str:
    match command.WhichOneof("target"):
        case "invocation_id":
            return parse_target(command.invocation_id)
        case "workflow_target":
            return str(ids.workflow_run_id(command.workflow_target.workflow_name, command.workflow_target.workflow_key))
        case "idempotent_request_target":
            target = command.idempotent_request_target
            key = target.service_key if target.HasField("service_key") else None
            return str(ids.idempotent_id(target.service_name, target.handler_name, target.idempotency_key, key))
        case _:
            raise Violation(
                571,
                "attach and get output need a target: an invocation id, a workflow or an idempotent request",
            )
