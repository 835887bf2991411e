"""Output: remembered until End; the last one is the result (service protocol §3.2)."""

from __future__ import annotations

from holdfast.protocol import messages
from holdfast.protocol.messages import MessageType
from holdfast_runtime.engine import journal
from holdfast_runtime.engine.commands.scope import Scope, content
from holdfast_runtime.engine.events import ReceivedFrame
from holdfast_runtime.engine.payload import BlobRef, Entry, Result, entry_type, failure_result, success


def apply(scope: Scope, frame: ReceivedFrame) -> None:
    message = frame.message
    scope.append(frame.entry)
    if message.WhichOneof("result") == "failure":
        scope.output = failure_result(message.failure)
    else:
        scope.output = success(content(frame, message.value.content))


def stored(scope: Scope) -> Result | None:
    """The result of the journal's last OutputCommand: an earlier attempt may have sent it and died before its End."""
    found: Entry | None = None
    for _, entry in journal.entries(scope.tx, scope.invocation, scope.document):
        if entry_type(entry) == MessageType.OUTPUT_COMMAND:
            found = entry
    if found is None:
        return None
    if isinstance(found, list):  # only values are ever kept aside
        return success(next(chunk for chunk in found if isinstance(chunk, BlobRef)))
    message = messages.parse(MessageType.OUTPUT_COMMAND, found[8:])
    assert isinstance(message, messages.OutputCommand)
    return failure_result(message.failure) if message.WhichOneof("result") == "failure" else success(message.value.content)
