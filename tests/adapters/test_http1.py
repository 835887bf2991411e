"""HTTP/1.1: whatever a peer does, the caller gets the response, the broken response, or a clear failure."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from holdfast_runtime.adapters import http_exchange
from holdfast_runtime.adapters.http_endpoint import HttpEndpoint
from holdfast_runtime.adapters.http_exchange import Limits
from holdfast_runtime.ports.endpoint import EndpointFailure, EndpointRequest, HttpAddress, HttpVersion
from tests.adapters.loops import event_loop_policy  # noqa: F401
from tests.adapters.raw_server import Peer, raw_server

CONTENT_TYPE = "application/vnd.restate.invocation.v6"
REQUEST = EndpointRequest("POST", "/invoke/Demo/echo", {"content-type": CONTENT_TYPE}, b"frames")
OK = b"HTTP/1.1 200 OK\r\ncontent-type: " + CONTENT_TYPE.encode() + b"\r\nx-twice: first\r\nX-Twice: second\r\n"
COUNTED = OK + b"content-length: 6\r\n\r\nanswer"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n3\r\nans\r\n3;ext=1\r\nwer\r\n0\r\ntrailer: x\r\n\r\n"


def received(endpoint: HttpEndpoint) -> int:
    """Bytes of the body that have arrived in the one exchange in flight."""
    (origin,) = endpoint._origins.values()
    return sum(connection._body_bytes for connection in origin.h1._busy)


def at(uri: str, **headers: str) -> HttpAddress:
    return HttpAddress(uri, HttpVersion.HTTP_1_1, headers)


@pytest.fixture
async def endpoint() -> AsyncIterator[HttpEndpoint]:
    endpoint = HttpEndpoint()
    yield endpoint
    await endpoint.close()


@pytest.mark.parametrize("answer", [COUNTED, CHUNKED], ids=["counted", "chunked"])
async def test_a_response_split_at_any_position_is_the_same_response(endpoint: HttpEndpoint, answer: bytes) -> None:
    async def script(peer: Peer) -> None:
        for cut in range(1, len(answer)):
            await peer.request()
            await peer.send(answer[:cut], answer[cut:])
        await peer.gone()

    async with raw_server(script) as server:
        for _ in range(1, len(answer)):
            response = await endpoint.request(at(server.uri), REQUEST, timeout_s=60)
            assert (response.status, response.body, response.broken) == (200, b"answer", None)
            assert response.headers["content-type"] == CONTENT_TYPE
            assert response.headers["x-twice"] == "first"
            assert "trailer" not in response.headers
        assert server.connections == 1, "every response was complete, so the connection is reused"


async def test_nothing_is_asked_where_a_name_leads_to_a_forbidden_address_by_now() -> None:
    came: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def script(peer: Peer) -> None:
        try:
            came.set_result(await peer.reader.read(65536))
        except ConnectionError:
            came.set_result(b"")

    endpoint = HttpEndpoint(refuses=lambda address: address == "127.0.0.1")
    async with raw_server(script) as server:
        with pytest.raises(EndpointFailure, match=r"leads to 127\.0\.0\.1, a link-local or metadata address") as failure:
            await endpoint.request(at(server.uri), REQUEST, timeout_s=60)
        assert await came == b""
    assert failure.value.error_code == "RT0006"
    await endpoint.close()


@pytest.mark.parametrize("host", ["a..example", f"{'a' * 64}.example", "a%00b"])
async def test_what_cannot_be_a_name_is_a_clear_failure(endpoint: HttpEndpoint, host: str) -> None:
    with pytest.raises(EndpointFailure, match="connect error: "):
        await endpoint.request(at(f"http://{host.replace('%00', chr(0))}/"), REQUEST, timeout_s=60)


async def test_a_connection_that_is_silent_for_minutes_is_kept_open(endpoint: HttpEndpoint) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(COUNTED)
        await peer.gone()

    async with raw_server(script) as server:
        await endpoint.request(at(server.uri), REQUEST, timeout_s=60)
        (origin,) = endpoint._origins.values()
        (connection,) = origin.h1._idle
        assert connection._transport is not None
        opened = connection._transport.get_extra_info("socket")
        assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) < 350, "NAT gateways forget it then"


async def test_single_bytes_and_informational_responses(endpoint: HttpEndpoint) -> None:
    answer = b"HTTP/1.1 100 Continue\r\nx-twice: no\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + CHUNKED

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(*(bytes([byte]) for byte in answer))
        await peer.gone()

    async with raw_server(script) as server:
        response = await endpoint.request(at(server.uri), REQUEST, timeout_s=60)
    assert (response.status, response.body, response.broken) == (200, b"answer", None)
    assert response.headers["x-twice"] == "first"
    assert "link" not in response.headers


async def test_what_is_sent(endpoint: HttpEndpoint) -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(COUNTED)

    async with raw_server(script) as server:
        uri = f"http://user:p%40ss@127.0.0.1:{server.port}/base/"
        await endpoint.request(at(uri, **{"X-Env": "prod", "content-type": "mine"}), REQUEST, timeout_s=60)
        discover = EndpointRequest("GET", "/discover", {"accept": "x"}, b"")
        await endpoint.request(at(server.uri), discover, timeout_s=60)
        (head, body), (discovery, nothing) = server.requests
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /base/invoke/Demo/echo HTTP/1.1"
    assert lines[1] == f"host: 127.0.0.1:{server.port}"
    assert "x-env: prod" in lines
    assert f"content-type: {CONTENT_TYPE}" in lines
    assert "content-type: mine" not in lines
    assert "authorization: Basic dXNlcjpwQHNz" in lines
    assert "content-length: 6" in lines
    assert body == b"frames"
    assert discovery.startswith(b"GET /discover HTTP/1.1\r\n")
    assert b"content-length" not in discovery
    assert nothing == b""


async def test_a_body_that_ends_with_the_connection(endpoint: HttpEndpoint) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK + b"\r\nans", b"wer")

    async with raw_server(script) as server:
        for _ in range(2):
            response = await endpoint.request(at(server.uri), REQUEST, timeout_s=60)
            assert (response.body, response.broken) == (b"answer", None)
        assert server.connections == 2


async def test_connection_close_is_obeyed(endpoint: HttpEndpoint) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK + b"connection: close\r\ncontent-length: 6\r\n\r\nanswer")
        await peer.gone()

    async with raw_server(script) as server:
        for _ in range(2):
            assert (await endpoint.request(at(server.uri), REQUEST, timeout_s=60)).body == b"answer"
        assert server.connections == 2


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize(
    "partial",
    [OK + b"content-length: 600\r\n\r\nans", OK + b"transfer-encoding: chunked\r\n\r\n3\r\nans\r\n5\r\n"],
    ids=["counted", "chunked"],
)
async def test_a_connection_lost_in_the_body_gives_what_came(endpoint: HttpEndpoint, partial: bytes, reset: bool) -> None:
    first_seen = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(partial)
        await first_seen.wait()
        if reset:
            peer.reset()

    async with raw_server(script) as server:
        pending = asyncio.create_task(endpoint.request(at(server.uri), REQUEST, timeout_s=60))
        await server.asked.wait()
        async with asyncio.timeout(60):
            while received(endpoint) < 3:  # noqa: ASYNC110 - the client does not say what it has read so far
                await asyncio.sleep(0.001)
        first_seen.set()
        response = await pending
    assert (response.status, response.body) == (200, b"ans")
    assert response.broken is not None
    assert "connection was" in response.broken


async def test_a_stale_connection_is_replaced_once(endpoint: HttpEndpoint) -> None:
    """The second connection takes the request, closes; a third is not tried."""

    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number == 0:
            await peer.send(COUNTED)
            await peer.request()  # reused: and the peer dies
            return
        if peer.number == 1:
            await peer.send(COUNTED)
            await peer.request()

    async with raw_server(script) as server:
        assert (await endpoint.request(at(server.uri), REQUEST, timeout_s=60)).body == b"answer"
        assert (await endpoint.request(at(server.uri), REQUEST, timeout_s=60)).body == b"answer"
        assert server.connections == 2
        with pytest.raises(EndpointFailure, match="closed by the peer before a response"):
            await endpoint.request(at(server.uri), REQUEST, timeout_s=60)
        assert server.connections == 3
    assert len(server.requests) == 5


async def test_a_request_somebody_may_work_on_is_not_sent_again(endpoint: HttpEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection was used before, but the request has been under way for longer than a dead connection takes to say so."""
    monkeypatch.setattr("holdfast_runtime.adapters.http_exchange.STALE_WITHIN_S", 0.0)

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(COUNTED)
        await peer.request()

    async with raw_server(script) as server:
        await endpoint.request(at(server.uri), REQUEST, timeout_s=60)
        with pytest.raises(EndpointFailure, match="closed by the peer before a response"):
            await endpoint.request(at(server.uri), REQUEST, timeout_s=60)
    assert len(server.requests) == 2


