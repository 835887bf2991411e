"""Throttling, lost answers and slowness on demand: a proxy between a DynamoDB client and the stand-in, on the test's event loop.

    async with FaultProxy(dynamodb_url) as proxy:
        proxy.next("PutItem", "drop_after")         # the next PutItem is done, and its answer lost
        proxy.chaos(Random(7), share=0.2)           # from now on every fifth call meets some fault

| kind | what happens |
| --- | --- |
| throttle, internal, denied | refused with the service's own error; nothing is done |
| drop_before | the connection breaks; nothing is done |
| drop_after | done; the connection breaks before the answer: the kind that finds real bugs |
| late | the connection breaks; done only later, when `landed` is set |
| held | answered only when `landed` is set |
| unprocessed | BatchGetItem answers every second key only, and names the others |
| skewed | refused as signed at a wrong time; the answer's date is `skew_s` away from ours |
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from dataclasses import dataclass
from email.utils import formatdate
from random import Random
from time import time
from typing import Any, Final, Self

from aiohttp import ClientSession, TCPConnector, web

PREFIX: Final = "com.amazonaws.dynamodb.v20120810#"
REFUSALS: Final = {
    "throttle": (400, PREFIX + "ProvisionedThroughputExceededException", "The level of configured provisioned throughput was exceeded."),
    "internal": (500, PREFIX + "InternalServerError", "Internal server error"),
    "denied": (400, "com.amazon.coral.service#AccessDeniedException", "User: someone is not authorized to perform: dynamodb:PutItem"),
    "skewed": (400, "com.amazon.coral.service#InvalidSignatureException", "Signature expired: 20200101T000000Z is now earlier than now"),
}
CHAOS: Final = ("throttle", "internal", "drop_before", "drop_after", "late")


@dataclass
class Rule:
    operation: str
    kind: str
    left: int


class FaultProxy:
    """`calls`: the operations seen, with the time they were signed for; refused ones, too. `last`: headers and body of the last one."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._rules: list[Rule] = []
        self._chaos: tuple[Random, float] | None = None
        self._late: deque[asyncio.Task[Any]] = deque()
        self.calls: list[tuple[str, str]] = []
        self.last: tuple[dict[str, str], bytes] = ({}, b"")
        self.skew_s = 0.0
        self.landed = asyncio.Event()

    def next(self, operation: str, kind: str, count: int = 1) -> None:
        """The next `count` calls of the operation meet this fault."""
        self._rules.append(Rule(operation, kind, count))

    def chaos(self, random: Random, share: float) -> None:
        self._chaos = random, share

    def calm(self) -> None:
        self._chaos = None
        self._rules.clear()
        self.landed.set()

    async def __aenter__(self) -> Self:
        self._session = ClientSession(connector=TCPConnector(limit=0), auto_decompress=False)
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.calm()
        await asyncio.gather(*self._late)
        await self._runner.cleanup()
        await self._session.close()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        operation = request.headers.get("X-Amz-Target", "").split(".")[-1]
        self.calls.append((operation, request.headers.get("X-Amz-Date", "")))
        kind = self._fault(operation)
        body = await request.read()
        self.last = ({name.lower(): value for name, value in request.headers.items()}, body)
        if kind in REFUSALS:
            status, code, message = REFUSALS[kind]
            headers = {"Date": formatdate(time() + self.skew_s, usegmt=True)}
            return web.json_response({"__type": code, "message": message}, status=status, headers=headers)
        if kind == "drop_before":
            return _break(request)
        if kind == "held":
            await self.landed.wait()
        if kind == "late":
            self._late.append(asyncio.create_task(self._land(request, body)))
            return _break(request)
        if kind == "unprocessed":
            return await self._half(request, body)
        answer = await self._forward(request, body)
        return _break(request) if kind == "drop_after" else answer

    def _fault(self, operation: str) -> str | None:
        for rule in self._rules:
            if rule.operation in (operation, "*") and rule.left > 0:
                rule.left -= 1
                return rule.kind
        if self._chaos is not None and self._chaos[0].random() < self._chaos[1]:
            return self._chaos[0].choice(CHAOS)
        return None

    async def _land(self, request: web.Request, body: bytes) -> None:
        await self.landed.wait()
        await self._forward(request, body)

    async def _half(self, request: web.Request, body: bytes) -> web.Response:
        wanted = json.loads(body)
        ((table, of_table),) = wanted["RequestItems"].items()
        keys = of_table["Keys"]
        now, later = keys[::2], keys[1::2]
        answer = await self._forward(request, json.dumps({**wanted, "RequestItems": {table: {**of_table, "Keys": now}}}).encode())
        content = json.loads(answer.body if isinstance(answer.body, bytes) else b"{}")
        content["UnprocessedKeys"] = {table: {**of_table, "Keys": later}} if later else {}
        return web.json_response(content)

    async def _forward(self, request: web.Request, body: bytes) -> web.Response:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in ("host", "content-length", "connection")}
        async with self._session.request(request.method, self._upstream + request.path_qs, data=body, headers=headers) as reply:
            kept = {name: value for name, value in reply.headers.items() if name.lower() in ("content-type", "x-amz-crc32", "date")}
            return web.Response(status=reply.status, body=await reply.read(), headers=kept)


def _break(request: web.Request) -> web.Response:
    if request.transport is not None:  # else the caller has gone already
        request.transport.abort()
    return web.Response()
