"""HTTP/2 in cleartext with prior knowledge, as ASGI (http-api §1): one connection, a task for each stream.

Rules: request bodies are acknowledged when the application takes them, so a slow application slows its
client; answers wait for the client's window; a reset stream is a caller that went away; who opens and
resets streams faster than they can end is shown out, and so is who asks for answers of the protocol itself (pings,
settings) without reading them; a stream whose body stops coming, or whose answer is not taken, is given up.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final, Protocol, cast
from urllib.parse import unquote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RequestReceived,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from holdfast_runtime.surfaces.asgi import App, Message, RawHeaders, Scope

log = logging.getLogger("holdfast.http2")

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_STREAMS: Final = 256
MAX_TASKS: Final = 4 * MAX_STREAMS  # reset streams included, whose applications still have to notice
WINDOW: Final = 1 << 20  # bytes a client may send ahead, per stream and in all
MAX_OWED: Final = 1 << 20  # bytes of acknowledgements and their like for a client that does not read
STALLED_S: Final = 60.0  # in which no byte of a request came, or none of an answer was taken
_LOOK_S: Final = 5.0
# Meaningless or forbidden in HTTP/2 (RFC 9113 §8.2.2).
_HOP_BY_HOP: Final = frozenset({b"connection", b"transfer-encoding", b"keep-alive", b"upgrade"})


class Shared(Protocol):
    """What a connection needs of its listener, ours or uvicorn's."""

    connections: set[Any]
    tasks: set[asyncio.Task[None]]
    default_headers: RawHeaders


