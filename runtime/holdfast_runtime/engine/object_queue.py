"""Who may enter a virtual object: one exclusive invocation per key, first come first served, the key held until the invocation ends (I4).

Shared handlers skip this queue: they only read, so letting them in cannot reorder writes.
"""

from __future__ import annotations

from typing import Any, Final

from holdfast_runtime.engine import lifecycle, model, recent, state_edit
from holdfast_runtime.engine.effects import StartAttempt
from holdfast_runtime.engine.events import EditState
from holdfast_runtime.engine.key_pages import drop_if_empty, key_document
from holdfast_runtime.engine.lifecycle import Change
from holdfast_runtime.engine.model import Document
from holdfast_runtime.engine.payload import Result
from holdfast_runtime.engine.transaction import Transaction

EDITED: Final[Result] = ["v", b""]  # in place of a result, in `recent`


def enter(tx: Transaction, service: str, key: str, invocation: str) -> bool:
    """True: the invocation holds the key now. False: it waits in the queue."""
    page_id = model.key_page(service, key)
    document = key_document(tx, page_id)
    if document.get(model.LOCK) is None:
        tx.merge(page_id, {model.LOCK: invocation})
        return True
    push(tx, service, key, document, invocation)
    return False


def push(tx: Transaction, service: str, key: str, document: Document, waiting: str | list[Any]) -> None:
    """Queue an invocation, or a state edit (state_edit.py), behind the holder of the key."""
    page_id = model.key_page(service, key)
    head, tail = document.get(model.HEAD, 0), document.get(model.TAIL, 0)
    # Entries leave in order, so those of the key's own page are always older than those of the queue pages.
    if tail - head < model.QUEUE_PAGE and (tail == head or tail - 1 in document[model.QUEUE]):
        tx.put(page_id, (model.QUEUE, tail), waiting)
    else:
        overflow = model.queue_page(service, key, tail // model.QUEUE_PAGE)
        tx.get(overflow)
        tx.put(overflow, (tail,), waiting)
    tx.merge(page_id, {model.HEAD: head, model.TAIL: tail + 1})


def leave(tx: Transaction, service: str, key: str, invocation: str) -> None:
    """The invocation is over: pass the key on if it held it, else take it out of the queue. Decided by the lock, never by status."""
    page_id = model.key_page(service, key)
    document = tx.get(page_id)
    if document is None:
        return
    if document.get(model.LOCK) != invocation:
        _remove(tx, service, key, document, invocation)
        return
    while True:
        following = _pop(tx, service, key, document)
        if following is None:
            tx.merge(page_id, {model.LOCK: None})
            drop_if_empty(tx, page_id, document)
            return
        if isinstance(following, list):
            state_edit.apply(tx, service, key, following)
            continue
        next_document = tx.get(model.invocation_page(following))
        if next_document is None:
            continue
        tx.merge(page_id, {model.LOCK: following})
        lifecycle.move(tx, following, next_document, Change.START, **{model.STARTED_AT: tx.now})
        tx.after(StartAttempt(following))
        return


def _pop(tx: Transaction, service: str, key: str, document: Document) -> str | list[Any] | None:
    page_id = model.key_page(service, key)
    head, tail = document.get(model.HEAD, 0), document.get(model.TAIL, 0)
    while head < tail:
        found: str | list[Any] | None = document[model.QUEUE].get(head)
        if found is not None:
            tx.delete(page_id, (model.QUEUE, head))
        else:
            found = _pop_overflow(tx, service, key, head)
        head += 1
        tx.merge(page_id, {model.HEAD: head})
        if found is not None:
            return found
    return None


def _pop_overflow(tx: Transaction, service: str, key: str, number: int) -> str | list[Any] | None:
    overflow = model.queue_page(service, key, number // model.QUEUE_PAGE)
    entries: dict[int, Any] = tx.get(overflow) or {}
    found: str | list[Any] | None = entries.get(number)
    if found is not None:
        tx.delete(overflow, (number,))
    if not entries:
        tx.drop(overflow)
    return found


def _remove(tx: Transaction, service: str, key: str, document: Document, invocation: str) -> None:
    """Take a waiting invocation out; its number stays as a gap that `_pop` passes over."""
    for number, waiting in document[model.QUEUE].items():
        if waiting == invocation:
            tx.delete(model.key_page(service, key), (model.QUEUE, number))
            return
    head, tail = document.get(model.HEAD, 0), document.get(model.TAIL, 0)
    for page_number in range(head // model.QUEUE_PAGE, tail // model.QUEUE_PAGE + 1):
        overflow = model.queue_page(service, key, page_number)
        for number, waiting in (tx.get(overflow) or {}).items():
            if waiting == invocation:
                tx.delete(overflow, (number,))
                return


def edit(tx: Transaction, event: EditState) -> None:
    """An operator replaces the state of a key: at once when the key is free, else in its turn.

    A request that was delivered before does nothing, for as long as requests are repeated: late, it would undo what handlers and other
    operators have written since. It is remembered beside the key's page, which goes with the last value.
    """
    page_id = model.key_page(event.service, event.key)
    if event.request:
        if recent.recall(tx, page_id, event.request) is not None:
            return
        recent.remember(tx, page_id, EDITED, event.request, hidden=True)
    document = tx.get(page_id)
    change = [[[name, value] for name, value in event.values], event.fingerprint]
    if document is not None and document.get(model.LOCK) is not None:
        push(tx, event.service, event.key, document, change)
    else:
        state_edit.apply(tx, event.service, event.key, change)
