"""Keys enter the packed index with their first value and leave it with their last, whatever wrote or cleared it."""

from __future__ import annotations

import random

from holdfast_runtime.engine import key_pages, key_state, model
from holdfast_runtime.engine.commands import promise
from holdfast_runtime.engine.payload import success
from holdfast_runtime.engine.registry import EMPTY
from holdfast_runtime.engine.transaction import Page, Transaction


class Pages(dict[str, Page]):
    """Everything in memory: what was never written does not exist."""

    def __missing__(self, page_id: str) -> Page:
        self[page_id] = page = Page(None, -1, stored=False)
        return page

    def get(self, page_id: str, default: Page | None = None) -> Page:  # type: ignore[override]
        return self[page_id]


def transaction(pages: Pages) -> Transaction:
    return Transaction(pages, shard=0, shards=1, now=1, registry=EMPTY, handle=lambda *_: None)


def listed(pages: Pages) -> list[tuple[str, str]]:
    index = pages[model.listing_index(0)].document or {}
    documents = [pages[model.keys_page(0, number)].document or {} for number in index.get("kp", {})]
    assert all(sum(map(len, document.values())) <= model.INDEX_ENTRIES for document in documents)
    assert all(documents[:-1])  # an empty page goes, unless it is the one being filled
    return sorted((service, key) for document in documents for service, keys in document.items() for key in keys)


def test_the_index_names_exactly_the_keys_with_state_or_promises() -> None:
    pages, chance = Pages(), random.Random(7)
    has: dict[tuple[str, str], set[str]] = {}
    for step in range(6_000):
        service, key, name = chance.choice("AB"), f"k{chance.randrange(600)}", chance.choice("xyz")
        tx = transaction(pages)
        names = has.setdefault((service, key), set())
        match chance.randrange(8 if step < 3_000 else 16):
            case 0 | 1:
                key_state.write(tx, service, key, name, b"v" * chance.choice((1, model.STATE_INLINE_BYTES + 1)))
                names.add(name)
            case 2:
                promise._write(tx, service, key, name, success(b"done"))
                names.add("promise " + name)
            case 3:
                key_pages.drop_key(tx, service, key)
                names.clear()
            case 4:
                key_state.write(tx, service, key, name, b"v")
                tx.rollback()
            case _:
                key_state.remove(tx, service, key, name)
                names.discard(name)
    assert listed(pages) == sorted(pair for pair, names in has.items() if names)
    assert len(listed(pages)) > model.INDEX_ENTRIES  # on more than one page
    for service, key in listed(pages):
        tx = transaction(pages)
        key_pages.drop_key(tx, service, key)
    assert listed(pages) == []
