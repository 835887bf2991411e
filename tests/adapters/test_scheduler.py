"""Wake-ups by EventBridge Scheduler: the API as documented (own emulation) and as moto stores it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

from holdfast_runtime.adapters.scheduler import SchedulerTarget, SchedulerWakeups
from holdfast_runtime.ports.inbox import Wake, decode
from holdfast_runtime.ports.wakeups import WakeupsUnavailable
from tests.support.scheduler_service import SchedulerService

NOW_S = 1_800_000_000.0
HOUR_S = 3_600
QUEUE, ROLE = "arn:aws:sqs:us-east-1:000000000000:inbox", "arn:aws:iam::000000000000:role/wake"


class At:
    """A clock that stands."""

    def now_ms(self) -> int:
        return int(NOW_S * 1000)

    def monotonic(self) -> float:
        return NOW_S

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody sleeps here")


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)


class World:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._file = folder / "schedules.json"
        self._monkeypatch = monkeypatch
        self.delivered: list[tuple[str, Wake]] = []
        self.failing = 0
        self.start(NOW_S)
        boto3.client("scheduler").create_schedule_group(Name="holdfast")

    def start(self, now_s: float) -> None:
        self.service = SchedulerService(self._file, self._deliver, now_s=now_s, seed=7)
        self._monkeypatch.setenv("AWS_ENDPOINT_URL_SCHEDULER", self.service.url)

    def restart(self) -> None:
        self.service.close()
        self.start(self.service.now_s)

    def _deliver(self, arn: str, body: str) -> None:
        if self.failing:
            self.failing -= 1
            raise ConnectionError("the queue does not answer")
        wake = decode(json.loads(body))
        assert isinstance(wake, Wake)
        self.delivered.append((arn, wake))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    built = World(tmp_path, monkeypatch)
    yield built
    built.service.close()


@pytest.fixture
async def wakeups(world: World) -> AsyncIterator[SchedulerWakeups]:
    opened = SchedulerWakeups(SchedulerTarget("holdfast", QUEUE, ROLE), At())
    await opened.open()
    yield opened
    await opened.close()


WAKE = Wake(3, 500_000, 1)
TOMORROW_MS = int((NOW_S + 24 * HOUR_S) * 1000)


async def test_a_wake_up_reaches_the_queue_at_its_time_and_its_schedule_is_gone(world: World, wakeups: SchedulerWakeups) -> None:
    await wakeups.arrange(WAKE, TOMORROW_MS, replace=False)
    world.service.advance(24 * HOUR_S - 1)
    assert world.delivered == []
    world.restart()
    world.service.advance(121)
    assert set(map(repr, world.delivered)) == {repr((QUEUE, WAKE))}
    assert world.service.schedules == {}


async def test_arranged_twice_is_one_schedule(world: World, wakeups: SchedulerWakeups) -> None:
    for _ in range(2):
        await wakeups.arrange(WAKE, TOMORROW_MS, replace=False)
    assert len(world.service.schedules) == 1
    assert world.service.calls == {"CreateScheduleGroup": 1, "GetScheduleGroup": 1, "CreateSchedule": 2}


async def test_an_earlier_timer_moves_it_only_when_asked_to(world: World, wakeups: SchedulerWakeups) -> None:
    await wakeups.arrange(WAKE, TOMORROW_MS, replace=False)
    await wakeups.arrange(WAKE, TOMORROW_MS - HOUR_S * 1000, replace=False)
    world.service.advance(23 * HOUR_S + 120)
    assert world.delivered == []
    await wakeups.arrange(WAKE, TOMORROW_MS - HOUR_S * 1000, replace=True)
    world.service.advance(61)
    assert world.delivered


async def test_a_time_that_is_over_becomes_the_soonest_possible(world: World, wakeups: SchedulerWakeups) -> None:
    await wakeups.arrange(WAKE, 0, replace=False)
    (schedule,) = world.service.schedules.values()
    soon = datetime.fromtimestamp(NOW_S + 60, UTC)
    assert schedule.request["ScheduleExpression"] == f"at({soon:%Y-%m-%dT%H:%M:%S})"


@pytest.mark.parametrize("at_ms", [400_000 * HOUR_S * 1000 + TOMORROW_MS, 300_000_000_000_000, 2**64 - 1])
async def test_a_time_that_no_date_can_say_becomes_the_farthest_one(world: World, wakeups: SchedulerWakeups, at_ms: int) -> None:
    await wakeups.arrange(WAKE, at_ms, replace=False)
    (schedule,) = world.service.schedules.values()
    assert schedule.fires_at[0] == pytest.approx(NOW_S + 5 * 365 * 24 * HOUR_S, abs=61)


async def test_it_is_made_where_its_queue_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    wakeups = SchedulerWakeups(SchedulerTarget("holdfast", QUEUE, ROLE), At())
    await wakeups.open()
    await wakeups.close()


async def test_a_queue_that_fails_is_tried_again(world: World, wakeups: SchedulerWakeups) -> None:
    await wakeups.arrange(WAKE, TOMORROW_MS, replace=False)
    world.failing = 3
    world.service.advance(25 * HOUR_S)
    assert world.delivered


async def test_a_group_that_is_not_there(world: World) -> None:
    wakeups = SchedulerWakeups(SchedulerTarget("nothing", QUEUE, ROLE), At())
    with pytest.raises(WakeupsUnavailable, match="nothing does not exist"):
        await wakeups.open()
    await wakeups.close()


async def test_nobody_answers(world: World, wakeups: SchedulerWakeups) -> None:
    world.service.close()
    with pytest.raises(WakeupsUnavailable, match="create_schedule"):
        await wakeups.arrange(WAKE, TOMORROW_MS, replace=False)


async def test_moto_stores_what_is_arranged(monkeypatch: pytest.MonkeyPatch) -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL_SCHEDULER", f"http://{host}:{port}")
    client = boto3.client("scheduler")
    client.create_schedule_group(Name="holdfast")
    wakeups = SchedulerWakeups(SchedulerTarget("holdfast", QUEUE, ROLE), At())
    await wakeups.open()
    await wakeups.arrange(WAKE, TOMORROW_MS, replace=False)
    found = client.get_schedule(Name="timers-3-500000-1", GroupName="holdfast")
    assert found["ActionAfterCompletion"] == "DELETE"
    assert found["FlexibleTimeWindow"] == {"Mode": "OFF"}
    assert found["Target"]["Arn"] == QUEUE
    await wakeups.close()
    server.stop()


# ---- The emulation keeps to the documentation


def refusal(world: World, **changed: object) -> str:
    schedule = {
        "Name": "s",
        "ScheduleExpression": "at(2027-01-15T08:00:00)",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "Target": {"Arn": QUEUE, "RoleArn": ROLE},
        "ClientToken": "1",
        **changed,
    }
    with pytest.raises(ClientError) as refused:
        boto3.client("scheduler").create_schedule(**schedule)
    return str(refused.value.response["Error"]["Code"])


def test_what_the_service_refuses_is_refused(world: World) -> None:
    assert refusal(world, GroupName="nothing") == "ResourceNotFoundException"
    assert refusal(world, ScheduleExpression="tomorrow") == "ValidationException"
    assert refusal(world, Name="a b") == "ValidationException"
    client = boto3.client("scheduler")
    schedule = {
        "Name": "s",
        "ScheduleExpression": "at(2027-01-15T08:00:00)",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "Target": {"Arn": QUEUE, "RoleArn": ROLE},
    }
    client.create_schedule(**schedule, ClientToken="1")
    client.create_schedule(**schedule, ClientToken="1")
    assert refusal(world, ClientToken="2") == "ConflictException"
