"""The ingress's own HTTP/1.1 listener over raw sockets, on both event loops: what is a request, which answer is next, who is cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvloop

from holdfast_runtime.surfaces import http1_connection
from holdfast_runtime.surfaces.asgi import CallerGone, Receive, Scope, Send
from holdfast_runtime.surfaces.http1_connection import MAX_HEAD_BYTES, MAX_HEADERS
from holdfast_runtime.surfaces.http1_server import Http1Server
from holdfast_runtime.surfaces.ingress_replies import Reply
from holdfast_runtime.surfaces.ingress_request import Request
from holdfast_runtime.surfaces.server import Listener, bind
from tests.surfaces.http import Answer, parse

PLAIN = b"GET /a HTTP/1.1\r\n\r\n"


@pytest.fixture(scope="module", params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy], ids=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> Any:
    return request.param()


class Echo:
    """Answers with what was asked; `/wait...` once `go` is set; `/refuse...` before it has read the body; `/big` at length."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.started = asyncio.Event()
        self.go = asyncio.Event()
        self.ended: list[str] = []

    async def handle(self, request: Request) -> Reply:
        self.asked.append(request)
        self.started.set()
        if request.path.startswith(b"/refuse"):
            return _reply(404, b"refused")
        if request.path == b"/big":
            return _reply(200, b"x" * 20_000_000)
        body = request.body
        try:
            more = not request.complete
            while more:
                piece, more = await request.more()
                body += piece
            if request.path.startswith(b"/wait"):
                await request.waiting(self._wait())
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            return _reply(503, b"cancelled")
        except CallerGone:
            self.ended.append("gone")
            raise
        return _reply(200, b"%b %b?%b %b" % (request.method.encode(), request.path, request.query, body))

    async def _wait(self) -> None:
        await self.go.wait()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("HTTP/2 is not asked for here")


def _reply(status: int, body: bytes) -> Reply:
    return Reply(status, [(b"content-length", b"%d" % len(body))], body)


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, method: str = "GET") -> Answer:
        top = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 60)
        length = parse(top, "HEAD").headers["content-length"]
        return parse(top + (await self.reader.readexactly(int(length)) if method != "HEAD" else b""), method)

    async def closed(self) -> bytes:
        """What was left until the server closed."""
        try:
            return await asyncio.wait_for(self.reader.read(), 60)
        except ConnectionResetError:
            return b""


class Case:
    """A server, its application and clients of it."""

    def __init__(self, *, grace_s: float = 0.3) -> None:
        self.app = Echo()
        self.server = Http1Server(self.app, bind(Listener()), grace_s=grace_s)
        self.clients: list[Client] = []

    async def client(self, data: bytes = b"") -> Client:
        client = Client(*await asyncio.open_connection(self.server.host, self.server.port))
        self.clients.append(client)
        client.send(data)
        return client

    async def ask(self, data: bytes, method: str = "GET") -> Answer:
        return await (await self.client(data)).answer(method)


@pytest.fixture
async def case() -> AsyncIterator[Case]:
    case = Case()
    await case.server.start()
    yield case
    for client in case.clients:
        client.writer.close()
    await case.server.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", *headers, "", ""]).encode()


# ---- Requests

WHOLE = {
    "length": (b"POST /a?b=c HTTP/1.1\r\nContent-Length: 5\r\nX-A: 1\r\nx-a: 2\r\n\r\nhello", b"POST /a?b=c hello"),
    "chunks": (b"PUT /a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3;e=f\r\nhel\r\n2\r\nlo\r\n0\r\nx-t: 1\r\n\r\n", b"PUT /a? hello"),
    "url": (b"GET http://host/a?b HTTP/1.1\r\nhost: host\r\n\r\n", b"GET /a?b "),
    "upgrade": (
        b"POST /a HTTP/1.1\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\ncontent-length: 5\r\n\r\nhello",
        b"POST /a? hello",
    ),
    "upgrade of nothing": (b"GET /a HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", b"GET /a? "),
    "upgrade in chunks": (
        b"POST /a HTTP/1.1\r\nconnection: upgrade\r\nupgrade: h2c\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"POST /a? hello",
    ),
    "begins like HTTP/2": (b"PUT /a HTTP/1.1\r\ncontent-length: 0\r\n\r\n", b"PUT /a? "),
}


@pytest.mark.parametrize("name", WHOLE)
async def test_a_request_may_be_split_anywhere_and_another_follows_it(case: Case, name: str) -> None:
    request, expected = WHOLE[name]
    client = await case.client()
    for at in range(1, len(request)):
        client.send(request[:at])
        await client.writer.drain()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        client.send(request[at:])
        assert (await client.answer()).body == expected, at
    for byte in request:
        client.send(bytes([byte]))
        await asyncio.sleep(0)
    client.send(request + request)
    assert [(await client.answer()).body for _ in range(3)] == [expected] * 3


