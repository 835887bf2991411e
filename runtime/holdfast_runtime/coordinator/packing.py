"""Writing finished invocations as packs, and finding pages that are in one (engine/packs.py has what a pack is).

A pack is read, completed and written by the owner of its shard, one writer at a time (the lock of flush.py), under the batch that was the
last durable one. Why an owner that was fenced does no harm, however late its write lands:

1. Its number is smaller than the number of the successor's seal, and every number the successor writes is larger. So it never replaces
   what the successor has written.
2. The successor may have read the pack before it landed, and replaces it by a pack without those entries. It read after it had raised the
   epoch. An entry that was not there by then was never acknowledged to an owner whose checkpoint still counted (it is conditional on the
   epoch), so the log from the checkpoint on holds all of that page's changes: the successor has redone them, the page is dirty, and,
   as its predecessor may have written it, gets an item of its own.
3. If it lands and stays, it holds entries as of durable batches, and of each such page the successor writes or has written its own item,
   which counts before any pack.
4. The successor may have read what landed, and an owner between the two may have read before: that one's pack, later still and without
   those entries, replaces it. So an entry that recovery finds counts for nothing: a page that the log touches is dirty if only a pack
   has it (recovery.py), and gets an item of its own.

A page is marked `stored` in the instant in which it is taken for a pack or for an item, so it is on its way to one of them only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast_runtime.engine import packs
from holdfast_runtime.engine.operations import encode
from holdfast_runtime.engine.packs import Entries, Entry
from holdfast_runtime.engine.transaction import Page
from holdfast_runtime.ports.store import StoredPage

if TYPE_CHECKING:
    from holdfast_runtime.coordinator.flush import Flusher
    from holdfast_runtime.coordinator.shard import Shard

Get = Callable[[Sequence[str]], Awaitable[Mapping[str, StoredPage]]]
Member = tuple[int, str]  # ms when the id was made, page

READ_PACKS: Final = 32  # at once; at most 4 MB
PARALLEL: Final = 8  # packs written at once
_RATIO: Final = 0.25  # of a pack's bytes that are left of it in an item, carefully estimated: pages of one service are much alike
_UNIT: Final = 1024
_UNKNOWN_BYTES: Final = 500


async def find(get: Get, page_ids: Sequence[str], shards: int, packed: set[str] | None = None) -> dict[str, StoredPage]:
    """As `PageStore.get`, with the pages that are in packs; these are added to `packed`."""
    found = dict(await get(page_ids))
    wanted: dict[str, list[str]] = {}
    for page_id in page_ids:
        if page_id not in found:  # its own item counts, and is alone in being there after a change
            for pack_id in packs.places(page_id, shards):
                wanted.setdefault(pack_id, []).append(page_id)
    pack_ids = list(wanted)
    for start in range(0, len(pack_ids), READ_PACKS):
        for pack_id, pack in (await get(pack_ids[start : start + READ_PACKS])).items():
            entries = packs.entries_of(pack.document)
            for page_id in wanted[pack_id]:
                entry = entries.get(packs.key_of(page_id))
                if entry is not None and (page_id not in found or found[page_id].lsn < entry.lsn):
                    found[page_id] = StoredPage(entry.lsn, entry.document)
                    if packed is not None:
                        packed.add(page_id)
    return found


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """A page as of a durable batch."""

    minted: int
    page_id: str
    page: Page
    entry: Entry


class Packer:
    def __init__(self, shard: Shard, flusher: Flusher) -> None:
        self._shard = shard
        self._flusher = flusher
        self._average = _UNKNOWN_BYTES  # bytes of an entry, as last seen

    async def pack(self, page_ids: list[str]) -> list[str]:
        """Write what may be packed; the rest of `page_ids`, for items of their own. One call at a time."""
        members = [(minted, page_id) for page_id in page_ids if (minted := self._flusher.minted(page_id)) is not None]
        if len(members) < 2:
            return page_ids
        newest = max(page.lsn for _, page_id in members if (page := self._flusher.dirty_page(page_id)) is not None)
        await self._shard.until_durable(newest)
        left = {page_id for _, page_id in await self._spread(0, members)}
        packed = {page_id for _, page_id in members} - left
        return [page_id for page_id in page_ids if page_id not in packed]

    async def _spread(self, level: int, members: list[Member]) -> list[Member]:
        """Into the packs of `level`, or of a finer one where they are too many; those that are left."""
        groups: dict[int, list[Member]] = {}
        for member in sorted(members):
            groups.setdefault(member[0] // packs.WIDTHS_MS[level], []).append(member)
        waiting, left = list(groups.values()), []
        for start in range(0, len(waiting), PARALLEL):
            self._shard.check_lease()
            for some in await asyncio.gather(*(self._put(level, group) for group in waiting[start : start + PARALLEL])):
                left += some
        return left

    async def _put(self, level: int, members: list[Member]) -> list[Member]:
        """Into one pack; those that are left."""
        if len(members) < 2:
            return members
        is_last = level + 1 == len(packs.WIDTHS_MS)
        if not is_last and len(members) * self._average > packs.PACK_BYTES:
            return await self._spread(level + 1, members)
        pack_id = packs.pack_page(self._shard.number, level, members[0][0])
        there = await self._read(pack_id)
        # From here on no await before the write is on its way: what is decided is decided on pages as they are.
        found = self._snapshots(members)
        if not self._is_worth_it(level, found, there):
            return members if is_last else await self._spread(level + 1, members)
        if not await self._write(pack_id, found, there):
            return members
        written = {snapshot.page_id for snapshot in found}
        return [member for member in members if member[1] not in written]

    async def _read(self, pack_id: str) -> StoredPage | None:
        """Read in this epoch, before each change (rule 2 above)."""
        pages = self._shard.environment.store.pages
        there: StoredPage | None = (await self._shard.insist(lambda: pages.get([pack_id]))).get(pack_id)
        self._shard.check()
        if there is not None and there.lsn >= self._shard.open:
            self._shard.fence(f"pack {pack_id} carries batch {there.lsn}, ahead of ours: another owner has written it")
            self._shard.check()
        return there

    def _snapshots(self, members: list[Member]) -> list[_Snapshot]:
        """Those that can be taken as they stand."""
        found = []
        for minted, page_id in members:
            page = self._flusher.dirty_page(page_id)
            if page is None or self._flusher.minted(page_id) is None or page.lsn > self._shard.durable:
                continue  # changed since: an item of its own
            encoded = encode(page.document)
            if len(encoded) <= packs.ENTRY_BYTES:
                entry = Entry(page.lsn, self._flusher.kept_until(page_id, page), encoded)
                found.append(_Snapshot(minted, page_id, page, entry))
        if found:
            self._average = sum(len(snapshot.entry.document) for snapshot in found) // len(found) + 1
        return found

    def _is_worth_it(self, level: int, found: list[_Snapshot], there: StoredPage | None) -> bool:
        """Is this the cheapest place? A pack is not written again where a finer one, or items, would cost less."""
        size = _size(found)
        if len(found) < 2 or size > packs.PACK_BYTES:
            return False
        if there is None or there.document is None:
            return True
        size += len(there.document)
        if size > packs.PACK_BYTES or there.lsn >= self._shard.durable:
            return False
        finer: dict[int, list[_Snapshot]] = {}
        if level + 1 < len(packs.WIDTHS_MS):
            for snapshot in found:
                finer.setdefault(snapshot.minted // packs.WIDTHS_MS[level + 1], []).append(snapshot)
        else:
            finer = dict(enumerate([snapshot] for snapshot in found))
        return _units(size) <= sum(_units(_size(group)) for group in finer.values())

    async def _write(self, pack_id: str, found: list[_Snapshot], there: StoredPage | None) -> bool:
        """False: it is not known to be there, and will be in no other pack."""
        shard = self._shard
        entries: Entries = packs.entries_of(there.document) if there is not None else {}
        for snapshot in found:
            snapshot.page.stored = True
            entries[packs.key_of(snapshot.page_id)] = snapshot.entry
        pack = StoredPage(shard.durable, packs.encode_entries(entries))
        kept_until = max(entry.kept_until_ms for entry in entries.values())
        if not await shard.insist(lambda: shard.environment.store.pages.put(pack_id, pack, expires_at_ms=kept_until)):
            # Our own first try as a rule; but it may be what a hand-over had sent that was cancelled, under the same batch.
            landed = await self._read(pack_id)
            if landed is None or landed.document != pack.document:
                return False
        shard.check()
        for snapshot in found:
            self._flusher.written(snapshot.page_id, snapshot.page, snapshot.entry.lsn, len(snapshot.entry.document))
        return True


def _size(found: list[_Snapshot]) -> int:
    return sum(len(snapshot.entry.document) for snapshot in found)


def _units(size: int) -> int:
    """Write units of a pack of so many bytes, about."""
    return int(size * _RATIO) // _UNIT + 1
