"""Timers that are far away: each page has one wake-up, and one that falls due while nobody is alive fires when somebody comes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest

from holdfast_runtime.adapters.memory import memory_store
from holdfast_runtime.adapters.scheduler import SchedulerTarget, SchedulerWakeups
from holdfast_runtime.adapters.system import SystemClock
from holdfast_runtime.ports.inbox import Wake, decode
from holdfast_runtime.ports.wakeups import WakeupsUnavailable
from tests.coordinator.replica import BOUND_S, Replica, addition
from tests.support.scheduler_service import SchedulerService

HOUR_S = 3_600


class ShiftedClock(SystemClock):
    """Goes like any other, but ahead."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead_s = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_s * 1000


class Arranged:
    """Remembers what was asked for; the first `refusals` are refused."""

    def __init__(self) -> None:
        self.asked: list[tuple[Wake, int, bool]] = []
        self.refusals = 0

    async def arrange(self, wake: Wake, at_ms: int, *, replace: bool) -> None:
        if self.refusals:
            self.refusals -= 1
            raise WakeupsUnavailable("not now")
        self.asked.append((wake, at_ms, replace))


@asynccontextmanager
async def running(replica: Replica) -> AsyncIterator[Replica]:
    try:
        await replica.start()
        yield replica
    finally:
        await replica.stop()


