"""A change that no item of the store holds: it is cut into parts, as a batch is, and counts as a whole."""

from __future__ import annotations

import asyncio

from holdfast_runtime.adapters.memory import memory_store
from holdfast_runtime.coordinator.settings import Settings
from holdfast_runtime.coordinator.shard import _split
from holdfast_runtime.engine import blob_ids
from holdfast_runtime.engine.operations import decode_all, encode
from holdfast_runtime.engine.payload import BlobRef
from holdfast_runtime.ports.store import MAX_ITEM_BYTES

from .virtual import World, done, in_virtual_time, serves, waits

LIMIT = 1_000


def test_one_operation_above_the_limit_is_cut() -> None:
    operations = [encode(["I/a", [], "x" * 100]), encode(["I/b", [], "y" * 3_500]), encode(["I/c"])]
    parts = _split(operations, LIMIT)
    assert b"".join(parts) == b"".join(operations)
    assert max(map(len, parts)) <= LIMIT
    assert [operation[0] for operation in decode_all(b"".join(parts))] == ["I/a", "I/b", "I/c"]


def test_no_reference_to_a_large_value_is_cut() -> None:
    """A sweep looks for them in each part by itself."""
    references = [BlobRef(blob_ids.of_value(f"inv_1{number:033}", b"content"), 40_000) for number in range(100)]
    for shift in range(150):
        parts = _split([encode(["K/a", ["st"], ["x" * shift, *references]])], LIMIT)
        found = [blob_id for part in parts for blob_id in blob_ids.referenced(part)]
        assert found == [reference.id for reference in references]
        assert max(map(len, parts)) <= LIMIT


@in_virtual_time
async def test_who_waits_for_very_many_results_is_recorded_and_found_by_the_next_owner() -> None:
    store = memory_store(1)
    names = [f"signal {number:08}" for number in range(40_000)]
    assert sum(map(len, names)) > MAX_ITEM_BYTES
    settings = Settings(exclusive_store=True)
    world = await World.start(serves(), lambda _: waits(names=names), settings, store)
    waiting = await world.send()
    await world.until(waiting, "suspended")
    assert world.node.metrics.shards_lost == 0
    for shard in list(world.node.shards.values()):
        shard.abandon()  # dies before it has written anything back
    await asyncio.sleep(1)
    again = await World.start(serves(), lambda _: waits(names=names), settings, store)
    assert await again.row(waiting, "status") == ["suspended"]
    await again.node.stop()
    assert again.node.metrics.shards_lost == 0


@in_virtual_time
async def test_a_log_does_not_grow_from_one_owner_that_dies_young_to_the_next() -> None:
    """Each dies before it would have written back by its own log alone."""
    limit = 20_000
    store = memory_store(1)
    settings = Settings(exclusive_store=True, log_limit_bytes=limit)
    for life in range(6):
        world = await World.start(serves(), lambda _: done(), settings, store)
        for number in range(20):
            await world.result(await world.send(idempotency_key=f"{life} {number}"))
        await asyncio.sleep(5)
        (shard,) = world.node.shards.values()
        assert 0 < shard.written < limit
        for task in world.node._tasks:
            task.cancel()
        shard.abandon()
    records, _ = await store.leases.read()
    behind = await store.log.read(0, records[0].checkpoint, 100_000)
    assert sum(len(item.operations) for item in behind) < 2 * limit
