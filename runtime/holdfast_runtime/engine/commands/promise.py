"""Durable promises of a workflow's key: completed once, the first wins; any number of listeners (service protocol §6.3)."""

from __future__ import annotations

from typing import Any, Final

from holdfast.protocol.messages import MessageType
from holdfast_runtime.engine import key_listing, key_pages, model, outbox
from holdfast_runtime.engine.commands.scope import Scope, content
from holdfast_runtime.engine.events import ReceivedFrame
from holdfast_runtime.engine.model import Document
from holdfast_runtime.engine.payload import VOID, Result, failure, failure_result, success
from holdfast_runtime.engine.transaction import Transaction

LISTENING: Final = "l"
VALUE: Final = "v"  # the one field of a promise page


def get(scope: Scope, frame: ReceivedFrame) -> None:
    workflow, key = scope.require_promises()
    command = frame.message
    found = read(scope.tx, workflow, key, command.key)
    index = scope.append(frame.entry)
    if found is not None and found[0] != LISTENING:
        scope.complete(MessageType.GET_PROMISE_COMPLETION, command.result_completion_id, found)
        return
    scope.expect(command.result_completion_id, MessageType.GET_PROMISE_COMPLETION, index)
    listener = scope.sink(command.result_completion_id, int(MessageType.GET_PROMISE_COMPLETION))
    listeners = [*(found[1] if found is not None else ()), listener]
    _write(scope.tx, workflow, key, command.key, [LISTENING, listeners])


def peek(scope: Scope, frame: ReceivedFrame) -> None:
    workflow, key = scope.require_promises()
    found = read(scope.tx, workflow, key, frame.message.key)
    scope.append(frame.entry)
    result = found if found is not None and found[0] != LISTENING else VOID
    scope.complete(MessageType.PEEK_PROMISE_COMPLETION, frame.message.result_completion_id, result)


def complete(scope: Scope, frame: ReceivedFrame) -> None:
    workflow, key = scope.require_promises()
    command = frame.message
    found = read(scope.tx, workflow, key, command.key)
    scope.append(frame.entry)
    completion_id = command.result_completion_id
    if found is not None and found[0] != LISTENING:
        conflict = failure(409, "promise was already completed")
        scope.complete(MessageType.COMPLETE_PROMISE_COMPLETION, completion_id, conflict)
        return
    if command.WhichOneof("completion") == "completion_failure":
        result = failure_result(command.completion_failure)
    else:
        result = success(content(frame, command.completion_value.content))
    _write(scope.tx, workflow, key, command.key, result)
    scope.complete(MessageType.COMPLETE_PROMISE_COMPLETION, completion_id, VOID)
    for listener in found[1] if found is not None else ():
        outbox.tell(scope.tx, listener, result)


def read(tx: Transaction, workflow: str, key: str, name: str) -> Result | list[Any] | None:
    """Its result, or ["l", listeners], or None when nobody has touched it."""
    document: Document | None = tx.get(model.key_page(workflow, key))
    if document is None:
        return None
    if name in document[model.PROMISES_SPILLED]:
        page = tx.get(model.promise_page(workflow, key, name))
        return page[VALUE] if page is not None else None
    found: Result | None = document[model.PROMISES].get(name)
    return found


def _write(tx: Transaction, workflow: str, key: str, name: str, value: list[Any]) -> None:
    page_id = model.key_page(workflow, key)
    document = key_pages.key_document(tx, page_id)
    key_listing.entered(tx, workflow, key, document)
    spilled = name in document[model.PROMISES_SPILLED]
    small = len(value[1]) <= 1024 if isinstance(value[1], bytes | list) else True
    if not spilled and small and (name in document[model.PROMISES] or len(document[model.PROMISES]) < model.PROMISES_INLINE):
        tx.put(page_id, (model.PROMISES, name), value)
        return
    if name in document[model.PROMISES]:
        tx.delete(page_id, (model.PROMISES, name))
    extra = model.promise_page(workflow, key, name)
    tx.overwritten(extra)
    tx.put(extra, (), {VALUE: value})
    tx.put(page_id, (model.PROMISES_SPILLED, name), 1)
