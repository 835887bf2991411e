"""The ingress's own listener: HTTP/1.1 straight into `Ingress.handle`, and HTTP/2 for clients that begin with its preface.

Rules: what is the same for all connections is here, one connection in `http1_connection.py`; one tick a second renews the
date and looks for connections that have stalled, so that no request pays for a timer; closing stops accepting, gives
requests in flight the grace, answers the rest with 503 and drops whoever does not take that.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable
from email.utils import formatdate
from typing import Any, Final, Protocol, runtime_checkable

from holdfast_runtime.surfaces.asgi import RawHeaders, Receive, Scope, Send
from holdfast_runtime.surfaces.http1_connection import IDLE_S, Http1Connection
from holdfast_runtime.surfaces.ingress_replies import Reply
from holdfast_runtime.surfaces.ingress_request import Request
from holdfast_runtime.surfaces.server_http2 import Http2Protocol

BACKLOG: Final = 2048
TICK_S: Final = 1.0
FLUSH_S: Final = 1.0  # for the last answers to leave once the grace is over
_POLL_S: Final = 0.01  # closing happens once: looking is simpler than being told by connections of two kinds


@runtime_checkable
class DirectApp(Protocol):
    """What is served: the whole answer of a request, and for HTTP/2 the same as an ASGI application."""

    def handle(self, request: Request) -> Awaitable[Reply]: ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class Shared:
    """What the connections of one listener have in common, its HTTP/2 ones included.

    idle_s: after which a connection without a request is closed. ticks: seconds since it began. tasks: what outlives its connection, and
    all of HTTP/2.
    """

    def __init__(self, app: DirectApp, idle_s: float) -> None:
        self.app = app
        self.idle_s = idle_s
        self.connections: set[Any] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.closing = False
        self.ticks = 0
        self.date_line = b""
        self.default_headers: RawHeaders = []
        self.renew_date()

    def renew_date(self) -> None:
        date = formatdate(usegmt=True).encode()
        self.date_line = b"date: " + date + b"\r\n"
        self.default_headers = [(b"date", date)]

    def switch_to_http2(self, connection: Http1Connection, transport: asyncio.Transport, seen: bytes) -> None:
        """`seen`: all that was received, the preface first."""
        self.connections.discard(connection)
        http2 = Http2Protocol(self.app, self, self.idle_s)
        transport.set_protocol(http2)
        http2.connection_made(transport)
        http2.data_received(seen)


class Http1Server:
    """The ingress on one bound socket. `start` returns once it listens; `close` once it is gone."""

    def __init__(self, app: DirectApp, bound: socket.socket, *, grace_s: float = 5.0, idle_s: float = IDLE_S) -> None:
        self._bound = bound
        host, port = bound.getsockname()[:2]
        self.host: str = host
        self.port: int = port
        self._grace_s = grace_s
        self._shared = Shared(app, idle_s)
        self._listening: asyncio.Server | None = None
        self._tick_timer: asyncio.TimerHandle | None = None
        self._closed: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/"

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        shared = self._shared
        self._listening = await loop.create_server(lambda: Http1Connection(shared, loop), sock=self._bound, backlog=BACKLOG)
        self._tick_timer = loop.call_later(TICK_S, self._tick)

    async def close(self) -> None:
        """Graceful; safe to call twice."""
        if self._closed is None:
            self._closed = asyncio.create_task(self._close(), name=f"http:{self.port} closing")
        await asyncio.shield(self._closed)

    async def _close(self) -> None:
        shared = self._shared
        shared.closing = True
        if self._listening is not None:
            self._listening.close()
        for connection in list(shared.connections):
            connection.shutdown()
        if not await self._gone_within(self._grace_s):
            for connection in list(shared.connections):
                connection.expire()
            for task in list(shared.tasks):
                task.cancel()
            await self._gone_within(FLUSH_S)
        for connection in list(shared.connections):
            connection.abort()
        if self._tick_timer is not None:
            self._tick_timer.cancel()
        await asyncio.sleep(0)  # uvloop closes the listening socket in its next round
        self._bound.close()

    async def _gone_within(self, limit_s: float) -> bool:
        """Whether every connection has ended in time."""
        shared, loop = self._shared, asyncio.get_running_loop()
        deadline = loop.time() + limit_s
        while shared.connections or shared.tasks:
            if loop.time() >= deadline:
                return False
            await asyncio.sleep(_POLL_S)
        return True

    def _tick(self) -> None:
        shared = self._shared
        shared.ticks += 1
        shared.renew_date()
        for connection in list(shared.connections):
            connection.tick(shared.ticks)
        self._tick_timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)