class Http2Protocol(asyncio.Protocol):
    """Takes over a connection whose first bytes were the preface. `keep_alive_s`: idle connections are
    closed.
    """

    def __init__(self, app: App, state: Shared, keep_alive_s: float) -> None:
        self._app = app
        self._state = state
        self._keep_alive_s = keep_alive_s
        self._loop = asyncio.get_running_loop()
        self._streams: dict[int, _Stream] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._writable = asyncio.Event()
        self._writable.set()
        self._window_moved = asyncio.Event()
        self._idle: asyncio.TimerHandle | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._ending: asyncio.TimerHandle | None = None
        self._owed = 0  # bytes written since the client stopped reading
        self._closing = False
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        limits = {SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS, SettingCodes.INITIAL_WINDOW_SIZE: WINDOW}
        self.h2.local_settings = Settings(client=False, initial_values=limits)

    # ---- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop has transports of its own class.
        transport = cast(asyncio.Transport, transport)
        self._transport = transport
        self._state.connections.add(self)
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(WINDOW)
        self.flush()
        self._arm_idle()

    def data_received(self, data: bytes) -> None:
        try:
            for event in self.h2.receive_data(data):
                self._handle(event)
        except ProtocolError:
            self.flush()  # h2 has queued the GOAWAY that says why
            self._close()
            return
        # Any frame may have moved a window: settings and updates do, and waking too often is harmless.
        self._wake()
        answer = self.h2.data_to_send()
        if not self._writable.is_set():
            self._owed += len(answer)
            if self._owed > MAX_OWED:
                self._transport.abort()
                return
        self._write(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._state.connections.discard(self)
        self._closing = True
        for timer in (self._idle, self._looking, self._ending):
            if timer is not None:
                timer.cancel()
        for stream in self._streams.values():
            stream.disconnect()
        self._streams.clear()
        self._writable.set()
        self._window_moved.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._owed = 0
        self._writable.set()

    def shutdown(self) -> None:
        """Called by the server when it stops: no new streams, the open ones may end."""
        self._closing = True
        self._close_if_done()

    def expire(self) -> None:
        """The grace is over: the application answers what is cancelled."""
        for task in list(self._tasks):
            task.cancel()

    def abort(self) -> None:
        self._transport.abort()

    def tick(self, ticks: int) -> None:
        """Once a second; idle connections have a timer of their own."""

    # ---- Streams

    def _handle(self, event: Event) -> None:
        match event:
            case RequestReceived():
                self._open(event)
            case DataReceived():
                stream = self._streams.get(event.stream_id)
                if stream is None:  # already answered: give the window back at once
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                else:
                    stream.feed(event.data, event.flow_controlled_length)
            case StreamEnded():
                if event.stream_id in self._streams:
                    self._streams[event.stream_id].end()
            case StreamReset():
                stream = self._streams.pop(event.stream_id, None)
                if stream is not None:
                    stream.disconnect()
            case ConnectionTerminated():
                self._close()

    def _open(self, event: RequestReceived) -> None:
        if len(self._tasks) >= MAX_TASKS:
            self._say_goodbye(ErrorCodes.ENHANCE_YOUR_CALM)
            return
        if self._closing:
            self.h2.reset_stream(event.stream_id, ErrorCodes.REFUSED_STREAM)  # safe to repeat elsewhere
            return
        if self._idle is not None:
            self._idle.cancel()
        if self._looking is None:
            self._looking = self._loop.call_later(_LOOK_S, self._look)
        stream_id = event.stream_id
        stream = _Stream(self, stream_id, _scope(event, self._transport))
        self._streams[stream_id] = stream
        task = self._loop.create_task(self._run(stream))
        for owner in (self._tasks, self._state.tasks):
            owner.add(task)
            task.add_done_callback(owner.discard)

    async def _run(self, stream: _Stream) -> None:
        try:
            await self._app(stream.scope, stream.receive, stream.send)
        except Exception:
            log.exception("http2.failed", extra={"path": stream.scope["path"]})
        finally:
            self._streams.pop(stream.id, None)
            if not stream.ended and not stream.gone and not self._transport.is_closing():
                self.h2.reset_stream(stream.id, ErrorCodes.INTERNAL_ERROR)
                self.flush()
            if not self._streams:
                self._arm_idle()
                self._close_if_done()

    def _arm_idle(self) -> None:
        self._idle = self._loop.call_later(self._keep_alive_s, self._say_goodbye, ErrorCodes.NO_ERROR)

    def _close_if_done(self) -> None:
        if self._closing and not self._streams:
            self._say_goodbye(ErrorCodes.NO_ERROR)

    def _say_goodbye(self, code: ErrorCodes) -> None:
        # Only now: after GOAWAY, h2 lets no open stream finish.
        if not self._transport.is_closing():
            self.h2.close_connection(code)
            self.flush()
            self._close()

    def _close(self) -> None:
        """Once everything is sent; what nobody takes is dropped in the end."""
        self._transport.close()
        if self._ending is None:
            self._ending = self._loop.call_later(STALLED_S, self._transport.abort)

    def _look(self) -> None:
        """Every few seconds while there are streams: who has stalled is given up. Waiting for a result may take for ever."""
        self._looking = self._loop.call_later(_LOOK_S, self._look) if self._streams else None
        stalled = [stream for stream in self._streams.values() if stream.stalled(self._loop.time())]
        if not stalled or self._transport.is_closing():
            return
        if not self._writable.is_set():
            self._transport.abort()  # not even a reset would be read
            return
        for stream in stalled:
            del self._streams[stream.id]
            stream.disconnect()
            self.h2.reset_stream(stream.id, ErrorCodes.CANCEL)
        self._wake()
        self.flush()

    def _wake(self) -> None:
        """Those who wait for room to send."""
        self._window_moved.set()
        self._window_moved.clear()

    # ---- For streams

    @property
    def closed(self) -> bool:
        return self._transport.is_closing()

    @property
    def default_headers(self) -> RawHeaders:
        return self._state.default_headers

    def flush(self) -> None:
        self._write(self.h2.data_to_send())

    def _write(self, data: bytes) -> None:
        if data and not self._transport.is_closing():
            self._transport.write(data)

    async def may_send(self, stream: _Stream) -> int:
        """Waits until the client takes more; 0 when it is gone."""
        stream.begin_waiting()
        while not stream.gone and not self._transport.is_closing():
            await self._writable.wait()
            if stream.gone or self._transport.is_closing():
                break
            size = min(self.h2.local_flow_control_window(stream.id), self.h2.max_outbound_frame_size)
            if size > 0:
                stream.end_waiting()
                return size
            await self._window_moved.wait()
        return 0


class _Stream:
    """One request and its answer."""

    def __init__(self, connection: Http2Protocol, stream_id: int, scope: Scope) -> None:
        self.id = stream_id
        self.scope = scope
        self.gone = False
        self.ended = False
        self._connection = connection
        self._chunks: list[bytes] = []
        self._unacknowledged = 0
        self._complete = False
        self._delivered = False
        self._waits_since: float | None = None  # for the client, to send or to take a byte
        self._changed = asyncio.Event()

    def feed(self, data: bytes, flow_controlled: int) -> None:
        self._chunks.append(data)
        self._unacknowledged += flow_controlled
        self._changed.set()

    def end(self) -> None:
        self._complete = True
        self._changed.set()

    def disconnect(self) -> None:
        self.gone = True
        self._changed.set()

    def begin_waiting(self) -> None:
        self._waits_since = asyncio.get_running_loop().time()

    def end_waiting(self) -> None:
        self._waits_since = None

    def stalled(self, now: float) -> bool:
        return self._waits_since is not None and now - self._waits_since > STALLED_S

    async def receive(self) -> Message:
        if not self._delivered:
            self.begin_waiting()
        while not self.gone and (self._delivered or not (self._chunks or self._complete)):
            self._changed.clear()
            await self._changed.wait()
        if not self._delivered:
            self.end_waiting()
        if self.gone:
            return {"type": "http.disconnect"}
        body = b"".join(self._chunks)
        self._chunks.clear()
        if self._unacknowledged:
            self._connection.h2.acknowledge_received_data(self._unacknowledged, self.id)
            self._unacknowledged = 0
            self._connection.flush()
        self._delivered = self._complete
        return {"type": "http.request", "body": body, "more_body": not self._complete}

    async def send(self, message: Message) -> None:
        if self.gone or self._connection.closed:  # h2 refuses to answer on a connection that has been taken leave of
            return
        if message["type"] == "http.response.start":
            status = (b":status", b"%d" % message["status"])
            headers = [(name, value) for name, value in (*self._connection.default_headers, *message["headers"]) if name not in _HOP_BY_HOP]
            self._connection.h2.send_headers(self.id, [status, *headers])
            return
        await self._send_body(message.get("body", b""), end=not message.get("more_body", False))

    async def _send_body(self, body: bytes, *, end: bool) -> None:
        rest = memoryview(b"" if self.scope["method"] == "HEAD" else body)
        while rest:
            size = await self._connection.may_send(self)
            if size == 0:
                return
            self._connection.h2.send_data(self.id, rest[:size].tobytes())
            rest = rest[size:]
            self._connection.flush()
        if end and not self.gone:
            self.ended = True
            self._connection.h2.end_stream(self.id)
        self._connection.flush()


def _scope(event: RequestReceived, transport: asyncio.Transport) -> Scope:
    pseudo: dict[bytes, bytes] = {}
    headers: RawHeaders = []
    for name, value in event.headers:
        if name.startswith(b":"):
            pseudo[bytes(name)] = bytes(value)
        else:
            headers.append((bytes(name), bytes(value)))
    if b":authority" in pseudo:
        headers.insert(0, (b"host", pseudo[b":authority"]))
    raw_path, _, query = pseudo.get(b":path", b"/").partition(b"?")
    peer: Any = transport.get_extra_info("peername")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "2",
        "method": pseudo[b":method"].decode("latin-1"),
        "scheme": "http",
        "path": unquote(raw_path.decode("latin-1")),
        "raw_path": raw_path,
        "query_string": query,
        "root_path": "",
        "headers": headers,
        "client": tuple(peer[:2]) if isinstance(peer, tuple) else None,
        "server": None,
        "state": {},
    }
