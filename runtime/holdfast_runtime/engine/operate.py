"""What operators do to an invocation (http-api §2.8). Every answer is given when the transition is durable."""

from __future__ import annotations

from typing import Final

from holdfast_runtime.engine import accept, finish, journal, lifecycle, listing, model, notify, pinning
from holdfast_runtime.engine.effects import StartAttempt
from holdfast_runtime.engine.events import Operate, Operated, Verb
from holdfast_runtime.engine.lifecycle import Change
from holdfast_runtime.engine.model import Document, Status
from holdfast_runtime.engine.payload import VOID, failure
from holdfast_runtime.engine.transaction import Transaction

_NOT_STARTED = (Status.SCHEDULED, Status.QUEUED)


# How many requests an invocation remembers: more than operators send while one of them may still be delivered a second time.
_REMEMBERED: Final = 16


def operate(tx: Transaction, event: Operate) -> Operated:
    """A request that was delivered before is answered as it was, and does nothing: a late second cancel would stop the handler that
    cleans up after the first, a late resume would undo a pause. What forgets the invocation or its journal may be repeated freely."""
    page_id = model.invocation_page(event.invocation)
    document = tx.get(page_id)
    if document is None or accept.is_over(document, tx.now):
        return Operated.NOT_FOUND
    remembered = document.get(model.ANSWERED, [])
    for request, answered in remembered:
        if event.request and event.request == request:
            return Operated(answered)
    answer = _decide(tx, event, document)
    if answer in (Operated.APPLIED, Operated.ACCEPTED) and event.request and tx.get(page_id) is not None:
        tx.merge(page_id, {model.ANSWERED: [*remembered[1 - _REMEMBERED :], [event.request, answer.value]]})
    return answer


def _decide(tx: Transaction, event: Operate, document: Document) -> Operated:
    match event.verb:
        case Verb.CANCEL:
            return _cancel(tx, event, document)
        case Verb.KILL:
            return _kill(tx, event, document)
        case Verb.PURGE:
            return _purge(tx, event, document)
        case Verb.PURGE_JOURNAL:
            return _purge_journal(tx, event, document)
        case Verb.PAUSE:
            return _pause(tx, event, document)
        case Verb.RESUME:
            return _resume(tx, event, document)


def _cancel(tx: Transaction, event: Operate, document: Document) -> Operated:
    if document[model.STATUS] == Status.DONE:
        return Operated.ALREADY_COMPLETED
    unstarted = document[model.STATUS] in _NOT_STARTED
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


def _purge_journal(tx: Transaction, event: Operate, document: Document) -> Operated:
    """The result stays for as long as it would have."""
    if document[model.STATUS] != Status.DONE:
        return Operated.NOT_COMPLETED
    journal.clear(tx, event.invocation, document)
    return Operated.APPLIED


def _pause(tx: Transaction, event: Operate, document: Document) -> Operated:
    """A running attempt is not cut off: the invocation is paused when it ends, whatever its end, unless that is a result."""
    status = document[model.STATUS]
    if status == Status.DONE or status in _NOT_STARTED:
        return Operated.NOT_RUNNING
    if status == Status.PAUSED:
        return Operated.APPLIED
    if status == Status.RUNNING and event.in_flight:
        tx.merge(model.invocation_page(event.invocation), {model.PAUSE_REQUESTED: 1})
        return Operated.ACCEPTED
    lifecycle.move(tx, event.invocation, document, Change.PAUSE, **{model.PAUSE_REQUESTED: None})
    return Operated.ACCEPTED if status == Status.RUNNING else Operated.APPLIED


def _resume(tx: Transaction, event: Operate, document: Document) -> Operated:
    status = document[model.STATUS]
    if status == Status.DONE:
        return Operated.ALREADY_COMPLETED
    if status in _NOT_STARTED:
        return Operated.NOT_STARTED
    if event.deployment is not None:
        refused = _move(tx, event, document, event.deployment)
        if refused is not None:
            return refused
    if status == Status.RUNNING:
        tx.merge(model.invocation_page(event.invocation), {model.RETRY: None, model.PAUSE_REQUESTED: None})
        listing.list_status(tx, event.invocation, document, Status.RUNNING)
        tx.after(StartAttempt(event.invocation))
    else:
        notify.resume(tx, event.invocation, document)
    return Operated.APPLIED


def _move(tx: Transaction, event: Operate, document: Document, wanted: str) -> Operated | None:
    """Pin it to another deployment; why not, if not.

    Only what waits is moved: an attempt that is in flight, or about to start again, would bring commands of the code it was started
    with into a journal that is then replayed by other code. The protocol version stays: the journal is written in it.
    """
    pinned = document.get(model.DEPLOYMENT)
    if pinned is None or document[model.STATUS] not in (Status.SUSPENDED, Status.PAUSED):
        return Operated.PINNED
    chosen = pinning.choose(tx.registry, document[model.TARGET], wanted, document[model.VERSION])
    if isinstance(chosen, Operated):
        return chosen
    tx.merge(model.invocation_page(event.invocation), {model.DEPLOYMENT: chosen.id})
    return None