async def test_a_response_begun_on_a_stale_connection_is_not_asked_for_again(endpoint: HttpEndpoint) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(COUNTED)
        await peer.request()
        await peer.send(b"HTTP/1.1 200")

    async with raw_server(script) as server:
        await endpoint.request(at(server.uri), REQUEST, timeout_s=60)
        with pytest.raises(EndpointFailure, match="middle of the response's headers") as failure:
            await endpoint.request(at(server.uri), REQUEST, timeout_s=60)
    assert failure.value.error_code == "RT0010"
    assert len(server.requests) == 2


async def test_a_hanging_peer_times_out_and_the_connection_is_closed(endpoint: HttpEndpoint) -> None:
    closed = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(COUNTED)
        try:
            await peer.request()
            await peer.send(OK + b"content-length: 600\r\n\r\nans")
            await peer.gone()
        finally:
            closed.set()

    async with raw_server(script) as server:
        await endpoint.request(at(server.uri), REQUEST, timeout_s=60)  # the time is spent in the exchange, not on a connection
        with pytest.raises(EndpointFailure, match=r"within 0\.05 s \(abort timeout\)") as failure:
            await endpoint.request(at(server.uri), REQUEST, timeout_s=0.05)
        assert failure.value.error_code == "RT0001"
        assert server.uri in str(failure.value)
        await asyncio.wait_for(closed.wait(), 60)


