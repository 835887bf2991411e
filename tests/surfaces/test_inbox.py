"""The inbox queue drained by a real coordinator: SQS as moto emulates it, messages of ours and events of other services."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any, cast
from unittest.mock import ANY

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st

import holdfast
from holdfast.endpoint import Endpoint
from holdfast.protocol.ids import awakeable_id, idempotent_id
from holdfast_runtime.adapters.sqs import SqsInbox, postponed_s
from holdfast_runtime.adapters.system import SystemClock
from holdfast_runtime.app.runtime import Runtime, RuntimeConfig
from holdfast_runtime.coordinator.front import (
    CoordinatorUnavailable,
    Front,
    InvocationFilter,
    NewInvocation,
    NotFound,
    NotReady,
    Success,
    Target,
)
from holdfast_runtime.ports import inbox
from holdfast_runtime.ports.inbox import Event, InboxUnavailable, Invoke, MessageMalformed, Register, Reject, Resolve, Wake
from holdfast_runtime.surfaces.inbox import InboxDrain
from holdfast_runtime.surfaces.server import Listener
from tests.support.dynamodb import aws_at, moto_url  # noqa: F401
from tests.support.sqs import HurriedInbox

BOUND_S = 240.0
BUCKET_EVENT = {"holdfast.event": "s3:uploads/in/*", "holdfast.event.key": "s3.object.key"}

ledger = holdfast.VirtualObject("Ledger")
desk = holdfast.Service("Desk")
SEEN: list[Any] = []


@ledger.handler()
async def add(ctx: holdfast.ObjectContext, by: int) -> int:
    total = (await ctx.get("total", int) or 0) + by
    ctx.set("total", total)
    return total


@ledger.handler(metadata={"holdfast.event": "events:shop/OrderPlaced", "holdfast.event.key": "detail.customer"})
async def order(ctx: holdfast.ObjectContext, event: dict[str, Any]) -> int:
    total: int = (await ctx.get("orders", int) or 0) + 1
    ctx.set("orders", total)
    return total


@ledger.handler(metadata=BUCKET_EVENT)
async def uploaded(ctx: holdfast.ObjectContext, record: dict[str, Any]) -> str:
    ctx.set("size", record["s3"]["object"]["size"])
    return str(record["s3"]["object"]["key"])


@desk.handler(metadata={"holdfast.event": "sns:alarms"})
async def alarm(ctx: holdfast.Context, message: Any) -> Any:
    SEEN.append(message)
    return message


@desk.handler()
async def wait(ctx: holdfast.Context, key: str) -> str:
    awakeable = ctx.awakeable(str)
    SEEN.append((key, awakeable.id))
    return await awakeable


class Queue:
    """One queue with its dead-letter queue, as a sender and an operator see them."""

    def __init__(self, moto: str) -> None:
        self.client = boto3.client("sqs", endpoint_url=moto)
        name = "inbox-" + uuid.uuid4().hex[:8]
        self.dead = self.client.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
        arn = self.client.get_queue_attributes(QueueUrl=self.dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 2})
        self.url = self.client.create_queue(QueueName=name, Attributes={"RedrivePolicy": redrive})["QueueUrl"]

    def send(self, body: str, **attributes: str) -> None:
        typed = {name.replace("_", "-"): {"DataType": "String", "StringValue": value} for name, value in attributes.items()}
        self.client.send_message(QueueUrl=self.url, MessageBody=body, MessageAttributes=typed)

    def left(self, url: str) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.client.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return sum(int(count) for count in found.values())


@pytest.fixture
def queue(moto_url: str) -> Iterator[Queue]:  # noqa: F811
    with aws_at(sqs=moto_url):
        yield Queue(moto_url)


class World:
    def __init__(self, runtime: Runtime, drain: InboxDrain, sqs: SqsInbox, queue: Queue) -> None:
        self.runtime = runtime
        self.front = runtime.coordinator
        self.drain = drain
        self.sqs = sqs
        self.queue = queue

    async def state(self, key: str, name: str) -> int:
        return int((await self.front.state("Ledger", key)).get(name, b"0"))

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(BOUND_S):
            while not await condition():  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def until_drained(self) -> None:
        async def drained() -> bool:
            return await asyncio.to_thread(self.queue.left, self.queue.url) == 0

        await self.until(drained)


@pytest.fixture
async def world(queue: Queue) -> AsyncIterator[World]:
    SEEN.clear()
    runtime = Runtime(RuntimeConfig(None, Listener(port=0), Listener(port=0), shards=2))
    await runtime.start({"app": Endpoint([ledger, desk]).handle})
    sqs = HurriedInbox(queue.url)
    await sqs.open()
    drain = InboxDrain(runtime.coordinator, sqs, SystemClock())
    drain.start()
    yield World(runtime, drain, sqs, queue)
    await drain.close()
    await sqs.close()
    await runtime.stop()


def addition(number: int, *, key: str = "alice", by: int = 5, **more: Any) -> Invoke:
    id_ = str(idempotent_id("Ledger", "add", f"n-{number}", key))
    headers = [("content-type", "application/json")]
    return Invoke(id_, "Ledger", "add", key, headers, str(by).encode(), idempotency_key=f"n-{number}", **more)


async def test_an_invocation_is_accepted_once_however_often_its_message_comes(world: World) -> None:
    for _ in range(3):
        await world.sqs.put(addition(1))
    await world.until_drained()

    async def added() -> bool:
        return await world.state("alice", "total") == 5

    await world.until(added)
    assert world.drain.counts["accepted"] >= 3


async def test_a_random_id_runs_once_too(world: World) -> None:
    random = world.front.mint(_new_addition())
    message = Invoke(str(random), "Ledger", "add", "bob", [("content-type", "application/json")], b"7")
    for _ in range(3):
        await world.sqs.put(message)
        await world.until_drained()
    assert await world.front.attach(random) == Success(b"7", expires_at_ms=ANY, target=ANY)
    assert await world.state("bob", "total") == 7


async def test_a_delayed_invocation_waits_for_its_time(world: World) -> None:
    later = SystemClock().now_ms() + 3_600_000
    message = addition(2, key="carol", execute_at_ms=later)
    await world.sqs.put(message)
    await world.until_drained()
    rows = await world.front.list_invocations(_filter("carol"))
    assert [row["status"] for row in rows] == ["scheduled"]


async def test_awakeables_are_resolved_and_rejected(world: World) -> None:
    ids = {}
    for key in ("good", "bad"):
        id_ = idempotent_id("Desk", "wait", key)
        ids[key] = id_
        await world.sqs.put(Invoke(str(id_), "Desk", "wait", None, [], f'"{key}"'.encode(), idempotency_key=key))

    async def both_wait() -> bool:
        return len(SEEN) == 2 and all([isinstance(await world.front.output(id_), NotReady) for id_ in ids.values()])

    await world.until(both_wait)
    names = dict(SEEN)
    await world.sqs.put(Resolve(names["good"], b'"yes"'))
    await world.sqs.put(Reject(names["bad"], "no"))
    good, bad = await world.front.attach(ids["good"]), await world.front.attach(ids["bad"])
    assert isinstance(good, Success)
    assert good.value == b'"yes"'
    assert getattr(bad, "message", None) == "no"


async def test_a_wake_up_is_consumed(world: World) -> None:
    await world.sqs.put(Wake(0, 480_000, 0))
    await world.until_drained()


def placed(id_: str, customer: str) -> str:
    return json.dumps({"version": "0", "id": id_, "source": "shop", "detail-type": "OrderPlaced", "detail": {"customer": customer}})


async def test_an_event_of_a_rule_is_handled_once_per_event(world: World) -> None:
    for id_ in ("e1", "e1", "e2"):
        world.queue.send(placed(id_, "dave"))
    await world.until_drained()

    async def twice() -> bool:
        return await world.state("dave", "orders") == 2

    await world.until(twice)


async def test_an_uploaded_object_is_handled_by_the_handler_that_asks_for_it(world: World) -> None:
    record = {
        "eventSource": "aws:s3",
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": "uploads"}, "object": {"key": "in/a+b%C3%A9.csv", "size": 3, "sequencer": "0055"}},
    }
    world.queue.send(json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "uploads"}))
    world.queue.send(json.dumps({"Records": [record]}))
    await world.until_drained()

    async def stored() -> bool:
        return await world.state("in/a+b%C3%A9.csv", "size") == 3

    await world.until(stored)


async def test_a_message_of_a_topic(world: World) -> None:
    envelope = {"Type": "Notification", "MessageId": "m-1", "TopicArn": "arn:aws:sns:us-east-1:1:alarms", "Message": '{"level": 3}'}
    world.queue.send(json.dumps(envelope))
    world.queue.send(json.dumps({**envelope, "MessageId": "m-2", "Message": "plain"}))
    await world.until_drained()

    async def seen() -> bool:
        return {"level": 3} in SEEN and "plain" in SEEN

    await world.until(seen)


async def test_a_message_that_names_its_target_in_attributes(world: World) -> None:
    world.queue.send("11", holdfast_service="Ledger", holdfast_handler="add", holdfast_key="erin", holdfast_id="x-1")
    world.queue.send("11", holdfast_service="Ledger", holdfast_handler="add", holdfast_key="erin", holdfast_id="x-1")
    await world.until_drained()

    async def once() -> bool:
        return await world.state("erin", "total") == 11

    await world.until(once)


def _to_ledger(**members: Any) -> str:
    id_ = str(idempotent_id("Ledger", "add", "poison", "alice"))
    return json.dumps({"holdfast": 1, "invoke": {"id": id_, "service": "Ledger", "handler": "add", "key": "alice", "body": "", **members}})


POISON = [
    "not json",
    "[]",
    '{"a": 1}',
    '{"holdfast": 2, "wake": {}}',
    '{"holdfast": 1}',
    '{"holdfast": 1, "invoke": {"id": "inv_1x", "service": "Ledger", "handler": "add", "key": "k", "body": ""}}',
    '{"holdfast": 1, "event": {"id": "1", "service": "Nobody", "handler": "add", "body": 1}}',
    '{"holdfast": 1, "event": {"id": "1", "service": "Ledger", "handler": "add", "body": 1}}',
    '{"holdfast": 1, "resolve": {"awakeable": "sign_1", "value": ""}}',
    '{"holdfast": 1, "register": {"arn": "arn:aws:lambda:us-east-1:1:function:unqualified"}}',
    '{"holdfast": 1, "register": {"uri": "http://169.254.169.254/"}}',
    '{"id": "1", "source": "other", "detail-type": "Unknown", "detail": {}}',
    placed("e9", "x").replace('"customer"', '"costumer"'),
    placed("e10", "\ud800"),
    placed("e11", "k" * 400_000),
    json.dumps({"holdfast": 1, "reject": {"awakeable": awakeable_id(idempotent_id("Desk", "wait", "x"), 17), "message": "m" * 400_000}}),
    _to_ledger(execute_at=2**64),
    _to_ledger(idempotency_key="\ud800"),
    _to_ledger(headers=[["a", "h" * 400_000]]),
]


async def test_poison_goes_to_the_dead_letter_queue_and_blocks_nobody(world: World, caplog: pytest.LogCaptureFixture) -> None:
    for body in POISON:
        world.queue.send(body)
    await world.sqs.put(addition(3, key="frank"))

    async def added() -> bool:
        return await world.state("frank", "total") == 5

    await world.until(added)

    async def all_dead() -> bool:
        return await asyncio.to_thread(world.queue.left, world.queue.dead) == len(POISON)

    await world.until(all_dead)
    assert "inbox.broken" not in caplog.text
    assert world.runtime.metrics.shards_lost == 0
    assert world.drain.counts["failed"] == 0
    refused = [record for record in caplog.records if record.message == "inbox.refused"]
    assert all(getattr(record, "reason", "") for record in refused)


async def test_a_registration_that_nobody_waits_for_any_more_is_not_made(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever asked has gone back to the former version. In time this one would be refused, for its ARN."""
    arn = "arn:aws:lambda:us-east-1:123456789012:function:unqualified"
    await world.sqs.put(Register(arn, until_ms=SystemClock().now_ms() - 1))
    await world.until_drained()
    assert "inbox.late" in [record.message for record in caplog.records]
    assert world.queue.left(world.queue.dead) == world.drain.counts["refused"] == 0


