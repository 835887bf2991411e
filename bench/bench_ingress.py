"""What the ingress costs: CPU per call over HTTP/1.1, before any coordinator does anything.

    python bench/bench_ingress.py [--requests 20000] [--connections 32]

Two child processes serve in turn: `server`, our listener with an application that answers a constant, and `ingress`,
the whole ingress before a front that mints random ids and answers at once. The load comes from this process over
kept-alive connections, one request at a time on each. CPU is user and system time of the child, from /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any, cast

import uvloop

from holdfast.protocol.ids import InvocationId, random_invocation_id, unkeyed_partition_key
from holdfast.protocol.manifest import HandlerManifest, InputRule, OutputRule, ServiceType
from holdfast_runtime.adapters.system import SystemClock, SystemEntropy
from holdfast_runtime.coordinator.front import NewInvocation, Outcome, Success
from holdfast_runtime.engine.registry import DAY_MS, HandlerKind, HandlerRevision, RegistryView, RetryPolicy, ServiceRevision
from holdfast_runtime.surfaces.asgi import Receive, Scope, Send
from holdfast_runtime.surfaces.ingress import Ingress
from holdfast_runtime.surfaces.server import Listener, serve

TICK_US = 1_000_000 / os.sysconf("SC_CLK_TCK")
REQUEST = (
    b"POST /Greeter/greet HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: bench\r\naccept: */*\r\n"
    b'content-type: application/json\r\ncontent-length: 5\r\n\r\n"Ada"'
)


class TrivialFront:
    """Everything a call needs, and nothing behind it."""

    def __init__(self) -> None:
        manifest = HandlerManifest(
            name="greet",
            input=InputRule(content_type="application/json", json_schema={"type": "string"}),
            output=OutputRule(content_type="application/json"),
        )
        handler = HandlerRevision("greet", HandlerKind.SERVICE, True, 600_000, DAY_MS, DAY_MS, DAY_MS, False, RetryPolicy(), manifest)
        service = ServiceRevision("Greeter", ServiceType.SERVICE, 1, "dp_1", True, {"greet": handler})
        self.registry = RegistryView(1, {}, {"Greeter": service})
        self._clock, self._entropy = SystemClock(), SystemEntropy()
        self._partition_key = unkeyed_partition_key("Greeter", 0)
        self._answer = Success(b'"Hello Ada"')

    def mint(self, invocation: NewInvocation) -> InvocationId:
        return random_invocation_id(self._partition_key, self._clock.now_ms(), self._entropy.bytes(10))

    async def call(self, invocation_id: InvocationId, invocation: NewInvocation) -> Outcome:
        return self._answer


async def constant(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"11")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b'"Hello Ada"'})


async def child(kind: str) -> None:
    front: Any = TrivialFront()
    server = await serve(constant if kind == "server" else Ingress(front), Listener())
    print(server.port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.close()


class Client(asyncio.Protocol):
    """One connection that sends `left` requests, each when the answer to the last is there."""

    def __init__(self, left: int) -> None:
        self._left = left
        self._seen = b""
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by shape only
        self._transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        if not self._seen.endswith(b'"Hello Ada"'):
            return
        assert self._seen.startswith(b"HTTP/1.1 200"), self._seen
        self._seen = b""
        self._left -= 1
        if self._left:
            self._transport.write(REQUEST)
        else:
            self._transport.close()
            self.done.set_result(None)


async def load(port: int, requests: int, connections: int) -> None:
    loop = asyncio.get_running_loop()
    clients = [Client(requests // connections) for _ in range(connections)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.gather(*(client.done for client in clients))


@dataclass(frozen=True)
class Measured:
    kind: str
    cpu_us: float
    per_second: float


def measure(kind: str, requests: int, connections: int) -> Measured:
    command = [sys.executable, __file__, "--child", kind]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline())
        uvloop.run(load(port, max(connections, requests // 10), connections))  # warm up
        cpu, begun = cpu_us(process.pid), time.perf_counter()
        uvloop.run(load(port, requests, connections))
        seconds = time.perf_counter() - begun
        return Measured(kind, (cpu_us(process.pid) - cpu) / requests, requests / seconds)
    finally:
        process.communicate()


def cpu_us(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_US


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--child", choices=["server", "ingress"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        uvloop.run(child(given.child))
        return
    results = [measure(kind, given.requests, given.connections) for kind in ("server", "ingress")]
    for result in results:
        print(f"{result.kind:8} {result.cpu_us:6.1f} us of CPU per request, {result.per_second:8.0f} requests/s")
    print(f"the ingress itself: {results[1].cpu_us - results[0].cpu_us:.1f} us per call")


if __name__ == "__main__":
    main()
