"""Run: the command only announces it; the SDK's own proposal is its completion (service protocol §3.5)."""

from __future__ import annotations

from holdfast.protocol import messages
from holdfast.protocol.messages import MessageType
from holdfast_runtime.engine import journal, model
from holdfast_runtime.engine.commands.scope import Scope, Violation, content
from holdfast_runtime.engine.events import ReceivedFrame
from holdfast_runtime.engine.payload import entry_type, failure_result, success


def apply(scope: Scope, frame: ReceivedFrame) -> None:
    index = scope.append(frame.entry)
    scope.expect(frame.message.result_completion_id, MessageType.RUN_COMPLETION, index)


def propose(scope: Scope, frame: ReceivedFrame) -> None:
    message = frame.message
    completion_id = message.result_completion_id
    pending = scope.document[model.PENDING].get(completion_id)
    if pending is None or pending[0] != MessageType.RUN_COMPLETION:
        if not _was_run(scope, completion_id):
            raise Violation(
                571,
                f"a run result was proposed for completion id {completion_id}, but no run command has that id",
            )
        return  # a second proposal for one run: the first wins
    failed = message.WhichOneof("result") == "failure"
    result = failure_result(message.failure) if failed else success(content(frame, message.value))
    scope.tx.delete(model.invocation_page(scope.invocation), (model.PENDING, completion_id))
    scope.complete(MessageType.RUN_COMPLETION, completion_id, result)


def _was_run(scope: Scope, completion_id: int) -> bool:
    """Rare: look through the journal for a run that has its result already."""
    for _, entry in journal.entries(scope.tx, scope.invocation, scope.document):
        if entry_type(entry) == MessageType.RUN_COMMAND and isinstance(entry, bytes):
            command = messages.parse(MessageType.RUN_COMMAND, entry[8:])
            if command.result_completion_id == completion_id:  # type: ignore[attr-defined]
                return True
    return False
