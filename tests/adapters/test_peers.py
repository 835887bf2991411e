"""Requests between processes over real sockets: shared connections, losses, silence, and coordinators that forward to each other."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from holdfast_runtime.adapters.memory import memory_store
from holdfast_runtime.adapters.peer_link import Link
from holdfast_runtime.adapters.peers import PeerNetwork, PeerServer, Request, Serve, _Caller, cluster_secret
from holdfast_runtime.adapters.system import SystemEntropy
from holdfast_runtime.ports.peers import PeerUnavailable

SECRET = b"k" * 32
BOUND_S = 120.0


@asynccontextmanager
async def server(serve: Serve, *, secret: bytes = SECRET, **times: float) -> AsyncIterator[tuple[str, PeerServer]]:
    bound = socket.create_server(("127.0.0.1", 0))
    running = PeerServer(secret, SystemEntropy(), serve, **times)
    await running.start(bound)
    try:
        yield f"127.0.0.1:{bound.getsockname()[1]}", running
    finally:
        await running.close()


@asynccontextmanager
async def network(*, secret: bytes = SECRET, **times: float) -> AsyncIterator[PeerNetwork]:
    peers = PeerNetwork(secret, SystemEntropy(), **times)
    try:
        yield peers
    finally:
        await peers.close()


async def echo(request: Request) -> Request:
    return {"echo": request}


async def test_a_request_and_its_answer() -> None:
    async with server(echo) as (address, _), network() as peers:
        request = {"ask": "look", "id": "inv", "bytes": b"\0\xff", "number": 2**40, "nothing": None}
        assert await peers.ask(address, request) == {"echo": request}


async def test_answers_come_when_they_are_ready_over_one_connection() -> None:
    gates: dict[int, asyncio.Event] = {number: asyncio.Event() for number in range(50)}
    accepted = 0

    async def serve(request: Request) -> Request:
        await gates[request["n"]].wait()
        return {"n": request["n"]}

    async with server(serve) as (address, running), network() as peers:
        asked = [asyncio.create_task(peers.ask(address, {"n": number})) for number in gates]
        for number in reversed(gates):
            gates[number].set()
            assert await asyncio.wait_for(asked[number], BOUND_S) == {"n": number}
            accepted = max(accepted, len(running._connections))
    assert accepted == 1


async def test_a_large_request_and_a_large_answer() -> None:
    async with server(echo) as (address, _), network() as peers:
        content = bytes(8 * 1024 * 1024)
        assert (await peers.ask(address, {"b": content}))["echo"]["b"] == content


async def test_a_request_nobody_waits_for_is_cancelled_at_the_other_end() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def serve(request: Request) -> Request:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return {}

    async with server(serve) as (address, _), network() as peers:
        asked = asyncio.create_task(peers.ask(address, {}))
        await asyncio.wait_for(began.wait(), BOUND_S)
        asked.cancel()
        await asyncio.wait_for(ended.wait(), BOUND_S)


async def test_a_peer_that_goes_loses_what_is_under_way_and_is_found_again() -> None:
    began = asyncio.Event()

    async def hang(request: Request) -> Request:
        began.set()
        await asyncio.Event().wait()
        return {}

    async with network() as peers:
        async with server(hang) as (address, _):
            asked = asyncio.create_task(peers.ask(address, {}))
            await asyncio.wait_for(began.wait(), BOUND_S)
        with pytest.raises(PeerUnavailable, match="connection was lost"):
            await asyncio.wait_for(asked, BOUND_S)
        with pytest.raises(PeerUnavailable, match="no connection"):
            await peers.ask(address, {})
        host, port = address.split(":")
        again = PeerServer(SECRET, SystemEntropy(), echo)
        await again.start(socket.create_server((host, int(port))))
        assert await peers.ask(address, {"n": 1}) == {"echo": {"n": 1}}
        await again.close()


async def test_a_peer_that_cannot_be_reached_is_told_to_the_log_once_and_again_when_it_is_there(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "holdfast.peers")
    bound = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{bound.getsockname()[1]}"
    bound.close()
    async with network() as peers:
        for _ in range(3):
            with pytest.raises(PeerUnavailable, match=f"no connection to the peer at {address}: "):
                await peers.ask(address, {})
        again = PeerServer(SECRET, SystemEntropy(), echo)
        await again.start(socket.create_server(("127.0.0.1", int(address.split(":")[1]))))
        await peers.ask(address, {})
        await again.close()
    assert [(record.message, vars(record)["peer"]) for record in caplog.records] == [
        ("peers.unreachable", address),
        ("peers.reached", address),
    ]


async def test_a_connection_that_fails_when_nobody_waits_for_it_any_more_is_no_fault() -> None:
    forgotten: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: forgotten.append(context["message"]))
    connected = asyncio.Event()

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await leave.wait()
        writer.transport.abort()

    leave = asyncio.Event()
    running = await asyncio.start_server(silent, "127.0.0.1", 0)
    host, port = running.sockets[0].getsockname()
    async with network() as peers:
        asked = asyncio.create_task(peers.ask(f"{host}:{port}", {}))
        await asyncio.wait_for(connected.wait(), BOUND_S)
        connecting = peers._connecting[f"{host}:{port}"]
        asked.cancel()
        leave.set()
        await asyncio.wait([connecting, asked], timeout=BOUND_S)
        assert connecting.done() and asked.cancelled()
        del connecting, asked
        gc.collect()
    running.close()
    assert forgotten == []


async def test_a_connection_that_is_given_up_does_not_ping_any_more() -> None:
    """Connecting that takes too long is given up; the transport may come, or have gone, without a word about its end."""
    async with server(echo) as (address, _), network() as peers:
        await peers.ask(address, {})
        (connection,) = peers._connections.values()
        ticking = connection._ticking
        connection.close()
        assert ticking is not None and ticking.cancelled()
        await peers.ask(address, {})
        (other,) = peers._connections.values()
        late = _Caller(Link(SECRET, b"n" * 16, calling=True), ping_s=2.0, dead_after_s=8.0)
        late.close()
        assert other.transport is not None
        late.connection_made(other.transport)
        assert late._ticking is None and not late.open


async def test_a_fault_of_the_other_side_is_an_unknown_outcome_not_a_hang(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(request: Request) -> Request:
        raise RuntimeError("a fault")

    async with server(fail) as (address, _), network() as peers:
        with pytest.raises(PeerUnavailable, match="its log says why"):
            await asyncio.wait_for(peers.ask(address, {"ask": "look"}), BOUND_S)
    assert "a fault" in caplog.text


async def test_processes_of_another_cluster_are_refused_and_told_to_the_log_once(caplog: pytest.LogCaptureFixture) -> None:
    async with server(echo, secret=b"o" * 32) as (address, _), network() as peers:
        for _ in range(3):
            with pytest.raises(PeerUnavailable, match=r"does not know the secret of this cluster.*peers-advertised-address"):
                await asyncio.wait_for(peers.ask(address, {}), BOUND_S)
    assert [record.message for record in caplog.records if record.name == "holdfast.peers"] == ["peers.refused"]


async def test_a_peer_of_another_machine_that_told_loopback_as_its_address(caplog: pytest.LogCaptureFixture) -> None:
    async with network() as peers:
        for _ in range(2):
            with pytest.raises(PeerUnavailable):
                await asyncio.wait_for(peers.ask("127.0.0.1:1", {}), BOUND_S)
    (told,) = [vars(record) for record in caplog.records if record.name == "holdfast.peers"]
    assert (told["msg"], "`--peers HOST:PORT` of an address that others can reach" in told["error"]) == ("peers.unreachable", True)


@pytest.mark.parametrize("address", ["", "host", "host:", ":1", "host:70000", "host:x"])
async def test_an_address_that_is_none(address: str) -> None:
    async with network() as peers:
        with pytest.raises(PeerUnavailable, match="host:port"):
            await peers.ask(address, {})


async def test_a_paused_peer_is_noticed_although_its_connection_stays_open() -> None:
    """It completes the handshake and the request, then says nothing any more: what SIGSTOP and a swallowing network look like."""
    taken = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(SECRET, b"n" * 16, calling=False)
        while data := await reader.read(65536):
            answer, frames = link.receive(data)
            writer.write(answer)
            if frames:
                taken.set()
        writer.close()

    running = await asyncio.start_server(silent, "127.0.0.1", 0)
    host, port = running.sockets[0].getsockname()
    async with network(ping_s=0.2, dead_after_s=2.0) as peers:
        asked: asyncio.Task[Any] = asyncio.create_task(peers.ask(f"{host}:{port}", {}))
        await asyncio.wait_for(taken.wait(), BOUND_S)
        with pytest.raises(PeerUnavailable, match="connection was lost"):
            await asyncio.wait_for(asked, BOUND_S)
    running.close()


async def test_an_idle_connection_between_living_peers_is_kept() -> None:
    served: list[int] = []

    async def serve(request: Request) -> Request:
        served.append(request["n"])
        return {}

    async with server(serve, ping_s=0.02, dead_after_s=5.0) as (address, running), network(ping_s=0.02, dead_after_s=5.0) as peers:
        await peers.ask(address, {"n": 1})
        (first,) = running._connections
        for _ in range(20):
            await asyncio.sleep(0.01)
        await peers.ask(address, {"n": 2})
        assert running._connections == {first}
    assert served == [1, 2]


async def test_the_secret_is_made_once() -> None:
    registry, entropy = memory_store(1).registry, SystemEntropy()
    secrets = await asyncio.gather(*(cluster_secret(registry, entropy) for _ in range(10)))
    assert len(set(secrets)) == 1
    assert len(secrets[0]) == 32
