"""HTTP/2 client: a few connections per origin, many streams on each, over `h2`.

Cleartext with prior knowledge, or TLS by ALPN.

- A connection is ready when the peer's SETTINGS have come. A peer that answers anything else speaks HTTP/1.1
  only (META0014).
- Flow control both ways: bodies are sent as the windows allow; what is received is acknowledged at once,
  since responses are bounded and collected in memory anyway.
- GOAWAY: no new streams; those the peer did not look at (above its last stream id, or refused) may be sent
  again elsewhere, the others may still end. `h2` would refuse every frame after GOAWAY, so `_Machine` keeps
  its state open.
- A stream given up (timeout, cancellation, too large) is reset; the connection goes on for the others. A
  connection that stayed silent for the whole of a timed-out exchange takes no new streams: its peer may be
  gone without a word.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, cast

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
from hyperframe.frame import Frame, GoAwayFrame

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
    too_large,
)
from holdfast_runtime.ports.endpoint import EndpointResponse

MAX_CONNECTIONS: Final = 16  # per origin; servers allow some 100 streams on each
STREAM_WINDOW: Final = 1024 * 1024  # how far ahead of our reading a peer may send, per stream
CONNECTION_WINDOW: Final = 16 * 1024 * 1024
_MAX_STREAM_ID: Final = 2**31 - 1

_GREETINGS: Final = (b"", b"\x04", b"\x07", b"P")  # frame type: SETTINGS, or GOAWAY at once; the P is of HTTP/

HTTP1_ONLY: Final = "server possibly supports only HTTP1.1, consider discovery with --use-http1.1."


class _Machine(h2.connection.H2Connection):
    """`h2` closes its state machine at GOAWAY; RFC 9113 §6.8 lets the streams below the last id go on."""

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[h2.events.Event]]:
        event = h2.events.ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        event.additional_data = frame.additional_data or None
        return [], [event]


class _Stream:
    """One exchange in flight."""

    __slots__ = ("began_at", "body", "body_bytes", "bytes_before", "headers", "reply", "status", "timer", "unsent")

    def __init__(self, unsent: memoryview, reply: asyncio.Future[EndpointResponse], bytes_before: int) -> None:
        self.unsent = unsent
        self.reply = reply
        self.began_at = reply.get_loop().time()
        self.bytes_before = bytes_before  # received on the connection when the stream began
        self.timer: asyncio.TimerHandle | None = None
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body: list[bytes] = []
        self.body_bytes = 0

    def response(self, broken: str | None) -> EndpointResponse:
        body = self.body[0] if len(self.body) == 1 else b"".join(self.body)
        return EndpointResponse(self.status, self.headers, body, broken)


class Http2Connection(asyncio.Protocol):
    """One connection. Await `ready`, then `exchange` as long as `has_room`."""

    def __init__(
        self,
        on_closed: Callable[[Http2Connection], None],
        on_room: Callable[[], None],
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_closed = on_closed
        self._on_room = on_room
        self._limits = limits
        self._transport: asyncio.Transport | None = None
        self._machine = _Machine(
            h2.config.H2Configuration(
                client_side=True,
                header_encoding=None,
                validate_outbound_headers=False,  # validated where the request was built
                normalize_outbound_headers=False,
                validate_inbound_headers=False,  # of the head only :status matters, and it is checked here
            )
        )
        self._streams: dict[int, _Stream] = {}
        self._received = 0
        self._first_bytes = b""
        self._served = 0
        self._retiring = False
        self._writable = True
        self._idle_since = self._loop.time()
        self._idle_timer: asyncio.TimerHandle | None = None
        self.ready: asyncio.Future[None] = self._loop.create_future()

    @property
    def has_room(self) -> bool:
        return (
            self._transport is not None and not self._retiring and len(self._streams) < self._machine.remote_settings.max_concurrent_streams
        )

    @property
    def usable(self) -> bool:
        """It takes streams now, or will when some end."""
        return self._transport is not None and not self._retiring

    async def exchange(self, request: Outgoing, *, timeout_s: float) -> EndpointResponse:
        """Send, receive. NotStarted, ExchangeFailed; on CancelledError the stream is reset."""
        assert self.has_room
        machine = self._machine
        stream_id = machine.get_next_available_stream_id()
        if stream_id > _MAX_STREAM_ID - 2:
            self._retiring = True
        stream = _Stream(memoryview(request.body), self._loop.create_future(), self._received)
        self._streams[stream_id] = stream
        stream.timer = self._loop.call_later(timeout_s, self._time_out, stream_id)
        try:
            machine.send_headers(stream_id, _head(request), end_stream=not request.body)
        except h2.exceptions.ProtocolError as exc:  # the peer lowered a limit meanwhile: nothing was sent
            self._retiring = True
            self._settle(stream_id, NotStarted(f"the stream could not be opened ({exc})"))
        else:
            self._send_body(stream_id, stream)
            self._flush()
        try:
            return await stream.reply
        except asyncio.CancelledError:
            self._give_up(stream_id, ExchangeFailed("cancelled"))
            raise

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop has transports of its own class.
        transport = cast(asyncio.Transport, transport)
        self._transport = transport
        self._machine.local_settings = h2.settings.Settings(
            client=True,
            initial_values={
                h2.settings.SettingCodes.ENABLE_PUSH: 0,
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD_BYTES,
            },
        )
        self._machine.initiate_connection()
        self._machine.increment_flow_control_window(CONNECTION_WINDOW - 65_535)
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if not self.ready.done():
            self._first_bytes = (self._first_bytes + data)[:5]
            if self._first_bytes == b"HTTP/":
                self._end(ExchangeFailed(HTTP1_ONLY, "META0014"))
                return
            if self._first_bytes[3:4] not in _GREETINGS:  # h2 would wait for the end of the frame
                self._end(ExchangeFailed(f"the peer does not speak HTTP/2 (it says {self._first_bytes!r})", "RT0012"))
                return
        try:
            events = self._machine.receive_data(data)
        except h2.exceptions.ProtocolError as exc:
            self._flush()  # the GOAWAY that names our complaint
            self._end(ExchangeFailed(f"the peer broke the HTTP/2 protocol ({type(exc).__name__}: {exc})", "RT0012"))
            return
        for event in events:
            self._handle(event)
        self._flush()
        if self._retiring and not self._streams:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not self.ready.done():
            self.ready.set_exception(ExchangeFailed(HTTP1_ONLY, "META0014"))
            self.ready.exception()  # nobody may be waiting any more
        why = broken_connection(exc)
        for stream_id, stream in list(self._streams.items()):
            is_soon = self._loop.time() - stream.began_at < http_exchange.STALE_WITHIN_S
            stale = self._served and is_soon and stream.bytes_before == self._received
            kind = NotStarted if stale else ExchangeFailed
            self._settle(stream_id, stream.response(why) if stream.status else kind(f"{why} before a response"))
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._on_closed(self)

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._send_bodies()

    # --- events

    def _handle(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.DataReceived():
                self._data(event)
            case h2.events.ResponseReceived():
                self._head_received(event)
            case h2.events.StreamEnded():
                self._ended(event.stream_id)
            case h2.events.WindowUpdated():
                self._send_bodies()
            case h2.events.StreamReset():
                self._reset_by_peer(event)
            case h2.events.RemoteSettingsChanged():
                self._settings_changed()
            case h2.events.ConnectionTerminated():
                self._going_away(event)
            case _:
                pass  # informational responses, trailers, pings, priorities: nothing depends on them

    def _head_received(self, event: h2.events.ResponseReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        pairs = [(bytes(name), bytes(value)) for name, value in event.headers]
        status = next((value for name, value in pairs if name == b":status"), b"")
        if not (len(status) == 3 and status.isdigit()):
            self._give_up(event.stream_id, ExchangeFailed(f"the response has no valid :status ({status!r})", "RT0012"))
            return
        stream.status = int(status)
        stream.headers = first_of(pair for pair in pairs if not pair[0].startswith(b":"))

    def _data(self, event: h2.events.DataReceived) -> None:
        self._machine.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        stream.body_bytes += len(event.data)
        if stream.body_bytes > self._limits.response_bytes:
            self._give_up(event.stream_id, too_large(self._limits.response_bytes))
        else:
            stream.body.append(event.data)

    def _ended(self, stream_id: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        if stream.unsent:  # answered before the request was read: the rest is not wanted
            self._reset(stream_id, h2.errors.ErrorCodes.NO_ERROR)
        self._served += 1
        self._settle(stream_id, stream.response(None))

    def _reset_by_peer(self, event: h2.events.StreamReset) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        why = f"the peer reset the stream (HTTP/2 error {_error_name(event.error_code)})"
        if event.error_code == h2.errors.ErrorCodes.REFUSED_STREAM:
            self._settle(event.stream_id, NotStarted(why))
        else:
            self._settle(event.stream_id, stream.response(why) if stream.status else ExchangeFailed(why))

    def _settings_changed(self) -> None:
        if not self.ready.done():
            self.ready.set_result(None)
            self._watch_idle()
        self._send_bodies()
        self._on_room()

    def _going_away(self, event: h2.events.ConnectionTerminated) -> None:
        self._retiring = True
        last = event.last_stream_id or 0
        why = f"the peer is going away (HTTP/2 error {_error_name(event.error_code)})"
        if not self.ready.done():
            self._end(ExchangeFailed(why))
            return
        for stream_id in [stream_id for stream_id in self._streams if stream_id > last]:
            self._settle(stream_id, NotStarted(why))

    # --- sending

    def _send_bodies(self) -> None:
        for stream_id, stream in list(self._streams.items()):
            self._send_body(stream_id, stream)
        self._flush()

    def _send_body(self, stream_id: int, stream: _Stream) -> None:
        try:
            while stream.unsent and self._writable and self._transport is not None:
                window = min(self._machine.local_flow_control_window(stream_id), self._machine.max_outbound_frame_size)
                if window <= 0:
                    return
                chunk, stream.unsent = stream.unsent[:window], stream.unsent[window:]
                self._machine.send_data(stream_id, chunk.tobytes(), end_stream=not stream.unsent)
                if stream.unsent:
                    self._flush()
        except h2.exceptions.ProtocolError:
            return  # closed by a frame of the same read, whose event is still to be handled and settles it

    def _flush(self) -> None:
        data = self._machine.data_to_send()
        if data and self._transport is not None:
            self._transport.write(data)

    # --- ends of streams and of the connection

    def _time_out(self, stream_id: int) -> None:
        if self._streams[stream_id].bytes_before == self._received:
            self._retiring = True
        self._give_up(stream_id, TimedOut())

    def _give_up(self, stream_id: int, failure: ExchangeFailed) -> None:
        if stream_id in self._streams:
            self._reset(stream_id, h2.errors.ErrorCodes.CANCEL)
            self._settle(stream_id, failure)
            if self._retiring and not self._streams:
                self.close()

    def _reset(self, stream_id: int, code: h2.errors.ErrorCodes) -> None:
        try:
            self._machine.reset_stream(stream_id, code)
        except h2.exceptions.ProtocolError:
            return  # it has ended on its own
        self._flush()

    def _settle(self, stream_id: int, outcome: EndpointResponse | ExchangeFailed) -> None:
        stream = self._streams.pop(stream_id)
        if stream.timer is not None:
            stream.timer.cancel()
        if not self._streams:
            self._idle_since = self._loop.time()
        if not stream.reply.done():
            if isinstance(outcome, ExchangeFailed):
                stream.reply.set_exception(outcome)
            else:
                stream.reply.set_result(outcome)
        self._on_room()

    def _end(self, failure: ExchangeFailed) -> None:
        self._retiring = True
        if not self.ready.done():
            self.ready.set_exception(failure)
            self.ready.exception()
        for stream_id in list(self._streams):
            self._settle(stream_id, failure)
        self.close()

    def _watch_idle(self) -> None:
        """Close when no stream was open for the idle timeout; one timer per connection, moved on when it
        fires early.
        """
        self._idle_timer = None
        due = (self._loop.time() if self._streams else self._idle_since) + self._limits.idle_timeout_s
        if due <= self._loop.time():
            self.close()
        else:
            self._idle_timer = self._loop.call_at(due, self._watch_idle)


def _head(request: Outgoing) -> list[tuple[bytes, bytes]]:
    head = [
        (b":method", request.method.encode()),
        (b":scheme", request.scheme.encode()),
        (b":authority", request.authority.encode()),
        (b":path", request.target.encode()),
    ]
    head += [(name.encode(), value.encode()) for name, value in request.headers if name != "host"]
    if request.body:
        head.append((b"content-length", str(len(request.body)).encode()))
    return head


def _error_name(code: int | None) -> str:
    try:
        return h2.errors.ErrorCodes(code or 0).name
    except ValueError:
        return str(code)


class Http2Pool:
    """The connections of one origin.

    `connect` opens a ready one or raises ExchangeFailed; only one is opened at a time.
    """

    def __init__(
        self,
        connect: Callable[[float], Awaitable[Http2Connection]],
        *,
        max_connections: int = MAX_CONNECTIONS,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._connect = connect
        self._limits = limits
        self._max_connections = max_connections
        self._loop = asyncio.get_running_loop()
        self._connections: list[Http2Connection] = []
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._connecting: asyncio.Task[None] | None = None
        self._closed = False

    async def exchange(self, request: Outgoing, *, timeout_s: float) -> EndpointResponse:
        """One exchange within `timeout_s`, connecting and waiting for a stream included; what the peer
        ignored is sent once more.
        """
        deadline = self._loop.time() + timeout_s
        for last_try in (False, True):
            connection = await self._with_room(deadline)
            try:
                return await connection.exchange(request, timeout_s=max(0.0, deadline - self._loop.time()))
            except NotStarted:
                if last_try:
                    raise
        raise AssertionError("unreachable")

    def adopt(self, connection: Http2Connection) -> None:
        """Use a connection opened elsewhere."""
        if self._closed:
            connection.close()
            return
        self._connections.append(connection)
        self.room()

    def forget(self, connection: Http2Connection) -> None:
        """It was closed."""
        if connection in self._connections:
            self._connections.remove(connection)
        self.room()

    def room(self) -> None:
        """A stream ended, a connection came or went: whoever waits longest looks again."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def close(self) -> None:
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        for connection in list(self._connections):
            connection.close()
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(ExchangeFailed("the client is shutting down"))

    async def _with_room(self, deadline: float) -> Http2Connection:
        while True:
            if self._closed:
                raise ExchangeFailed("the client is shutting down")
            for connection in self._connections:
                if connection.has_room:
                    self.room()  # there may be more for others; who is woken looks for itself
                    return connection
            try:
                async with asyncio.timeout_at(deadline):
                    await self._more_room()
            except TimeoutError:
                raise TimedOut() from None

    async def _more_room(self) -> None:
        """Returns when it is worth looking again; raises what the attempt to connect raised."""
        if sum(connection.usable for connection in self._connections) < self._max_connections:
            if self._connecting is None:
                self._connecting = self._loop.create_task(self._open())
                self._connecting.add_done_callback(lambda task: task.cancelled() or task.exception())
            connecting = self._connecting
            await asyncio.wait([connecting])
            if not connecting.cancelled() and (failure := connecting.exception()) is not None:
                raise failure
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.room()  # our turn goes to the next
            raise

    async def _open(self) -> None:
        try:
            self.adopt(await self._connect(self._loop.time() + self._limits.connect_timeout_s))
        finally:
            self._connecting = None
