"""The sweep of orphaned blobs: what goes, what stays, and that no moment exists at which it takes what is needed."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from holdfast_runtime.adapters.sqlite import open_sqlite_store
from holdfast_runtime.adapters.sqlite_blob_sweep import BlobSweep
from holdfast_runtime.adapters.sqlite_file import open_database
from holdfast_runtime.adapters.sqlite_housekeeping import STEP_S, Housekeeper
from holdfast_runtime.engine import blob_ids
from holdfast_runtime.engine.operations import encode
from holdfast_runtime.engine.payload import BlobRef
from holdfast_runtime.ports.store import LogItem, StoredPage, StoreUnavailable
from tests.adapters.small_world import PACE, SmallWorld, TickingClock


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[SmallWorld]:
    small = SmallWorld(tmp_path / "store.sqlite")
    await small.open()
    yield small
    await small.close()


# What goes, what stays


async def test_an_orphan_goes_and_what_page_or_log_refer_to_stays(world: SmallWorld) -> None:
    orphan, stored, logged, both = [await world.value(owner) for owner in ("orphan", "stored", "logged", "both")]
    await world.stored("0/p", stored)
    await world.record(["1/q", [], {"v": both}])
    await world.flush("1/q")
    await world.record(["0/r", ["v"], logged])
    await world.sweep_all()
    assert world.kept() == {stored.id, logged.id, both.id}
    with pytest.raises(KeyError):
        await world.blobs.get(orphan.id)


async def test_a_blob_goes_when_its_last_reference_is_gone_from_pages_and_pruned_log(world: SmallWorld) -> None:
    value = await world.value("inv_1")
    await world.stored("0/p", value)
    await world.sweep_all()
    assert world.kept() == {value.id}
    await world.record(["0/p"])
    await world.flush("0/p")
    await world.stored("0/other", await world.value("inv_2"))
    await world.sweep_all()
    assert value.id not in world.kept()


async def test_a_page_that_outgrew_an_item_keeps_its_blob_and_what_that_refers_to(world: SmallWorld) -> None:
    value = await world.value("inv_1")
    await world.stored("0/p", value)
    await world.flush("0/p", outgrown=True)
    first = world.kept()
    assert len(first) == 2
    await world.record(["0/p", ["more"], value])
    await world.flush("0/p", outgrown=True)  # the blob of the older version is an orphan now
    await world.stored("0/other", value)
    await world.record(["0/other"])
    await world.flush("0/other")
    await world.settle()
    await world.sweep_all()
    assert world.kept() == {value.id, blob_ids.of_page("0/p", world.lsn["0/p"])}
    await world.crash()
    assert world.memory["0/p"] == {"v": value, "more": value}


async def test_a_young_blob_stays_until_the_next_day(world: SmallWorld) -> None:
    await world.value("old")
    await world.minute()
    young = await world.value("young")
    for _ in range(PACE.notes - 1):
        await world.minute()
    await world.finish()
    assert world.kept() == {young.id}
    for _ in range(PACE.notes):
        await world.minute()
        assert not world.sweep.under_way
    world.clock.seconds += PACE.every_s
    await world.step()
    await world.finish()
    assert world.kept() == set()


async def test_a_new_blob_is_young_even_when_the_newest_was_deleted(world: SmallWorld) -> None:
    last = await world.value("last")
    await world.minute()
    await world.blobs.delete([last.id])
    young = await world.value("young")
    for _ in range(PACE.notes - 1):
        await world.minute()
    await world.finish()
    assert world.kept() == {young.id}


async def test_a_blob_put_again_at_any_moment_of_the_sweep_stays(world: SmallWorld) -> None:
    kept = await world.value("kept")
    await world.stored("0/p", kept)
    again = await world.value("again")
    await world.begin()
    moments = 0
    while world.sweep.under_way:
        assert await world.value("again") == again
        await world.step()
        assert again.id in world.kept()
        moments += 1
    assert moments > 3
    assert kept.id in world.kept()


# What moves while the sweep is under way. Each is tried after every number of steps.


async def to_a_page_read_already(world: SmallWorld, value: BlobRef) -> None:
    await world.record(["0/a", ["v"], value], ["0/p"])
    await world.flush("0/a")
    await world.flush("0/p")
    await world.checkpoint()


async def to_the_other_shard(world: SmallWorld, value: BlobRef) -> None:
    await world.record(["1/a", ["v"], value])
    await world.record(["0/p"])
    await world.flush("0/p")
    await world.checkpoint()


async def into_the_log_alone(world: SmallWorld, value: BlobRef) -> None:
    await world.record(["0/a", ["v"], value], ["0/p", ["v"]])


async def into_an_outgrown_page(world: SmallWorld, value: BlobRef) -> None:
    await world.record(["0/p", ["w"], value])
    await world.flush("0/p", outgrown=True)
    await world.checkpoint()


Move = Callable[[SmallWorld, BlobRef], Awaitable[None]]
MOVES: list[Move] = [to_a_page_read_already, to_the_other_shard, into_the_log_alone, into_an_outgrown_page]


@pytest.mark.parametrize("move", MOVES)
async def test_a_reference_may_move_at_any_moment_of_the_sweep(world: SmallWorld, move: Move) -> None:
    tried, moment = True, 0
    while tried:
        value, orphan = await world.value(f"inv_{moment}"), await world.value(f"orphan_{moment}")
        await world.record(["0/a"])
        await world.record(["1/a"])
        await world.stored("0/p", value)
        assert moment < 100
        await world.begin()
        for _ in range(moment):
            await world.step()
        tried = world.sweep.under_way
        await move(world, value)
        await world.finish()
        assert value.id in world.kept()
        assert orphan.id not in world.kept()
        moment += 1
    assert moment > 5


# Steps


async def test_steps_are_bounded_whatever_there_is(world: SmallWorld) -> None:
    world.clock.tick = 0.0
    values = [await world.value(f"inv_{n}") for n in range(150)]
    await asyncio.gather(*(world.pages.put(f"0/{n}", StoredPage(0, encode({"v": value}))) for n, value in enumerate(values[:100])))
    for value in values[100:110]:
        await world.record(["1/x", ["v"], value])
    world.clock.tick = STEP_S / 8
    await world.begin()
    steps = 0
    while world.sweep.under_way:
        before = world.clock.seconds
        await world.step()
        assert world.clock.seconds - before < STEP_S * 2
        steps += 1
    assert steps > (100 + 10 + 150) / 8
    assert world.kept() == {value.id for value in values[:110]}


async def test_nothing_is_pruned_and_no_page_deleted_while_a_sweep_is_under_way(world: SmallWorld) -> None:
    value = await world.value("inv_1")
    await world.stored("0/p", value)
    await world.begin()
    pruned = dict(world.housekeeping.pruned)
    for _ in range(5):
        await world.record(["0/q", ["v"], value])
    await world.flush("0/q", expires_at_ms=world.clock.now_ms())
    await world.checkpoint()
    while world.sweep.under_way:
        assert world.housekeeping.pruned == pruned
        assert "0/q" in await world.pages.get(["0/q"])
        await world.step()
    for _ in range(10):
        await world.step()
    assert world.housekeeping.pruned[0] > pruned[0]
    assert await world.pages.get(["0/q"]) == {}


async def test_a_sweep_that_takes_too_long_is_given_up_until_the_next_day(world: SmallWorld) -> None:
    orphan = await world.value("orphan")
    await world.settle()
    await world.begin()
    assert world.sweep.under_way
    world.clock.seconds += PACE.give_up_s
    await world.step()
    assert not world.sweep.under_way
    for _ in range(5):
        await world.minute()
    assert not world.sweep.under_way
    assert world.kept() == {orphan.id}
    await world.sweep_all()
    assert world.kept() == set()


async def test_a_store_without_old_blobs_is_not_read(world: SmallWorld) -> None:
    for _ in range(PACE.notes):
        await world.minute()
    assert not world.sweep.under_way


async def test_a_crash_at_any_moment_costs_nothing_but_the_marks(world: SmallWorld) -> None:
    needed = await world.value("needed")
    await world.stored("0/p", needed)
    crashed, moment = True, 0
    while crashed:
        orphans = {(await world.value(f"orphan_{moment}_{n}")).id for n in range(2)}
        await world.begin()
        for _ in range(moment):
            await world.step()
        crashed = world.sweep.under_way
        await world.crash()
        assert world.memory["0/p"] == {"v": needed}
        assert needed.id in world.kept()
        moment += 1
        assert moment < 100
    assert moment > 5
    assert not orphans & world.kept()


async def test_an_error_gives_the_sweep_up_and_takes_nothing(world: SmallWorld) -> None:
    orphan = await world.value("orphan")
    await world.settle()
    await world.begin()
    assert world.sweep.under_way
    await world.writer.submit(lambda connection: connection.execute("PRAGMA busy_timeout = 0").fetchone())
    other = sqlite3.connect(world.path, isolation_level=None)
    with contextlib.closing(other):
        world.housekeeping.done.clear()
        while world.sweep.under_way:
            other.execute("BEGIN IMMEDIATE")
            world.housekeeping.wanted = True
            world.housekeeping.done.clear()
            with contextlib.suppress(StoreUnavailable):
                await world.writer.submit(_write_nothing)
            await world.housekeeping.done.wait()
            other.execute("ROLLBACK")
    assert world.kept() == {orphan.id}
    await world.sweep_all()
    assert world.kept() == set()


def _write_nothing(connection: sqlite3.Connection) -> None:
    """A write that the lock of another program refuses."""


# Age


async def test_a_failed_write_makes_everything_young_again(world: SmallWorld) -> None:
    waiting = await world.value("waiting")  # for a record that the full disk refuses
    for _ in range(PACE.notes - 1):
        await world.minute()
    await world.writer.submit(lambda connection: connection.execute("PRAGMA max_page_count = 1").fetchone())
    with pytest.raises(StoreUnavailable):
        await world.blobs.put("large", bytes(1_000_000))
    await world.writer.submit(lambda connection: connection.execute("PRAGMA max_page_count = 1000000").fetchone())
    for _ in range(PACE.notes - 1):
        await world.minute()
        assert not world.sweep.under_way
    assert world.kept() == {waiting.id}
    await world.minute()
    await world.finish()
    assert world.kept() == set()


def test_nothing_grows_old_while_the_event_loop_is_stuck(tmp_path: Path) -> None:
    clock = TickingClock()
    with contextlib.closing(open_database(tmp_path / "store.sqlite", 1)) as connection:
        connection.execute("INSERT INTO blobs (id, content) VALUES ('waiting', x'00')")
        sweep = BlobSweep(connection, clock, PACE)
        housekeeper = Housekeeper(connection, clock, sweep=sweep)
        housekeeper.loop_turned()
        for _ in range(50):
            clock.seconds += 600
            housekeeper.step()
        assert not sweep.under_way
        for _ in range(PACE.notes):
            housekeeper.loop_turned()
            clock.seconds += 600
            housekeeper.step()
        assert connection.execute("SELECT count(*) FROM blobs").fetchone() == (0,)


async def test_an_open_store_sweeps_a_quarter_of_an_hour_after_start(tmp_path: Path) -> None:
    clock = TickingClock()
    held = await open_sqlite_store(tmp_path / "store.sqlite", clock=clock)
    needed, orphan = BlobRef(blob_ids.of_value("inv_1", b"1"), 1), blob_ids.of_value("inv_1", b"2")
    await held.store.blobs.put(needed.id, b"1")
    await held.store.blobs.put(orphan, b"2")
    await held.store.pages.put("p", StoredPage(1, encode({"v": needed})))
    began, position = clock.seconds, 0
    with pytest.raises(KeyError):
        while True:
            clock.seconds += 30
            position += 1
            assert position < 200
            await held.store.log.put(0, LogItem(position, 1, b"me", position, 0, 1, b""))
            await held.store.blobs.get(orphan)
    assert clock.seconds - began >= 15 * 60
    assert await held.store.blobs.get(needed.id) == b"1"
    await held.close()


# Finding references

REFERENCES = st.builds(BlobRef, st.text(st.characters(exclude_categories=["Cs"]), max_size=400), st.integers(0, 2**40))
DOCUMENTS = st.recursive(
    REFERENCES | st.binary(max_size=40) | st.text(max_size=10) | st.integers(0, 2**40) | st.just(b"\x01\x92\xd9\x01\x92\xd9"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4) | inner.map(encode),
    max_leaves=12,
)


@given(DOCUMENTS, REFERENCES, st.binary(max_size=6))
def test_every_reference_in_encoded_bytes_is_found(document: Any, reference: BlobRef, before: bytes) -> None:
    encoded = before + encode(["page", ["path"], document]) + encode({"nested": encode([reference, document])})
    assert {reference.id, *_ids(document)} <= set(blob_ids.referenced(encoded))


def _ids(value: Any) -> set[str]:
    if isinstance(value, BlobRef):
        return {value.id}
    if isinstance(value, dict):
        value = list(value.values())
    return {found for inner in value for found in _ids(inner)} if isinstance(value, list) else set()


@given(REFERENCES, st.dictionaries(st.text(max_size=5), DOCUMENTS, max_size=3))
def test_a_document_that_is_a_reference_is_told_from_one_that_has_some(reference: BlobRef, document: dict[str, Any]) -> None:
    assert blob_ids.outgrown(encode(reference)) == reference.id
    assert blob_ids.outgrown(encode(document)) is None


@given(st.binary(max_size=300))
def test_any_bytes_can_be_searched(encoded: bytes) -> None:
    assert all(isinstance(found, str) for found in blob_ids.referenced(encoded))
    blob_ids.outgrown(encoded)


# Everything in any order

NAMES = [f"{shard}/{name}" for shard in (0, 1) for name in "abc"]
SLOTS = ["x", "y"]
OWNERS = [f"inv_{n}" for n in range(4)]
PAGES, SLOT, OWNER = st.sampled_from(NAMES), st.sampled_from(SLOTS), st.sampled_from(OWNERS)


class Interleaved(RuleBasedStateMachine):
    """Store operations between the steps of sweeps. A blob that is written is not old when its record comes."""

    swept = 0  # over all runs: blobs that went away

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="sweep-")
        self.loop = asyncio.new_event_loop()
        self.world = SmallWorld(Path(self.folder) / "store.sqlite")
        self.waiting: list[tuple[int, str, str, BlobRef]] = []  # minutes, page, slot, blob
        self.run(self.world.open())

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    @rule(page=PAGES, slot=SLOT, owner=OWNER)
    def write_a_blob(self, page: str, slot: str, owner: str) -> None:
        self.waiting.append((0, page, slot, self.run(self.world.value(owner))))

    @precondition(lambda self: self.waiting)
    @rule()
    def record_it(self) -> None:
        _, page, slot, reference = self.waiting.pop(0)
        self.run(self.world.record([page, [slot], reference]))

    @rule(source=PAGES, destination=PAGES, slot=SLOT, other=SLOT, keep=st.booleans())
    def pass_on(self, source: str, destination: str, slot: str, other: str, keep: bool) -> None:
        reference = (self.world.memory.get(source) or {}).get(slot)
        if reference is None or (source, slot) == (destination, other):
            return
        operations = [[destination, [other], reference]]
        if not keep and source[0] == destination[0]:
            operations.append([source, [slot]])
        self.run(self.world.record(*operations))
        if not keep and source[0] != destination[0]:
            self.run(self.world.record([source, [slot]]))

    @rule(page=PAGES)
    def drop(self, page: str) -> None:
        if self.world.memory.get(page) is not None:
            self.run(self.world.record([page]))

    @rule(page=PAGES, outgrown=st.booleans())
    def flush(self, page: str, outgrown: bool) -> None:
        if page in self.world.first:
            self.run(self.world.flush(page, outgrown=outgrown))

    @rule()
    def flush_all(self) -> None:
        for page in list(self.world.first):
            self.run(self.world.flush(page))
        self.run(self.world.checkpoint())

    @rule()
    def checkpoint(self) -> None:
        self.run(self.world.checkpoint())

    @rule(seconds=st.sampled_from([PACE.note_every_s, PACE.every_s]))
    def time_passes(self, seconds: float) -> None:
        self.waiting = [(minutes + 1, page, slot, reference) for minutes, page, slot, reference in self.waiting]
        while self.waiting and self.waiting[0][0] >= PACE.notes - 1:
            self.record_it()
        self.world.clock.seconds += seconds
        self._counting(self.world.step())

    @rule(steps=st.integers(1, 5))
    def steps(self, steps: int) -> None:
        for _ in range(steps):
            self._counting(self.world.step())

    def _counting(self, work: Any) -> None:
        before = len(self.world.kept())
        self.run(work)
        Interleaved.swept += before - len(self.world.kept())

    @rule()
    def crash(self) -> None:
        self.waiting.clear()
        self.run(self.world.crash())

    @invariant()
    def nothing_needed_is_lost(self) -> None:
        if not hasattr(self, "world"):
            return
        lost = (self.world.needed() | {reference.id for *_, reference in self.waiting}) - self.world.kept()
        assert not lost

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self._settle()
        self.run(self.world.close())
        self.loop.close()
        shutil.rmtree(self.folder)

    def _settle(self) -> None:
        """In the end everything goes that nothing needs."""
        world = self.world
        self.run(world.finish())
        self.run(world.settle())
        for _ in range(2):  # the first may have become due, with notes of before, while its time was prepared
            self.run(world.sweep_all())
        assert {blob_id for blob_id in world.kept() if not blob_id.startswith("page/")} == world.needed()
        self.run(world.crash())
        assert world.needed() <= world.kept()


def test_no_order_of_events_loses_a_blob_that_is_needed() -> None:
    Interleaved.swept = 0
    run_state_machine_as_test(
        Interleaved,
        settings=settings(max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)),
    )
    assert Interleaved.swept > 0
