"""Finished invocations are written together and found again: what is in the store, after how many writes (engine/packs.py, packing.py)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from bench.services import own

from holdfast.endpoint import Endpoint
from holdfast.protocol.ids import InvocationId, idempotent_id, random_invocation_id
from holdfast_runtime.adapters.endpoints import Endpoints
from holdfast_runtime.adapters.memory import memory_store
from holdfast_runtime.adapters.sqlite import open_sqlite_store
from holdfast_runtime.adapters.system import SystemClock, SystemEntropy
from holdfast_runtime.coordinator import flush
from holdfast_runtime.coordinator.coordinator import Coordinator
from holdfast_runtime.coordinator.deployments import Deployments
from holdfast_runtime.coordinator.front import Done, NewInvocation, NotFound, Success, Target
from holdfast_runtime.coordinator.listed import index_pages, peek
from holdfast_runtime.coordinator.node import Node
from holdfast_runtime.coordinator.registry_document import default_settings
from holdfast_runtime.coordinator.settings import Settings
from holdfast_runtime.coordinator.shard import Shard
from holdfast_runtime.engine import blob_ids, model, packs
from holdfast_runtime.engine.operations import encode
from holdfast_runtime.engine.packs import Entry
from holdfast_runtime.engine.payload import BlobRef
from holdfast_runtime.engine.transaction import Page
from holdfast_runtime.ports.store import Store, StoredPage

from .virtual import EPOCH_MS, World, done, in_virtual_time, serves

MINUTE_MS, DAY_MS = 60_000, 86_400_000
NOOP = NewInvocation(Target("Greeter", "greet", None), b"", [])
BOUND_S = 60.0


class Watched:
    """A page store that counts what is written of each kind."""

    def __init__(self, pages: Any) -> None:
        self._pages = pages
        self.written: Counter[str] = Counter()
        self.read: Counter[str] = Counter()

    async def get(self, page_ids: Sequence[str]) -> Mapping[str, StoredPage]:
        self.read.update(page_id[0] for page_id in page_ids)
        found: Mapping[str, StoredPage] = await self._pages.get(page_ids)
        return found

    async def put(self, page_id: str, page: StoredPage, *, expires_at_ms: int | None = None) -> bool:
        self.written[page_id[: 5 if page_id[0] == "D" else 1]] += 1
        accepted: bool = await self._pages.put(page_id, page, expires_at_ms=expires_at_ms)
        return accepted


async def watched(settings: Settings | None = None, store: Store | None = None) -> tuple[World, Watched]:
    """One shard, so that all calls meet."""
    store = store or memory_store(1)
    pages = Watched(store.pages)
    return await World.start(serves(), lambda _: done(), settings, replace(store, pages=pages)), pages


async def called(world: World, count: int, *, every_s: float = 0.0) -> list[InvocationId]:
    found = []
    for _ in range(count):
        found.append(await world.send())
        assert isinstance(await world.result(found[-1]), Success)
        await asyncio.sleep(every_s)
    return found


def test_an_id_names_its_packs_and_a_derived_one_none() -> None:
    invocation = random_invocation_id(5 << 61, EPOCH_MS + 310_999, bytes(10))
    minted = EPOCH_MS + 310_999
    assert packs.places(model.invocation_page(str(invocation)), 8) == [
        f"D/5/{level}/{minted // width}" for level, width in enumerate(packs.WIDTHS_MS)
    ]
    derived = idempotent_id("Greeter", "greet", "some key")
    assert packs.places(model.invocation_page(str(derived)), 8) == []
    assert packs.places("K/Greeter/key", 8) == []


def test_each_span_is_cut_by_the_next() -> None:
    """A group that is cut never meets another in one pack."""
    widths = packs.WIDTHS_MS
    assert all(wide % narrow == 0 for wide, narrow in pairwise(widths))


def test_what_an_entry_refers_to_is_found_in_its_pack() -> None:
    """So the embedded store's sweep need not know packs."""
    document = encode({model.RESULT: ["v", BlobRef("inv_1x/0123", 40_000)]})
    pack = packs.encode_entries({bytes(24): Entry(1, EPOCH_MS, b""), bytes(23) + b"1": Entry(2, EPOCH_MS, document)})
    assert "inv_1x/0123" in blob_ids.referenced(pack)
    assert blob_ids.outgrown(pack) is None


def test_a_tombstone_stays_as_long_as_what_it_hides() -> None:
    page = Page(None, 7, stored=True)
    page.over_at = EPOCH_MS + 90 * DAY_MS
    assert flush._expires_at("I/x", page, EPOCH_MS) == page.over_at + flush.LOG_MS


