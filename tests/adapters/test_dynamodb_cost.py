"""What invocations cost: the write units that DynamoDB's stand-in charges, not arithmetic of ours (storage design §6).

Low load: one call after the other, so every record is an append of its own. High load: 400 records a second arrive in one
shard whose appends take some 6 ms, as with the service. A slower machine appends larger batches and pays less, so
these tests do not depend on its speed.

A finished invocation costs its log records and, where its result is kept (a day by default), its part of a pack, when that is flushed.
One that is not kept is dropped before anything of it was ever stored. The shard's own pages are written once per flush,
however many invocations they speak of: a constant, so calls are counted in hundreds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from bench.services import own

from holdfast.endpoint import Endpoint
from holdfast_runtime.adapters.system import SystemClock
from holdfast_runtime.coordinator.front import InvocationFilter, NewInvocation, Success, Target
from tests.support.dynamodb import new_table_name, set_up
from tests.support.dynamodb_process import HEADERS, SERVICE, Metered, started

DAY_S = 86_400
APPEND_DELAY_S = 0.005
OWN_PAGES = 45.0  # write units of a shard's own pages in one flush: 16 of running invocations, indexes, timers, listing
OF_INVOCATIONS = ("page I", "page J", "page D")  # their own, the rest of their journals, packs
HANDLERS = {"bench": Endpoint(own.SERVICES).handle}

pytestmark = pytest.mark.usefixtures("aws")


class LaterClock(SystemClock):
    """The wall clock of `ahead_s` seconds later."""

    def __init__(self, ahead_s: int) -> None:
        self._ahead_ms = ahead_s * 1000

    def now_ms(self) -> int:
        return super().now_ms() + self._ahead_ms


@asynccontextmanager
async def process(*, retained: bool, append_delay_s: float = 0.0) -> AsyncIterator[Metered]:
    """One shard, past its first calls."""
    table = new_table_name()
    set_up(table, 1)
    running = await started(table, HANDLERS, retained=retained, append_delay_s=append_delay_s)
    await running.call(SERVICE, "noop")
    running.forget()
    try:
        yield running
    finally:
        await running.stop()


async def low_load(call: Callable[[Metered], Awaitable[Any]], count: int, *, retained: bool = False) -> tuple[float, float, float]:
    """Write units per call: of log records, of the invocations' pages, and of all other pages in one flush."""
    async with process(retained=retained) as running:
        for _ in range(count):
            await call(running)
    pages = of_invocations(running)
    own_pages = running.written("page") - pages
    assert own_pages <= OWN_PAGES
    return running.written("log") / count, pages / count, own_pages


def of_invocations(running: Metered) -> float:
    return sum(running.meter.units["PutItem", kind] for kind in OF_INVOCATIONS)


async def high_load(
    call: Callable[[Metered], Awaitable[Any]], *, per_second: float, count: int, retained: bool = False
) -> tuple[float, float]:
    """Write units per call of the log and of the invocations' pages, with calls coming at a fixed rate whatever becomes of them."""
    async with process(retained=retained, append_delay_s=APPEND_DELAY_S) as running:
        loop = asyncio.get_running_loop()
        began, calls = loop.time(), []
        for number in range(count):
            await asyncio.sleep(max(0.0, began + number / per_second - loop.time()))
            calls.append(asyncio.ensure_future(call(running)))
        await asyncio.gather(*calls)
    return running.written("log") / count, of_invocations(running) / count


async def noop(running: Metered) -> None:
    await running.call(SERVICE, "noop")


async def ten_steps(running: Metered) -> None:
    await running.call(SERVICE, "steps", b"10")


async def object_call(running: Metered) -> None:
    await running.call("Counter", "add", b"1", key="one")


async def twenty_children(running: Metered) -> None:
    await running.call(SERVICE, "fan_out", b"20")


async def test_a_call_without_steps_costs_two_records_and_nothing_more() -> None:
    log, pages, own_pages = await low_load(noop, 300)
    assert pages == 0
    assert log + own_pages / 300 <= 2.1


