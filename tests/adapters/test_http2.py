"""HTTP/2 with prior knowledge: streams share connections, windows hold, a leaving peer loses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import h2.errors
import pytest

from holdfast_runtime.adapters.http_endpoint import HttpEndpoint
from holdfast_runtime.adapters.http_exchange import Limits
from holdfast_runtime.ports.endpoint import EndpointFailure, EndpointRequest, HttpAddress, HttpVersion
from tests.adapters.h2_server import Connection, Http2Server, Received, h2_server
from tests.adapters.loops import event_loop_policy  # noqa: F401
from tests.adapters.raw_server import Peer, raw_server

REQUEST = EndpointRequest("POST", "/invoke/Demo/echo", {"content-type": "x/y"}, b"frames")
CONTENT = ("content-type", "x/y")


def at(uri: str, **headers: str) -> HttpAddress:
    return HttpAddress(uri, HttpVersion.HTTP_2, headers)


def echo(server: Http2Server, connection: Connection, request: Received) -> None:
    connection.answer(request, request.body, CONTENT, ("x-twice", "first"), ("x-twice", "second"))


def never(server: Http2Server, connection: Connection, request: Received) -> None:
    pass


@pytest.fixture
async def endpoint() -> AsyncIterator[HttpEndpoint]:
    endpoint = HttpEndpoint()
    yield endpoint
    await endpoint.close()


async def test_requests_and_responses(endpoint: HttpEndpoint) -> None:
    async with h2_server(echo) as server:
        response = await endpoint.request(at(server.uri + "/base", **{"X-Env": "prod"}), REQUEST, timeout_s=60)
        discover = await endpoint.request(at(server.uri), EndpointRequest("GET", "/discover", {}, b""), timeout_s=60)
        sent, discovery = server.requests
        assert len(server.connections) == 1
    assert (response.status, response.body, response.broken) == (200, b"frames", None)
    assert response.headers == {"content-type": "x/y", "x-twice": "first"}
    assert (sent.headers[":method"], sent.headers[":path"]) == ("POST", "/base/invoke/Demo/echo")
    assert sent.headers[":authority"] == f"127.0.0.1:{server.port}"
    assert sent.headers["x-env"] == "prod"
    assert sent.headers["content-length"] == "6"
    assert (discovery.headers[":method"], discovery.body, discover.body) == ("GET", b"", b"")


async def test_bodies_larger_than_every_window(endpoint: HttpEndpoint) -> None:
    big = bytes(range(256)) * 4096 * 20  # 20 MB, above the connection window of 16 MiB
    async with h2_server(echo) as server:
        response = await endpoint.request(at(server.uri), EndpointRequest("POST", "/x", {}, big), timeout_s=60)
    assert response.body == big


async def test_many_requests_share_connections_within_the_servers_limit(endpoint: HttpEndpoint) -> None:
    async with h2_server(echo, max_concurrent_streams=3) as server:
        responses = await asyncio.gather(
            *(endpoint.request(at(server.uri), EndpointRequest("POST", "/x", {}, b"%d" % n), timeout_s=60) for n in range(200))
        )
        assert [response.body for response in responses] == [b"%d" % n for n in range(200)]
        assert server.peak <= 3
        assert len(server.connections) <= 16


async def test_waiting_for_a_stream_ends_when_one_ends(endpoint: HttpEndpoint) -> None:
    """All connections are full; the answers are held back until every stream is taken."""
    held: list[tuple[Connection, Received]] = []
    full = asyncio.Event()

    def hold(server: Http2Server, connection: Connection, request: Received) -> None:
        if full.is_set():
            echo(server, connection, request)
            return
        held.append((connection, request))
        if len(held) == 16:
            full.set()

    async with h2_server(hold, max_concurrent_streams=1) as server:
        pending = [asyncio.create_task(endpoint.request(at(server.uri), REQUEST, timeout_s=60)) for _ in range(40)]
        await asyncio.wait_for(full.wait(), 60)
        for connection, request in held:
            connection.answer(request, b"held")
        bodies = [response.body for response in await asyncio.gather(*pending)]
        assert len(server.connections) == 16
    assert bodies.count(b"held") == 16
    assert bodies.count(b"frames") == 24


X = EndpointRequest("POST", "/x", {}, b"1")


def only_x(server: Http2Server, connection: Connection, request: Received) -> None:
    if request.headers[":path"] == "/x":
        echo(server, connection, request)


async def test_a_timeout_resets_the_stream_and_spares_the_others(endpoint: HttpEndpoint) -> None:
    async with h2_server(only_x) as server:
        await endpoint.request(at(server.uri), EndpointRequest("POST", "/x", {}, b"1"), timeout_s=60)
        hanging = asyncio.create_task(endpoint.request(at(server.uri), REQUEST, timeout_s=0.1))
        await server.asked.wait()
        assert (await endpoint.request(at(server.uri), EndpointRequest("POST", "/x", {}, b"2"), timeout_s=60)).body == b"2"
        with pytest.raises(EndpointFailure, match=r"within 0\.1 s") as failure:
            await hanging
        await asyncio.wait_for(server.reset.wait(), 60)
        assert (await endpoint.request(at(server.uri), EndpointRequest("POST", "/x", {}, b"3"), timeout_s=60)).body == b"3"
        assert [code for _, code in server.connections[0].resets] == [h2.errors.ErrorCodes.CANCEL]
        assert len(server.connections) == 1
    assert failure.value.error_code == "RT0001"


async def test_a_connection_silent_for_a_whole_exchange_is_not_used_again(endpoint: HttpEndpoint) -> None:
    async with h2_server(only_x) as server:
        await endpoint.request(at(server.uri), X, timeout_s=60)
        with pytest.raises(EndpointFailure, match="abort timeout"):
            await endpoint.request(at(server.uri), REQUEST, timeout_s=0.2)
        await endpoint.request(at(server.uri), X, timeout_s=60)
        assert len(server.connections) == 2


async def test_cancelling_resets_the_stream(endpoint: HttpEndpoint) -> None:
    async with h2_server(never) as server:
        pending = asyncio.create_task(endpoint.request(at(server.uri), REQUEST, timeout_s=60))
        await server.asked.wait()
        pending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pending
        await asyncio.wait_for(server.reset.wait(), 60)


async def test_a_refused_stream_is_sent_again(endpoint: HttpEndpoint) -> None:
    def refuse_first(server: Http2Server, connection: Connection, request: Received) -> None:
        if len(server.requests) == 1:
            connection.h2.reset_stream(request.stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
        else:
            echo(server, connection, request)

    async with h2_server(refuse_first) as server:
        assert (await endpoint.request(at(server.uri), REQUEST, timeout_s=60)).body == b"frames"
        assert len(server.requests) == 2


async def test_going_away_finishes_what_was_begun_and_moves_the_rest(endpoint: HttpEndpoint) -> None:
    held: list[tuple[Connection, Received]] = []

    def leave_at_second(server: Http2Server, connection: Connection, request: Received) -> None:
        if connection is not server.connections[0]:
            echo(server, connection, request)
            return
        held.append((connection, request))
        if len(held) == 2:  # the first stream will be answered, the second was not looked at
            last = held[0][1].stream_id
            frame = b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + last.to_bytes(4, "big") + bytes(4)
            connection.transport.write(connection.h2.data_to_send() + frame)
            connection.answer(held[0][1], b"finished")

    async with h2_server(leave_at_second) as server:
        first = asyncio.create_task(endpoint.request(at(server.uri), REQUEST, timeout_s=60))
        await server.asked.wait()
        second = asyncio.create_task(endpoint.request(at(server.uri), REQUEST, timeout_s=60))
        assert (await first).body == b"finished"
        assert (await second).body == b"frames"
        assert len(server.connections) == 2
        await asyncio.wait_for(server.lost.wait(), 60)


async def test_a_reset_after_the_status_gives_what_came(endpoint: HttpEndpoint) -> None:
    def half(server: Http2Server, connection: Connection, request: Received) -> None:
        connection.answer(request, b"ans", CONTENT, end=False)
        connection.h2.reset_stream(request.stream_id, h2.errors.ErrorCodes.INTERNAL_ERROR)

    async with h2_server(half) as server:
        response = await endpoint.request(at(server.uri), REQUEST, timeout_s=60)
    assert (response.status, response.body) == (200, b"ans")
    assert response.broken == "the peer reset the stream (HTTP/2 error INTERNAL_ERROR)"


async def test_a_connection_lost_after_the_status_gives_what_came(endpoint: HttpEndpoint) -> None:
    def half(server: Http2Server, connection: Connection, request: Received) -> None:
        connection.answer(request, b"ans", CONTENT, end=False)
        connection.transport.close()

    async with h2_server(half) as server:
        response = await endpoint.request(at(server.uri), REQUEST, timeout_s=60)
    assert (response.status, response.body) == (200, b"ans")
    assert response.broken == "the connection was closed by the peer"


async def test_a_connection_lost_before_the_status_fails(endpoint: HttpEndpoint) -> None:
    def die(server: Http2Server, connection: Connection, request: Received) -> None:
        connection.transport.abort()

    async with h2_server(die) as server:
        with pytest.raises(EndpointFailure, match="before a response") as failure:
            await endpoint.request(at(server.uri), REQUEST, timeout_s=60)
        assert len(server.requests) == 1
    assert failure.value.error_code == "RT0010"


async def test_a_stale_connection_is_replaced(endpoint: HttpEndpoint) -> None:
    def die_when_reused(server: Http2Server, connection: Connection, request: Received) -> None:
        if len(server.requests) == 2:
            connection.transport.abort()
        else:
            echo(server, connection, request)

    async with h2_server(die_when_reused) as server:
        for _ in range(2):
            assert (await endpoint.request(at(server.uri), REQUEST, timeout_s=60)).body == b"frames"
        assert len(server.connections) == 2


async def test_an_answer_before_the_request_was_read_is_taken(endpoint: HttpEndpoint) -> None:
    def nothing(server: Http2Server, connection: Connection, request: Received) -> None:
        raise AssertionError("the request must not have been sent to its end")

    async with h2_server(nothing, initial_window_size=1000) as server:
        huge = EndpointRequest("POST", "/x", {}, bytes(200_000))
        pending = asyncio.create_task(endpoint.request(at(server.uri), huge, timeout_s=60))
        await server.begun.wait()
        connection = server.connections[0]
        connection.answer(next(iter(connection.open.values())), b"", status=413)
        assert (await pending).status == 413


async def test_a_response_over_the_limit_fails() -> None:
    endpoint = HttpEndpoint(limits=Limits(response_bytes=1000))
    async with h2_server(echo) as server:
        with pytest.raises(EndpointFailure, match="response is larger than") as failure:
            await endpoint.request(at(server.uri), EndpointRequest("POST", "/x", {}, bytes(5000)), timeout_s=60)
        assert (await endpoint.request(at(server.uri), REQUEST, timeout_s=60)).body == b"frames"
        assert len(server.connections) == 1
        await endpoint.close()
    assert failure.value.error_code == "RT0003"


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n", b""], ids=["400", "closed"])
async def test_a_server_of_http1_only_is_recognised(endpoint: HttpEndpoint, answer: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(*(bytes([byte]) for byte in answer))

    async with raw_server(script) as server:
        with pytest.raises(EndpointFailure) as failure:
            await endpoint.request(at(server.uri), REQUEST, timeout_s=60)
        assert str(failure.value) == (
            f"error when calling '{server.uri}/': server possibly supports only HTTP1.1, consider discovery with --use-http1.1."
        )
    assert failure.value.error_code == "META0014"


async def test_garbage_is_named(endpoint: HttpEndpoint) -> None:
    async def script(peer: Peer) -> None:
        await peer.send(b"SSH-2.0-OpenSSH_9.2\r\n")
        await peer.gone()

    async with raw_server(script) as server:
        with pytest.raises(EndpointFailure, match="does not speak HTTP/2") as failure:
            await endpoint.request(at(server.uri), REQUEST, timeout_s=60)
    assert failure.value.error_code == "RT0012"


async def test_a_peer_that_never_greets_times_out(endpoint: HttpEndpoint) -> None:
    async def script(peer: Peer) -> None:
        await peer.gone()

    async with raw_server(script) as server:
        with pytest.raises(EndpointFailure, match=r"no complete response within 0\.1 s"):
            await endpoint.request(at(server.uri), REQUEST, timeout_s=0.1)


async def test_a_refused_connection_names_the_address(endpoint: HttpEndpoint, unused_tcp_port: int) -> None:
    with pytest.raises(EndpointFailure, match=rf"'http://127\.0\.0\.1:{unused_tcp_port}/'.*refused") as failure:
        await asyncio.gather(*(endpoint.request(at(f"http://127.0.0.1:{unused_tcp_port}"), REQUEST, timeout_s=60) for _ in range(5)))
    assert failure.value.error_code == "RT0010"


async def test_idle_connections_are_closed_after_a_while() -> None:
    endpoint = HttpEndpoint(limits=Limits(idle_timeout_s=0.02))
    async with h2_server(echo) as server:
        await endpoint.request(at(server.uri), REQUEST, timeout_s=60)
        await asyncio.wait_for(server.lost.wait(), 60)
        assert (await endpoint.request(at(server.uri), REQUEST, timeout_s=60)).body == b"frames"
    await endpoint.close()


async def test_closing_ends_what_is_in_flight(endpoint: HttpEndpoint) -> None:
    async with h2_server(never) as server:
        pending = asyncio.create_task(endpoint.request(at(server.uri), REQUEST, timeout_s=60))
        await server.asked.wait()
        await endpoint.close()
        with pytest.raises(EndpointFailure):
            await asyncio.wait_for(pending, 60)


async def test_a_window_opened_for_a_stream_that_is_reset_in_the_same_breath(endpoint: HttpEndpoint) -> None:
    """Both frames arrive in one read: the second has closed the stream when the first is handled."""

    async with h2_server(echo, initial_window_size=1000) as server:
        assert (await endpoint.request(at(server.uri), REQUEST, timeout_s=60)).body == b"frames"
        server.begun.clear()
        huge = EndpointRequest("POST", "/x", {}, bytes(200_000))
        pending = asyncio.create_task(endpoint.request(at(server.uri), huge, timeout_s=60))
        await server.begun.wait()
        connection = server.connections[0]
        (stream_id,) = connection.open
        connection.h2.increment_flow_control_window(1000, stream_id)
        connection.h2.reset_stream(stream_id, h2.errors.ErrorCodes.INTERNAL_ERROR)
        connection.flush()
        with pytest.raises(EndpointFailure, match=r"reset the stream \(HTTP/2 error INTERNAL_ERROR\)"):
            await pending
        assert (await endpoint.request(at(server.uri), REQUEST, timeout_s=60)).body == b"frames"
        assert len(server.connections) == 1, "the other streams of the connection are not concerned"
