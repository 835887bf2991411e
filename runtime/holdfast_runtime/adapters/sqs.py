"""The inbox queue on SQS (port `Inbox`).

Long polls of 20 s, ten messages at a time (both the most that SQS allows). Credentials, region and endpoint come from the environment,
`AWS_ENDPOINT_URL_SQS` included; the region of the queue's URL wins, because a queue answers only there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from holdfast_runtime.adapters.aws_access import REGION_VARIABLE
from holdfast_runtime.ports import inbox
from holdfast_runtime.ports.inbox import InboxMessage, InboxUnavailable, Received

WAIT_S: Final = 20
BATCH: Final = 10
READ_TIMEOUT_S: Final = WAIT_S + 10
HIDDEN_S: Final = 60  # from others, while a message is accepted; a coordinator gives up after 30 s
MAX_POSTPONED_S: Final = 600
_REGION: Final = re.compile(r"sqs[.-]([a-z0-9-]+)\.amazonaws\.")


class SqsInbox:
    """`open` first. Methods raise InboxUnavailable."""

    def __init__(self, queue_url: str) -> None:
        self._url = queue_url
        self._closing = AsyncExitStack()
        self._client: Any = None
        self.arn = ""  # known once it is open

    async def open(self) -> None:
        """Raises InboxUnavailable when the queue is not there or not ours to use."""
        import aioboto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        found = _REGION.search(self._url)
        config = Config(read_timeout=READ_TIMEOUT_S, connect_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})
        try:
            session = aioboto3.Session()
            region = found.group(1) if found else os.environ.get(REGION_VARIABLE) or session.region_name
            self._client = await self._closing.enter_async_context(session.client("sqs", region_name=region, config=config))
        except (BotoCoreError, ValueError) as problem:  # no region, no such profile; ValueError: an endpoint that is no URL
            raise InboxUnavailable(
                f"the inbox queue {self._url}: {problem} Correct AWS_REGION, AWS_PROFILE or AWS_ENDPOINT_URL_SQS"
            ) from problem
        answer = await self._call("get_queue_attributes", AttributeNames=["QueueArn"])
        self.arn = answer["Attributes"]["QueueArn"]

    async def close(self) -> None:
        await self._closing.aclose()

    async def receive(self) -> Sequence[Received]:
        answer = await self._call(
            "receive_message",
            MaxNumberOfMessages=BATCH,
            WaitTimeSeconds=WAIT_S,
            VisibilityTimeout=HIDDEN_S,
            MessageAttributeNames=["All"],
            AttributeNames=["ApproximateReceiveCount"],
        )
        return [_received(message) for message in answer.get("Messages", ())]

    async def delete(self, messages: Sequence[Received]) -> None:
        for start in range(0, len(messages), BATCH):
            entries = [
                {"Id": str(number), "ReceiptHandle": message.receipt} for number, message in enumerate(messages[start : start + BATCH])
            ]
            await self._call("delete_message_batch", Entries=entries)  # those it lists as failed come again

    async def postpone(self, messages: Sequence[Received]) -> None:
        for start in range(0, len(messages), BATCH):
            entries = [
                {"Id": str(number), "ReceiptHandle": message.receipt, "VisibilityTimeout": postponed_s(message.count)}
                for number, message in enumerate(messages[start : start + BATCH])
            ]
            await self._call("change_message_visibility_batch", Entries=entries)

    async def put(self, message: InboxMessage) -> None:
        await self._call("send_message", MessageBody=inbox.encode(message))

    async def _call(self, operation: str, **parameters: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return await getattr(self._client, operation)(QueueUrl=self._url, **parameters)
        except (BotoCoreError, ClientError) as problem:
            raise InboxUnavailable(f"{operation} on the inbox queue {self._url}: {problem}") from problem


def postponed_s(deliveries: int) -> int:
    """2, 4, 8, 10 minutes: a queue that allows five deliveries gives a message up after 24 minutes without a table, not after five."""
    return int(min(HIDDEN_S * 2.0 ** min(deliveries, 30), MAX_POSTPONED_S))


def _received(message: dict[str, Any]) -> Received:
    attributes = {name: value["StringValue"] for name, value in message.get("MessageAttributes", {}).items() if "StringValue" in value}
    count = int(message.get("Attributes", {}).get("ApproximateReceiveCount", 1))
    return Received(message["MessageId"], message["ReceiptHandle"], message["Body"], attributes, count)
