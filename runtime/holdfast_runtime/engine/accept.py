"""A request arrives: a new invocation, or one that exists already. The id is the dedupe key (storage design §6 Accept)."""

from __future__ import annotations

from typing import Any

from holdfast_runtime.engine import finish, lifecycle, listing, model, object_queue, outbox, recent, timers
from holdfast_runtime.engine.effects import StartAttempt
from holdfast_runtime.engine.events import Arrival, Arrive, Arrived, Message
from holdfast_runtime.engine.lifecycle import Change
from holdfast_runtime.engine.model import Document, Status
from holdfast_runtime.engine.payload import failure, stored_size
from holdfast_runtime.engine.registry import HandlerKind
from holdfast_runtime.engine.transaction import Transaction

ALREADY_INVOKED = failure(409, "the workflow method was already invoked")


def arrive(tx: Transaction, event: Arrive) -> Arrived:
    page_id = model.invocation_page(event.invocation)
    if event.fresh:
        tx.absent(page_id)
    document = tx.get(page_id)
    if document is not None and is_over(document, tx.now):
        if event.minted_at is not None:
            return Arrived(Arrival.NEW, document[model.RESULT])  # no other request has this id: it is the same one, delivered again
        finish.forget(tx, event.invocation, document)
        document = None
    if document is not None:
        return _join(tx, event, document)
    if not event.fresh:
        # A derived id may be used again once its result is not kept; only the same request, sent again, must not run twice.
        remembered = recent.recall(tx, event.invocation, None if event.minted_at is not None else event.request)
        if remembered is not None:
            return Arrived(Arrival.NEW, remembered)
    if not event.fresh and event.minted_at is not None and event.minted_at + model.STALE_REQUEST_MS < tx.now:
        return Arrived(Arrival.STALE)
    if event.closed:
        return Arrived(Arrival.CLOSED)
    if not event.fresh:
        recent.supersede(tx, event.invocation)
    create(tx, event)
    return Arrived(Arrival.NEW, execute_at=event.execute_at)


def is_over(document: Document, now: int) -> bool:
    """Finished and past its retention: the store may delete it late, so every reader compares the time."""
    expires_at = document.get(model.EXPIRES_AT)
    return expires_at is not None and expires_at <= now


def _join(tx: Transaction, event: Arrive, document: Document) -> Arrived:
    if document[model.TARGET][:3] != event.target[:3]:
        return Arrived(Arrival.MISMATCH)
    result, expires_at = document.get(model.RESULT), document.get(model.EXPIRES_AT)
    execute_at = document.get(model.EXECUTE_AT) if document[model.STATUS] == Status.SCHEDULED else None
    same_request = bool(event.request) and document.get(model.REQUEST) == event.request
    if same_request:
        return Arrived(Arrival.NEW, result, expires_at, execute_at)
    if event.target[3] == HandlerKind.RUN.value:
        if event.sink is not None:
            outbox.tell(tx, event.sink, ALREADY_INVOKED)
        return Arrived(Arrival.ALREADY_INVOKED, result, expires_at, execute_at)
    if event.sink is not None:
        if document[model.STATUS] == Status.DONE:
            outbox.tell(tx, event.sink, result)
        else:
            add_sink(tx, event.invocation, document, event.sink)
    return Arrived(Arrival.KNOWN, result, expires_at, execute_at)


def add_sink(tx: Transaction, invocation: str, document: Document, sink: list[Any]) -> None:
    """`sink` = [invocation, completion id, notification type, when that was created]; the same one twice is one."""
    tx.put(model.invocation_page(invocation), (model.SINKS, f"{sink[0]}:{sink[1]}"), sink)