async def test_an_outage_does_not_use_up_the_receives_of_a_message(queue: Queue) -> None:
    """The queue of these tests allows two. Hidden for more than a second, its message is not received a third time."""
    told: list[int] = []

    class Watched(SqsInbox):
        async def _call(self, operation: str, **parameters: Any) -> Any:
            if operation == "receive_message":
                parameters |= {"WaitTimeSeconds": 1}
            answer = await super()._call(operation, **parameters)
            if operation == "change_message_visibility_batch":
                told.extend(entry["VisibilityTimeout"] for entry in parameters["Entries"])
                assert len(answer["Successful"]) == len(parameters["Entries"])
            return answer

    class Down:
        @property
        def registry(self) -> Any:
            raise CoordinatorUnavailable("no owner of shard 1 answered within 30 s", retry_safe=True)

    sqs = Watched(queue.url)
    await sqs.open()
    for number in range(3):
        await sqs.put(addition(number))
    drain = InboxDrain(cast(Front, Down()), sqs, SystemClock())
    drain.start()
    async with asyncio.timeout(BOUND_S):
        while len(told) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await drain.close()
    await sqs.close()
    assert told == [120, 120, 120]
    assert await asyncio.to_thread(queue.left, queue.url) == 3
    assert [postponed_s(deliveries) for deliveries in (1, 2, 3, 4, 5, 1000)] == [120, 240, 480, 600, 600, 600]