@in_virtual_time
async def test_calls_of_five_minutes_are_one_write() -> None:
    world, pages = await watched()
    first = asyncio.get_running_loop().time()
    await called(world, 30, every_s=5)
    assert pages.written["D/0/0"] == pages.written["I"] == 0
    await asyncio.sleep(first + 305 - asyncio.get_running_loop().time())
    assert 1 <= pages.written["D/0/0"] <= 2  # they may have begun in two spans
    assert pages.written["I"] == 0


@in_virtual_time
async def test_one_call_alone_and_one_with_an_idempotency_key_have_items_of_their_own() -> None:
    world, pages = await watched()
    await called(world, 1)
    for number in range(3):
        await world.result(await world.send(idempotency_key=f"k{number}"))
    await asyncio.sleep(310)
    assert pages.written["I"] == 4
    assert not [kind for kind in pages.written if kind[0] == "D"]


@in_virtual_time
async def test_under_load_spans_are_shorter() -> None:
    """Twenty calls of some 350 bytes a second: 2 MB in five minutes, 70 KB in ten seconds."""
    store = memory_store(1)
    world, pages = await watched(store=store)
    calls = await called(world, 800, every_s=0.05)
    await world.node.stop()
    stored = {kind: count for kind, count in pages.written.items() if kind[0] == "D"}
    assert set(stored) <= {"D/0/2", "D/0/3"}  # ten seconds, and single seconds at the ends
    assert sum(stored.values()) <= 800 / 20 / 10 + 4
    assert pages.written["I"] <= 2
    again, _ = await watched(store=store)
    for invocation in calls[::200]:
        assert isinstance(await again.front.output(invocation), Success)


@in_virtual_time
async def test_a_cold_result_is_read_from_its_pack_and_the_pack_does_not_stay() -> None:
    world, pages = await watched(Settings(exclusive_store=True, memory_limit_bytes=20_000))
    calls = await called(world, 200)
    await asyncio.sleep(310)
    (shard,) = world.node.shards.values()
    cold = [call for call in calls if model.invocation_page(str(call)) not in shard.pages]
    assert cold
    assert isinstance(await world.front.output(cold[0]), Success)
    assert not [page_id for page_id in shard.pages if page_id[0] == "D"]
    assert await world.row(cold[-1], "status") == ["completed"]
    assert pages.read["D"]


@in_virtual_time
async def test_what_is_purged_stays_so_beside_its_entry() -> None:
    store = memory_store(1)
    world, pages = await watched(store=store)
    calls = await called(world, 5)
    await asyncio.sleep(310)
    assert await world.front.purge(calls[2]) is Done.APPLIED
    await asyncio.sleep(310)
    assert pages.written["I"] == 1
    await world.node.stop()
    again, _ = await watched(store=store)
    assert isinstance(await again.front.output(calls[2]), NotFound)
    assert isinstance(await again.front.output(calls[3]), Success)
    assert await again.row(calls[2], "status") is None


@in_virtual_time
async def test_a_pack_is_written_again_only_where_that_is_the_cheapest() -> None:
    """Handed over every few seconds, in the same span: each owner adds to what the one before has written."""
    store = memory_store(1)
    calls: list[InvocationId] = []
    total = Counter[str]()
    for _ in range(4):
        world, pages = await watched(store=store)
        calls += await called(world, 3, every_s=1)
        await world.node.stop()
        total += pages.written
    assert sum(count for kind, count in total.items() if kind[0] in "DI") <= 4
    world, _ = await watched(store=store)
    for invocation in calls:
        assert isinstance(await world.front.output(invocation), Success)


class Overtaken(Watched):
    """Another write of the same owner lands first, under the same number: one of a hand-over that was cancelled."""

    async def put(self, page_id: str, page: StoredPage, *, expires_at_ms: int | None = None) -> bool:
        if page_id[0] == "D":
            await self._pages.put(page_id, StoredPage(page.lsn, packs.encode_entries({})))
        return await super().put(page_id, page, expires_at_ms=expires_at_ms)


@in_virtual_time
async def test_a_pack_that_was_refused_does_not_count_as_written() -> None:
    store = memory_store(1)
    world = await World.start(serves(), lambda _: done(), None, replace(store, pages=Overtaken(store.pages)))
    calls = await called(world, 5)
    await world.node.stop()
    world, _ = await watched(store=store)
    for invocation in calls:
        assert isinstance(await world.front.output(invocation), Success)


class Late(Watched):
    """Packs are sent and do not arrive, until they are let go."""

    def __init__(self, pages: Any) -> None:
        super().__init__(pages)
        self.sent: list[tuple[str, StoredPage]] = []
        self.under_way = asyncio.Event()

    async def put(self, page_id: str, page: StoredPage, *, expires_at_ms: int | None = None) -> bool:
        if page_id[0] != "D":
            return await super().put(page_id, page, expires_at_ms=expires_at_ms)
        self.sent.append((page_id, page))
        self.under_way.set()
        return await asyncio.Future[bool]()

    async def arrive(self) -> None:
        for page_id, page in self.sent:
            assert await self._pages.put(page_id, page)


