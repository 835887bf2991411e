"""A response of the current attempt: its frames are applied in order, then its end decides what comes next (storage design §6 Commit)."""

from __future__ import annotations

from typing import Any, Final

from holdfast.protocol.awaiting import Outcome
from holdfast_runtime.engine import finish, journal, lifecycle, listing, model, notify, retry
from holdfast_runtime.engine.commands import Scope, Violation, apply, output
from holdfast_runtime.engine.effects import RetryAt, StartAttempt
from holdfast_runtime.engine.events import AttemptEnd, AttemptFailed, AttemptOver, Ended, Suspended
from holdfast_runtime.engine.lifecycle import Change
from holdfast_runtime.engine.model import Document, Status
from holdfast_runtime.engine.payload import failure
from holdfast_runtime.engine.registry import OnMaxAttempts
from holdfast_runtime.engine.transaction import Transaction

NO_OUTPUT: Final = AttemptFailed(571, "expected an OutputCommand before End, found none; the SDK must send a result or a failure", "RT0012")


def attempt_over(tx: Transaction, event: AttemptOver) -> None:
    """Commit what the attempt produced. An invocation that is not running any more drops it all (I3)."""
    page_id = model.invocation_page(event.invocation)
    document = tx.get(page_id)
    if document is None or document[model.STATUS] != Status.RUNNING:
        return
    scope = Scope(tx, event.invocation, document)
    stored, end = _apply_frames(scope, event)
    if stored and document.get(model.DEPLOYMENT) is None:
        tx.merge(page_id, {model.DEPLOYMENT: event.deployment, model.VERSION: event.version})
    match end:
        case Ended():
            result = scope.output if scope.output is not None else output.stored(scope)
            if result is None:
                _fail(tx, event, document, NO_OUTPUT, progress=stored > 0)
            else:
                finish.finish(tx, event.invocation, document, result)
        case Suspended():
            _suspend(tx, event, document, end)
        case AttemptFailed():
            _fail(tx, event, document, end, progress=stored > 0)


def _apply_frames(scope: Scope, event: AttemptOver) -> tuple[int, AttemptEnd]:
    """How many frames were stored, and the end: a command that breaks a rule is an end of its own."""
    for number, frame in enumerate(event.frames):
        try:
            apply(scope, frame)
        except Violation as violation:
            return number, AttemptFailed(violation.code, str(violation), violation.error_code, terminal=violation.terminal)
    return len(event.frames), event.end


def _suspend(tx: Transaction, event: AttemptOver, document: Document, end: Suspended) -> None:
    """Wake at once iff a notification the attempt was not given matches (service protocol §3.6: never the whole journal)."""
    unseen: dict[Any, Outcome] = {}
    for _, entry in journal.entries(tx, event.invocation, document, event.known):
        found = journal.notification_of(entry)
        if found is not None:
            unseen[found[0]] = found[1]
    invocation = event.invocation
    if document.get(model.PAUSE_REQUESTED):
        lifecycle.move(tx, invocation, document, Change.PAUSE, **{model.RETRY: None, model.PAUSE_REQUESTED: None})
    elif notify.is_ready(end.awaiting, unseen):
        tx.merge(model.invocation_page(invocation), {model.RETRY: None})
        listing.list_status(tx, invocation, document, Status.RUNNING)  # it may be pinned only now
        tx.after(StartAttempt(invocation))
    else:
        resolved = [[kind, name, int(outcome)] for (kind, name), outcome in unseen.items()]
        fields = {model.AWAITING: end.awaiting.to_document(), model.RESOLVED: resolved, model.RETRY: None}
        lifecycle.move(tx, invocation, document, Change.SUSPEND, **fields)


def _fail(tx: Transaction, event: AttemptOver, document: Document, end: AttemptFailed, *, progress: bool) -> None:
    """Retry by policy. An exact delay given by the SDK or the endpoint does not consume an attempt (service protocol §3.8)."""
    if end.terminal:
        finish.finish(tx, event.invocation, document, failure(end.code, end.message))
        return
    failures, since_stored = (document.get(model.RETRY) or [0, 0])[:2]
    since_stored = 1 if progress else since_stored + 1
    exact = end.delay_ms is not None
    failures += 0 if exact else 1
    service, handler, _, _ = document[model.TARGET]
    policy = retry.policy_of(tx.registry, document, service, handler, event.deployment)
    delay = end.delay_ms if exact else retry.next_delay_ms(policy, max(failures, 1), event.jitter)
    if end.hopeless:
        delay = None
    reason = [end.code, end.message, end.error_code, *end.related, end.stacktrace, tx.now, event.deployment]
    pause = bool(document.get(model.PAUSE_REQUESTED))  # an operator's wish goes before the policy's end of it all (http-api §2.8)
    if delay is None and policy.on_max_attempts is OnMaxAttempts.KILL and not pause:
        finish.finish(tx, event.invocation, document, failure(end.code, end.message))
    elif delay is None or pause:
        fields = {model.RETRY: [failures, since_stored, None, reason], model.PAUSE_REQUESTED: None}
        lifecycle.move(tx, event.invocation, document, Change.PAUSE, **fields)
    else:
        due = tx.now + delay
        tx.merge(
            model.invocation_page(event.invocation),
            {model.RETRY: [failures, since_stored, due, reason], model.MODIFIED_AT: tx.now},
        )
        listing.list_status(tx, event.invocation, document, Status.RUNNING)
        tx.after(RetryAt(event.invocation, due))