async def test_a_kept_result_costs_a_tenth_of_a_unit_besides() -> None:
    log, pages, own_pages = await low_load(noop, 300, retained=True)
    assert log + pages <= 2.1
    assert own_pages / 300 < 0.1  # a row in the index of the finished, too


async def test_with_all_that_a_shard_writes_a_kept_call_costs_two_records_and_a_tenth() -> None:
    """What comes every five minutes: log, packs, the index of the finished, and none of the lists that are empty again."""
    count = 300
    async with process(retained=True) as running:
        for _ in range(2):
            running.forget()
            for _ in range(count):
                await noop(running)
            for shard in running.node.shards.values():
                await shard.flusher.flush_all()
            written = running.written("log") + running.written("page")
            own_pages = running.meter.units["PutItem", "page X"]
    assert written / count <= 2.1
    assert own_pages <= 2  # 14 the first time, most of them for lists that are empty


async def test_a_cold_result_costs_a_read_unit_for_each_pack_that_may_have_it() -> None:
    table = new_table_name()
    set_up(table, 1)
    before = await started(table, HANDLERS)
    wanted = NewInvocation(Target(SERVICE, "noop", None), b"", HEADERS)
    invocation_ids = [before.coordinator.mint(wanted) for _ in range(20)]
    for invocation_id in invocation_ids:
        await before.coordinator.call(invocation_id, wanted)
    await before.stop()
    after = await started(table, HANDLERS)
    after.forget()
    assert isinstance(await after.coordinator.output(invocation_ids[7]), Success)
    assert after.meter.units["GetItem", "page"] + after.meter.units["BatchGetItem", "page"] == 6  # five packs, and no item of its own
    await after.stop()


async def test_ten_steps_cost_twelve_records() -> None:
    log, pages, own_pages = await low_load(ten_steps, 25)
    assert pages == 0
    assert log <= 12.1
    assert own_pages / 300 < 0.1


async def test_ten_steps_that_are_kept_cost_hardly_more() -> None:
    log, pages, _ = await low_load(ten_steps, 50, retained=True)
    assert log + pages <= 12.1


async def test_an_object_call_costs_what_any_call_costs() -> None:
    log, pages, own_pages = await low_load(object_call, 300)
    assert pages == 0
    assert log + own_pages / 300 <= 2.1


async def test_a_parent_with_twenty_children_in_its_shard_costs_less_than_their_calls() -> None:
    log, pages, _ = await low_load(twenty_children, 20)
    assert pages == 0
    assert log <= 32
    log, pages, _ = await low_load(twenty_children, 20, retained=True)
    assert log + pages <= 32


async def test_sleeping_for_a_day_costs_a_few_writes_and_none_while_it_lasts() -> None:
    table, count = new_table_name(), 50
    set_up(table, 1)
    before = await started(table, HANDLERS, retained=False)
    before.forget()
    for _ in range(count):
        await before.send(SERVICE, "nap", b"86400")
    await before.stop()
    after = await started(table, HANDLERS, retained=False, clock=LaterClock(DAY_S + 60))
    await all_completed(after)
    await after.stop()
    log = (before.written("log") + after.written("log")) / count
    pages = (before.meter.units["PutItem", "page I"] + after.meter.units["PutItem", "page I"]) / count
    assert log <= 4.1  # accepted, suspended; due, finished
    assert pages == 2.0  # as it sleeps, and the mark that it is gone


async def all_completed(running: Metered) -> None:
    async with asyncio.timeout(60):
        while any(  # noqa: ASYNC110 - nobody tells
            row["status"] != "completed" for row in await running.coordinator.list_invocations(InvocationFilter())
        ):
            await asyncio.sleep(0.05)


async def test_four_hundred_records_a_second_cost_less_than_half_a_unit_each() -> None:
    log, pages = await high_load(noop, per_second=200, count=500)
    assert (log <= 1.0, pages) == (True, 0)
    log, pages = await high_load(noop, per_second=200, count=500, retained=True)
    assert log + pages <= 1.0


async def test_ten_steps_cost_half_when_there_are_more_of_them() -> None:
    log, pages = await high_load(ten_steps, per_second=400 / 12, count=100, retained=True)
    assert log + pages <= 5.5
