"""A sweep of large values: what is referred to stays, what is not goes, slowly, and comes back when it is wanted after all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import boto3
import pytest
from tests.contract.test_store_contract import BUCKET, PATIENCE, SHARDS, access_to
from tests.support.dynamodb import aws_at, new_table_name, set_up

from holdfast_runtime.adapters.dynamodb import open_dynamodb_store
from holdfast_runtime.adapters.dynamodb_table import DynamoDbTable
from holdfast_runtime.adapters.memory import MemoryBlobs, MemoryLeases, MemoryLog, MemoryPages, MemoryRegistry
from holdfast_runtime.adapters.system import SystemClock
from holdfast_runtime.coordinator.blob_sweep import AGE_MS, DAY_MS, BlobSweep, Report, SweepGivenUp
from holdfast_runtime.engine import blob_ids
from holdfast_runtime.engine.operations import encode
from holdfast_runtime.engine.payload import BlobRef
from holdfast_runtime.ports.blob_sweep import SweptBlobs
from holdfast_runtime.ports.store import LogItem, Store, StoredPage

VALUE = b"x" * 40_000
LARGE = bytes(range(256)) * 3_000  # of several parts in a table, because it hardly compresses


class Shifted(SystemClock):
    """The system's, some days later."""

    days = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.days * DAY_MS


class World:
    """clock: of the store and of sweeps; that of a bucket is the real one."""

    def __init__(self, store: Store, blobs: SweptBlobs, clock: Shifted) -> None:
        self.store, self.blobs, self.clock = store, blobs, clock

    async def put(self, owner: str, content: bytes = VALUE) -> BlobRef:
        reference = BlobRef(blob_ids.of_value(owner, content), len(content))
        await self.store.blobs.put(reference.id, content)
        return reference

    async def page(self, page_id: str, document: Any, lsn: int = 5) -> None:
        assert await self.store.pages.put(page_id, StoredPage(lsn, encode(document)))

    async def record(self, position: int, *operations: Any, shard: int = 0) -> None:
        content = b"".join(map(encode, operations))
        assert await self.store.log.put(shard, LogItem(position, 1, b"n", position, 0, 1, content)) is None

    async def sweep(self, *, delete: bool = True, blobs: SweptBlobs | None = None) -> Report:
        return await BlobSweep(self.store, blobs or self.blobs, self.clock).run(delete=delete)

    async def condemned(self) -> set[str]:
        found = [candidate async for candidate in self.blobs.candidates(self.clock.now_ms(), 1_000)]
        return {candidate.key for candidate in found if candidate.condemned}

    async def is_there(self, reference: BlobRef) -> bool:
        try:
            return len(await self.store.blobs.get(reference.id)) == reference.size
        except KeyError:
            return False


class Meanwhile:
    """`blobs`, with something else that happens before the first page is read, or once the last is."""

    def __init__(self, blobs: Any, happens: Callable[[], Awaitable[Any]], *, at_end: bool) -> None:
        self._blobs, self._happens, self._at_end = blobs, happens, at_end

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)

    async def encoded(self) -> AsyncIterator[tuple[bytes, bool]]:
        if not self._at_end:
            await self._happens()
        async for one in self._blobs.encoded():
            yield one
        if self._at_end:
            await self._happens()


