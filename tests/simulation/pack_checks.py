"""What the oracle knows of packs: which page an invocation's is when some are in packs, said once more.

An item of its own is the page, tombstone or not; where there is none, the newest entry of any pack is.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from holdfast.protocol.ids import InvocationId
from holdfast_runtime.engine import model
from holdfast_runtime.engine.operations import decode
from holdfast_runtime.ports.store import StoredPage

if TYPE_CHECKING:
    from .checkers import Oracle

MINUTE_MS: Final = 60_000
LATER_MS: Final = (MINUTE_MS, 30 * MINUTE_MS, 90 * MINUTE_MS)  # tombstones go after 10 minutes, most results are kept for 60


def entries(pack: StoredPage) -> dict[str, StoredPage]:
    """By the pages they are of."""
    found: dict[bytes, list[Any]] = decode(pack.document) if pack.document is not None else {}
    return {f"I/{InvocationId.from_raw(raw)}": StoredPage(lsn, document) for raw, (lsn, _, document) in found.items()}


class PackChecks:
    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self._decoded: dict[str, tuple[StoredPage, dict[str, StoredPage]]] = {}
        self.packed: set[str] = set()  # pages that ever were in a pack

    def landed(self, pack_id: str, pack: StoredPage, before: StoredPage | None) -> None:
        count, found = self._oracle.world.count, entries(pack)
        level = pack_id.split("/")[2]
        count(f"pack of level {level} stored" if before is None else "pack stored again")
        if before is not None and entries(before).keys() - found.keys():
            count("pack replaced that had landed late")  # of a fenced owner; whether anything was lost is for the checkpoint to say
        self.packed |= found.keys()

    def stored(self, shard: int) -> dict[str, StoredPage]:
        """What the store holds: pages in items of their own, and those that only packs hold."""
        pages = self._oracle.world.store.pages()
        return self._with_packs(shard, pages)

    def _with_packs(self, shard: int, pages: dict[str, StoredPage]) -> dict[str, StoredPage]:
        found = dict(pages)
        for pack_id in [page_id for page_id in pages if page_id.startswith(f"D/{shard}/")]:
            for page_id, entry in self._entries(pack_id, pages[pack_id]).items():
                own = pages.get(page_id)
                if own is None and (page_id not in found or found[page_id].lsn < entry.lsn):
                    found[page_id] = entry
                elif own is not None:
                    self._oracle.demand(
                        own.lsn >= entry.lsn, f"packs: {page_id} has an item of batch {own.lsn} and is in {pack_id} as of {entry.lsn}"
                    )
        return found

    def _entries(self, pack_id: str, pack: StoredPage) -> dict[str, StoredPage]:
        known = self._decoded.get(pack_id)
        if known is None or known[0] is not pack:
            known = self._decoded[pack_id] = pack, entries(pack)
        return known[1]

    def check_later(self) -> None:
        """When time has gone and the store has deleted what it may, what is kept is there, and what was dropped is not back."""
        oracle, world, seen = self._oracle, self._oracle.world, Counter[str]()
        for later in LATER_MS:
            now = world.latest_ms() + later
            gone = {page_id for page_id, (_, expires_at_ms) in world.expiring.items() if expires_at_ms < now}
            pages = {page_id: page for page_id, page in world.store.pages().items() if page_id not in gone}
            for shard, replica in enumerate(oracle.shards):
                stored = self._with_packs(shard, pages)
                checkpoint = world.store.record(shard).checkpoint
                for page_id in self.packed & replica.history.keys():
                    if replica.history[page_id][-1][0] >= checkpoint:
                        continue  # the log holds its last change yet
                    there, expected = stored.get(page_id), replica.pages.get(page_id)
                    found = decode(there.document) if there is not None and there.document is not None else None
                    self._check(page_id, found, expected, now, seen)
        for what in seen:
            world.count(what)

    def _check(self, page_id: str, found: Any, expected: Any, now: int, seen: Counter[str]) -> None:
        demand = self._oracle.demand
        if found is not None and found[model.EXPIRES_AT] <= now:
            found = None  # whoever asks compares the time
        if expected is not None and expected[model.EXPIRES_AT] <= now:
            seen["packed invocation over"] += 1
            expected = None
        elif expected is not None:
            seen["packed invocation kept"] += 1
        else:
            seen["packed invocation purged"] += 1
        demand(found == expected, f"packs: at {now} {page_id} is {found!r} in the store, the log says {expected!r}")
