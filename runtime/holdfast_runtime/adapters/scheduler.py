"""Wake-ups by EventBridge Scheduler (port `Wakeups`).

One one-time schedule per page of far timers, named after shard, hour and page, so that creating it twice is one; it deletes itself after
it fired. Its target is the inbox queue. The Scheduler promises a minute's precision and at least one delivery, and no more is needed:
the timer's page is the truth.

The API takes 250 requests a second for a region and account in most regions and less in some; whoever asks here keeps to its own budget
(`coordinator.far_timers`).
"""

from __future__ import annotations

import hashlib
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from holdfast_runtime.ports import inbox
from holdfast_runtime.ports.inbox import Wake
from holdfast_runtime.ports.system import Clock
from holdfast_runtime.ports.wakeups import WakeupsUnavailable

SOONEST_MS: Final = 60_000  # a schedule has a resolution of a minute, and one for the past may never fire
# A timer may be due in the year 60000, which no date of the API can say. A wake-up that comes early does no harm, and every owner until
# then has arranged it anew.
FARTHEST_MS: Final = 5 * 365 * 86_400_000
# The most that Scheduler allows. A wake-up that is given up while the queue refuses it (a key that was disabled, a policy) would not come
# again.
DELIVERY_ATTEMPTS: Final = 185
DELIVERY_AGE_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class SchedulerTarget:
    """group: of the schedules, exists. queue_arn: the inbox queue. role_arn: what Scheduler assumes to send to it."""

    group: str
    queue_arn: str
    role_arn: str


class SchedulerWakeups:
    """`open` first."""

    def __init__(self, target: SchedulerTarget, clock: Clock) -> None:
        self._target = target
        self._clock = clock
        self._closing = AsyncExitStack()
        self._client: Any = None

    async def open(self) -> None:
        """Raises WakeupsUnavailable when the group is not there."""
        import aioboto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        config = Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 2})
        region = self._target.queue_arn.split(":")[3]  # a schedule sends to queues of its own region only
        try:
            client = aioboto3.Session().client("scheduler", region_name=region, config=config)
            self._client = await self._closing.enter_async_context(client)
        except (BotoCoreError, ValueError) as problem:  # no such profile; ValueError: an endpoint that is no URL
            raise WakeupsUnavailable(f"EventBridge Scheduler: {problem}; correct AWS_PROFILE or AWS_ENDPOINT_URL_SCHEDULER") from problem
        await self._call("get_schedule_group", Name=self._target.group)

    async def close(self) -> None:
        await self._closing.aclose()

    async def arrange(self, wake: Wake, at_ms: int, *, replace: bool) -> None:
        now_ms = self._clock.now_ms()
        at_ms = min(max(at_ms, now_ms + SOONEST_MS), now_ms + FARTHEST_MS)
        instant = datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        name = f"timers-{wake.shard}-{wake.hour}-{wake.page}"
        schedule: dict[str, Any] = {
            "Name": name,
            "GroupName": self._target.group,
            "ScheduleExpression": f"at({instant})",
            "ScheduleExpressionTimezone": "UTC",
            "FlexibleTimeWindow": {"Mode": "OFF"},
            "ActionAfterCompletion": "DELETE",
            "Target": {
                "Arn": self._target.queue_arn,
                "RoleArn": self._target.role_arn,
                "Input": inbox.encode(wake),
                "RetryPolicy": {"MaximumRetryAttempts": DELIVERY_ATTEMPTS, "MaximumEventAgeInSeconds": DELIVERY_AGE_S},
            },
            "ClientToken": hashlib.sha256(f"{name} {instant}".encode()).hexdigest()[:64],  # the same request again is no conflict
        }
        if await self._call("create_schedule", known="ConflictException", **schedule) is None and replace:
            await self._call("update_schedule", **schedule)

    async def _call(self, operation: str, *, known: str | None = None, **parameters: Any) -> Any:
        """The answer; None when it is refused with the error `known`."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return await getattr(self._client, operation)(**parameters)
        except ClientError as problem:
            if problem.response["Error"]["Code"] == known:
                return None
            raise WakeupsUnavailable(f"{operation} of EventBridge Scheduler: {problem}") from problem
        except BotoCoreError as problem:
            raise WakeupsUnavailable(f"{operation} of EventBridge Scheduler: {problem}") from problem