async def test_cancelling_closes_the_connection(endpoint: HttpEndpoint) -> None:
    asked, closed = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await peer.gone()
        closed.set()

    async with raw_server(script) as server:
        pending = asyncio.create_task(endpoint.request(at(server.uri), REQUEST, timeout_s=60))
        await asked.wait()
        pending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pending
        await asyncio.wait_for(closed.wait(), 60)


async def test_large_bodies_both_ways_reuse_the_connection(endpoint: HttpEndpoint) -> None:
    big = bytes(range(256)) * 4096 * 6  # 6 MB

    async def script(peer: Peer) -> None:
        while True:
            _, body = await peer.request()
            await peer.send(OK + b"content-length: %d\r\n\r\n" % len(body), body)

    async with raw_server(script) as server:
        for _ in range(2):
            response = await endpoint.request(at(server.uri), EndpointRequest("POST", "/invoke/D/big", {}, big), timeout_s=60)
            assert response.body == big
        assert server.connections == 1


@pytest.mark.parametrize("framing", [b"content-length: 2000\r\n\r\n", b"\r\n"], ids=["announced", "endless"])
async def test_a_response_over_the_limit_fails(framing: bytes) -> None:
    endpoint = HttpEndpoint(limits=Limits(response_bytes=1000))

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK + framing, *([b"x" * 100] * 20))
        await peer.gone()

    async with raw_server(script) as server:
        with pytest.raises(EndpointFailure, match="response is larger than") as failure:
            await endpoint.request(at(server.uri), REQUEST, timeout_s=60)
    await endpoint.close()
    assert failure.value.error_code == "RT0003"


async def test_endless_headers_fail(endpoint: HttpEndpoint) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        while True:
            await peer.send(b"x-more: " + b"y" * 1000 + b"\r\n")

    async with raw_server(script) as server:
        with pytest.raises(EndpointFailure, match="headers are larger than 65536 bytes") as failure:
            await endpoint.request(at(server.uri), REQUEST, timeout_s=60)
    await endpoint.close()
    assert failure.value.error_code == "RT0003"


