"""The listeners: HTTP/2 with prior knowledge beside HTTP/1.1, addresses that cannot be had, closing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import cast

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
import uvloop

from holdfast_runtime.coordinator.front import Success
from holdfast_runtime.surfaces import http1_server, server_http2
from holdfast_runtime.surfaces.asgi import Receive, Scope, Send
from holdfast_runtime.surfaces.server import AddressUnavailable, DualProtocol, HttpServer, Listener, bind, serve
from tests.surfaces.fakes import FakeFront
from tests.surfaces.http import Http

BODY = b"x" * 900_000  # above the windows of both sides
PING_BYTES = 17


class Http2:
    """A client connection: requests by stream, answers collected by stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.statuses: dict[int, dict[str, str]] = {}
        self.bodies: dict[int, bytes] = {}
        self.done: set[int] = set()
        self.h2.initiate_connection()

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    def open(self, method: str, path: str, *headers: tuple[str, str], end: bool = True) -> int:
        stream: int = self.h2.get_next_available_stream_id()
        pseudo = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "x")]
        self.h2.send_headers(stream, [*pseudo, *headers], end_stream=end)
        self.flush()
        return stream

    async def until_done(self, *streams: int) -> None:
        while not self.done.issuperset(streams):
            await self.step()

    async def step(self) -> None:
        data = await asyncio.wait_for(self.reader.read(65536), 60)
        assert data, "the server closed the connection"
        for event in self.h2.receive_data(data):
            match event:
                case h2.events.ResponseReceived():
                    self.statuses[event.stream_id] = dict(event.headers)
                case h2.events.DataReceived():
                    self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case h2.events.StreamEnded() | h2.events.StreamReset():
                    self.done.add(event.stream_id)
        self.flush()

    async def send(self, stream: int, body: bytes) -> None:
        while body:
            size = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size, len(body))
            if size == 0:
                await self.step()
                continue
            self.h2.send_data(stream, body[:size])
            body = body[size:]
            self.flush()
        self.h2.end_stream(stream)
        self.flush()


@pytest.fixture
async def http2(ingress: Http) -> AsyncIterator[Http2]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(ingress.base.rsplit(":", 1)[1].strip("/")))
    yield Http2(reader, writer)
    writer.close()


async def test_http_2_streams_share_a_connection(front: FakeFront, http2: Http2) -> None:
    first = http2.open("GET", "/ApiCounter/a%2Fb/get?x=1", ("x-custom", "v"))
    second = http2.open("GET", "/restate/health")
    third = http2.open("GET", "/ApiNope/greet")
    await http2.until_done(first, second, third)
    assert [http2.statuses[stream][":status"] for stream in (first, second, third)] == ["200", "200", "404"]
    assert http2.bodies[first] == b'"done"'
    assert http2.statuses[first]["x-restate-id"].startswith("inv_1")
    assert "date" in http2.statuses[first]
    invocation = front.asked[0][1]
    assert invocation.target.key == "a/b"
    assert list(invocation.headers) == [("x-restate-ingress-path", "/ApiCounter/a%2Fb/get?x=1"), ("x-custom", "v")]


async def test_bodies_larger_than_the_windows_pass_both_ways(front: FakeFront, http2: Http2) -> None:
    front.outcome = Success(BODY)
    stream = http2.open("POST", "/ApiGreeter/echo", ("content-type", "application/octet-stream"), end=False)
    await http2.send(stream, BODY)
    await http2.until_done(stream)
    assert front.asked[0][1].body == BODY
    assert http2.bodies[stream] == BODY


async def test_a_reset_stream_is_a_caller_that_went_away(front: FakeFront, http2: Http2) -> None:
    front.forever = True
    stream = http2.open("GET", "/ApiGreeter/headers")
    await asyncio.wait_for(front.started.wait(), 60)
    http2.h2.reset_stream(stream)
    http2.flush()
    await asyncio.wait_for(front.cancelled.wait(), 60)


async def test_who_says_goodbye_within_a_request_is_a_caller_that_went_away(
    front: FakeFront, http2: Http2, caplog: pytest.LogCaptureFixture
) -> None:
    http2.open("GET", "/ApiGreeter/headers")
    http2.h2.close_connection()
    http2.flush()
    while await asyncio.wait_for(http2.reader.read(65536), 60):
        pass
    assert len(front.asked) == 1
    assert [record.getMessage() for record in caplog.records if record.name == "holdfast.http2"] == []


async def test_who_stops_sending_is_given_up_and_who_waits_for_a_result_is_not(
    front: FakeFront, http2: Http2, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_http2, "STALLED_S", 0.0)
    monkeypatch.setattr(server_http2, "_LOOK_S", 0.01)
    front.forever = True
    waiting = http2.open("GET", "/ApiGreeter/headers")
    await asyncio.wait_for(front.started.wait(), 60)
    for _ in range(2):  # the second began after the first look
        stalled = http2.open("POST", "/ApiGreeter/echo", ("content-type", "application/octet-stream"), end=False)
        await http2.until_done(stalled)
        assert stalled not in http2.statuses
    assert waiting not in http2.done
    assert not front.cancelled.is_set()


