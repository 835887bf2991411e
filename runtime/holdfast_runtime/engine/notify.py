"""Something for an invocation: the completion of a command, an awakeable's result, a signal, a cancel.

Completions and awakeables count once, the first wins; cancels and named signals are queues and are never deduplicated (service protocol
§3.6).
Whether a notification wakes the invocation is decided in the transition that appends it, so no wake-up can fall between two decisions.
"""

from __future__ import annotations

from typing import Any

from holdfast.protocol import awaiting
from holdfast.protocol.awaiting import Awaiting, Outcome
from holdfast_runtime.engine import finish, journal, lifecycle, model
from holdfast_runtime.engine.effects import StartAttempt
from holdfast_runtime.engine.lifecycle import Change
from holdfast_runtime.engine.model import Document, Status
from holdfast_runtime.engine.payload import Entry, Result, completion_entry, failure, signal_entry
from holdfast_runtime.engine.transaction import Transaction

Outcomes = dict[awaiting.Key, Outcome]


def complete(tx: Transaction, invocation: str, completion_id: int, type_: int, result: Result, *, of: int | None = None) -> None:
    """Deliver the result of a command. Ignored when nobody waits for it: it was completed before, or the invocation is over.

    of: when the invocation that waits was created (ms); None: not known. Commands of an earlier life of the same id have the same numbers.
    """
    document = tx.get(model.invocation_page(invocation))
    if document is None or document[model.STATUS] == Status.DONE or of not in (None, document[model.CREATED_AT]):
        return
    pending = document[model.PENDING].get(completion_id)
    if pending is None or pending[0] != type_:
        return
    tx.delete(model.invocation_page(invocation), (model.PENDING, completion_id))
    outcome = Outcome.FAILED if result[0] == "f" else Outcome.SUCCEEDED
    _append(
        tx,
        invocation,
        document,
        completion_entry(type_, completion_id, result),
        ("c", completion_id),
        outcome,
    )


def signal(tx: Transaction, invocation: str, name: int | str, result: Result) -> bool:
    """Deliver a signal; False when the invocation is unknown or over."""
    page_id = model.invocation_page(invocation)
    document = tx.get(page_id)
    if document is None or document[model.STATUS] == Status.DONE:
        return False
    if name == model.CANCEL_SIGNAL and document[model.STATUS] in (Status.SCHEDULED, Status.QUEUED):
        finish.finish(tx, invocation, document, failure(409, "canceled"), retain=False)
        return True
    if isinstance(name, int) and name >= model.FIRST_AWAKEABLE and name in document[model.SIGNALLED]:
        return True
    if journal.is_full(document):
        # Dropping the signal would leave it waiting for ever, in silence.
        finish.finish(tx, invocation, document, failure(500, journal.FULL))
        return True
    if isinstance(name, int) and name >= model.FIRST_AWAKEABLE:
        tx.put(page_id, (model.SIGNALLED, name), 1)
    key: awaiting.Key = ("s", name) if isinstance(name, int) else ("n", name)
    outcome = Outcome.FAILED if result[0] == "f" else Outcome.SUCCEEDED
    _append(tx, invocation, document, signal_entry(name, result), key, outcome)
    if name == model.CANCEL_SIGNAL and document[model.STATUS] == Status.PAUSED:
        resume(tx, invocation, document)
    elif name == model.CANCEL_SIGNAL and document.get(model.PAUSE_REQUESTED):
        tx.merge(page_id, {model.PAUSE_REQUESTED: None})  # it would be paused with a cancel that nobody handles
    return True


def resume(tx: Transaction, invocation: str, document: Document) -> None:
    """Start attempts again, whatever it waited for: waking early is harmless, the attempt suspends again."""
    lifecycle.move(
        tx,
        invocation,
        document,
        Change.RESUME,
        **{model.AWAITING: None, model.RESOLVED: None, model.RETRY: None},
    )
    tx.after(StartAttempt(invocation))


def is_ready(tree: Awaiting, resolved: Outcomes) -> bool:
    return awaiting.outcome(tree, resolved) is not Outcome.PENDING


def _append(tx: Transaction, invocation: str, document: Document, entry: Entry, key: awaiting.Key, outcome: Outcome) -> None:
    journal.append(tx, invocation, document, entry)
    if document[model.STATUS] != Status.SUSPENDED:
        return
    resolved: list[list[Any]] = [*(document.get(model.RESOLVED) or ()), [key[0], key[1], int(outcome)]]
    outcomes: Outcomes = {(kind, name): Outcome(value) for kind, name, value in resolved}
    if is_ready(Awaiting.from_document(document[model.AWAITING]), outcomes):
        lifecycle.move(
            tx,
            invocation,
            document,
            Change.WAKE,
            **{model.AWAITING: None, model.RESOLVED: None, model.RETRY: None},
        )
        tx.after(StartAttempt(invocation))
    else:
        tx.merge(model.invocation_page(invocation), {model.RESOLVED: resolved})