async def test_of_repeated_headers_the_first_counts_and_names_are_lower_case(case: Case) -> None:
    await case.ask(get("/a", "X-A: 1", "x-b: 3", "X-B: 4", "x-a: 2", "x-a: 5"))
    assert case.app.asked[0].headers == {b"x-a": b"1", b"x-b": b"3"}


async def test_trailers_are_no_headers(case: Case) -> None:
    client = await case.client(WHOLE["chunks"][0] + get("/b", "x-own: 1"))
    await client.answer()
    await client.answer()
    assert case.app.asked[1].headers == {b"x-own": b"1"}
    assert b"x-t" not in case.app.asked[0].headers


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01 hello\r\n\r\n",
        b"PRI nope\r\n\r\n",
        b"NOPE /a HTTP/1.1\r\n\r\n",
        b"GET /\xc3\xa9 HTTP/1.1\r\n\r\n",
        b"GET /a HTTP/1.1\r\nX : y\r\n\r\n",
        b"GET /a HTTP/1.1\r\nX: y\r\n folded\r\n\r\n",
        b"CONNECT host:80 HTTP/1.1\r\n\r\n",
        b"POST /a HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST /a HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n",
        b"POST /a HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nnope\r\n",
        b"POST /a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\nnope\r\n",
    ],
)
async def test_what_is_not_http_gets_a_plain_400_and_the_end(case: Case, garbage: bytes) -> None:
    client = await case.client(garbage)
    answer = await client.answer()
    assert (answer.status, answer.headers["connection"]) == (400, "close")
    assert answer.headers["content-type"].startswith("text/plain")
    assert await client.closed() == b""


async def test_garbage_behind_a_request_waits_for_its_answer(case: Case) -> None:
    client = await case.client(get("/wait") + b"nope\r\n\r\n")
    await case.app.started.wait()
    case.app.go.set()
    assert [(await client.answer()).status for _ in range(2)] == [200, 400]
    assert await client.closed() == b""


@pytest.mark.parametrize(
    "head",
    [
        get("/a", *(f"x-{number}: 1" for number in range(MAX_HEADERS + 1))),
        get("/a", "x: " + "y" * MAX_HEAD_BYTES),
        get("/" + "y" * MAX_HEAD_BYTES),
        b"GET /a HTTP/1.1\r\nx: " + b"y" * (MAX_HEAD_BYTES + 1),
        b"POST /a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: " + b"y" * (8 * MAX_HEAD_BYTES),
    ],
    ids=["count", "size", "path", "endless", "trailer"],
)
async def test_too_many_and_too_large_headers_get_a_431(case: Case, head: bytes) -> None:
    client = await case.client(head)
    assert (await client.answer()).status == 431
    await client.closed()


async def test_as_many_headers_as_allowed_pass(case: Case) -> None:
    headers = [f"x-{number}: {'y' * 400}" for number in range(MAX_HEADERS)]
    assert (await case.ask(get("/a", *headers))).status == 200


# ---- Answers


async def test_a_head_has_the_length_and_no_body(case: Case) -> None:
    client = await case.client(b"HEAD /abc HTTP/1.1\r\n\r\n" + PLAIN)
    answer = await client.answer("HEAD")
    assert answer.headers["content-length"] == str(len(b"HEAD /abc? "))
    assert "date" in answer.headers
    assert (await client.answer()).body == b"GET /a? "


@pytest.mark.parametrize(
    ("head", "told", "closes"),
    [
        (b"GET /a HTTP/1.1\r\n\r\n", None, False),
        (b"GET /a HTTP/1.1\r\nconnection: close\r\n\r\n", "close", True),
        (b"GET /a HTTP/1.0\r\n\r\n", "close", True),
        (b"GET /a HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", "keep-alive", False),
    ],
)
async def test_who_keeps_the_connection(case: Case, head: bytes, told: str | None, closes: bool) -> None:
    client = await case.client(head)
    assert (await client.answer()).headers.get("connection") == told
    if closes:
        assert await client.closed() == b""
    else:
        client.send(PLAIN)
        assert (await client.answer()).status == 200


async def test_pipelined_requests_are_served_one_after_the_other(case: Case) -> None:
    client = await case.client(get("/wait/1") + b"".join(get(f"/{number}") for number in range(2, 500)))
    await case.app.started.wait()
    assert len(case.app.asked) == 1
    case.app.go.set()
    assert (await client.answer()).body == b"GET /wait/1? "
    for number in range(2, 500):
        assert (await client.answer()).body == f"GET /{number}? ".encode()
    client.send(PLAIN)
    assert (await client.answer()).status == 200


async def test_a_body_is_asked_for_when_it_is_wanted(case: Case) -> None:
    head = "POST {} HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n"
    client = await case.client(head.format("/a").encode())
    assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"ab")
    assert (await client.answer()).body == b"POST /a? ab"
    client.send(head.format("/refuse").encode())
    refused = await client.answer()
    assert (refused.status, refused.headers["connection"]) == (404, "close")
    assert await client.closed() == b""


