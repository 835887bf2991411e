"""`Client` and `AsyncClient` against an ingress; request identity between a server and an endpoint."""

import json
from collections.abc import Callable

import httpx
import pytest

from holdfast import AsyncClient, Client, IngressError, TerminalError
from holdfast.identity import SCHEME_HEADER
from tests.conformance.client import until
from tests.sdk.behaviour import async_services, effects, sync_services
from tests.sdk.behaviour.runtimes import Served
from tests.sdk.behaviour.values import MOMENT, Order, Receipt, User


@pytest.fixture
def line(tag: str) -> Callable[[str], str]:
    """What follows the tag and its suffix in the first line noted with them."""
    return lambda suffix: until(lambda: effects.after(tag + suffix), "the line")[0]


def test_a_client_calls_with_types(served: Served, tag: str) -> None:
    client = Client(served.server.ingress_url)
    order = Order("o", ["a"])
    assert client.call(async_services.typed, order) == client.call(sync_services.typed, order) == Receipt(order, 1)
    assert client.call("async/typed", {"id": "o", "items": ["a"]}, returns=Receipt) == Receipt(order, 1)
    assert client.call(sync_services.add, 2, key=f"{tag}/ä b") == 2
    assert client.call(sync_services.count, key=f"{tag}/ä b") == 2
    assert client.call(async_services.binary, b"ab") == b"ba"
    assert client.call("sync/defaulted") == 7
    assert client.call(sync_services.facts, "x", headers={"x-tag": tag}).header == tag


def test_a_client_is_told_who_failed(served: Served) -> None:
    client = Client(served.server.ingress_url)
    for refused in (async_services.refused, sync_services.refused):
        with pytest.raises(TerminalError, match="never") as failure:
            client.call(refused, "x")
        assert (failure.value.code, failure.value.metadata) == (418, {"why": "tea"})
    with pytest.raises(TerminalError, match="missing items"):
        client.call("sync/typed", {"id": "o"})
    with pytest.raises(IngressError, match="'nobody' not found"):
        client.call("nobody/here")
    with pytest.raises(IngressError) as hidden:
        client.call(async_services.hidden)
    assert 400 <= hidden.value.status < 500


def test_a_client_sends_attaches_and_answers_awakeables(served: Served, tag: str, line: Callable[[str], str]) -> None:
    client = Client(served.server.ingress_url)
    sent = client.send(async_services.answered, tag, idempotency_key=tag)
    assert client.send(async_services.answered, tag, idempotency_key=tag)[:2] == (sent.invocation_id, True)
    with pytest.raises(IngressError) as early:
        client.output(sent)
    assert early.value.status == 470
    client.resolve_awakeable(line(""), Order("o", []))
    assert client.attach(sent) == client.output(sent) == client.attach(sent.invocation_id, Order) == Order("o", [])
    assert client.attach(async_services.answered, idempotency_key=tag) == Order("o", [])
    assert client.output("async/answered", Order, idempotency_key=tag) == Order("o", [])
    rejected = client.send(sync_services.answered, f"{tag}-2", delay=MOMENT)
    client.reject_awakeable(line("-2"), "no")
    with pytest.raises(TerminalError, match="no"):
        client.attach(rejected)
    started = client.send(sync_services.run, User("Ann", 50), key=tag)
    assert client.attach(started) == "Ann expired"
    assert client.send(sync_services.run, User("Bob", 50), key=tag).accepted_before
    assert client.attach(sync_services.run, key=tag) == client.output(sync_services.run, key=tag) == "Ann expired"


async def test_the_async_client(served: Served, tag: str, line: Callable[[str], str]) -> None:
    client = AsyncClient(served.server.ingress_url)
    assert await client.call(async_services.add, 2, key=tag) == 2
    sent = await client.send(async_services.add, 3, key=tag)
    assert await client.attach(sent) == await client.output(sent) == 5
    odd = f"{tag}/ä b"
    assert await client.call(async_services.add, 2, key=odd, idempotency_key=f"{tag}/o d") == 2
    assert await client.output(async_services.add, key=odd, idempotency_key=f"{tag}/o d") == 2
    asked = [await client.send(sync_services.answered, f"{tag}-{n}") for n in range(2)]
    await client.resolve_awakeable(line("-0"), Order("o", []))
    await client.reject_awakeable(line("-1"), "no")
    assert await client.attach(asked[0]) == Order("o", [])
    with pytest.raises(TerminalError, match="no"):
        await client.attach(asked[1])


def test_endpoints_answer_nobody_but_their_server(served: Served) -> None:
    # That they answer their server, which signs, is what every other test here shows.
    invocation = {"content-type": "application/vnd.restate.invocation.v6"}
    service = "sync" if served.kind == "holdfast" else "async"
    answer = httpx.post(f"{served.endpoint_url}/invoke/{service}/steps", headers=invocation)
    assert (answer.status_code, answer.text) == (401, f"{SCHEME_HEADER} must be v1, found None: unsigned requests are refused here")
    assert httpx.get(f"{served.endpoint_url}/discover").status_code == 401
    assert httpx.get(f"{served.endpoint_url}/health").status_code == 200
    event = {"path": "/invoke/any/thing", "httpMethod": "POST", "headers": invocation, "body": "", "isBase64Encoded": True}
    url = f"{served.functions.url}/2015-03-31/functions/{served.function.name}/invocations"
    assert json.loads(httpx.post(url, json=event, timeout=60).content)["statusCode"] == 401
