"""Packs: finished invocations that share a page in the store, `D/<shard>/<level>/<bucket>`. Pure.

An item costs a write unit however small it is, and the page of a finished invocation compresses to a tenth of one. So such pages are
written together (coordinator/packing.py): those whose ids were minted in the same span of time, which is short where there are many of
them. No directory is needed: an id that carries its time says which packs may hold its page, one of each level.

1. A page in a pack never had an item of its own; from its next change on it has one. So an item `I/<invocation>`, tombstone or not, is
   the page, and only where there is none is it looked for in its packs.
2. An entry is the page as of one batch, as any stored page is. It stays in its pack for as long as that exists; what has become of the
   page since is in its own item, which stays at least until the entry is over (coordinator/flush.py).
3. Derived ids (idempotency keys, workflow runs, calls by handlers) carry no time, and may live several times: they are never packed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from holdfast.protocol.ids import InvocationId
from holdfast_runtime.engine import model
from holdfast_runtime.engine.model import Document, Status
from holdfast_runtime.engine.operations import decode, encode
from holdfast_runtime.engine.registry import HandlerKind

# Spans of time, each a part of the one before; the first is the flush interval. Fixed for ever: whoever looks for a page computes them.
WIDTHS_MS: Final = (300_000, 60_000, 10_000, 1_000, 50)
PACK_BYTES: Final = 128 * 1024  # of all entries; some 16 KB compressed, which is what a cold look at one of them has to read
ENTRY_BYTES: Final = 8 * 1024  # a larger page saves too little
_FIRST_MS, _LAST_MS = 1_577_836_800_000, 4_102_444_800_000  # 2020 to 2100: what else stands in the place of the time is a digest


class Entry(NamedTuple):
    """A stored page. kept_until_ms: before it the store must not delete the pack."""

    lsn: int
    kept_until_ms: int
    document: bytes


Entries = dict[bytes, Entry]  # by the raw id


@lru_cache(maxsize=4096)
def _raw(page_id: str) -> bytes:
    return InvocationId.parse(page_id[2:]).raw


def key_of(page_id: str) -> bytes:
    """Of an invocation's page: under which its entry stands."""
    return _raw(page_id)


def minted_ms(page_id: str) -> int | None:
    """When the id of an invocation's page was made; None for other pages, and for ids that carry no time."""
    if page_id[:2] != "I/":
        return None
    found = int.from_bytes(_raw(page_id)[8:14], "big")
    return found if _FIRST_MS <= found < _LAST_MS else None


def pack_page(shard: int, level: int, minted: int) -> str:
    return f"D/{shard}/{level}/{minted // WIDTHS_MS[level]}"


def places(page_id: str, shards: int) -> list[str]:
    """The packs that may hold the page when it has no item of its own; none for most kinds of pages."""
    minted = minted_ms(page_id)
    if minted is None:
        return []
    shard = model.shard_of_key(int.from_bytes(_raw(page_id)[:8], "big"), shards)
    return [pack_page(shard, level, minted) for level in range(len(WIDTHS_MS))]


def is_packable(document: Document) -> bool:
    """Finished, kept, in one page, and called from outside under an id of its own."""
    return (
        document[model.STATUS] == Status.DONE
        and not document[model.SOURCE]
        and document.get(model.IDEMPOTENCY_KEY) is None
        and document[model.TARGET][3] != HandlerKind.RUN.value
        and not document.get(model.PAGES)
    )


def entries_of(encoded: bytes | None) -> Entries:
    """Of a stored pack; none of one that is gone."""
    if encoded is None:
        return {}
    return {key: Entry(*entry) for key, entry in decode(encoded).items()}


def encode_entries(entries: Entries) -> bytes:
    """Documents stay encoded: who wants one need not decode the others, and references to blobs are found in them (blob_ids.py)."""
    return encode(entries)