async def test_a_refused_body_is_read_to_its_end_and_the_next_request_served(case: Case) -> None:
    client = await case.client(b"POST /refuse HTTP/1.1\r\ncontent-length: 3000000\r\n\r\n" + b"x" * 1_000_000)
    assert (await client.answer()).status == 404
    client.send(b"x" * 2_000_000 + PLAIN)
    assert (await client.answer()).body == b"GET /a? "


async def test_an_unwanted_body_without_end_is_cut_off(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1_connection, "MAX_UNWANTED", 100_000)
    client = await case.client(b"POST /refuse HTTP/1.1\r\ncontent-length: 3000000\r\n\r\n")
    await client.answer()
    client.send(b"x" * 200_000)
    assert await client.closed() == b""


async def test_a_large_answer_waits_for_its_reader_and_so_does_the_next_request(case: Case) -> None:
    client = await case.client(get("/big") + get("/after"))
    await case.app.started.wait()
    for _ in range(20):  # rounds of the loop in which it could go wrong
        await asyncio.sleep(0)
    assert [request.path for request in case.app.asked] == [b"/big"]
    assert len((await client.answer()).body) == 20_000_000
    assert (await client.answer()).body == b"GET /after? "


# ---- Ends


async def test_a_caller_that_goes_away_ends_the_waiting(case: Case) -> None:
    client = await case.client(get("/wait"))
    await case.app.started.wait()
    client.writer.close()
    await until(lambda: case.app.ended == ["cancelled"])


async def test_a_caller_that_goes_away_within_its_body_is_gone(case: Case) -> None:
    client = await case.client(b"POST /a HTTP/1.1\r\ncontent-length: 3\r\n\r\nx")
    await case.app.started.wait()
    client.writer.close()
    await until(lambda: case.app.ended == ["gone"])


async def test_who_sends_and_leaves_at_once_is_served_all_the_same(case: Case) -> None:
    client = await case.client(get("/a"))
    client.writer.close()
    await until(lambda: len(case.app.asked) == 1)


async def test_stalled_and_idle_connections_are_closed_by_the_sweep(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.server._shared.idle_s = 1
    monkeypatch.setattr(http1_connection, "STALLED_S", 1)
    idle, half_a_head, waiting = await case.client(PLAIN), await case.client(b"GET /a HT"), await case.client(get("/wait"))
    half_a_body = await case.client(b"POST /a HTTP/1.1\r\ncontent-length: 3\r\n\r\nx")
    assert (await idle.answer()).status == 200
    assert await idle.closed() == b""
    for stalled in (half_a_head, half_a_body):
        assert (await stalled.answer()).status == 408
        assert await stalled.closed() == b""
    case.app.go.set()
    assert (await waiting.answer()).status == 200


async def test_a_head_that_comes_byte_by_byte_has_no_longer_than_one_that_stops(case: Case) -> None:
    case.server._tick_timer.cancel()  # type: ignore[union-attr]  # time passes here only
    shared = case.server._shared
    client = await case.client(b"GET /a HTTP/1.1\r\nx-slow: 1")
    await until(lambda: len(shared.connections) == 1)
    (connection,) = shared.connections
    await until(lambda: connection._fed > 0)
    for _ in range(2):
        fed = connection._fed
        shared.ticks += http1_connection.STALLED_S
        client.send(b"1")
        await until(lambda before=fed: connection._fed > before)  # type: ignore[misc]
        connection.tick(shared.ticks)
    answer = await client.answer()
    assert (answer.status, answer.body) == (408, b"the request's headers did not arrive within 60 s")


async def test_an_answer_nobody_reads_is_given_up(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1_connection, "STALLED_S", 1)
    client = await case.client(get("/big"))
    await case.app.started.wait()
    await until(lambda: not case.server._shared.connections)
    client.writer.transport.abort()


async def test_closing_lets_what_has_begun_end() -> None:
    case = Case(grace_s=60)
    await case.server.start()
    idle, waiting = await case.client(PLAIN), await case.client(get("/wait"))
    await idle.answer()
    await until(lambda: len(case.app.asked) == 2)
    closing = asyncio.create_task(case.server.close())
    assert await idle.closed() == b""
    case.app.go.set()
    answer = await waiting.answer()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await waiting.closed() == b""
    await closing
    with pytest.raises(ConnectionRefusedError):
        await case.client()
    bind(Listener(port=case.server.port)).close()


async def test_after_the_grace_the_rest_is_told_and_dropped(case: Case) -> None:
    waiting, half, deaf = await case.client(get("/wait")), await case.client(b"GET /a HT"), await case.client(get("/big"))
    await until(lambda: len(case.app.asked) == 2)
    await asyncio.wait_for(case.server.close(), 60)
    assert (await waiting.answer()).status == 503
    assert await half.closed() == b""
    assert len(await deaf.closed()) < 20_000_000
    await case.server.close()
