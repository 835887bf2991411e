"""Listeners inside our event loop: the ingress by our own server, ASGI applications by uvicorn with httptools (http-api §1, §1.10).

Rules: sockets are bound before serving, so that port 0 and an address in use show at once; signals belong
to the application layer; closing stops accepting, gives requests in flight a few seconds, then drops them.
One listener speaks HTTP/1.1 and, to clients that begin with its preface, HTTP/2 in cleartext.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http import httptools_impl

from holdfast_runtime.surfaces.asgi import App
from holdfast_runtime.surfaces.http1_connection import IDLE_S, MAX_HEAD_BYTES, TOO_LARGE
from holdfast_runtime.surfaces.http1_messages import head, plain
from holdfast_runtime.surfaces.http1_server import BACKLOG, DirectApp, Http1Server
from holdfast_runtime.surfaces.server_http2 import PREFACE, Http2Protocol

KEEP_ALIVE_S: Final = 75  # above the 60 s idle timeout of AWS load balancers, so that they close first


class AddressUnavailable(Exception):
    """The listener cannot be opened; an operator must act."""


@dataclass(frozen=True, slots=True)
class Listener:
    """Where to listen. port 0: any free one. grace_s: how long requests in flight may go on when closing."""

    host: str = "127.0.0.1"
    port: int = 0
    grace_s: float = 5.0


def bind(listener: Listener) -> socket.socket:
    """A bound socket, not listening yet. Raises AddressUnavailable."""
    family = socket.AF_INET6 if ":" in listener.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((listener.host, listener.port))
    except OSError as error:
        bound.close()
        raise AddressUnavailable(_reason(listener, error)) from error
    bound.setblocking(False)
    return bound


def _reason(listener: Listener, error: OSError) -> str:
    where = f"{listener.host}:{listener.port}"
    match error.errno:
        case errno.EADDRINUSE:
            return f"{where} is in use by another process; stop it or choose another port"
        case errno.EACCES:
            return f"{where} needs more privileges; choose a port above 1023"
        case errno.EADDRNOTAVAIL:
            return f"{listener.host} is no address of this machine; choose one that is, or 0.0.0.0"
    return f"cannot listen on {where}: {error}"


class HttpServer:
    """One application on one socket. `start` returns once it listens; `close` once it is gone."""

    def __init__(self, app: App, bound: socket.socket, *, grace_s: float = 5.0) -> None:
        self._bound = bound
        host, port = bound.getsockname()[:2]
        self.host: str = host
        self.port: int = port
        config = uvicorn.Config(
            app,
            http=DualProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=max(1, round(grace_s)),
        )
        self._server = uvicorn.Server(config)
        self._serving: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/"

    async def start(self) -> None:
        # `serve` would install signal handlers; what it wraps is all that is wanted.
        self._serving = asyncio.create_task(self._server._serve([self._bound]), name=f"http:{self.port}")
        while not self._server.started:
            if self._serving.done():
                await self._serving
                raise AddressUnavailable(f"the server on {self.url} stopped while starting")
            await asyncio.sleep(0.005)

    async def close(self) -> None:
        """Graceful; safe to call twice."""
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving
        self._bound.close()


Server = HttpServer | Http1Server


async def serve_on(app: App | DirectApp, bound: socket.socket, *, grace_s: float, idle_s: float = IDLE_S) -> Server:
    """Start. What can be asked directly is served by our own server, any other application by uvicorn.

    idle_s: for which a connection to our own may be without a request.
    """
    server: Server
    if isinstance(app, DirectApp):
        server = Http1Server(app, bound, grace_s=grace_s, idle_s=idle_s)
    else:
        server = HttpServer(app, bound, grace_s=grace_s)
    await server.start()
    return server


async def serve(app: App | DirectApp, listener: Listener) -> Server:
    """Bind and start. Raises AddressUnavailable."""
    return await serve_on(app, bind(listener), grace_s=listener.grace_s)


class DualProtocol(httptools_impl.HttpToolsProtocol):
    """HTTP/1.1, until a connection turns out to begin with the HTTP/2 preface.

    uvicorn bounds neither what a head may hold nor the time until it is there, and whoever reaches the port may send one: both are here.
    """

    _undecided: bytes | None = b""
    _fed = 0  # bytes received since a head or a piece of a body was complete
    _in_head = False
    _watching: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._in_head:  # whose time is counted as a whole
            self._watch()
        if self._undecided is None:
            return self._feed(data)
        seen = self._undecided + data
        if seen.startswith(PREFACE):
            return self._switch(seen)
        if PREFACE.startswith(seen):  # too short to tell
            self._undecided = seen
            return None
        self._undecided = None
        return self._feed(seen)

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head, self._fed = False, 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._fed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._fed = 0
        super().on_message_complete()

    def _feed(self, data: bytes) -> None:
        self._fed += len(data)
        super().data_received(data)
        if self._fed <= MAX_HEAD_BYTES or self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()  # an answer is on its way, another must not get into it
            return
        reply = plain(431, TOO_LARGE)
        self.transport.write(head(reply, b"", None) + reply.body)
        self.transport.close()

    def _watch(self) -> None:
        self._unwatch()
        self._watching = self.loop.call_later(KEEP_ALIVE_S, self._stalled)

    def _unwatch(self) -> None:
        if self._watching is not None:
            self._watching.cancel()

    def _stalled(self) -> None:
        """Nothing has come for a while. Whoever waits for an answer may."""
        if self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body:
            self._watch()
        else:
            self.transport.abort()

    def _switch(self, seen: bytes) -> None:
        self._unwatch()
        self.connections.discard(self)
        self._unset_keepalive_if_required()
        http2 = Http2Protocol(self.config.loaded_app, self.server_state, KEEP_ALIVE_S)
        self.transport.set_protocol(http2)
        http2.connection_made(self.transport)
        http2.data_received(seen)


def _all_status_lines() -> None:
    """Handlers choose status codes up to 999; uvicorn only knows those below 600."""
    lines: dict[int, bytes] = httptools_impl.STATUS_LINE
    for status in range(600, 1000):
        lines.setdefault(status, b"HTTP/1.1 %d \r\n" % status)


_all_status_lines()

__all__: Sequence[Any] = ("AddressUnavailable", "HttpServer", "Listener", "Server", "bind", "serve", "serve_on")
