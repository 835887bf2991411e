"""Invocations as the packed index lists them (rows: engine/listing.py), page by page; the one way anybody lists a shard's invocations.

Rules: a page that can hold nothing wanted is not read, by its status, by the time its rows were created, or because the newest (or oldest)
that are wanted have been found; documents are read beside the shard's memory, so that a scan drives nothing out; the loop gets a turn after
every page. An invocation that ends meanwhile comes once: live ones are read first, and what was seen alive is left out of the finished.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from holdfast_runtime.coordinator.front import NEWEST, OLDEST, Scan
from holdfast_runtime.coordinator.pages import document_of
from holdfast_runtime.engine import model
from holdfast_runtime.engine.model import Document, Status
from holdfast_runtime.ports.store import StoredPage

if TYPE_CHECKING:
    from holdfast_runtime.coordinator.shard import Shard

Item = tuple[str, Document]  # invocation, its row
Worth = Callable[[int, int], bool]  # may rows created between these two instants (ms) still be wanted?

PAGES: Final = 128  # invocations' pages read together
INDEX_PAGES: Final = 8  # read together; each has up to 256 rows
AT_ONCE: Final = 16  # invocations' pages decoded in one turn of the loop
# What owners' clocks may differ by: an invocation may seem to have ended so long before it was created.
CLOCKS_MS: Final = 10 * 60_000
EVER_MS: Final = 1 << 62

RAW: Final = {
    Status.SCHEDULED: "scheduled",
    Status.QUEUED: "inboxed",
    Status.RUNNING: "invoked",
    Status.SUSPENDED: "suspended",
    Status.PAUSED: "paused",
    Status.DONE: "completed",
}
_SHOWN: Final = {"pending": Status.QUEUED, "running": Status.RUNNING, "backing-off": Status.RUNNING, "ready": Status.RUNNING}
_BY_NAME: Final[Mapping[str, Status]] = {**{name: status for status, name in RAW.items()}, **_SHOWN}
_IN_TARGET: Final = {"target_service_name": 0, "target_handler_name": 1, "target_service_key": 2, "kind": 3}
_RUNNING: Final = frozenset({"running", "backing-off", "ready"})


# ---- Reading


async def peek(shard: Shard, page_ids: Iterable[str]) -> dict[str, Document | None]:
    """Documents as they stand, without bringing them into memory: a scan must not drive out what is in use.

    A page that is not in memory is clean, so the store has it as it is. One that is driven out while others are read was clean, too.
    """
    wanted = list(page_ids)
    read: dict[str, Document | None] = {}
    for start in range(0, len(wanted), PAGES):
        chunk = wanted[start : start + PAGES]
        read |= _held(shard, chunk)
        for number, (page_id, page) in enumerate((await _stored(shard, chunk)).items()):
            if number % AT_ONCE == 0:
                await shard.environment.turns.take()
            read[page_id] = await document_of(page, lambda blob_id: blob(shard, blob_id))
    shard.check()
    return {page_id: shard.pages[page_id].document if page_id in shard.pages else read.get(page_id) for page_id in wanted}


def _held(shard: Shard, page_ids: Iterable[str]) -> dict[str, Document | None]:
    return {page_id: shard.pages[page_id].document for page_id in page_ids if page_id in shard.pages}


async def _stored(shard: Shard, page_ids: Sequence[str]) -> Mapping[str, StoredPage]:
    """Of those that are not in memory as it is called."""
    missing = [page_id for page_id in page_ids if page_id not in shard.pages]
    if not missing:
        return {}
    return await shard.read_pages(missing)


async def blob(shard: Shard, blob_id: str) -> bytes:
    content: bytes = await shard.insist(lambda: shard.environment.store.blobs.get(blob_id))
    return content


async def index_pages(shard: Shard, page_ids: Sequence[str]) -> AsyncIterator[Document]:
    """One after the other, each in its turn: to decode one and to look through it is a millisecond of work."""
    for start in range(0, len(page_ids), INDEX_PAGES):
        chunk = page_ids[start : start + INDEX_PAGES]
        held = _held(shard, chunk)
        stored = await _stored(shard, chunk)
        for page_id in chunk:
            await shard.environment.turns.take()
            shard.check()
            held |= _held(shard, [page_id])  # as it stands by now, unless it was driven out
            document = held[page_id] if page_id in held else await document_of(stored.get(page_id), lambda blob_id: blob(shard, blob_id))
            if document:
                yield document


# ---- Which pages


@dataclass(frozen=True, slots=True)
class _Page:
    """first, last: between which its rows were created."""

    id: str
    first: int
    last: int


def _live_pages(shard: Shard) -> list[_Page]:
    found = []
    for number, bounds in (_index(shard)).get("p", {}).items():
        first, last = bounds if isinstance(bounds, list) else (0, EVER_MS)
        found.append(_Page(model.live_page(shard.number, number), first, last))
    return found


def _finished_pages(shard: Shard) -> list[_Page]:
    index = _index(shard)
    firsts = index.get("f", {})
    found = []
    for bucket, (last_page, _) in index.get("a", {}).items():
        last = (bucket + 1) * model.FINISHED_BUCKET_MS + CLOCKS_MS  # created before it ended
        found += [_Page(model.finished_page(shard.number, bucket, n), firsts.get(bucket, 0), last) for n in range(last_page + 1)]
    return found


def _index(shard: Shard) -> Document:
    return shard.pages[model.listing_index(shard.number)].document or {}


def _arranged(pages: list[_Page], order: str | None) -> list[_Page]:
    """Those first that most likely have what comes first."""
    if order == NEWEST:
        return sorted(pages, key=lambda page: page.last, reverse=True)
    return sorted(pages, key=lambda page: page.first) if order == OLDEST else pages


async def rows(shard: Shard, scan: Scan, worth: Worth = lambda *_: True) -> AsyncIterator[list[Item]]:
    """Rows that pass those conditions of `scan` that are `judged` here, and its bounds; they may fail the others.

    worth: asked before a page is read, with what is known by then.
    """
    statuses = _statuses(scan.where)
    alive: set[str] = set()
    if statuses - {Status.DONE}:
        sieve = _sieve(scan, statuses)
        async for document in _read(shard, _arranged(_live_pages(shard), scan.order), scan, worth):
            found = sieve(list(document.items()))
            alive.update(invocation for invocation, _ in found)
            yield found
    if Status.DONE in statuses:
        sieve = _sieve(scan, {Status.DONE})
        now = shard.environment.clock.now_ms()
        # Listed only now: what ended meanwhile is in it.
        async for document in _read(shard, _arranged(_finished_pages(shard), scan.order), scan, worth):
            yield sieve([item for item in document.items() if item[1]["x"] > now and item[0] not in alive])


async def _read(shard: Shard, pages: list[_Page], scan: Scan, worth: Worth) -> AsyncIterator[Document]:
    since = scan.since_ms if scan.since_ms is not None else 0
    until = scan.until_ms if scan.until_ms is not None else EVER_MS
    left = [page for page in pages if page.first <= until and page.last >= since]
    while left:
        left = [page for page in left if worth(page.first, page.last)]
        chunk, left = left[:INDEX_PAGES], left[INDEX_PAGES:]
        async for document in index_pages(shard, [page.id for page in chunk]):
            yield document


# ---- Which rows


def _statuses(where: Mapping[str, Sequence[str]]) -> set[Status]:
    """Those that the conditions leave; of the three that a running invocation is shown with, each leaves it."""
    found = set(Status)
    for name in ("status", "raw_status"):
        if name in where:
            found &= {_BY_NAME[value] for value in where[name] if value in _BY_NAME}
    if "completion_result" in where:
        found &= {Status.DONE}
    return found


def judged(where: Mapping[str, Sequence[str]]) -> frozenset[str]:
    """The conditions that `rows` judges wholly: not those on which of the three a running invocation is."""
    of_running = _RUNNING & set(where.get("status", ()))
    known = {*_IN_TARGET, "raw_status", "completion_result"}
    return frozenset(known if 0 < len(of_running) < len(_RUNNING) else known | {"status"})


def _sieve(scan: Scan, statuses: set[Status]) -> Callable[[list[Item]], list[Item]]:
    """Filters a page at a time: a comprehension per condition is several times faster than a call per row."""
    steps: list[Callable[[list[Item]], list[Item]]] = []
    if Status.DONE not in statuses and len(statuses) < len(Status) - 1:
        steps.append(lambda items: [item for item in items if status_of(item[1]) in statuses])
    elif Status.DONE in statuses and "completion_result" in scan.where:
        failed = {int(result == "failure") for result in scan.where["completion_result"]}
        steps.append(lambda items: [item for item in items if item[1]["f"] in failed])
    for name, position in _IN_TARGET.items():
        if name in scan.where:
            steps.append(_of_target(position, frozenset(scan.where[name])))
    if scan.since_ms is not None or scan.until_ms is not None:
        since, until = scan.since_ms or 0, scan.until_ms if scan.until_ms is not None else EVER_MS
        steps.append(lambda items: [item for item in items if since <= item[1]["c"] <= until])

    def pass_(items: list[Item]) -> list[Item]:
        for step in steps:
            items = step(items)
        return items

    return pass_


def _of_target(position: int, allowed: frozenset[Any]) -> Callable[[list[Item]], list[Item]]:
    return lambda items: [item for item in items if item[1]["t"][position] in allowed]


def status_of(row: Document) -> int:
    """As the engine has it. A live row of an older version has it alone in "s"."""
    if "x" in row:
        return Status.DONE
    state = row["s"]
    return state[0] if isinstance(state, list) else state  # type: ignore[no-any-return]


# ---- The first of them


class Best:
    """Collects items and keeps the `scan.limit` that come first in its order."""

    def __init__(self, scan: Scan) -> None:
        self._newest = scan.order == NEWEST
        self._limit = scan.limit
        self._items: list[tuple[int, str, Any]] = []
        self._edge: int | None = None  # creation ms of the last that counts, once there are enough

    def worth(self, first: int, last: int) -> bool:
        if len(self._items) > self._limit or (self._edge is None and len(self._items) == self._limit):
            self._settle()
        if self._edge is None:
            return True
        return last >= self._edge if self._newest else first <= self._edge

    def add(self, created_at: int, invocation: str, item: Any) -> None:
        if self._edge is None or (created_at >= self._edge if self._newest else created_at <= self._edge):
            self._items.append((-created_at if self._newest else created_at, invocation, item))
            if len(self._items) >= 4 * self._limit + 256:
                self._settle()

    def _settle(self) -> None:
        self._items = sorted(self._items, key=itemgetter(0, 1))[: self._limit]
        if len(self._items) == self._limit:
            self._edge = abs(self._items[-1][0])

    def items(self) -> list[Any]:
        self._settle()
        return [item for _, _, item in self._items]
