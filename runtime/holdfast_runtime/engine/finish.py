"""An invocation gets its result: everything that follows from it happens in the same transition (invariant I2, storage design §6
Finish)."""

from __future__ import annotations

from holdfast.protocol import messages
from holdfast.protocol.messages import MessageType
from holdfast_runtime.engine import journal, key_pages, listing, model, object_queue, outbox, recent, timers
from holdfast_runtime.engine.effects import Answer
from holdfast_runtime.engine.lifecycle import Change, next_status
from holdfast_runtime.engine.model import Document, Status
from holdfast_runtime.engine.payload import Result, entry_type, failure
from holdfast_runtime.engine.registry import HandlerKind
from holdfast_runtime.engine.transaction import Transaction

EXPIRE = "x"  # timer kind: the retention is over, and more has to be forgotten than one page
DROP_JOURNAL = "j"  # timer kind: the retention of the journal is over, before that of the result
_JOURNAL_TIMER = -1  # in place of a completion id: EXPIRE may be set beside it


def finish(tx: Transaction, invocation: str, document: Document, result: Result, *, retain: bool = True) -> None:
    """Store the result, tell everybody who waits, release the key, start the retention."""
    page_id = model.invocation_page(invocation)
    status = Status(document[model.STATUS])
    next_status(status, Change.END)
    service, _, key, kind = document[model.TARGET]
    if status is Status.RUNNING:
        tx.delete(model.active_page(tx.shard, invocation), (invocation,))
        tx.overtake(invocation)
    sinks = list(document[model.SINKS].values())
    retention: int = document[model.RETENTION] if retain else 0
    listing.unlist(tx, invocation, document)
    if retention > 0:
        expires_at = tx.now + retention
        listed = listing.list_finished(tx, invocation, document, failed=result[0] == "f", expires_at=expires_at)
        fields = {
            model.STATUS: int(Status.DONE),
            model.RESULT: result,
            model.COMPLETED_AT: tx.now,
            model.MODIFIED_AT: tx.now,
            model.EXPIRES_AT: expires_at,
            model.LISTED: list(listed),
            model.AWAITING: None,
            model.RESOLVED: None,
            model.RETRY: None,
        }
        tx.merge(page_id, fields)
        _limit_journal(tx, invocation, document, retention)
        if kind == HandlerKind.RUN.value or document.get(model.PAGES):  # more to forget than one page, which the store forgets itself
            timers.add(tx, invocation, completion_id=0, at=_known_until(tx, document, expires_at), kind=EXPIRE)
    else:
        recent.remember(tx, invocation, result, document.get(model.REQUEST, b""))
        journal.drop(tx, invocation, document)
        if kind == HandlerKind.RUN.value and status not in (Status.SCHEDULED, Status.QUEUED):
            key_pages.drop_key(tx, service, key)
    tx.after(Answer(invocation, result))
    if kind == HandlerKind.EXCLUSIVE.value:
        object_queue.leave(tx, service, key, invocation)
    for sink in sinks:
        outbox.tell(tx, sink, result)


def _limit_journal(tx: Transaction, invocation: str, document: Document, retention: int) -> None:
    """The journal may be kept for a shorter time than the result (http-api §6.4), never for a longer one.

    The timer is durable with the end itself, so the journal goes in time whoever owns the shard by then.
    """
    kept = document[model.JOURNAL_RETENTION]
    if kept <= 0:
        journal.clear(tx, invocation, document)
    elif kept < retention:
        timers.add(tx, invocation, completion_id=_JOURNAL_TIMER, at=tx.now + kept, kind=DROP_JOURNAL)


def _known_until(tx: Transaction, document: Document, expires_at: int) -> int:
    """A request over HTTP may be delivered again, late: the id that was minted for it must be known as long as such a delivery would
    not be refused for its age, also when its result is not shown any more."""
    minted = document.get(model.REQUEST) and document.get(model.IDEMPOTENCY_KEY) is None
    derived = document[model.TARGET][3] == HandlerKind.RUN.value
    return max(expires_at, tx.now + model.RECENT_MS) if minted and not derived else expires_at


def drop_journal(tx: Transaction, invocation: str) -> None:
    """The journal's retention is over."""
    document = tx.get(model.invocation_page(invocation))
    if document is not None and document[model.STATUS] == Status.DONE:
        journal.clear(tx, invocation, document)


def forget(tx: Transaction, invocation: str, document: Document) -> None:
    """Purge or expiry of a finished invocation; with a workflow's run go its state and promises (service protocol §6.7).

    The request that created it may still be delivered a second time, and must not run again.
    """
    if document.get(model.REQUEST) and tx.now < document[model.CREATED_AT] + model.RECENT_MS:
        recent.remember(tx, invocation, document[model.RESULT], document[model.REQUEST], hidden=True)
    service, _, key, kind = document[model.TARGET]
    listing.unlist_finished(tx, invocation, document)
    journal.drop(tx, invocation, document)
    if kind == HandlerKind.RUN.value:
        key_pages.drop_key(tx, service, key)


def kill(tx: Transaction, invocation: str, document: Document) -> None:
    """End it without its code, and every invocation it started, recursively (service protocol §3.11).

    The children's kills always go through the outbox: a tree of any size is cut into transitions of bounded size.
    """
    children = []
    for _, entry in journal.entries(tx, invocation, document):
        if entry_type(entry) == MessageType.CALL_INVOCATION_ID_COMPLETION:
            children.append(child_of(entry))
    finish(tx, invocation, document, failure(409, "killed"))
    for child in children:
        outbox.enqueue(tx, {"m": "k", "id": child}, model.shard_of(child, tx.shards))


def child_of(entry: object) -> str:
    """The invocation id in a CallInvocationIdCompletion frame."""
    assert isinstance(entry, bytes)
    message = messages.parse(MessageType.CALL_INVOCATION_ID_COMPLETION, entry[8:])
    return str(message.invocation_id)  # type: ignore[attr-defined]
