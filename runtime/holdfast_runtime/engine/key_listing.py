"""Packed index of the keys that have state or promises, so that these can be listed: pages have no order by which a store could find them.

`L/<shard>/<n>` = {service: {key: 1}}; the shard's listing index says which of these pages exist: {"kn": page being filled, "kp": {n: 1}}.
A key enters with its first value and leaves with its last, in the same transition; calls that touch no state cost nothing.
"""

from __future__ import annotations

from holdfast_runtime.engine import model
from holdfast_runtime.engine.model import Document
from holdfast_runtime.engine.transaction import Transaction

_CONTENT = (model.STATE, model.SPILLED, model.PROMISES, model.PROMISES_SPILLED)


def entered(tx: Transaction, service: str, key: str, document: Document) -> None:
    """The key has state or a promise now."""
    if document.get(model.KEY_LISTED) is not None:
        return
    index_id = model.listing_index(tx.shard)
    index = tx.get(index_id) or {}
    number: int = index.get("kn", 0)
    page_id = model.keys_page(tx.shard, number)
    if number not in index.get("kp", {}):
        tx.absent(page_id)
        tx.put(index_id, ("kp", number), 1)
    elif sum(map(len, (tx.get(page_id) or {}).values())) >= model.INDEX_ENTRIES:
        number += 1
        page_id = model.keys_page(tx.shard, number)
        tx.absent(page_id)
        tx.merge(index_id, {"kn": number})
        tx.put(index_id, ("kp", number), 1)
    tx.put(page_id, (service, key), 1)
    tx.merge(model.key_page(service, key), {model.KEY_LISTED: number})


def emptied(tx: Transaction, service: str, key: str, document: Document) -> None:
    """A value of the key is gone: if it was the last one, the key leaves the index."""
    if not any(document[field] for field in _CONTENT):
        leave(tx, service, key, document)


def leave(tx: Transaction, service: str, key: str, document: Document) -> None:
    number = document.get(model.KEY_LISTED)
    if number is None:
        return
    page_id = model.keys_page(tx.shard, number)
    tx.delete(page_id, (service, key))
    page = tx.get(page_id) or {}
    if service in page and not page[service]:
        tx.delete(page_id, (service,))
    index_id = model.listing_index(tx.shard)
    if not page and number != (tx.get(index_id) or {}).get("kn", 0):
        tx.drop(page_id)
        tx.delete(index_id, ("kp", number))
    tx.merge(model.key_page(service, key), {model.KEY_LISTED: None})
