"""Output: remembered until End; the last one is the result (service protocol §3.2)."""

from __future__ import annotations

from holdfast_runtime.engine.commands.scope import Scope, content
from holdfast_runtime.engine.events import ReceivedFrame
from holdfast_runtime.engine.payload import failure_result, success


def apply(scope: Scope, frame: ReceivedFrame) -> None:
    message = frame.message
    scope.append(frame.entry)
    if message.WhichOneof("result") == "failure":
        scope.output = failure_result(message.failure)
    else:
        scope.output = success(content(frame, message.value.content))
