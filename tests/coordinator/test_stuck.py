"""One thing that does not get on costs no other: a shard that cannot be taken, an owner that cannot write back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from holdfast_runtime.adapters.memory import memory_store
from holdfast_runtime.coordinator import recovery
from holdfast_runtime.coordinator.coordinator import Coordinator
from holdfast_runtime.coordinator.front import CoordinatorUnavailable, NewInvocation, Success, Target
from holdfast_runtime.coordinator.settings import Settings
from holdfast_runtime.coordinator.shard import Shard
from holdfast_runtime.engine.operations import encode
from holdfast_runtime.ports.store import LogItem, ShardRecord, StoredPage, StoreUnavailable

from .virtual import World, done, in_virtual_time, serves


class Unreadable:
    """A page store that answers for one shard what nobody understands, while `broken`."""

    def __init__(self, pages: Any) -> None:
        self._pages = pages
        self.broken = True

    async def get(self, page_ids: Sequence[str]) -> Mapping[str, StoredPage]:
        if self.broken and any(page_id.startswith("X/0/") for page_id in page_ids):
            raise KeyError("a large value is missing")
        found: Mapping[str, StoredPage] = await self._pages.get(page_ids)
        return found

    async def put(self, page_id: str, page: StoredPage, *, expires_at_ms: int | None = None) -> bool:
        accepted: bool = await self._pages.put(page_id, page, expires_at_ms=expires_at_ms)
        return accepted


def test_a_shard_that_cannot_be_taken_keeps_nobody_from_the_others(caplog: pytest.LogCaptureFixture) -> None:
    @in_virtual_time
    async def test() -> None:
        store = memory_store(3)
        pages = Unreadable(store.pages)
        world = World(serves(), lambda _: done(), Settings(exclusive_store=True), replace(store, pages=pages))
        await world.node.start()
        await asyncio.sleep(10)
        assert set(world.node.shards) == {1, 2}
        assert {record.levelname for record in caplog.records if record.message == "take.failed"} == {"ERROR"}
        pages.broken = False
        await asyncio.sleep(10)
        assert set(world.node.shards) == {0, 1, 2}

    test()


class Odd:
    """Records of shards that cannot be understood, while `broken`."""

    def __init__(self, leases: Any) -> None:
        self._leases = leases
        self.broken = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._leases, name)

    async def read(self) -> tuple[Mapping[int, ShardRecord], Mapping[str, Any]]:
        if self.broken:
            raise ValueError("invalid literal for int()")
        records, members = await self._leases.read()
        return records, members


@in_virtual_time
async def test_a_reading_that_nobody_understands_does_not_end_the_heartbeat() -> None:
    store = memory_store(1)
    leases = Odd(store.leases)
    world = await World.start(serves(), lambda _: done(), None, replace(store, leases=leases))
    leases.broken = True
    await asyncio.sleep(30)
    assert not world.node.shards  # its lease is stale
    leases.broken = False
    await asyncio.sleep(5)
    assert isinstance(await world.result(await world.send()), Success)


class NothingWritten:
    """Log and pages take nothing while `full`; leases do."""

    put: Any

    def __init__(self, part: Any, is_full: asyncio.Event) -> None:
        self._part = part
        self.put = self._put
        self._is_full = is_full

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)

    async def _put(self, *what: Any, **more: Any) -> LogItem | bool | None:
        if self._is_full.is_set():
            raise StoreUnavailable("throttled")
        answer: LogItem | bool | None = await self._part.put(*what, **more)
        return answer


def test_who_waits_for_durability_is_answered_in_time_also_when_writing_back_is_stuck() -> None:
    @in_virtual_time
    async def test() -> None:
        is_full = asyncio.Event()
        store = memory_store(1)
        store = replace(store, log=NothingWritten(store.log, is_full), pages=NothingWritten(store.pages, is_full))
        world = await World.start(serves(), lambda _: done(), None, store)
        front: Coordinator = world.front
        assert isinstance(await world.result(await world.send(idempotency_key="k")), Success)
        is_full.set()
        await asyncio.sleep(400)  # by now its own loop tries to write a page, again and again
        request = NewInvocation(Target("Greeter", "greet", None), b"in", [])
        with pytest.raises(CoordinatorUnavailable):
            async with asyncio.timeout(60):
                await front.send(front.mint(request), request)
        is_full.clear()
        await asyncio.sleep(5)
        assert isinstance(await world.result(await world.send()), Success)

    test()


def test_a_log_with_a_gap_is_refused_however_often_it_is_tried(caplog: pytest.LogCaptureFixture) -> None:
    """A seal in the gap would narrow it."""

    @in_virtual_time
    async def test() -> None:
        store = memory_store(1)
        taken = await store.leases.acquire(0, seen_epoch=0, owner="dead")
        assert taken is not None
        await store.log.put(0, LogItem(1, 1, b"dead", 1, 0, 1, encode(["K/a/b"])))
        await store.leases.checkpoint(0, epoch=1, checkpoint=1, tip=4)
        world = World(serves(), lambda _: done(), Settings(exclusive_store=True), store)
        await world.node.start()
        await asyncio.sleep(60)
        assert not world.node.shards
        assert [item.position for item in await store.log.read(0, 1, 10)] == [1]
        assert len([record for record in caplog.records if record.message == "log.missing"]) > 10

    test()


def test_what_is_left_from_behind_a_gap_counts_for_nothing() -> None:
    before, seal, left, after = (
        LogItem(position, epoch, nonce, position, 0, 1, operations)
        for position, epoch, nonce, operations in [(1, 1, b"a", b"1"), (2, 3, b"b", b""), (3, 1, b"a", b"3"), (4, 4, b"c", b"4")]
    )
    assert recovery._complete_batches([before, seal, left, after]) == [(1, b"1"), (2, b""), (4, b"4")]


class Busy:
    """Whenever a checkpoint is written, something happens in the shard, some times."""

    def __init__(self, leases: Any) -> None:
        self._leases = leases
        self.shard: Shard | None = None
        self.left = 3

    def __getattr__(self, name: str) -> Any:
        return getattr(self._leases, name)

    async def checkpoint(self, shard: int, *, epoch: int, checkpoint: int, tip: int) -> bool:
        done: bool = await self._leases.checkpoint(shard, epoch=epoch, checkpoint=checkpoint, tip=tip)
        if self.shard is not None and self.left:
            self.left -= 1
            await self.shard.until_durable(self.shard.prove())
        return done


@in_virtual_time
async def test_a_shard_is_released_when_its_log_holds_nothing_that_the_pages_lack() -> None:
    store = memory_store(1)
    leases = Busy(store.leases)
    world = await World.start(serves(), lambda _: done(), None, replace(store, leases=leases))
    assert isinstance(await world.result(await world.send(idempotency_key="k")), Success)
    (leases.shard,) = world.node.shards.values()
    await world.node.stop()
    record = (await store.leases.read())[0][0]
    assert (record.owner, leases.left) == ("", 0)
    assert await store.log.read(0, record.checkpoint, 100) == []


@in_virtual_time
async def test_a_store_that_takes_nothing_does_not_keep_a_process_from_stopping() -> None:
    is_full = asyncio.Event()
    store = memory_store(1)
    world = await World.start(serves(), lambda _: done(), None, replace(store, pages=NothingWritten(store.pages, is_full)))
    invocation = await world.send(idempotency_key="k")
    assert isinstance(await world.result(invocation), Success)
    is_full.set()
    await asyncio.sleep(400)  # by now its own loop tries to write a page, again and again
    async with asyncio.timeout(60):
        await world.node.stop()
    again = await World.start(serves(), lambda _: done(), None, store)
    assert isinstance(await again.result(invocation), Success)


class Refusing(Unreadable):
    """Refuses every page for a reason that nobody expects, while `broken`."""

    async def get(self, page_ids: Sequence[str]) -> Mapping[str, StoredPage]:
        found: Mapping[str, StoredPage] = await self._pages.get(page_ids)
        return found

    async def put(self, page_id: str, page: StoredPage, *, expires_at_ms: int | None = None) -> bool:
        if self.broken:
            raise ValueError("too large")
        return await super().put(page_id, page, expires_at_ms=expires_at_ms)


@in_virtual_time
async def test_a_hand_over_that_fails_leaves_no_shard_that_is_held_and_not_served() -> None:
    store = memory_store(1)
    pages = Refusing(store.pages)
    world = await World.start(serves(), lambda _: done(), None, replace(store, pages=pages))
    invocation = await world.send(idempotency_key="k")
    assert isinstance(await world.result(invocation), Success)
    (shard,) = world.node.shards.values()
    await world.node._hand_over(shard)
    assert not world.node.shards
    pages.broken = False
    async with asyncio.timeout(60):
        assert isinstance(await world.result(invocation), Success)
