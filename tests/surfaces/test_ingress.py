"""The ingress: what reaches the coordinator, what the caller sees of its outcome, and which refusal wins."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from holdfast_runtime.coordinator.front import CoordinatorUnavailable, Failed, NewInvocation, Success, Target
from holdfast_runtime.surfaces.asgi import Receive, Scope, Send
from holdfast_runtime.surfaces.ingress import Ingress, IngressSettings
from holdfast_runtime.surfaces.server import Listener, serve
from tests.surfaces.fakes import FakeFront
from tests.surfaces.http import Http, head, parse

JSON = {"content-type": "application/json"}


def last(front: FakeFront) -> NewInvocation:
    invocation = front.asked[-1][1]
    assert isinstance(invocation, NewInvocation)
    return invocation


async def test_a_call_reaches_the_coordinator_with_target_body_and_headers(front: FakeFront, ingress: Http) -> None:
    front.outcome = Success(b'"Hello Ada"')
    answer = await ingress.request("POST", "/ApiGreeter/greet?foo=bar", {**JSON, "X-Custom": "Value", "idempotency-key": "k1"}, b'"Ada"')
    assert (answer.status, answer.body) == (200, b'"Hello Ada"')
    assert answer.headers["x-restate-id"].startswith("inv_1")
    assert answer.headers["content-type"] == "application/json"
    assert "idempotency-expires" not in answer.headers
    invocation = last(front)
    assert invocation.target == Target("ApiGreeter", "greet")
    assert (invocation.body, invocation.idempotency_key, invocation.delay_ms) == (b'"Ada"', "k1", None)
    assert list(invocation.headers) == [
        ("x-restate-ingress-path", "/ApiGreeter/greet?foo=bar"),
        ("content-type", "application/json"),
        ("x-custom", "Value"),
        ("content-length", "5"),
    ]


@pytest.mark.parametrize(
    ("path", "target", "kind"),
    [
        ("/ApiGreeter/headers", Target("ApiGreeter", "headers"), "call"),
        ("/restate/call/ApiGreeter/headers", Target("ApiGreeter", "headers"), "call"),
        ("/ApiGreeter/headers/", Target("ApiGreeter", "headers"), "call"),
        ("/ApiGreeter/headers/send", Target("ApiGreeter", "headers"), "send"),
        ("/restate/send/ApiGreeter/headers", Target("ApiGreeter", "headers"), "send"),
        ("/ApiCounter/k/get", Target("ApiCounter", "get", "k"), "call"),
        ("/ApiCounter/k/get/send", Target("ApiCounter", "get", "k"), "send"),
        ("/ApiCounter//get", Target("ApiCounter", "get", ""), "call"),
        ("/ApiCounter/send/get", Target("ApiCounter", "get", "send"), "call"),
        ("/restate/call/ApiCounter/a%2Fb%20c%C3%A9/get", Target("ApiCounter", "get", "a/b cé"), "call"),
        ("/restate/send/ApiCounter/a+b/get", Target("ApiCounter", "get", "a+b"), "send"),
        ("/ApiFlow/w/stage", Target("ApiFlow", "stage", "w"), "call"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_every_spelling_of_call_and_send(front: FakeFront, ingress: Http, method: str, path: str, target: Target, kind: str) -> None:
    answer = await ingress.request(method, path)
    assert answer.status == (200 if kind == "call" else 202), answer.body
    assert front.asked[-1][0] == kind
    assert last(front).target == target


@pytest.mark.parametrize(
    ("query", "expected"),
    [("", None), ("?delay=2s", 2000), ("?delay=5000", 5000), ("?a=b&delay=1h%2030m", 5_400_000), ("?delay=0s", 0)],
)
async def test_delays_of_sends(front: FakeFront, ingress: Http, query: str, expected: int | None) -> None:
    front.execution_time_ms = 1_795_291_447_669 if expected is not None else None
    answer = await ingress.post(f"/ApiGreeter/greet/send{query}", "Ada")
    assert last(front).delay_ms == expected
    document = answer.json()
    assert document["status"] == "Accepted"
    assert document.get("executionTime") == ("2026-11-21T20:04:07.669000000Z" if expected is not None else None)


# The first refusal of http-api §1.3 wins: each row breaks its rule and, where it can, all later ones.
REFUSALS: Mapping[str, tuple[str, str, Mapping[str, str], bytes, int, str]] = {
    "length": ("DELETE", "/", {"content-length": "2000000", "expect": "100-continue"}, b"", 413, "length limit exceeded"),
    "shape": ("DELETE", "/ApiNope", {}, b"", 400, "bad path: /ApiNope"),
    "segments": ("DELETE", "/a/b/c/d/e/f/g/h", {}, b"", 400, "bad path: /a/b/c/d/e/f/g/h"),
    "service": ("DELETE", "/ApiNope/nope", {}, b"", 404, "service 'ApiNope' not found, make sure to"),
    "key": ("DELETE", "/ApiCounter/nope", {}, b"", 400, "bad path, expected either /:service-name/:handler"),
    "utf-8": ("DELETE", "/ApiCounter/%ff/nope", {}, b"", 400, "bad path, cannot decode key: "),
    "handler": ("DELETE", "/ApiGreeter/nope", {}, b"", 404, "the service 'ApiGreeter' exists, but the handler"),
    "public": ("DELETE", "/ApiPrivate/ping", {}, b"", 400, "the invoked service is not public"),
    "idempotency": ("DELETE", "/ApiFlow/k/run", {"idempotency-key": "i"}, b"", 400, "cannot use the idempotency key"),
    "method": ("DELETE", "/ApiGreeter/greet?delay=x", {}, b"x", 405, "method not allowed"),
    "input": ("POST", "/ApiGreeter/greet?delay=x", {"x": "é"}, b"x", 400, "input validation error: Empty content-type"),
    "delay": ("POST", "/ApiGreeter/headers?delay=x", {"x": "é"}, b"", 400, "bad delay query parameter, must be a ISO8601"),
    "limit key": ("POST", "/ApiGreeter/headers", {"x-restate-limit-key": "a", "x": "é"}, b"", 400, "limit-key requires"),
    "ascii": ("POST", "/ApiGreeter/headers?delay=1s", {"x": "é"}, b"", 400, "bad header x: "),
    "delay on call": ("POST", "/ApiGreeter/headers?delay=1s", {}, b"", 400, "cannot use the delay query parameter"),
}


@pytest.mark.parametrize("rule", REFUSALS)
async def test_the_first_broken_rule_answers(front: FakeFront, ingress: Http, rule: str) -> None:
    method, path, headers, body, status, message = REFUSALS[rule]
    answer = await ingress.request(method, path, headers, body or None)
    assert answer.status == status, answer.body
    assert front.asked == []
    if status == 413:
        assert answer.body == message.encode()
        assert "vary" not in answer.headers
        return
    assert answer.headers["x-restate-error-source"] == "ingress"
    assert answer.json()["code"] == status
    assert answer.json()["source"] == "ingress"
    assert answer.json()["message"].startswith(message)


@pytest.mark.parametrize(
    ("code", "status"),
    [(400, 400), (418, 418), (600, 600), (999, 999), (0, 500), (99, 500), (1000, 500), (65535, 500), (200, 200), (301, 301)],
)
async def test_terminal_errors_choose_the_status(front: FakeFront, ingress: Http, code: int, status: int) -> None:
    front.outcome = Failed(code, "no", {"a": "1"})
    answer = await ingress.get("/ApiGreeter/headers")
    assert answer.status == status
    assert answer.headers["x-restate-error-source"] == "invocation"
    assert answer.json() == {"code": code, "message": "no", "metadata": {"a": "1"}, "source": "invocation"}


async def test_a_204_failure_has_no_body(front: FakeFront, ingress: Http) -> None:
    front.outcome = Failed(204, "gone")
    answer = await ingress.get("/ApiGreeter/headers")
    assert (answer.status, answer.body) == (204, b"")
    assert "content-length" not in answer.headers


@pytest.mark.parametrize(("safe", "hint"), [(True, "safe to retry"), (False, "may run it twice")])
async def test_an_unreachable_coordinator_is_a_503_that_says_whether_to_retry(
    front: FakeFront, ingress: Http, safe: bool, hint: str
) -> None:
    front.outcome = CoordinatorUnavailable("the owner of shard 3 does not answer", retry_safe=safe)
    answer = await ingress.get("/ApiGreeter/headers")
    assert answer.status == 503
    assert answer.json()["source"] == "ingress"
    assert hint in answer.json()["message"]
    assert ("retry-after" in answer.headers) is safe


async def test_our_own_bugs_stay_in_the_log(front: FakeFront, ingress: Http) -> None:
    front.outcome = RuntimeError("secret detail")
    answer = await ingress.get("/ApiGreeter/headers")
    assert answer.status == 500
    assert b"secret" not in answer.body
    assert answer.json()["source"] == "ingress"


async def test_a_chunked_body_over_the_limit_is_refused(front: FakeFront, ingress: Http) -> None:
    chunk = b"40000\r\n" + b"a" * 0x40000 + b"\r\n"
    body = chunk * 5 + b"0\r\n\r\n"
    answer = await ingress.request("POST", "/ApiGreeter/echo", {**JSON, "transfer-encoding": "chunked"}, body)
    assert answer.status == 413
    assert answer.json()["message"] == "cannot read body: length limit exceeded"
    assert front.asked == []


async def test_a_chunked_body_arrives_whole(front: FakeFront, ingress: Http) -> None:
    chunk = b"20000\r\n" + b"a" * 0x20000 + b"\r\n"
    body = chunk * 5 + b"0\r\n\r\n"
    answer = await ingress.request("POST", "/ApiGreeter/echo", {**JSON, "transfer-encoding": "chunked"}, body)
    assert answer.status == 200, answer.body
    assert last(front).body == b"a" * 0x20000 * 5


async def test_a_caller_that_goes_away_stops_the_waiting(front: FakeFront, ingress: Http) -> None:
    front.forever = True
    _, writer = await asyncio.open_connection("127.0.0.1", int(ingress.base.rsplit(":", 1)[1].strip("/")))
    writer.write(head("GET", "/ApiGreeter/headers", {"host": "x"}, None))
    await asyncio.wait_for(front.started.wait(), 60)
    writer.close()
    await asyncio.wait_for(front.cancelled.wait(), 60)


async def test_too_many_requests_at_a_time(front: FakeFront) -> None:
    front.forever = True
    server = await serve(Ingress(front, IngressSettings(max_concurrent=1)), Listener(grace_s=1))
    http = Http(server.url)
    waiting = asyncio.create_task(http.get("/ApiGreeter/headers"))
    await front.started.wait()
    refused = await http.get("/ApiGreeter/headers")
    assert refused.status == 429
    assert refused.json()["message"] == "too many requests, the ingress is overloaded. Retry later."
    closing = asyncio.create_task(server.close())
    told = await waiting
    await closing
    assert told.status == 503  # the grace was over
    assert "shutting down" in told.json()["message"]


async def test_requests_in_flight_are_answered_when_the_server_closes(front: FakeFront) -> None:
    ingress, entered = Ingress(front), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        entered.set()
        await ingress(scope, receive, send)

    server = await serve(app, Listener(grace_s=60))
    reader, writer = await asyncio.open_connection(server.host, server.port)
    request = head("POST", "/ApiGreeter/greet", {"host": "x", **JSON, "content-length": "5"}, b"")
    writer.write(request + b'"A')
    await writer.drain()
    await entered.wait()
    closing = asyncio.create_task(server.close())
    writer.write(b'da"')
    answer = parse(await reader.read())
    await closing
    assert (answer.status, answer.body) == (200, b'"done"')


async def test_pipelined_and_kept_alive_requests_are_answered_in_order(front: FakeFront, ingress: Http) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(ingress.base.rsplit(":", 1)[1].strip("/")))
    writer.write(head("GET", "/ApiGreeter/headers", {"host": "x"}, None) + head("GET", "/restate/health", {"host": "x"}, None))
    first = await reader.readuntil(b'"done"')
    assert first.startswith(b"HTTP/1.1 200")
    second = await reader.readuntil(b"]}")
    assert b'{"services":["ApiGreeter"' in second
    writer.close()


async def test_awakeables_are_completed_by_id(front: FakeFront, ingress: Http) -> None:
    text = "sign_1hSu268_-5e82cEEI46GKvHFL6WedP7u8AAAAEQ"
    resolved = await ingress.post(f"/restate/a/{text}/resolve", {"ok": True})
    assert (resolved.status, resolved.body, resolved.headers["content-length"]) == (202, b"", "0")
    operation, (invocation_id, index, value) = front.asked[-1]
    assert (operation, index, value) == ("resolve", 17, b'{"ok": true}')
    assert str(invocation_id) == "inv_1kAYmJKIpZgV5K884MdgOAowlgG6NwgvR4"
    rejected = await ingress.request("POST", f"/restate/awakeables/{text}/reject", {}, b"because \xff")
    assert rejected.status == 202
    assert front.asked[-1] == ("reject", (invocation_id, 17, "because \ufffd"))


async def test_a_reason_that_the_log_cannot_hold_is_refused(front: FakeFront, ingress: Http) -> None:
    text = "sign_1hSu268_-5e82cEEI46GKvHFL6WedP7u8AAAAEQ"
    asked = len(front.asked)
    rejected = await ingress.request("POST", f"/restate/awakeables/{text}/reject", {}, b"m" * 32_769)
    assert (rejected.status, len(front.asked)) == (413, asked)
    assert rejected.json()["message"] == "the reason of a rejection may have 32768 bytes, found 32769"


async def test_health_and_options_and_head(front: FakeFront, ingress: Http) -> None:
    health = await ingress.get("/restate/health")
    assert set(health.json()["services"]) == {"ApiGreeter", "ApiCounter", "ApiFlow", "ApiPrivate", "ApiTuned"}
    options = await ingress.request("OPTIONS", "/anything", {"origin": "https://a.example"})
    assert (options.status, options.body) == (200, b"")
    assert options.headers["access-control-allow-origin"] == "https://a.example"
    answer = await ingress.request("HEAD", "/ApiGreeter/headers")
    assert answer.status == 405


@pytest.mark.parametrize("body", [b"", b"nope", b"[]", b'{"target":"x"}', b'{"target":"workflow","workflowName":1}', b"\xff"])
async def test_a_lookup_that_does_not_parse_says_so(ingress: Http, body: bytes) -> None:
    answer = await ingress.request("POST", "/restate/lookup", JSON, body)
    assert answer.status == 400
    assert answer.json()["message"].startswith("cannot read body: ")