def create(tx: Transaction, event: Arrive, more: Document | None = None) -> None:
    """The page of a new invocation, which runs, waits for its key or for its time. more: further fields, or other ones."""
    later = event.execute_at is not None and event.execute_at > tx.now
    status = Status.SCHEDULED
    if not later:
        status = Status.RUNNING if _may_enter(tx, event) else Status.QUEUED
    document: Document = {
        model.STATUS: int(status),
        model.TARGET: event.target,
        model.JOURNAL: {0: event.entry},
        model.LENGTH: 1,
        model.INLINE: stored_size(event.entry),
        model.PENDING: {},
        model.SIGNALLED: {},
        model.TIMERS: {},
        model.SINKS: {},
        model.CREATED_AT: tx.now,
        model.MODIFIED_AT: tx.now,
        model.APPENDED_AT: tx.now,
        model.RETENTION: event.retention_ms,
        model.JOURNAL_RETENTION: event.journal_retention_ms,
        model.SOURCE: event.source,
        **(more or {}),
    }
    if status is Status.RUNNING:
        document[model.STARTED_AT] = tx.now
    if event.sink is not None:
        document[model.SINKS][f"{event.sink[0]}:{event.sink[1]}"] = event.sink
    if event.idempotency_key is not None:
        document[model.IDEMPOTENCY_KEY] = event.idempotency_key
    if event.request:
        document[model.REQUEST] = event.request
    if event.execute_at is not None:
        document[model.EXECUTE_AT] = event.execute_at
    pinned = document.get(model.DEPLOYMENT)
    document[model.LISTED] = listing.list_new(tx, event.invocation, event.target, status, tx.now, pinned)
    tx.put(model.invocation_page(event.invocation), (), document)
    tx.created += 1
    if status is Status.SCHEDULED:
        assert event.execute_at is not None
        timers.add(tx, event.invocation, completion_id=0, at=event.execute_at, kind=timers.START)
    elif status is Status.RUNNING:
        tx.put(model.active_page(tx.shard, event.invocation), (event.invocation,), 1)
        tx.after(StartAttempt(event.invocation))


def _may_enter(tx: Transaction, event: Arrive) -> bool:
    service, _, key, kind = event.target
    return kind != HandlerKind.EXCLUSIVE.value or object_queue.enter(tx, service, key, event.invocation)


def start_scheduled(tx: Transaction, invocation: str) -> None:
    """The start time of a scheduled invocation has come."""
    document = tx.get(model.invocation_page(invocation))
    if document is None or document[model.STATUS] != Status.SCHEDULED:
        return
    service, _, key, kind = document[model.TARGET]
    if kind == HandlerKind.EXCLUSIVE.value and not object_queue.enter(tx, service, key, invocation):
        lifecycle.move(tx, invocation, document, Change.WAIT_FOR_KEY)
        return
    lifecycle.move(tx, invocation, document, Change.START, **{model.STARTED_AT: tx.now})
    tx.after(StartAttempt(invocation))


def invoke(tx: Transaction, message: Message) -> None:
    """An invocation asked for by another one; exactly once, because channels are."""
    event = Arrive(
        invocation=message["id"],
        target=message["tg"],
        entry=message["in"],
        retention_ms=message["cr"],
        journal_retention_ms=message["jr"],
        source=message["sr"],
        execute_at=message["at"],
        idempotency_key=message["ik"],
        sink=message["sk"],
        # Only derived ids can exist already; a child's own id is new by construction.
        fresh=message["ik"] is None and message["tg"][3] != HandlerKind.RUN.value,
    )
    arrive(tx, event)


def attach(tx: Transaction, message: Message) -> None:
    """Another invocation wants the result of this one, when it ends or (with "now") as it stands."""
    document = tx.get(model.invocation_page(message["id"]))
    sink = message["to"]
    if document is None or is_over(document, tx.now):
        remembered = recent.result_of(tx, message["id"]) if document is None else None
        outbox.tell(tx, sink, remembered if remembered is not None else failure(404, "not found"))
    elif document[model.STATUS] == Status.DONE:
        outbox.tell(tx, sink, document[model.RESULT])
    elif message["now"]:
        outbox.tell(tx, sink, ["0"])
    else:
        add_sink(tx, message["id"], document, sink)
