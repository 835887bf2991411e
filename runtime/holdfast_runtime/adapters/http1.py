"""HTTP/1.1 client: pooled keep-alive connections, one exchange at a time on each.

The hot path: nothing here that is not needed.

- A request is one write, a response is what `httptools` makes of the bytes; bodies are counted, chunked, or
  end with the connection.
- A kept-alive connection may have been closed by the peer the moment we reuse it. If it fails at once and before
  a single response byte, the request is sent once more on a fresh connection; any other loss is a failure, or a
  broken response once the status is known.
- A connection is reused only after a complete response to a completely sent request. Timeouts and
  cancellation close it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, cast

import httptools

from holdfast_runtime.adapters import http_exchange
from holdfast_runtime.adapters.http_exchange import (
    DEFAULT_LIMITS,
    MAX_HEAD_BYTES,
    ExchangeFailed,
    Limits,
    NotStarted,
    Outgoing,
    TimedOut,
    broken_connection,
    first_of,
    head_too_large,
    too_large,
)
from holdfast_runtime.ports.endpoint import EndpointResponse

IDLE_LIMIT: Final = 64  # kept-alive connections per origin; more than that many were needed at once only in a burst
_ONE_WRITE: Final = 64 * 1024  # below, copying head and body together is cheaper than a second write


def encode(request: Outgoing) -> bytes:
    """Request line and headers, ending with the empty line."""
    lines = [f"{request.method} {request.target} HTTP/1.1\r\nhost: {request.authority}"]
    lines += [f"{name}: {value}" for name, value in request.headers if name != "host"]
    if request.body or request.method != "GET":
        lines.append(f"content-length: {len(request.body)}")
    lines.append("\r\n")
    return "\r\n".join(lines).encode()


class Http1Connection(asyncio.Protocol):
    """One connection. `exchange` while idle; afterwards `idle` tells whether it may be used again."""

    _any_bytes: bool  # of the response
    _head_complete: bool
    _complete: bool
    _keep_alive: bool
    _extra: bool  # bytes followed the response
    _head_bytes: int
    _body_bytes: int
    _status: int
    _headers: list[tuple[bytes, bytes]]
    _body: list[bytes]

    def __init__(self, on_closed: Callable[[Http1Connection], None], limits: Limits = DEFAULT_LIMITS) -> None:
        self._max_body_bytes = limits.response_bytes
        self._loop = asyncio.get_running_loop()
        self._on_closed = on_closed
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._reply: asyncio.Future[EndpointResponse] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._served = 0
        self._sent_at = 0.0
        self._reset()

    @property
    def idle(self) -> bool:
        return self._reply is None and self._transport is not None and not self._transport.is_closing()

    async def exchange(self, head: bytes, body: bytes, *, timeout_s: float) -> EndpointResponse:
        """Send, receive. NotStarted, ExchangeFailed; on CancelledError the connection is closed."""
        assert self._reply is None, "one exchange at a time"
        transport = self._transport
        if transport is None or transport.is_closing():
            raise NotStarted("the connection was closed before the request was sent")
        self._reset()
        reply: asyncio.Future[EndpointResponse] = self._loop.create_future()
        self._reply = reply
        self._sent_at = self._loop.time()
        self._timer = self._loop.call_later(timeout_s, self._time_out)
        if len(body) <= _ONE_WRITE:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)
        try:
            return await reply
        except asyncio.CancelledError:
            self._fail(ExchangeFailed("cancelled"))
            raise

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop has transports of its own class.
        transport = cast(asyncio.Transport, transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._reply is None:  # bytes nobody asked for, such as a 408 for an idle connection
            self.close()
            return
        self._any_bytes = True
        if not self._head_complete:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            if not self._complete:
                self._fail(ExchangeFailed(f"the peer does not speak HTTP/1.1 ({describe_parse(exc)})", "RT0012"))
                return
            self._extra = True
        if self._body_bytes > self._max_body_bytes:
            self._fail(too_large(self._max_body_bytes))
        elif not self._head_complete and self._head_bytes > MAX_HEAD_BYTES:
            self._fail(head_too_large())
        elif self._complete:
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._reply is not None:
            self._lost(exc)
        self._on_closed(self)

    # --- httptools callbacks

    def on_message_begin(self) -> None:
        if self._complete:
            self._extra = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_complete:  # trailers are not wanted, and nothing bounds them
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._complete:
            return
        status = self._parser.get_status_code()
        if status < 200:  # informational: neither it nor its headers are the answer
            self._headers = []
            return
        self._status = status
        self._head_complete = True

    def on_body(self, data: bytes) -> None:
        if not self._complete:
            self._body_bytes += len(data)
            if self._body_bytes <= self._max_body_bytes:
                self._body.append(data)

    def on_message_complete(self) -> None:
        if self._head_complete and not self._complete:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()  # the parser forgets it right after this call

    # --- outcomes

    def _reset(self) -> None:
        self._any_bytes = False
        self._head_complete = False
        self._complete = False
        self._keep_alive = False
        self._extra = False
        self._head_bytes = 0
        self._body_bytes = 0
        self._status = 0
        self._headers = []
        self._body = []

    def _finish(self) -> None:
        reusable = self._keep_alive and not self._extra
        transport = self._transport
        if transport is not None and (not reusable or transport.get_write_buffer_size()):
            # Also when answered before the request was read: its rest must not precede the next one.
            transport.abort()
        self._served += 1
        self._settle(self._response(None))

    def _lost(self, exc: Exception | None) -> None:
        if self._head_complete:
            ends_with_connection = not any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in self._headers)
            self._settle(self._response(None if ends_with_connection and exc is None else broken_connection(exc)))
        elif self._any_bytes:
            self._fail(ExchangeFailed(f"{broken_connection(exc)} in the middle of the response's headers"))
        elif self._served and self._loop.time() - self._sent_at < http_exchange.STALE_WITHIN_S:
            self._fail(NotStarted(f"{broken_connection(exc)} before a response"))
        else:
            self._fail(ExchangeFailed(f"{broken_connection(exc)} before a response"))

    def _response(self, broken: str | None) -> EndpointResponse:
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        return EndpointResponse(self._status, first_of(self._headers), body, broken)

    def _time_out(self) -> None:
        self._fail(TimedOut())

    def _fail(self, failure: ExchangeFailed) -> None:
        self.close()
        self._settle(failure)

    def _settle(self, outcome: EndpointResponse | ExchangeFailed) -> None:
        reply, self._reply = self._reply, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if reply is None or reply.done():
            return
        if isinstance(outcome, ExchangeFailed):
            reply.set_exception(outcome)
        else:
            reply.set_result(outcome)


def describe_parse(exc: Exception) -> str:
    return "it wants to switch protocols" if isinstance(exc, httptools.HttpParserUpgrade) else str(exc)


class Http1Pool:
    """The kept-alive connections of one origin, the most recently used first.

    `connect` opens one or raises ExchangeFailed. resend: without it a stale connection is a failure, for callers
    that must know that a request may have been sent twice.
    """

    def __init__(
        self,
        connect: Callable[[float], Awaitable[Http1Connection]],
        *,
        idle_limit: int = IDLE_LIMIT,
        limits: Limits = DEFAULT_LIMITS,
        resend: bool = True,
    ) -> None:
        self._connect = connect
        self._resend = resend
        self._idle_limit = idle_limit
        self._idle_timeout_s = limits.idle_timeout_s
        self._loop = asyncio.get_running_loop()
        self._idle: dict[Http1Connection, float] = {}  # since when; insertion order is age
        self._busy: set[Http1Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    async def exchange(self, request: Outgoing, *, timeout_s: float) -> EndpointResponse:
        """One exchange within `timeout_s`, connecting included; a stale connection is replaced once."""
        head = encode(request)
        deadline = self._loop.time() + timeout_s
        if self._idle:
            connection, _ = self._idle.popitem()
            try:
                return await self._on(connection, head, request.body, timeout_s)
            except NotStarted:
                if not self._resend:
                    raise
        connection = await self._connect(deadline)
        return await self._on(connection, head, request.body, max(0.0, deadline - self._loop.time()))

    async def _on(self, connection: Http1Connection, head: bytes, body: bytes, timeout_s: float) -> EndpointResponse:
        if self._closed:
            connection.close()
            raise ExchangeFailed("the client is shutting down")
        self._busy.add(connection)
        try:
            return await connection.exchange(head, body, timeout_s=timeout_s)
        finally:
            self._busy.discard(connection)
            if connection.idle:
                self.adopt(connection)

    def adopt(self, connection: Http1Connection) -> None:
        """Keep an idle connection for the next exchange."""
        if self._closed or len(self._idle) >= self._idle_limit:
            connection.close()
            return
        self._idle[connection] = self._loop.time()
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(self._idle_timeout_s, self._sweep)

    def forget(self, connection: Http1Connection) -> None:
        """It was closed."""
        self._idle.pop(connection, None)

    def close(self) -> None:
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in [*self._idle, *self._busy]:
            connection.close()
        self._idle.clear()

    def _sweep(self) -> None:
        self._sweeper = None
        oldest_allowed = self._loop.time() - self._idle_timeout_s
        for connection, since in list(self._idle.items()):
            if since > oldest_allowed:
                self._sweeper = self._loop.call_at(since + self._idle_timeout_s, self._sweep)
                return
            del self._idle[connection]
            connection.close()