async def died_packing(store: Store, count: int) -> tuple[list[InvocationId], Late]:
    """What an owner had acknowledged when it died, and its packs, which are still under way."""
    pages = Late(store.pages)
    world = await World.start(serves(), lambda _: done(), None, replace(store, pages=pages))
    calls = await called(world, count)
    stopping = asyncio.create_task(world.node.stop())
    await pages.under_way.wait()
    stopping.cancel()
    for shard in list(world.node.shards.values()):
        shard.abandon()
    return calls, pages


@in_virtual_time
async def test_what_a_successor_has_read_in_a_late_pack_outlives_a_later_one_that_lacks_it() -> None:
    """Two owners die with packs under way; the second had read before the first one's landed, the third has read between the two."""
    store = memory_store(1)
    first, of_first = await died_packing(store, 3)
    second, of_second = await died_packing(store, 3)
    await of_first.arrive()
    third, _ = await watched(store=store)
    await of_second.arrive()
    await third.node.stop()
    world, _ = await watched(store=store)
    for invocation in first + second:
        assert isinstance(await world.front.output(invocation), Success)


class Evicting(Watched):
    """Drives pages out of memory while others are read."""

    victims: tuple[str, ...] = ()
    shard: Shard

    async def get(self, page_ids: Sequence[str]) -> Mapping[str, StoredPage]:
        for page_id in self.victims:
            if page_id in self.shard.pages:
                self.shard.flusher._drop(page_id)
        return await super().get(page_ids)


@in_virtual_time
async def test_a_page_that_is_driven_out_while_others_are_read_is_still_found() -> None:
    store = memory_store(1)
    pages = Evicting(store.pages)
    world = await World.start(serves(), lambda _: done(), None, replace(store, pages=pages))
    calls = await called(world, 2)
    await asyncio.sleep(310)
    (pages.shard,) = world.node.shards.values()
    ours, absent = model.invocation_page(str(calls[0])), model.invocation_page(str(world.front.mint(NOOP)))
    listing = [page_id for page_id in pages.shard.pages if page_id[0] == "A"]
    pages.victims = (ours, *listing)
    assert ours in pages.shard.pages
    assert listing
    assert (await peek(pages.shard, [ours, absent]))[ours] is not None
    rows = [document async for document in index_pages(pages.shard, [*listing, "A/0/1/0"])]
    assert [str(call) in rows[0] for call in calls] == [True, True]


# ---- Over real stores


async def opened(kind: str, path: Path, kept: dict[str, Store]) -> tuple[Store, Any]:
    if kind == "sqlite":
        sqlite = await open_sqlite_store(path / "store.db", shards=1)
        return sqlite.store, sqlite.close
    store = kept.setdefault("store", memory_store(1))

    async def nothing() -> None:
        return

    return store, nothing


async def serving(store: Store) -> tuple[Node, Coordinator, Endpoints]:
    clock, entropy = SystemClock(), SystemEntropy()
    settings = Settings(exclusive_store=True)
    endpoints = Endpoints(clock)
    endpoints.in_process.register("bench", Endpoint(own.SERVICES).handle)
    deployments = Deployments(store.registry, endpoints, clock, entropy, default_settings(settings))
    await deployments.load()
    node = Node(store=store, endpoint=endpoints, clock=clock, entropy=entropy, registry=lambda: deployments.view, settings=settings)
    await deployments.register_in_process("bench")
    await node.start()
    await node.until_ready(BOUND_S)
    return node, Coordinator(node, deployments), endpoints


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_results_outlive_a_restart(kind: str, tmp_path: Path) -> None:
    kept: dict[str, Store] = {}
    store, close = await opened(kind, tmp_path, kept)
    node, front, endpoints = await serving(store)
    calls = []
    for _ in range(20):
        invocation = NewInvocation(Target("Bench", "noop", None), b"", (("content-type", "application/json"),))
        calls.append(front.mint(invocation))
        assert isinstance(await asyncio.wait_for(front.call(calls[-1], invocation), BOUND_S), Success)
    await node.stop()
    await endpoints.close()
    stored = await store.pages.get([model.invocation_page(str(call)) for call in calls])
    assert stored == {}  # all of them are in packs
    await close()
    store, close = await opened(kind, tmp_path, kept)
    node, front, endpoints = await serving(store)
    for call in calls:
        found = await front.output(call)
        assert isinstance(found, Success)
        assert found.value == b'"done"'
    await node.stop()
    await endpoints.close()
    await close()
