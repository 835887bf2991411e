"""CPU of one endpoint request in the coordinator's process, per transport and beside the usual libraries.

    .venv/bin/python bench/bench_endpoints.py [--requests 3000] [--concurrency 16] [--body 1000] [--uvloop]

The servers answer canned responses from a process of their own, whose CPU is not counted; so is the Lambda
front, because only the client's side differs between the Lambda clients. Reported: process CPU and wall time
per request in microseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import httptools

from holdfast_runtime.adapters.aws_lambda import LambdaEndpoint
from holdfast_runtime.adapters.http_endpoint import HttpEndpoint
from holdfast_runtime.adapters.in_process import InProcess
from holdfast_runtime.adapters.lambda_envelope import event_of, response_of
from holdfast_runtime.adapters.system import SystemClock
from holdfast_runtime.ports.endpoint import EndpointRequest, HttpAddress, HttpVersion, LambdaAddress

CONTENT_TYPE = "application/vnd.restate.invocation.v6"
HEADERS = {
    "content-type": CONTENT_TYPE,
    "accept": CONTENT_TYPE,
    "x-restate-invocation-id": "inv_1lhAnfHUFjY16yKNARIt0RHz3idoZcPNpw",
}
ANSWER = bytes(range(200))
ARN = "arn:aws:lambda:us-east-1:123456789012:function:bench:1"

Once = Callable[[], Awaitable[object]]


class CannedHttp1(asyncio.Protocol):
    """Answers every complete request with the same bytes."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        self.transport.write(self.answer)


async def serve() -> None:
    """Three servers; prints their ports."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.adapters.h2_server import h2_server

    loop = asyncio.get_running_loop()
    plain = f"HTTP/1.1 200 OK\r\ncontent-type: {CONTENT_TYPE}\r\nx-restate-server: bench/1\r\n".encode()
    headers = {"content-type": CONTENT_TYPE, "x-restate-server": "bench/1"}
    body = base64.b64encode(ANSWER).decode()
    result = json.dumps({"statusCode": 200, "headers": headers, "body": body, "isBase64Encoded": True}).encode()
    answers = [
        plain + b"content-length: %d\r\n\r\n%s" % (len(ANSWER), ANSWER),
        b"HTTP/1.1 200 OK\r\nx-amzn-requestid: x\r\ncontent-length: %d\r\n\r\n%s" % (len(result), result),
    ]
    servers = [await loop.create_server(lambda answer=answer: CannedHttp1(answer), "127.0.0.1", 0) for answer in answers]
    async with h2_server(lambda server, peer, request: peer.answer(request, ANSWER, *headers.items())) as http2:
        print(*(server.sockets[0].getsockname()[1] for server in servers), http2.port, flush=True)
        await asyncio.Event().wait()


async def measure(name: str, once: Once, requests: int, concurrency: int) -> None:
    async def worker(count: int) -> None:
        for _ in range(count):
            await once()

    await asyncio.gather(*(worker(max(1, requests // concurrency // 10)) for _ in range(concurrency)))  # warm up
    each = requests // concurrency
    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker(each) for _ in range(concurrency)))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    total = each * concurrency
    print(f"{name:<24} {cpu / total * 1e6:8.1f} us CPU {wall / total * 1e6:8.1f} us wall", flush=True)


async def run(ports: list[int], options: argparse.Namespace) -> None:
    http1_port, front_port, http2_port = ports
    request = EndpointRequest("POST", "/invoke/Demo/echo", HEADERS, bytes(options.body))
    http, in_process = HttpEndpoint(), InProcess()
    thin = LambdaEndpoint(SystemClock(), endpoint_url=f"http://127.0.0.1:{front_port}")
    http1 = HttpAddress(f"http://127.0.0.1:{http1_port}", HttpVersion.HTTP_1_1)
    http2 = HttpAddress(f"http://127.0.0.1:{http2_port}", HttpVersion.HTTP_2)
    function = LambdaAddress(ARN)

    async def handle(*_: object) -> tuple[int, dict[str, str], bytes]:
        return 200, {"content-type": CONTENT_TYPE}, ANSWER

    here = in_process.register("bench", handle)

    async def checked(answer: Awaitable[Any]) -> None:
        assert (await answer).body == ANSWER

    async def with_aiohttp(stack: contextlib.AsyncExitStack) -> Once:
        import aiohttp

        session = await stack.enter_async_context(aiohttp.ClientSession())

        async def once() -> None:
            url = f"http://127.0.0.1:{http1_port}/invoke/Demo/echo"
            async with session.post(url, data=request.body, headers=HEADERS) as response:
                assert await response.read() == ANSWER

        return once

    async def with_aioboto3(stack: contextlib.AsyncExitStack) -> Once:
        import aioboto3
        from botocore.config import Config

        config = Config(retries={"max_attempts": 0}, max_pool_connections=options.concurrency)
        client = await stack.enter_async_context(
            aioboto3.Session().client("lambda", region_name="us-east-1", endpoint_url=f"http://127.0.0.1:{front_port}", config=config)
        )

        async def once() -> None:
            reply = await client.invoke(FunctionName=ARN, Payload=event_of(function, request))
            assert response_of(await reply["Payload"].read()).body == ANSWER

        return once

    async with contextlib.AsyncExitStack() as stack:
        cases: list[tuple[str, Once]] = [
            ("in process", lambda: checked(in_process.request(here, request, timeout_s=60))),
            ("HTTP/1.1", lambda: checked(http.request(http1, request, timeout_s=60))),
            ("HTTP/1.1, aiohttp", await with_aiohttp(stack)),
            ("HTTP/2", lambda: checked(http.request(http2, request, timeout_s=60))),
            ("Lambda", lambda: checked(thin.request(function, request, timeout_s=60))),
            ("Lambda, aioboto3", await with_aioboto3(stack)),
        ]
        for name, once in cases:
            await measure(name, once, options.requests, options.concurrency)
    for endpoint in (http, in_process, thin):
        await endpoint.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--body", type=int, default=1000, help="bytes of the request's frames")
    parser.add_argument("--uvloop", action="store_true", help="run the client on uvloop")
    parser.add_argument("--serve", action="store_true", help="internal: be the servers")
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
        return
    os.environ |= {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret"}
    servers = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    try:
        assert servers.stdout is not None
        ports = [int(port) for port in servers.stdout.readline().split()]
        if options.uvloop:
            import uvloop

            uvloop.run(run(ports, options))
        else:
            asyncio.run(run(ports, options))
    finally:
        servers.terminate()
        servers.wait(timeout=10)


if __name__ == "__main__":
    main()
