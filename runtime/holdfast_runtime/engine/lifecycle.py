"""The life of an invocation, as a table. A pair that is absent cannot happen: asking for it is a bug of ours and names both halves."""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

from holdfast_runtime.engine import model
from holdfast_runtime.engine.listing import list_status
from holdfast_runtime.engine.model import Document, Status
from holdfast_runtime.engine.transaction import Transaction


class Change(Enum):
    WAIT_FOR_TIME = "accepted for later"
    WAIT_FOR_KEY = "queued behind the holder of its key"
    START = "may run"
    WAKE = "an awaited result is there"
    SUSPEND = "waits for results"
    PAUSE = "stopped by an operator or by exhausted retries"
    RESUME = "resumed by an operator or a cancel"
    END = "has a result"


LIFECYCLE: Final[dict[tuple[Status | None, Change], Status]] = {
    (None, Change.WAIT_FOR_TIME): Status.SCHEDULED,
    (None, Change.WAIT_FOR_KEY): Status.QUEUED,
    (None, Change.START): Status.RUNNING,
    (Status.SCHEDULED, Change.WAIT_FOR_KEY): Status.QUEUED,
    (Status.SCHEDULED, Change.START): Status.RUNNING,
    (Status.SCHEDULED, Change.END): Status.DONE,
    (Status.QUEUED, Change.START): Status.RUNNING,
    (Status.QUEUED, Change.END): Status.DONE,
    (Status.RUNNING, Change.SUSPEND): Status.SUSPENDED,
    (Status.RUNNING, Change.PAUSE): Status.PAUSED,
    (Status.RUNNING, Change.END): Status.DONE,
    (Status.SUSPENDED, Change.WAKE): Status.RUNNING,
    (Status.SUSPENDED, Change.RESUME): Status.RUNNING,
    (Status.SUSPENDED, Change.PAUSE): Status.PAUSED,
    (Status.SUSPENDED, Change.END): Status.DONE,
    (Status.PAUSED, Change.RESUME): Status.RUNNING,
    (Status.PAUSED, Change.END): Status.DONE,
}


def next_status(status: Status | None, change: Change) -> Status:
    try:
        return LIFECYCLE[status, change]
    except KeyError:
        name = status.name if status is not None else "a new invocation"
        raise AssertionError(f"{name} cannot take the change {change.name} ({change.value})") from None


def move(tx: Transaction, invocation: str, document: Document, change: Change, **fields: Any) -> None:
    """Change the status, and with it the active page and the listing. Not for END, which is `finish`'s."""
    before = Status(document[model.STATUS])
    after = next_status(before, change)
    tx.merge(model.invocation_page(invocation), {model.STATUS: int(after), model.MODIFIED_AT: tx.now, **fields})
    if after is Status.RUNNING:
        tx.put(model.active_page(tx.shard, invocation), (invocation,), 1)
    elif before is Status.RUNNING:
        tx.delete(model.active_page(tx.shard, invocation), (invocation,))
    list_status(tx, invocation, document, after)
