"""Sleep: a durable timer at the instant the SDK computed; never early, and at once when it is past (service protocol §3.3)."""

from __future__ import annotations

from holdfast.protocol.messages import MessageType
from holdfast_runtime.engine import timers
from holdfast_runtime.engine.commands.scope import Scope
from holdfast_runtime.engine.events import ReceivedFrame
from holdfast_runtime.engine.payload import VOID


def apply(scope: Scope, frame: ReceivedFrame) -> None:
    command = frame.message
    index = scope.append(frame.entry)
    if command.wake_up_time <= scope.tx.now:
        scope.complete(MessageType.SLEEP_COMPLETION, command.result_completion_id, VOID)
        return
    scope.expect(command.result_completion_id, MessageType.SLEEP_COMPLETION, index)
    timers.add(
        scope.tx,
        scope.invocation,
        completion_id=command.result_completion_id,
        at=command.wake_up_time,
        kind=timers.SLEEP,
    )
