"""SendSignal and CompleteAwakeable: delivered to the target; unknown and finished targets are no error (service protocol §3.4, §6.6)."""

from __future__ import annotations

from holdfast.protocol import ids
from holdfast.protocol.errors import ProtocolError
from holdfast.protocol.ids import InvocationId
from holdfast_runtime.engine import outbox
from holdfast_runtime.engine.commands.scope import Scope, Violation, content
from holdfast_runtime.engine.events import ReceivedFrame
from holdfast_runtime.engine.payload import VOID, failure_result, success


def parse_target(text: str) -> str:
    """The invocation id in its canonical text form."""
    try:
        return str(InvocationId.parse(text))
    except ProtocolError as error:
        raise Violation(571, f"{text!r} is not an invocation id ({error}); expected inv_1 and 33 characters") from error


def send(scope: Scope, frame: ReceivedFrame) -> None:
    command = frame.message
    target = parse_target(command.target_invocation_id)
    match command.WhichOneof("result"):
        case "value":
            result = success(content(frame, command.value.content))
        case "failure":
            result = failure_result(command.failure)
        case _:
            result = VOID
    name = command.name if command.WhichOneof("signal_id") == "name" else command.idx
    scope.append(frame.entry)
    outbox.send(scope.tx, {"m": "s", "id": target, "sig": name, "r": result})


def complete_awakeable(scope: Scope, frame: ReceivedFrame) -> None:
    command = frame.message
    try:
        awakeable = ids.parse_awakeable_id(command.awakeable_id)
    except ProtocolError as error:
        raise Violation(
            571,
            f"{command.awakeable_id!r} is not an awakeable id ({error}); expected sign_1 and 38 characters",
        ) from error
    if command.WhichOneof("result") == "failure":
        result = failure_result(command.failure)
    else:
        result = success(content(frame, command.value.content))
    scope.append(frame.entry)
    if not awakeable.legacy:  # the old journal's ids: accepted, nothing to deliver to
        outbox.send(scope.tx, {"m": "s", "id": str(awakeable.invocation), "sig": awakeable.index, "r": result})
