"""Channels between shards: numbered, kept until acknowledged, applied once and in order (storage design §4.6).

`X/<shard>/out/<destination>` = {"n": last number given, "a": last number acknowledged}, the messages in pages of 64 beside it.
`X/<shard>/in` = {source: last number applied}.

A message is a dict; "m" says what it is and "id" which invocation it is for:
    {"m": "i", "id", "tg", "in", "at", "sk", "cr", "jr", "ik", "sr"}   invoke: start or join that invocation
    {"m": "c", "id", "cid", "t", "r", "of"}                            completion of a command, notification type t, of the invocation
                                                                       that was created then: an id may live again
    {"m": "s", "id", "sig", "r"}                                       signal by index or name
    {"m": "a", "id", "to": sink, "now"}                                attach; with "now" answer at once even if it has not ended
A sink, also "sk" above, says who is told the result: [invocation, completion id, notification type, when that was created].
    {"m": "k", "id"}                                                   kill
"""

from __future__ import annotations

from typing import Any

from holdfast_runtime.engine import model
from holdfast_runtime.engine.effects import SendMessages
from holdfast_runtime.engine.events import Message, MessagesAcknowledged, MessagesReceived
from holdfast_runtime.engine.transaction import Transaction


def tell(tx: Transaction, sink: list[Any], result: Any) -> None:
    """Older versions had sinks of three members: such a result is for whichever life of the invocation it meets."""
    send(tx, {"m": "c", "id": sink[0], "cid": sink[1], "t": sink[2], "r": result, "of": sink[3] if len(sink) > 3 else None})


def send(tx: Transaction, message: Message) -> None:
    """Deliver within this transition when the target is ours and nothing waits before it, else put it in the outbox."""
    destination = model.shard_of(message["id"], tx.shards)
    if destination == tx.shard and not _waiting(tx, destination):
        tx.handle(tx, message)
    else:
        enqueue(tx, message, destination)


def enqueue(tx: Transaction, message: Message, destination: int) -> None:
    page_id = model.outbox_page(tx.shard, destination)
    box: dict[str, Any] = tx.get(page_id) or {}
    sequence = box.get("n", 0) + 1
    batch_id = model.messages_page(tx.shard, destination, sequence)
    if box.get("n", 0) == box.get("a", 0) or sequence % model.MESSAGES_PER_PAGE == 0:
        tx.absent(batch_id)
    tx.put(batch_id, (sequence,), message)
    tx.merge(page_id, {"n": sequence})
    tx.after(SendMessages(destination, sequence))


def _waiting(tx: Transaction, destination: int) -> bool:
    box = tx.get(model.outbox_page(tx.shard, destination))
    return box is not None and bool(box.get("n", 0) > box.get("a", 0))


def receive(tx: Transaction, event: MessagesReceived) -> int:
    """Apply what is next in order, skip what was applied; the last number applied, to be acknowledged when durable."""
    page_id = model.inbox_page(tx.shard)
    last: int = (tx.get(page_id) or {}).get(event.source, 0)
    before = last
    for sequence, message in event.messages:
        if sequence <= last:
            continue
        if sequence > last + 1:
            break
        tx.handle(tx, message)
        last = sequence
    if last != before:
        tx.merge(page_id, {event.source: last})
    return last


def acknowledge(tx: Transaction, event: MessagesAcknowledged) -> None:
    """Forget what was acknowledged. Rides on the next batch: losing it only means sending again."""
    page_id = model.outbox_page(tx.shard, event.destination)
    box: dict[str, Any] = tx.get(page_id) or {}
    acknowledged, given = box.get("a", 0), box.get("n", 0)
    upto = min(event.sequence, given)
    if upto <= acknowledged:
        return
    pages = range((acknowledged + 1) // model.MESSAGES_PER_PAGE, upto // model.MESSAGES_PER_PAGE + 1)
    ids = {n: model.messages_page(tx.shard, event.destination, n * model.MESSAGES_PER_PAGE) for n in pages}
    tx.need(*ids.values())
    for n, batch_id in ids.items():
        if (n + 1) * model.MESSAGES_PER_PAGE <= upto + 1 or upto == given:
            tx.drop(batch_id)
            continue
        for sequence in range(max(acknowledged + 1, n * model.MESSAGES_PER_PAGE), upto + 1):
            tx.delete(batch_id, (sequence,))
    tx.merge(page_id, {"a": upto})
