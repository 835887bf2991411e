"""The front door as Lambda calls it, over a real table and queue, while no coordinator runs; then one comes back and does the work."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

import boto3
import httpx
import pytest

import holdfast
from holdfast.endpoint import Endpoint
from holdfast.protocol.ids import InvocationId, idempotent_id
from holdfast_runtime.adapters.dynamodb_table import DynamoDbTable
from holdfast_runtime.adapters.system import SystemClock
from holdfast_runtime.app.runtime import Runtime, RuntimeConfig
from holdfast_runtime.coordinator.front import Success
from holdfast_runtime.edge import app as edge
from holdfast_runtime.surfaces.inbox import InboxDrain
from holdfast_runtime.surfaces.server import Listener
from tests.support.dynamodb import aws_at, new_table_name, set_up
from tests.support.sqs import HurriedInbox

BOUND_S = 240.0
JSON = {"content-type": "application/json"}

ledger = holdfast.VirtualObject("Ledger")
desk = holdfast.Service("Desk")
WAITING: list[str] = []


@ledger.handler()
async def add(ctx: holdfast.ObjectContext, by: int) -> int:
    total = (await ctx.get("total", int) or 0) + by
    ctx.set("total", total)
    return total


@desk.handler()
async def large(ctx: holdfast.Context, size: int) -> str:
    return "x" * size


@desk.handler()
async def fail(ctx: holdfast.Context, message: str) -> str:
    raise holdfast.TerminalError(message, code=418)


@desk.handler()
async def approve(ctx: holdfast.Context, text: str) -> str:
    awakeable = ctx.awakeable(str)
    WAITING.append(awakeable.id)
    return text + await awakeable


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def read(answer: dict[str, Any]) -> Answer:
    body = answer["body"]
    content = base64.b64decode(body) if answer.get("isBase64Encoded") else body.encode()
    return Answer(answer["statusCode"], answer["headers"], content)


def http_api(method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None, query: str = "") -> Answer:
    """Through an HTTP API or a function URL: payload format 2.0."""
    event = {
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers or {},
        "requestContext": {"http": {"method": method, "path": path, "sourceIp": "192.0.2.1"}, "stage": "$default"},
        "isBase64Encoded": body is not None,
        **({} if body is None else {"body": base64.b64encode(body).decode()}),
    }
    return read(edge.handler(event, None))


def rest_api(method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None, query: str = "") -> Answer:
    """Through a REST API with a `{proxy+}` route: payload format 1.0."""
    pairs: dict[str, str] | None = dict(parse_qsl(query)) if query else None
    event = {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": method,
        "headers": headers or {},
        "multiValueHeaders": {name: [value] for name, value in (headers or {}).items()},
        "queryStringParameters": pairs,
        "multiValueQueryStringParameters": None if pairs is None else {name: [value] for name, value in pairs.items()},
        "pathParameters": {"proxy": path[1:]},
        "stageVariables": None,
        "requestContext": {"httpMethod": method, "resourcePath": "/{proxy+}", "identity": {"sourceIp": "192.0.2.1"}},
        "body": None if body is None else body.decode(),
        "isBase64Encoded": False,
    }
    return read(edge.handler(event, None))


both = pytest.mark.parametrize("ask", [http_api, rest_api])


class Stack:
    """What the template creates, and a coordinator that is not always there."""

    def __init__(self, table: str, queue_url: str) -> None:
        self.table = table
        self.queue_url = queue_url

    @asynccontextmanager
    async def coordinator(self) -> AsyncIterator[Runtime]:
        runtime = Runtime(RuntimeConfig(DynamoDbTable(self.table), Listener(port=0), Listener(port=0)))
        await runtime.start({"app": Endpoint([ledger, desk]).handle})
        sqs = HurriedInbox(self.queue_url)
        await sqs.open()
        drain = InboxDrain(runtime.coordinator, sqs, SystemClock())
        drain.start()
        try:
            yield runtime
        finally:
            await drain.close()
            await sqs.close()
            await runtime.stop()


@pytest.fixture
def stack(dynamodb_url: str, moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    with aws_at(dynamodb=dynamodb_url, sqs=moto_url):
        table = new_table_name()
        set_up(table, 2)
        queue = boto3.client("sqs").create_queue(QueueName=table)["QueueUrl"]
        monkeypatch.setenv("HOLDFAST_STORE", f"dynamodb://{table}")
        monkeypatch.setenv("HOLDFAST_INBOX_QUEUE_URL", queue)
        WAITING.clear()
        edge._ingress.cache_clear()
        edge._queue.cache_clear()
        yield Stack(table, queue)
        edge._ingress.cache_clear()
        edge._queue.cache_clear()


@pytest.fixture
async def closed(stack: Stack) -> Stack:
    """The services are registered, and every coordinator is gone."""
    async with stack.coordinator():
        pass
    return stack


async def finished(runtime: Runtime, invocation_id: Any) -> Any:
    return await asyncio.wait_for(runtime.coordinator.attach(invocation_id), BOUND_S)


@both
async def test_what_is_sent_while_nobody_is_awake_is_done_when_somebody_is(closed: Stack, ask: Any) -> None:
    first = await asyncio.to_thread(ask, "POST", "/Ledger/alice/add/send", b"5", {**JSON, "idempotency-key": "k1"})
    again = await asyncio.to_thread(ask, "POST", "/Ledger/alice/add/send", b"5", {**JSON, "Idempotency-Key": "k1"})
    assert first.status == again.status == 202
    expected = idempotent_id("Ledger", "add", "k1", "alice")
    assert first.json() == again.json() == {"invocationId": str(expected), "status": "Accepted"}
    unknown = await asyncio.to_thread(ask, "GET", f"/restate/invocation/{expected}/output")
    assert unknown.status == 404
    async with closed.coordinator() as runtime:
        async with asyncio.timeout(BOUND_S):
            while not isinstance(outcome := await runtime.coordinator.output(expected), Success):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert outcome.value == b"5"
    done = await asyncio.to_thread(ask, "GET", f"/restate/invocation/{expected}/output")
    assert (done.status, done.body, done.headers["content-type"]) == (200, b"5", "application/json")


@both
async def test_what_proved_who_calls_is_not_told_to_handlers(closed: Stack, ask: Any) -> None:
    proofs = {"x-api-key": "k", "Authorization": "AWS4-HMAC-SHA256 Credential=a/b", "X-Amz-Security-Token": "t"}
    presigned = "X-Amz-Signature=s1gned&mine=kept&X-Amz-Security-Token=t0ken"
    sent = await asyncio.to_thread(ask, "POST", "/Ledger/proved/add/send", b"1", {**JSON, **proofs, "x-mine": "kept"}, presigned)
    assert sent.status == 202
    (message,) = boto3.client("sqs").receive_message(QueueUrl=closed.queue_url, WaitTimeSeconds=5)["Messages"]
    headers = dict(json.loads(message["Body"])["invoke"]["headers"])
    assert headers["x-restate-ingress-path"] == "/Ledger/proved/add/send?mine=kept"
    names = set(headers)
    assert "x-mine" in names
    assert not names & {"x-api-key", "authorization", "x-amz-security-token"}


async def test_results_of_every_kind_are_read_from_the_table(stack: Stack) -> None:
    async with stack.coordinator() as runtime:
        url = runtime.ingress_url
        large_id, *failed = [
            (await asyncio.to_thread(sent, url, path, body))["invocationId"]
            for path, body in (("Desk/large", b"200000"), *[("Desk/fail", b'"teapot"')] * 4)
        ]
        for text in (large_id, *failed):
            await finished(runtime, InvocationId.parse(text))
    found = boto3.client("dynamodb").scan(TableName=stack.table, ProjectionExpression="pk")["Items"]
    kinds = [item["pk"]["S"][:4] for item in found]
    assert "P#D/" in kinds  # five calls to two shards: some have been packed
    assert kinds.count("P#I/") < 5
    large_output = await asyncio.to_thread(http_api, "GET", f"/restate/output/{large_id}")
    assert large_output.body == b'"' + b"x" * 200_000 + b'"'
    for failed_id in failed:
        failed_output = await asyncio.to_thread(http_api, "GET", f"/restate/output/{failed_id}")
        assert failed_output.status == 418
        assert failed_output.json()["message"] == "teapot"
        assert failed_output.headers["x-restate-error-source"] == "invocation"


def sent(url: str, path: str, body: bytes) -> dict[str, Any]:
    return dict(httpx.post(f"{url}{path}/send", content=body, headers=JSON, timeout=30).raise_for_status().json())


async def test_an_awakeable_is_resolved_while_nobody_is_awake(stack: Stack) -> None:
    async with stack.coordinator() as runtime:
        answer = await asyncio.to_thread(sent, runtime.ingress_url, "Desk/approve", b'"well: "')
        async with asyncio.timeout(BOUND_S):
            while not WAITING:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    resolved = await asyncio.to_thread(http_api, "POST", f"/restate/awakeables/{WAITING[0]}/resolve", b'"yes"', JSON)
    assert (resolved.status, resolved.body) == (202, b"")
    async with stack.coordinator() as runtime:
        outcome = await finished(runtime, InvocationId.parse(answer["invocationId"]))
        assert isinstance(outcome, Success)
        assert outcome.value == b'"well: yes"'


@both
async def test_a_delayed_send_says_when(closed: Stack, ask: Any) -> None:
    answer = await asyncio.to_thread(ask, "POST", "/Ledger/alice/add/send", b"5", JSON, urlencode({"delay": "1h"}))
    assert answer.status == 202
    assert set(answer.json()) == {"invocationId", "executionTime", "status"}


@both
async def test_the_checks_are_those_of_the_ingress(closed: Stack, ask: Any) -> None:
    cases = [
        ("POST", "/Nobody/h/send", 404, "service 'Nobody' not found"),
        ("POST", "/Ledger/k/nothing/send", 404, "the handler 'nothing' was not found"),
        ("POST", "/Ledger/k/add/other", 400, "bad path"),
        ("PUT", "/Ledger/k/add/send", 405, "method not allowed"),
        ("POST", "/Ledger", 400, "bad path"),
        ("POST", "/", 400, "bad path"),
        ("POST", "/a/b/c/d/e/f/g/h/i", 400, "bad path"),
        ("GET", "/restate/invocation/inv_1x/output", 400, "bad invocation id"),
        ("POST", "/Ledger/k/add", 501, "append /send"),
        ("GET", "/restate/attach/" + str(idempotent_id("Ledger", "add", "k", "a")), 501, "nobody waits here"),
    ]
    for method, path, status, message in cases:
        answer = await asyncio.to_thread(ask, method, path, b"5", JSON)
        assert answer.status == status, (path, answer)
        assert message in answer.json()["message"]
        assert answer.json()["source"] == "ingress"


async def test_health_names_the_services(closed: Stack) -> None:
    answer = await asyncio.to_thread(http_api, "GET", "/restate/health")
    assert answer.status == 200
    assert set(answer.json()["services"]) == {"Ledger", "Desk"}


async def test_a_body_that_is_too_large_for_the_queue(closed: Stack) -> None:
    answer = await asyncio.to_thread(http_api, "POST", "/Desk/large/send", b"1" * 800_000, JSON)
    assert answer.status == 413


async def test_a_queue_or_table_that_is_not_there(closed: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_INBOX_QUEUE_URL", closed.queue_url + "-gone")
    answer = await asyncio.to_thread(http_api, "POST", "/Desk/large/send", b"1", JSON)
    assert (answer.status, answer.json()["source"]) == (503, "ingress")
    assert "inbox queue" in answer.json()["message"]
    monkeypatch.setenv("HOLDFAST_STORE", "dynamodb://nothing")
    edge._ingress.cache_clear()
    answer = await asyncio.to_thread(http_api, "POST", "/Desk/large/send", b"1", JSON)
    assert answer.status == 503
    monkeypatch.delenv("HOLDFAST_STORE")
    edge._ingress.cache_clear()
    answer = await asyncio.to_thread(http_api, "POST", "/Desk/large/send", b"1", JSON)
    assert answer.status == 500


async def test_an_output_is_asked_of_the_coordinator_where_there_is_one(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stack.coordinator() as runtime:
        monkeypatch.setenv("HOLDFAST_INGRESS_URL", runtime.ingress_url)
        answer = await asyncio.to_thread(sent, runtime.ingress_url, "Ledger/bob/add", b"7")
        await finished(runtime, InvocationId.parse(answer["invocationId"]))
        fresh = await asyncio.to_thread(http_api, "GET", f"/restate/output/{answer['invocationId']}")
        assert (fresh.status, fresh.body) == (200, b"7")
    later = await asyncio.to_thread(http_api, "GET", f"/restate/output/{answer['invocationId']}")
    assert (later.status, later.body) == (200, b"7")