@asynccontextmanager
async def in_memory(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    clock = Shifted()
    log, pages, blobs = MemoryLog(), MemoryPages(), MemoryBlobs(clock.now_ms)
    store = Store(log, pages, MemoryLeases(SHARDS), MemoryRegistry(), blobs, SHARDS)
    yield World(store, blobs.swept(log, pages), clock)


@asynccontextmanager
async def in_table(request: pytest.FixtureRequest, bucket: str | None = None) -> AsyncIterator[World]:
    url, clock = request.getfixturevalue("dynamodb_url"), Shifted()
    services = {"s3": request.getfixturevalue("moto_url")} if bucket is not None else {}
    with aws_at(dynamodb=url, **services):
        if bucket is not None:
            client = boto3.client("s3")
            client.create_bucket(Bucket=bucket)
            for found in client.list_objects_v2(Bucket=bucket).get("Contents", ()):  # of other tests
                client.delete_object(Bucket=bucket, Key=found["Key"])
        table = new_table_name()
        set_up(table, SHARDS, bucket)
        held = await open_dynamodb_store(DynamoDbTable(table), patience=PATIENCE, access=access_to(url), clock=clock)
        try:
            yield World(held.store, held.swept(), clock)
        finally:
            await held.close()


@asynccontextmanager
async def in_bucket(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with in_table(request, f"{BUCKET}-swept") as opened:
        yield opened


WORLDS = {"memory": in_memory, "table": in_table, "bucket": in_bucket}


@pytest.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with WORLDS[request.param](request) as opened:
        yield opened


async def test_only_what_is_old_and_referred_to_nowhere_goes(world: World) -> None:
    in_page, in_log, nested, orphan = [await world.put(f"inv_{n}", LARGE if n == 3 else VALUE) for n in range(4)]
    await world.page("I/inv_0", {"journal": {0: [b"prefix", in_page]}})
    await world.record(1, ["I/inv_1", ["result"], ["v", in_log]])
    outgrown = encode({"many": {"deep": [nested]}})
    await world.store.blobs.put(blob_ids.of_page("I/inv_2", 5), outgrown)
    await world.page("I/inv_2", BlobRef(blob_ids.of_page("I/inv_2", 5), len(outgrown)))
    young = await world.sweep()
    assert (young.candidates, young.condemned) == (0, 0)
    world.clock.days = AGE_MS // DAY_MS + 1
    told = await world.sweep(delete=False)
    assert (told.candidates, told.orphans, told.condemned) == (5, 1, 0)
    assert not await world.condemned()
    done = await world.sweep()
    assert (done.orphans, done.condemned) == (1, 1)
    assert await world.condemned() == {world.blobs.key_of(orphan.id)}
    again = await world.sweep()
    assert (again.orphans, again.reprieved) == (0, 0)
    assert all([await world.is_there(one) for one in (in_page, in_log, nested, orphan)])  # the last may still be read


async def test_a_reference_that_moves_while_pages_are_read_is_found(world: World) -> None:
    """It leaves a page that was not read yet for one that was read already: the record is in the log."""
    moving = await world.put("inv_1")
    await world.page("I/inv_1", {"result": ["v", moving]})
    await world.page("I/inv_2", {})
    world.clock.days = 20

    async def move() -> None:
        await world.record(1, ["I/inv_2", ["result"], ["v", moving]], ["I/inv_1"], shard=1)
        await world.page("I/inv_1", {}, lsn=6)

    done = await world.sweep(blobs=Meanwhile(world.blobs, move, at_end=False))  # type: ignore[arg-type]
    assert (done.candidates, done.condemned) == (1, 0)


async def test_a_reference_that_comes_to_the_log_when_all_pages_are_read_is_found(world: World) -> None:
    value = await world.put("inv_1")
    await world.page("I/inv_1", {"result": ["v", value]})
    world.clock.days = 20

    async def leave() -> None:
        await world.page("I/inv_1", {}, lsn=6)  # not read yet

    async def come() -> None:
        await world.record(1, ["I/inv_3", ["r"], value], shard=1)

    gone = Meanwhile(world.blobs, leave, at_end=False)
    done = await world.sweep(blobs=Meanwhile(gone, come, at_end=True))  # type: ignore[arg-type]
    assert (done.candidates, done.condemned) == (1, 0)


async def test_a_value_that_is_put_again_meanwhile_stays_readable(world: World) -> None:
    value = await world.put("inv_1", LARGE)
    world.clock.days = 20

    async def again() -> None:
        await world.put("inv_1", LARGE)  # and its record is not written yet

    await world.sweep(blobs=Meanwhile(world.blobs, again, at_end=True))  # type: ignore[arg-type]
    assert await world.is_there(value)
    await world.record(1, ["I/inv_1", ["result"], value])
    await world.sweep()
    assert not await world.condemned()
    assert await world.is_there(value)


async def test_what_was_condemned_is_reprieved_when_it_is_referred_to_after_all(world: World) -> None:
    value = await world.put("inv_1", LARGE)
    world.clock.days = 20
    assert (await world.sweep()).condemned == 1
    await world.record(1, ["I/inv_1", ["result"], value])
    done = await world.sweep()
    assert (done.candidates, done.reprieved) == (1, 1)
    assert not await world.condemned()
    assert await world.is_there(value)


async def test_a_page_that_cannot_be_read_ends_the_sweep(world: World) -> None:
    await world.put("inv_1")
    await world.page("I/inv_2", BlobRef(blob_ids.of_page("I/inv_2", 5), 10))
    world.clock.days = 20
    with pytest.raises(SweepGivenUp, match="nothing was removed"):
        await world.sweep()
    assert not await world.condemned()


@pytest.mark.parametrize("world", ["memory", "table"], indirect=True)  # in a bucket the same content has the same tag
async def test_what_was_put_again_is_not_condemned_by_its_old_version(world: World) -> None:
    await world.put("inv_1", LARGE)
    world.clock.days = 20
    (seen,) = [one async for one in world.blobs.candidates(world.clock.now_ms(), 10)]
    value = await world.put("inv_1", LARGE)
    assert await world.blobs.condemn(seen) is False
    assert not await world.condemned()
    assert await world.is_there(value)
