"""Replicas, the inbox queue and wake-ups as `holdfast serve` has them: configured, found, or refused with what to do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

import holdfast
from holdfast.endpoint import Endpoint
from holdfast_runtime.adapters.dynamodb_table import DynamoDbTable
from holdfast_runtime.app.aws_parts import AwsConfig, PartMissing
from holdfast_runtime.app.runtime import Runtime, RuntimeConfig
from holdfast_runtime.coordinator.front import NewInvocation, Target
from holdfast_runtime.ports.inbox import InboxUnavailable, decode
from holdfast_runtime.ports.wakeups import WakeupsUnavailable
from holdfast_runtime.surfaces.server import Listener
from tests.support.dynamodb import aws_at, dynamodb_url, moto_url, new_table_name, set_up  # noqa: F401
from tests.support.scheduler_service import SchedulerService

later = holdfast.Service("Later")


@later.handler()
async def nothing(ctx: holdfast.Context) -> None:
    """Never run here."""


ROLE = "arn:aws:iam::000000000000:role/wake"
BOUND_S = 240.0


class Account:
    """What the template creates. `configured`: what it gives to the coordinator."""

    def __init__(self, moto: str, folder: Path) -> None:
        self.table = new_table_name()
        set_up(self.table, 4)
        self.queue_url = boto3.client("sqs").create_queue(QueueName=self.table)["QueueUrl"]
        self.delivered: list[str] = []
        self.scheduler = SchedulerService(folder / "schedules.json", lambda arn, body: self.delivered.append(body), now_s=1_000.0)

    @property
    def configured(self) -> AwsConfig:
        return AwsConfig(inbox_queue_url=self.queue_url, wakeup_schedule_group="default", wakeup_role_arn=ROLE)

    def coordinator(self, aws: AwsConfig) -> Runtime:
        return Runtime(RuntimeConfig(DynamoDbTable(self.table), Listener(port=0), Listener(port=0), aws=aws))


@pytest.fixture
def account(dynamodb_url: str, moto_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:  # noqa: F811
    with aws_at(dynamodb=dynamodb_url, sqs=moto_url):
        built = Account(moto_url, tmp_path)
        monkeypatch.setenv("AWS_ENDPOINT_URL_SCHEDULER", built.scheduler.url)
        yield built
        built.scheduler.close()


async def test_replicas_tell_each_other_where_they_are(account: Account) -> None:
    first, second = account.coordinator(account.configured), account.coordinator(account.configured)
    await first.start()
    try:
        await second.start()
        _, members = await first.node.store.leases.read()
        addresses = {member.address for member in members.values()}
        assert len(addresses) == 2
        assert all(address.startswith("127.0.0.1:") for address in addresses)
    finally:
        await second.stop()
        await first.stop()


async def test_a_far_timer_gets_its_schedule(account: Account) -> None:
    runtime = account.coordinator(account.configured)
    await runtime.start({"app": Endpoint([later]).handle})
    try:
        request = NewInvocation(Target("Later", "nothing"), b"", [], delay_ms=3 * 3_600_000)
        await runtime.coordinator.send(runtime.coordinator.mint(request), request)
        async with asyncio.timeout(BOUND_S):
            while not account.scheduler.schedules:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        (schedule,) = account.scheduler.schedules.values()
        assert decode(json.loads(schedule.request["Target"]["Input"])) is not None
        assert schedule.request["Target"]["Arn"].endswith(account.table)
        assert schedule.request["Target"]["RoleArn"] == ROLE
    finally:
        await runtime.stop()


@pytest.mark.parametrize(
    "aws",
    [
        AwsConfig(wakeup_schedule_group="default", wakeup_role_arn=ROLE),
        AwsConfig(wakeup_schedule_group="default"),
        AwsConfig(wakeup_role_arn=ROLE),
    ],
)
async def test_half_of_what_wake_ups_need_is_refused(account: Account, aws: AwsConfig) -> None:
    with pytest.raises(PartMissing, match="all of wakeup-schedule-group, wakeup-role-arn and inbox-queue-url"):
        await account.coordinator(aws).start()


async def test_a_queue_or_group_that_is_not_there_is_told_at_the_start(account: Account) -> None:
    with pytest.raises(InboxUnavailable, match="get_queue_attributes"):
        await account.coordinator(AwsConfig(inbox_queue_url=account.queue_url + "x")).start()
    wrong = AwsConfig(inbox_queue_url=account.queue_url, wakeup_schedule_group="nothing", wakeup_role_arn=ROLE)
    with pytest.raises(WakeupsUnavailable, match="nothing does not exist"):
        await account.coordinator(wrong).start()
