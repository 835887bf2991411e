"""The embedded store beyond the contract: groups, a full disk, housekeeping."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from holdfast_runtime.adapters.sqlite import SqliteStore, open_sqlite_store
from holdfast_runtime.adapters.sqlite_file import open_database
from holdfast_runtime.adapters.sqlite_housekeeping import MARGIN_POSITIONS, MARGIN_S, Housekeeper
from holdfast_runtime.ports.store import LogItem, StoredPage, StoreUnavailable


class ManualClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def now_ms(self) -> int:
        return int(self.seconds * 1000)

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("the store does not sleep")


def item(position: int, operations: bytes = b"ops", *, epoch: int = 1) -> LogItem:
    return LogItem(position, epoch, b"writer-1", position, 0, 1, operations)


@pytest.fixture
async def held(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await open_sqlite_store(tmp_path / "store.sqlite", shards=3)
    yield opened
    await opened.close()


async def test_writes_of_every_kind_share_a_group_and_each_has_its_own_answer(held: SqliteStore) -> None:
    store = held.store
    await store.log.put(1, item(1, b"old"))
    await store.pages.put("new", StoredPage(9, b""))
    answers = await asyncio.gather(
        store.log.put(0, item(1)),
        store.pages.put("new", StoredPage(3, b"")),
        store.log.put(1, item(1, b"late")),
        store.pages.put("other", StoredPage(3, b"")),
        store.leases.acquire(2, seen_epoch=5, owner="me"),
        store.registry.store("s", b"", expected_version=0),
        store.blobs.put("b", b"content"),
        store.log.put(0, item(2)),
    )
    assert answers == [None, False, item(1, b"old"), True, None, True, None, None]
    assert await store.blobs.get("b") == b"content"


async def test_a_write_that_cannot_be_made_fails_alone(held: SqliteStore) -> None:
    answers = await asyncio.gather(
        held.store.log.put(0, item(1)),
        held.store.pages.put("a", StoredPage(2**63, b"no such integer")),
        held.store.pages.put("b", StoredPage(1, b"")),
        return_exceptions=True,
    )
    assert answers[0] is None
    assert isinstance(answers[1], OverflowError)
    assert answers[2] is True
    assert set(await held.store.pages.get(["a", "b"])) == {"b"}


async def test_more_writes_than_one_group_takes_are_all_answered(held: SqliteStore) -> None:
    answers = await asyncio.gather(*(held.store.log.put(n % 3, item(n // 3 + 1)) for n in range(3_000)))
    assert answers == [None] * 3_000
    for shard in range(3):
        assert len(await held.store.log.read(shard, 1, 2_000)) == 1_000


async def test_a_cancelled_waiter_does_not_disturb_the_others(held: SqliteStore) -> None:
    waiting = [asyncio.create_task(held.store.log.put(shard, item(1))) for shard in range(3)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    assert await waiting[0] is None
    assert await waiting[2] is None
    with pytest.raises(asyncio.CancelledError):
        await waiting[1]
    assert await held.store.log.put(0, item(2)) is None


async def test_writes_that_wait_at_close_are_made(tmp_path: Path) -> None:
    held = await open_sqlite_store(tmp_path / "store.sqlite")
    waiting = [asyncio.create_task(held.store.log.put(n, item(1))) for n in range(4)]
    await asyncio.sleep(0)
    await held.close()
    assert await asyncio.gather(*waiting) == [None] * 4


async def test_a_full_disk_refuses_writes_keeps_reading_and_recovers(held: SqliteStore) -> None:
    store = held.store
    await store.pages.put("before", StoredPage(1, b"kept"))
    await held.set_max_bytes(1)
    with pytest.raises(StoreUnavailable, match="the disk is full"):
        await store.log.put(0, item(1, bytes(300_000)))
    answers = await asyncio.gather(
        store.pages.put("large", StoredPage(1, bytes(300_000))),
        store.pages.put("small", StoredPage(1, b"fits into what is allocated")),
        return_exceptions=True,
    )
    assert isinstance(answers[0], StoreUnavailable)
    assert answers[1] is True
    assert set(await store.pages.get(["before", "large", "small"])) == {"before", "small"}
    assert list(await store.log.read(0, 1, 1)) == []
    await held.set_max_bytes(None)
    assert await store.log.put(0, item(1, bytes(300_000))) is None
    assert len(await store.log.read(0, 1, 1)) == 1


async def test_a_write_waits_for_another_programs_write_lock(tmp_path: Path, held: SqliteStore) -> None:
    other = sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None)
    with contextlib.closing(other):
        other.execute("BEGIN IMMEDIATE")
        put = asyncio.create_task(held.store.log.put(0, item(1)))
        assert list(await held.store.log.read(0, 1, 1)) == []
        other.execute("ROLLBACK")
        assert await put is None


# Housekeeping


async def on_a_file(path: Path, fill: Callable[[SqliteStore], Awaitable[None]], clock: ManualClock) -> None:
    held = await open_sqlite_store(path, shards=2, clock=clock)
    await fill(held)
    await held.close()


def work_off(housekeeper: Housekeeper) -> int:
    """Steps until nothing is left; the clock stands still, so a step takes all it is offered."""
    steps = 1
    while housekeeper.step() == 0:
        steps += 1
    return steps


async def test_the_log_is_pruned_behind_the_checkpoint_with_a_margin(tmp_path: Path) -> None:
    path, clock = tmp_path / "store.sqlite", ManualClock()
    end = MARGIN_POSITIONS + 500

    async def fill(held: SqliteStore) -> None:
        for shard in (0, 1):
            await asyncio.gather(*(held.store.log.put(shard, item(n)) for n in range(1, end)))
            await held.store.leases.acquire(shard, seen_epoch=0, owner="me")
        await held.store.leases.checkpoint(0, epoch=1, checkpoint=end - 100, tip=end)

    await on_a_file(path, fill, clock)
    with contextlib.closing(open_database(path, 1)) as connection:
        assert work_off(Housekeeper(connection, clock)) > 1
    held = await open_sqlite_store(path, clock=clock)
    log = held.store.log
    first_kept = end - 100 - MARGIN_POSITIONS
    with pytest.raises(StoreUnavailable, match=rf"position {first_kept - 1} of the log of shard 0 is deleted"):
        await log.read(0, first_kept - 1, 1)
    assert [one.position for one in await log.read(0, first_kept, 1)] == [first_kept]
    assert len(await log.read(0, first_kept, 100_000)) == end - first_kept
    assert len(await log.read(1, 1, 100_000)) == end - 1  # its checkpoint never moved
    # A deleted position is not free, whoever asks, alone or in a group.
    overtaken = LogItem(5, 1, b"", 5, 0, 1, b"")
    assert await log.put(0, item(5)) == overtaken
    answers = await asyncio.gather(log.put(0, item(6)), log.put(1, item(end)))
    assert list(answers) == [overtaken._replace(position=6, first=6), None]
    await held.close()


async def test_after_an_hour_the_log_is_pruned_up_to_that_hours_checkpoint(tmp_path: Path) -> None:
    path, clock = tmp_path / "store.sqlite", ManualClock()

    async def fill(held: SqliteStore) -> None:
        await asyncio.gather(*(held.store.log.put(0, item(n)) for n in range(1, 101)))
        await held.store.leases.acquire(0, seen_epoch=0, owner="me")
        await held.store.leases.checkpoint(0, epoch=1, checkpoint=60, tip=101)

    await on_a_file(path, fill, clock)
    with contextlib.closing(open_database(path, 1)) as connection:
        housekeeper = Housekeeper(connection, clock)
        kept = "SELECT min(id), count(*) FROM log"
        work_off(housekeeper)
        assert connection.execute(kept).fetchone() == (1, 100)
        clock.seconds += MARGIN_S / 2
        connection.execute("UPDATE shards SET checkpoint = 90 WHERE shard = 0")
        work_off(housekeeper)
        assert connection.execute(kept).fetchone() == (1, 100)
        clock.seconds += MARGIN_S / 2
        work_off(housekeeper)
        assert connection.execute(kept).fetchone() == (60, 41)
        clock.seconds += MARGIN_S / 2
        work_off(housekeeper)
        assert connection.execute(kept).fetchone() == (90, 11)
        clock.seconds += MARGIN_S * 10
        work_off(housekeeper)
        assert connection.execute(kept).fetchone() == (90, 11)


async def test_expired_pages_and_old_tombstones_go_away(tmp_path: Path) -> None:
    path, clock = tmp_path / "store.sqlite", ManualClock()

    async def fill(held: SqliteStore) -> None:
        pages = held.store.pages
        await asyncio.gather(
            *(pages.put(f"p{n}", StoredPage(1, b""), expires_at_ms=clock.now_ms() + 10) for n in range(100)),
            pages.put("kept", StoredPage(1, b"")),
            pages.put("dropped", StoredPage(1, None)),
            pages.put("renewed", StoredPage(1, b""), expires_at_ms=clock.now_ms() + 10),
        )
        await pages.put("renewed", StoredPage(2, b""))

    await on_a_file(path, fill, clock)
    with contextlib.closing(open_database(path, 1)) as connection:
        housekeeper = Housekeeper(connection, clock)
        stored = "SELECT count(*) FROM pages"
        work_off(housekeeper)
        assert connection.execute(stored).fetchone() == (103,)
        clock.seconds += 1
        work_off(housekeeper)
        assert connection.execute(stored).fetchone() == (3,)
        clock.seconds += 7 * 86_400
        work_off(housekeeper)
        assert connection.execute("SELECT id FROM pages ORDER BY id").fetchall() == [("kept",), ("renewed",)]


async def test_freed_space_goes_back_to_the_file_system(tmp_path: Path) -> None:
    path, clock = tmp_path / "store.sqlite", ManualClock()

    async def fill(held: SqliteStore) -> None:
        for n in range(60):
            await held.store.pages.put(f"p{n}", StoredPage(1, bytes(300_000)), expires_at_ms=1)

    await on_a_file(path, fill, clock)
    with contextlib.closing(open_database(path, 1)) as connection:
        work_off(Housekeeper(connection, clock))
    assert path.stat().st_size < 10_000_000


async def test_a_store_that_is_never_idle_cleans_up_between_its_writes(tmp_path: Path) -> None:
    clock = ManualClock()
    held = await open_sqlite_store(tmp_path / "store.sqlite", clock=clock)
    await held.store.pages.put("old", StoredPage(1, b""), expires_at_ms=clock.now_ms())
    writes = 0
    while await held.store.pages.get(["old"]):
        clock.seconds += 100  # the next group finds housekeeping overdue
        writes += 1
        assert writes < 10
        await held.store.log.put(0, item(writes))
    await held.close()