@pytest.mark.parametrize(
    "garbage",
    [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", b"HTTP/1.1 2x0 OK\r\n\r\n"],
    ids=["ssh", "http2", "status"],
)
async def test_garbage_is_named(endpoint: HttpEndpoint, garbage: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(garbage)
        await peer.gone()

    async with raw_server(script) as server:
        with pytest.raises(EndpointFailure, match=r"does not speak HTTP/1\.1") as failure:
            await endpoint.request(at(server.uri), REQUEST, timeout_s=60)
    assert failure.value.error_code == "RT0012"


async def test_bytes_after_a_response_do_not_become_the_next_one(endpoint: HttpEndpoint) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(COUNTED + b"HTTP/1.1 500 Smuggled\r\ncontent-length: 0\r\n\r\n")
        await peer.gone()

    async with raw_server(script) as server:
        for _ in range(2):
            assert (await endpoint.request(at(server.uri), REQUEST, timeout_s=60)).status == 200
        assert server.connections == 2


async def test_an_answer_before_the_request_was_read_is_taken(endpoint: HttpEndpoint) -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
        await peer.gone()

    async with raw_server(script) as server:
        huge = EndpointRequest("POST", "/invoke/D/big", {}, bytes(16 * 1024 * 1024))
        assert (await endpoint.request(at(server.uri), huge, timeout_s=60)).status == 413
        assert (await endpoint.request(at(server.uri), huge, timeout_s=60)).status == 413
        assert server.connections == 2, "the rest of the first request would have been read as the second"


async def test_a_refused_connection_names_the_address(endpoint: HttpEndpoint, unused_tcp_port: int) -> None:
    address = at(f"http://user:secret@127.0.0.1:{unused_tcp_port}/base")
    with pytest.raises(EndpointFailure) as failure:
        await endpoint.request(address, REQUEST, timeout_s=60)
    assert str(failure.value) == (
        f"error when calling 'http://127.0.0.1:{unused_tcp_port}/base/': connect error: Connection refused (os error 111)"
    )
    assert failure.value.error_code == "RT0010"


async def test_idle_connections_are_closed_after_a_while() -> None:
    closed = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(COUNTED)
        await peer.gone()
        closed.set()

    endpoint = HttpEndpoint(limits=Limits(idle_timeout_s=0.02))
    async with raw_server(script) as server:
        await endpoint.request(at(server.uri), REQUEST, timeout_s=60)
        await asyncio.wait_for(closed.wait(), 60)
    await endpoint.close()


async def test_closing_ends_what_is_in_flight(endpoint: HttpEndpoint) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.gone()

    async with raw_server(script) as server:
        pending = asyncio.create_task(endpoint.request(at(server.uri), REQUEST, timeout_s=60))
        await server.asked.wait()
        await endpoint.close()
        with pytest.raises(EndpointFailure):
            await asyncio.wait_for(pending, 60)


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"x-env": "a\r\nx-evil: 1"}, "control character"),
        ({"x env": "a"}, "not allowed in HTTP"),
        ({"Content-Length": "3"}, "set by the transport"),
    ],
)
async def test_headers_that_would_break_the_framing_are_refused(endpoint: HttpEndpoint, headers: dict[str, str], message: str) -> None:
    with pytest.raises(EndpointFailure, match=message):
        await endpoint.request(at("http://127.0.0.1:1", **headers), REQUEST, timeout_s=60)


@pytest.mark.parametrize("uri", ["ftp://x", "localhost:80", "http://", "http://h:99999", "http://h/?q=1", "http://h/a b"])
async def test_addresses_that_cannot_be_called_are_refused(endpoint: HttpEndpoint, uri: str) -> None:
    with pytest.raises(EndpointFailure, match=r"the URI|request path"):
        await endpoint.request(at(uri), REQUEST, timeout_s=60)


@pytest.mark.parametrize(
    ("uri", "authority", "base"),
    [
        ("http://[::1]:9080/a/b/", "[::1]:9080", "/a/b"),
        ("https://Example.com:443", "example.com", ""),
        ("http://example.com:443/", "example.com:443", ""),
    ],
)
def test_authority_and_base_path(uri: str, authority: str, base: str) -> None:
    from holdfast_runtime.adapters.http_endpoint import parse_uri

    target = parse_uri(uri)
    assert (target.authority, target.base_path) == (authority, base)
    assert http_exchange.checked_target(target.base_path + "/discover")
