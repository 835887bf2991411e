"""Timers: durable in a page before they are acknowledged, fired through `due` only, so that double, early and late firings are harmless.

`T/<shard>/<hour>/<n>` = {"<invocation>:<completion id>": [due ms, kind]}; `X/<shard>/timers` = {hour: number of the page being filled}.
The invocation page holds the same timer: a timer that is missing there is over, whatever the timer page says.
"""

from __future__ import annotations

from typing import Final

from holdfast_runtime.engine import model
from holdfast_runtime.engine.effects import ArmTimer
from holdfast_runtime.engine.transaction import Transaction

SLEEP: Final = "z"  # completes a sleep command
START: Final = "s"  # starts a scheduled invocation


def add(tx: Transaction, invocation: str, *, completion_id: int, at: int, kind: str) -> None:
    index_id = model.timer_index(tx.shard)
    hour = at // model.HOUR_MS
    number: int = (tx.get(index_id) or {}).get(hour, -1)
    if number < 0 or len(tx.get(model.timer_page(tx.shard, hour, number)) or ()) >= model.TIMERS_PER_PAGE:
        number += 1
        # Emptied pages of an hour are dropped only together with the hour, so the number is new.
        tx.absent(model.timer_page(tx.shard, hour, number))
        tx.merge(index_id, {hour: number})
    key = f"{invocation}:{completion_id}"
    tx.put(model.timer_page(tx.shard, hour, number), (key,), [at, kind])
    tx.put(model.invocation_page(invocation), (model.TIMERS, completion_id), at)
    tx.after(ArmTimer(at, hour, number, key))


def take(tx: Transaction, hour: int, number: int, key: str) -> tuple[str, int, str] | None:
    """Remove the timer if it is due; (invocation, completion id, kind), or None when it is gone, early, or its invocation is over."""
    page_id = model.timer_page(tx.shard, hour, number)
    found = (tx.get(page_id) or {}).get(key)
    if found is None or found[0] > tx.now:
        return None
    invocation, _, completion = key.rpartition(":")
    completion_id = int(completion)
    document = tx.get(model.invocation_page(invocation))
    tx.delete(page_id, (key,))
    if not tx.get(page_id):
        _tidy(tx, hour)
    if document is None or document[model.TIMERS].get(completion_id) != found[0]:
        return None
    tx.delete(model.invocation_page(invocation), (model.TIMERS, completion_id))
    return invocation, completion_id, found[1]


def _tidy(tx: Transaction, hour: int) -> None:
    """Drop the pages of an hour that is over and empty."""
    index_id = model.timer_index(tx.shard)
    index = tx.get(index_id) or {}
    if hour not in index or (hour + 1) * model.HOUR_MS > tx.now:
        return
    pages = [model.timer_page(tx.shard, hour, number) for number in range(index[hour] + 1)]
    tx.need(*pages)
    if any(tx.get(page_id) for page_id in pages):
        return
    for page_id in pages:
        tx.drop(page_id)
    tx.delete(index_id, (hour,))
