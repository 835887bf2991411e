"""decide(pages, event, now): the one door by which anything happens to a shard. Dispatch only."""

from __future__ import annotations

from typing import Any, assert_never

from holdfast.protocol.messages import MessageType
from holdfast_runtime.engine import accept, attempts, finish, listing, model, notify, object_queue, operate, outbox, recent, restart, timers
from holdfast_runtime.engine.events import (
    Arrive,
    Arrived,
    AttemptOver,
    Deliver,
    EditState,
    Event,
    Forget,
    Look,
    Message,
    MessagesAcknowledged,
    MessagesReceived,
    Operate,
    Operated,
    Restart,
    Seen,
    TimerDue,
)
from holdfast_runtime.engine.model import Status
from holdfast_runtime.engine.payload import VOID
from holdfast_runtime.engine.registry import RegistryView
from holdfast_runtime.engine.transaction import Page, Transaction

SLEEP_COMPLETION = MessageType.SLEEP_COMPLETION
Answered = Arrived | Seen | Operated | int | bool | None


def transaction(pages: dict[str, Page], *, shard: int, shards: int, now: int, registry: RegistryView) -> Transaction:
    return Transaction(pages, shard=shard, shards=shards, now=now, registry=registry, handle=handle)


def decide(tx: Transaction, event: Event) -> Answered:
    """Apply `event`; what it answers to the one who brought it. Raises NeedPages, having changed nothing that `tx.rollback` does not
    undo."""
    match event:
        case Arrive():
            return accept.arrive(tx, event)
        case AttemptOver():
            attempts.attempt_over(tx, event)
        case MessagesReceived():
            return outbox.receive(tx, event)
        case MessagesAcknowledged():
            outbox.acknowledge(tx, event)
        case TimerDue():
            return _timer_due(tx, event)
        case Deliver():
            handle(tx, event.message)
        case Operate():
            return operate.operate(tx, event)
        case Restart():
            return restart.restart(tx, event)
        case Look():
            return _look(tx, event)
        case Forget():
            recent.forget(tx)
            listing.forget_expired(tx)
        case EditState():
            object_queue.edit(tx, event)
        case _:
            assert_never(event)
    return None


def handle(tx: Transaction, message: Message) -> None:
    """Apply a message from another invocation, another shard or from outside (kinds: outbox.py)."""
    invocation = message["id"]
    match message["m"]:
        case "i":
            accept.invoke(tx, message)
        case "c":
            notify.complete(tx, invocation, message["cid"], message["t"], message["r"], of=message.get("of"))
        case "s":
            notify.signal(tx, invocation, message["sig"], message["r"])
        case "a":
            accept.attach(tx, message)
        case "k":
            _kill(tx, invocation)
        case kind:
            raise AssertionError(f"unknown message {kind!r}")


def _kill(tx: Transaction, invocation: str) -> None:
    document = tx.get(model.invocation_page(invocation))
    if document is not None and document[model.STATUS] != Status.DONE:
        finish.kill(tx, invocation, document)


def _timer_due(tx: Transaction, event: TimerDue) -> bool:
    found = timers.take(tx, event.hour, event.number, event.key)
    if found is None:
        return False
    invocation, completion_id, kind = found
    match kind:
        case timers.SLEEP:
            notify.complete(tx, invocation, completion_id, SLEEP_COMPLETION, VOID)
        case timers.START:
            accept.start_scheduled(tx, invocation)
        case finish.EXPIRE:
            _expire(tx, invocation)
        case finish.DROP_JOURNAL:
            finish.drop_journal(tx, invocation)
    return True


def _expire(tx: Transaction, invocation: str) -> None:
    document: dict[Any, Any] | None = tx.get(model.invocation_page(invocation))
    if document is not None and accept.is_over(document, tx.now):
        finish.forget(tx, invocation, document)


def _look(tx: Transaction, event: Look) -> Seen:
    document = tx.get(model.invocation_page(event.invocation))
    if document is None:
        remembered = recent.result_of(tx, event.invocation) if event.again else None
        return Seen(remembered is not None, remembered)
    if accept.is_over(document, tx.now):
        return Seen(False)
    return Seen(True, document.get(model.RESULT), document.get(model.EXPIRES_AT), document[model.TARGET])