async def until(condition: Any) -> None:
    async with asyncio.timeout(BOUND_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def schedule(replica: Replica, key: str, delay_s: int) -> None:
    request = addition(key, 1, delay_ms=delay_s * 1000)
    await replica.coordinator.send(replica.coordinator.mint(request), request)


async def test_many_timers_of_a_page_have_one_wake_up_ahead_of_the_first() -> None:
    wakeups = Arranged()
    async with running(Replica(memory_store(1), wakeups=wakeups)) as replica:
        now = SystemClock().now_ms()
        hour = now // (HOUR_S * 1000) + 5
        first = (hour * HOUR_S * 1000 - now) // 1000 + 10
        for number in range(50):
            await schedule(replica, f"key-{number}", first + number)
        await until(lambda: wakeups.asked)
        await schedule(replica, "other", first + HOUR_S)
        await until(lambda: len(wakeups.asked) == 2)
    (wake, at_ms, replace), (other, _, _) = wakeups.asked
    assert (wake.hour, other.hour, replace) == (hour, hour + 1, False)
    assert first - 92 <= (at_ms - now) // 1000 <= first - 85


async def test_an_earlier_timer_moves_the_wake_up_of_its_page() -> None:
    wakeups = Arranged()
    async with running(Replica(memory_store(1), wakeups=wakeups)) as replica:
        now = SystemClock().now_ms()
        start = ((now // (HOUR_S * 1000) + 5) * HOUR_S * 1000 - now) // 1000
        await schedule(replica, "late", start + 3_000)
        await until(lambda: len(wakeups.asked) == 1)
        await schedule(replica, "early", start + 1_000)
        await until(lambda: len(wakeups.asked) == 2)
        await schedule(replica, "hardly earlier", start + 990)
        await schedule(replica, "next hour", start + 3_700)
        await until(lambda: len(wakeups.asked) == 3)
    assert [replace for _, _, replace in wakeups.asked] == [False, True, False]
    assert wakeups.asked[1][1] < wakeups.asked[0][1]


async def test_when_the_first_timers_of_a_page_come_near_the_others_have_a_wake_up_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one of the page is used up by then; if everybody dies after that, nobody would come back for the rest."""
    monkeypatch.setattr("holdfast_runtime.coordinator.timers._MARGIN_S", 0.2)  # how often it looks
    wakeups, clock = Arranged(), ShiftedClock()
    async with running(Replica(memory_store(1), clock=clock, wakeups=wakeups)) as replica:
        now = clock.now_ms()
        start = ((now // (HOUR_S * 1000) + 5) * HOUR_S * 1000 - now) // 1000 + 1
        await schedule(replica, "first", start + 100)
        await schedule(replica, "last", start + 3_000)
        await until(lambda: wakeups.asked)
        clock.ahead_s = start + 60
        await until(lambda: len(wakeups.asked) == 2)
        await schedule(replica, "earlier than the last", 2_000)
        await until(lambda: len(wakeups.asked) == 3)
    (first, _, _), (again, at_ms, replace), (_, earlier_ms, _) = wakeups.asked
    assert first == again
    assert replace
    assert start + 2_905 <= (at_ms - now) // 1000 <= start + 2_915
    assert earlier_ms < at_ms


async def test_near_timers_have_none() -> None:
    wakeups = Arranged()
    async with running(Replica(memory_store(1), wakeups=wakeups)) as replica:
        await schedule(replica, "soon", 60)
        await schedule(replica, "far", 5 * HOUR_S)
        await until(lambda: wakeups.asked)
    assert len(wakeups.asked) == 1


async def test_a_refused_one_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast_runtime.coordinator.far_timers.RETRY_S", 0.01)
    wakeups = Arranged()
    wakeups.refusals = 3
    async with running(Replica(memory_store(1), wakeups=wakeups)) as replica:
        await schedule(replica, "far", 5 * HOUR_S)
        await until(lambda: wakeups.asked)


@pytest.mark.parametrize("refusal", [WakeupsUnavailable("not this one"), ValueError("year 60000 is out of range")])
async def test_one_that_can_never_be_arranged_holds_up_nobody(monkeypatch: pytest.MonkeyPatch, refusal: Exception) -> None:
    monkeypatch.setattr("holdfast_runtime.coordinator.far_timers.RETRY_S", 0.01)

    class Picky(Arranged):
        wrong: int | None = None
        refused = 0

        async def arrange(self, wake: Wake, at_ms: int, *, replace: bool) -> None:
            self.wrong = wake.hour if self.wrong is None else self.wrong
            if wake.hour == self.wrong:
                self.refused += 1
                raise refusal
            await super().arrange(wake, at_ms, replace=replace)

    wakeups = Picky()
    async with running(Replica(memory_store(1), wakeups=wakeups)) as replica:
        await schedule(replica, "never", 500 * HOUR_S)
        await until(lambda: wakeups.refused)
        await schedule(replica, "far", 5 * HOUR_S)
        await until(lambda: wakeups.asked)
        seen = wakeups.refused
        await until(lambda: wakeups.refused > seen)
        assert replica.node.metrics.shards_lost == 0


async def test_a_new_owner_arranges_what_it_finds() -> None:
    store, wakeups = memory_store(1), Arranged()
    async with running(Replica(store)) as replica:  # dies before it could arrange anything
        await schedule(replica, "far", 5 * HOUR_S)
    async with running(Replica(store, wakeups=wakeups)):
        await until(lambda: wakeups.asked)
    assert [replace for _, _, replace in wakeups.asked] == [True]


async def test_a_timer_added_after_a_take_over_is_woken_for() -> None:
    """The wake-up of the page was set for a timer fifty minutes later, and stayed there."""
    store, wakeups = memory_store(1), Arranged()
    now = SystemClock().now_ms()
    start = ((now // (HOUR_S * 1000) + 5) * HOUR_S * 1000 - now) // 1000
    async with running(Replica(store, wakeups=wakeups)) as replica:
        await schedule(replica, "late", start + 3_100)
        await until(lambda: wakeups.asked)
    async with running(Replica(store, wakeups=wakeups)) as replica:
        await until(lambda: len(wakeups.asked) == 2)
        await schedule(replica, "early", start + 100)
    arranged = {}
    for wake, at_ms, replace in wakeups.asked:
        if replace or wake not in arranged:
            arranged[wake] = at_ms
    assert max(arranged.values()) <= now + (start + 100) * 1000 - 60_000


async def test_a_timer_that_falls_due_while_nobody_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue: list[Wake] = []

    def deliver(arn: str, body: str) -> None:
        wake = decode(json.loads(body))
        assert isinstance(wake, Wake)
        queue.append(wake)

    clock = ShiftedClock()
    scheduler = SchedulerService(tmp_path / "schedules.json", deliver, now_s=clock.now_ms() / 1000)
    for name, value in {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SCHEDULER", scheduler.url)
    boto3.client("scheduler").create_schedule_group(Name="holdfast")
    store = memory_store(2)
    role = "arn:aws:iam::000000000000:role/wake"
    wakeups = SchedulerWakeups(SchedulerTarget("holdfast", "arn:aws:sqs:us-east-1:000000000000:inbox", role), clock)
    await wakeups.open()
    async with running(Replica(store, clock=clock, wakeups=wakeups)) as replica:
        await schedule(replica, "alice", 5 * HOUR_S)
        await until(lambda: scheduler.schedules)
    await wakeups.close()

    scheduler.advance(5 * HOUR_S)
    assert queue  # the wake-up waits for whoever comes
    assert not scheduler.schedules
    clock.ahead_s = 5 * HOUR_S + 1
    async with running(Replica(store, clock=clock)) as replica:
        async with asyncio.timeout(BOUND_S):
            while await replica.coordinator.state("Counter", "alice") != {"total": b"1"}:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    scheduler.close()
