"""What operators do to an invocation (http-api §2.8). Every answer is given when the transition is durable."""

from __future__ import annotations

from holdfast_runtime.engine import accept, finish, lifecycle, model, notify
from holdfast_runtime.engine.effects import StartAttempt
from holdfast_runtime.engine.events import Operate, Operated, Verb
from holdfast_runtime.engine.lifecycle import Change
from holdfast_runtime.engine.model import Document, Status
from holdfast_runtime.engine.payload import VOID, failure
from holdfast_runtime.engine.transaction import Transaction

_NOT_STARTED = (Status.SCHEDULED, Status.QUEUED)


def operate(tx: Transaction, event: Operate) -> Operated:
    document = tx.get(model.invocation_page(event.invocation))
    if document is None or accept.is_over(document, tx.now):
        return Operated.NOT_FOUND
    match event.verb:
        case Verb.CANCEL:
            return _cancel(tx, event, document)
        case Verb.KILL:
            return _kill(tx, event, document)
        case Verb.PURGE:
            return _purge(tx, event, document)
        case Verb.PAUSE:
            return _pause(tx, event, document)
        case Verb.RESUME:
            return _resume(tx, event, document)


def _cancel(tx: Transaction, event: Operate, document: Document) -> Operated:
    if document[model.STATUS] == Status.DONE:
        return Operated.ALREADY_COMPLETED
    if event.request and event.request == document.get("cq"):
        return Operated.ACCEPTED  # the same request, sent again: a cancel is never deduplicated otherwise
    unstarted = document[model.STATUS] in _NOT_STARTED
    if event.request and not unstarted:
        tx.merge(model.invocation_page(event.invocation), {"cq": event.request})
    notify.signal(tx, event.invocation, model.CANCEL_SIGNAL, VOID)
    return Operated.APPLIED if unstarted else Operated.ACCEPTED


def _kill(tx: Transaction, event: Operate, document: Document) -> Operated:
    if document[model.STATUS] == Status.DONE:
        return Operated.ALREADY_COMPLETED
    if document[model.STATUS] in _NOT_STARTED:
        finish.finish(tx, event.invocation, document, failure(409, "killed"), retain=False)
    else:
        finish.kill(tx, event.invocation, document)
    return Operated.APPLIED


def _purge(tx: Transaction, event: Operate, document: Document) -> Operated:
    if document[model.STATUS] != Status.DONE:
        return Operated.NOT_COMPLETED
    finish.forget(tx, event.invocation, document)
    return Operated.APPLIED


def _pause(tx: Transaction, event: Operate, document: Document) -> Operated:
    status = document[model.STATUS]
    if status == Status.DONE or status in _NOT_STARTED:
        return Operated.NOT_RUNNING
    if status == Status.PAUSED:
        return Operated.APPLIED
    if status == Status.RUNNING and event.in_flight:
        tx.merge(model.invocation_page(event.invocation), {model.PAUSE_REQUESTED: 1})
        return Operated.ACCEPTED
    lifecycle.move(tx, event.invocation, document, Change.PAUSE, **{model.PAUSE_REQUESTED: None})
    return Operated.APPLIED


def _resume(tx: Transaction, event: Operate, document: Document) -> Operated:
    status = document[model.STATUS]
    if status == Status.DONE:
        return Operated.ALREADY_COMPLETED
    if status in _NOT_STARTED:
        return Operated.NOT_STARTED
    if status == Status.RUNNING:
        tx.merge(model.invocation_page(event.invocation), {model.RETRY: None, model.PAUSE_REQUESTED: None})
        tx.after(StartAttempt(event.invocation))
    else:
        notify.resume(tx, event.invocation, document)
    return Operated.APPLIED