async def test_an_answer_that_is_not_taken_is_given_up(front: FakeFront, http2: Http2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_http2, "STALLED_S", 0.0)
    monkeypatch.setattr(server_http2, "_LOOK_S", 0.01)
    front.outcome = Success(BODY)
    http2.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
    stream = http2.open("GET", "/ApiGreeter/headers")
    await http2.until_done(stream)
    assert (http2.statuses[stream][":status"], http2.bodies) == ("200", {})


async def test_who_pings_and_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unread(asyncio.Transport):
        written = 0
        aborted = False

        def write(self, data: bytes | bytearray | memoryview) -> None:
            self.written += len(data)

        def is_closing(self) -> bool:
            return self.aborted

        def abort(self) -> None:
            self.aborted = True

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("nobody asked")

    client = h2.connection.H2Connection()
    client.initiate_connection()
    monkeypatch.setattr(server_http2, "MAX_OWED", 50 * PING_BYTES)
    transport = Unread()
    protocol = server_http2.Http2Protocol(app, http1_server.Shared(cast(http1_server.DirectApp, app), 75.0), 75.0)
    protocol.connection_made(transport)
    protocol.data_received(client.data_to_send())
    protocol.pause_writing()
    for number in range(51):
        assert not transport.aborted
        before = transport.written
        client.ping(number.to_bytes(8, "big"))
        protocol.data_received(client.data_to_send())
    assert transport.aborted
    assert transport.written == before
    protocol.connection_lost(None)


async def test_the_preface_may_arrive_byte_by_byte(http2: Http2) -> None:
    for byte in http2.h2.data_to_send():
        http2.writer.write(bytes([byte]))
        await http2.writer.drain()
    stream = http2.open("GET", "/restate/health")
    await http2.until_done(stream)
    assert http2.statuses[stream][":status"] == "200"


async def test_garbage_is_answered_and_the_server_lives_on(ingress: Http) -> None:
    for garbage in (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x01\x04\x00\x00\x00\x00",
        b"\x16\x03\x01 hello\r\n\r\n",
        b"PRI nope\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(ingress.base.rsplit(":", 1)[1].strip("/")))
        writer.write(garbage)
        await asyncio.wait_for(reader.read(), 60)
        writer.close()
    assert (await ingress.get("/restate/health")).status == 200


async def test_an_application_is_not_reached_by_heads_without_end(admin: Http) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(admin.base.rsplit(":", 1)[1].strip("/")))
    writer.write(b"GET /health HTTP/1.1\r\nx: ")
    writer.write(b"y" * 200_000)  # no end of it
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
    assert answer.startswith(b"HTTP/1.1 431 ")
    writer.close()
    assert (await admin.get("/health")).status == 200


async def test_who_sends_half_a_head_is_cut_off_and_who_waits_for_an_application_is_not() -> None:
    started, go = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        started.set()
        await go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    server = await serve(app, Listener(grace_s=1))
    assert isinstance(server, HttpServer)
    clients = [await asyncio.open_connection(server.host, server.port) for _ in range(2)]
    (half, half_writer), (waiting, waiting_writer) = clients
    half_writer.write(b"GET / HTTP/1.1\r\nx: y")
    waiting_writer.write(b"GET / HTTP/1.1\r\n\r\n")
    await asyncio.wait_for(started.wait(), 60)
    while len(connections := server._server.server_state.connections) < 2:  # noqa: ASYNC110 - accepted within this loop
        await asyncio.sleep(0.005)
    for connection in list(connections):
        assert isinstance(connection, DualProtocol)
        assert connection._watching is not None
        connection._stalled()  # as after 75 s
    with contextlib.suppress(ConnectionResetError):
        assert await asyncio.wait_for(half.read(), 60) == b""
    go.set()
    assert (await asyncio.wait_for(waiting.readuntil(b"\r\n\r\n"), 60)).startswith(b"HTTP/1.1 200 ")
    for _, writer in clients:
        writer.close()
    await server.close()


def test_an_address_in_use_says_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(AddressUnavailable, match=f"127.0.0.1:{port} is in use by another process"):
            bind(Listener(port=port))
    with pytest.raises(AddressUnavailable, match="is no address of this machine"):
        bind(Listener(host="192.0.2.1"))


async def test_closing_frees_the_port_and_may_be_repeated(front: FakeFront) -> None:
    async def app(scope: object, receive: object, send: object) -> None:
        raise AssertionError

    server = await serve(app, Listener())
    await server.close()
    await server.close()
    bind(Listener(port=server.port)).close()


def test_http_2_works_on_the_event_loop_of_production() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["http_version"].encode()})

    async def ask() -> bytes:
        server = await serve(app, Listener(grace_s=1))
        reader, writer = await asyncio.open_connection(server.host, server.port)
        client = Http2(reader, writer)
        stream = client.open("GET", "/")
        await client.until_done(stream)
        writer.close()
        await server.close()
        return client.bodies[stream]

    assert uvloop.run(asyncio.wait_for(ask(), 60)) == b"2"