async def test_a_queue_that_is_not_there(queue: Queue, moto_url: str) -> None:  # noqa: F811
    sqs = SqsInbox(f"{moto_url}/123456789012/nothing")
    with pytest.raises(InboxUnavailable, match="inbox queue"):
        await sqs.open()
    await sqs.close()


async def test_a_queue_of_another_endpoint_needs_the_region_alone(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    sqs = SqsInbox(queue.url)
    await sqs.open()
    await sqs.close()
    monkeypatch.delenv("AWS_REGION")
    with pytest.raises(InboxUnavailable, match=r"You must specify a region\. Correct AWS_REGION"):
        await SqsInbox(queue.url).open()


async def test_an_unknown_invocation_stays_unknown(world: World) -> None:
    assert isinstance(await world.front.attach(idempotent_id("Ledger", "add", "never", "k")), NotFound)


# ---- The format

MESSAGES = [
    addition(1, execute_at_ms=5),
    Invoke("inv_1x", "S", "h", None, [], b"\0\xff"),
    Resolve("sign_1x", b"{}"),
    Reject("sign_1x", "why"),
    Wake(1, 2, 3),
    Register("arn:aws:lambda:eu-central-1:123456789012:function:f:1", None, True),
    Register("arn:aws:lambda:eu-central-1:123456789012:function:f:1", "arn:aws:iam::123456789012:role/r", concurrency=5),
    Register("arn:aws:lambda:eu-central-1:123456789012:function:f:1", until_ms=1_767_225_600_000),
    Event("e", "S", "h", "k", {"a": [1, None]}),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_survives_the_queue(message: inbox.InboxMessage) -> None:
    assert inbox.decode(json.loads(inbox.encode(message))) == message


def test_a_message_that_is_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match="holds at most"):
        inbox.encode(Resolve("sign_1x", bytes(inbox.MAX_MESSAGE_BYTES)))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "service", "body", "key", "headers", "x"]), inner),
    max_leaves=8,
)


@given(st.sampled_from(["invoke", "resolve", "reject", "wake", "register", "event", "other"]), _JSON)
def test_anything_that_claims_to_be_ours_is_read_or_refused(kind: str, content: Any) -> None:
    with suppress(MessageMalformed):
        assert inbox.decode({"holdfast": 1, kind: content}) is not None


def _new_addition() -> Any:
    return NewInvocation(Target("Ledger", "add", "bob"), b"7", [])


def _filter(key: str) -> Any:
    return InvocationFilter(key=key)
