"""One HTTP/1.1 connection of the ingress: parsed by httptools, answered in one write (RFC 9112).

Rules: one request at a time; pipelined ones wait, and while any waits nothing more is read; the next is served once the
answer to the last has left for the socket; what is not HTTP is refused in plain text and ends the connection, what is
HTTP is answered by the ingress. A caller that goes away ends the waiting for a result, not what was accepted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from enum import Enum, auto
from typing import Any, Final, Protocol, cast

import httptools

from holdfast_runtime.surfaces.asgi import WATCH_AFTER_S, CallerGone
from holdfast_runtime.surfaces.http1_messages import CLOSE, CONTINUE, KEEP_ALIVE, Http1Request, head, plain
from holdfast_runtime.surfaces.ingress_replies import Reply
from holdfast_runtime.surfaces.ingress_request import Request
from holdfast_runtime.surfaces.server_http2 import PREFACE

log = logging.getLogger("holdfast.http1")

MAX_HEAD_BYTES: Final = 64 * 1024  # all header names and values and the path; every byte is kept per call
MAX_HEADERS: Final = 128
MAX_UNWANTED: Final = 64 * 1024 * 1024  # bytes of a body nobody reads, until the client is cut off
ONE_WRITE: Final = 64 * 1024  # larger bodies are not copied behind their head
IDLE_S: Final = 75.0  # between requests; above the 60 s that AWS load balancers wait unless told otherwise, so that they close first
STALLED_S: Final = 60  # for a head to arrive; in the middle of a body or an answer without a byte moving
LINGER_S: Final = 2  # after a refusal, for the client to see it

TOO_LARGE: Final = f"the request's headers are too large: at most {MAX_HEAD_BYTES} bytes in all are accepted"
_METHODS: Final = {name.encode(): name for name in ("POST", "GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH")}


class App(Protocol):
    async def handle(self, request: Request) -> Reply: ...


class Shared(Protocol):
    """What a connection needs of its listener (`http1_server.py`)."""

    app: Any
    connections: set[Any]
    tasks: set[asyncio.Task[None]]
    closing: bool
    idle_s: float
    ticks: int
    date_line: bytes

    def switch_to_http2(self, connection: Http1Connection, transport: asyncio.Transport, seen: bytes) -> None: ...


class Reading(Enum):
    NEW = auto()  # nothing seen: it may become HTTP/2
    IDLE = auto()  # before a request
    HEAD = auto()
    BODY = auto()
    REFUSED = auto()  # whatever comes is dropped


class Http1Connection(asyncio.Protocol):
    """Until it ends, or turns out to be HTTP/2."""

    __slots__ = (
        "_arriving",
        "_current",
        "_fed",
        "_loop",
        "_moved_at",
        "_parser",
        "_queue",
        "_raw",
        "_read_paused",
        "_reading",
        "_resuming",
        "_seen",
        "_shared",
        "_task",
        "_transport",
        "_unsent",
        "_unwanted",
        "_url",
        "_write_paused",
    )

    def __init__(self, shared: Shared, loop: asyncio.AbstractEventLoop) -> None:
        self._shared = shared
        self._loop = loop
        self._reading = Reading.NEW
        self._seen = b""
        self._fed = 0  # bytes received since the parser last had something to show for them
        self._url = b""
        self._raw: dict[bytes, bytes] = {}
        self._arriving: Http1Request | None = None  # its head is complete, its body not
        self._current: Http1Request | None = None  # until its answer is written and its body has ended
        self._task: asyncio.Task[None] | None = None  # None: answered
        self._queue: deque[Http1Request | Reply] = deque()  # a reply is a refusal that waits for its turn
        self._unwanted = 0
        self._unsent = 0
        self._write_paused = False
        self._read_paused = False
        self._resuming = False  # the parser is told again what is known
        self._moved_at = shared.ticks
        self._new_parser()

    def _new_parser(self) -> None:
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(_Callbacks(self))

    # ---- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop has transports of its own class
        if self._shared.closing:
            self._transport.close()
            return
        self._shared.connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self._reading is Reading.REFUSED:
            return None
        if self._reading is not Reading.HEAD:  # whose time is counted as a whole: one byte a minute would last for ever
            self._moved_at = self._shared.ticks
        if self._reading is Reading.NEW:
            data = self._seen + data
            if data.startswith(PREFACE):
                return self._shared.switch_to_http2(self, self._transport, data)
            if PREFACE.startswith(data):  # too short to tell
                self._seen = data
                return None
            self._seen = b""
            self._reading = Reading.IDLE
        self._fed += len(data)
        self._parse(data)
        if self._fed > MAX_HEAD_BYTES and self._reading is not Reading.REFUSED:
            self._refuse(431, TOO_LARGE)
        elif self._arriving is not None and not self._arriving.started:
            self._enqueue(self._arriving)  # it may be refused before its body is there
        return None

    def _parse(self, data: bytes) -> None:
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError:
            raise
        except httptools.HttpParserError as error:
            if self._reading is not Reading.REFUSED:
                self._refuse(400, f"not HTTP/1.1: {error}")

    def eof_received(self) -> None:
        """The transport closes: who half-closes cannot be told from who has gone."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._shared.connections.discard(self)
        self._reading = Reading.REFUSED
        self._queue.clear()
        self._parser = None  # it refers back to here
        request, task = self._current, self._task
        if request is None or task is None or task.done():
            return
        request.lose()
        tasks = self._shared.tasks
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        # Who sends a call and leaves at once still wants it accepted, which is done by then.
        self._loop.call_later(WATCH_AFTER_S, _stop_waiting, request, task)

    def pause_writing(self) -> None:
        self._write_paused = True
        self._unsent = self._transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._current is None:
            self._next()

    # ---- The listener

    def shutdown(self) -> None:
        """The server closes: what has begun may end."""
        if self._current is None and self._reading not in (Reading.HEAD, Reading.BODY) and not self._queue:
            self._transport.close()

    def expire(self) -> None:
        """The grace is over: the ingress answers a cancelled request."""
        if self._task is not None:
            self._task.cancel()
        else:
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def tick(self, ticks: int) -> None:
        """Once a second: who has stalled is closed. Waiting for a result may take for ever."""
        if self._write_paused:
            unsent = self._transport.get_write_buffer_size()
            if unsent != self._unsent:
                self._unsent, self._moved_at = unsent, ticks
            elif ticks - self._moved_at > STALLED_S:
                self._transport.abort()
        elif self._transport.is_closing():
            if ticks - self._moved_at > STALLED_S:
                self._transport.abort()  # what is left to send fits the buffers, and nobody takes it
        elif self._reading in (Reading.HEAD, Reading.BODY):
            if ticks - self._moved_at > STALLED_S and not self._queue:
                what = "the request's headers did not arrive within" if self._reading is Reading.HEAD else "no byte of the request for"
                self._refuse(408, f"{what} {STALLED_S} s")
        elif self._current is None and ticks - self._moved_at > (self._shared.idle_s if self._reading is not Reading.REFUSED else LINGER_S):
            self._transport.close()

    # ---- Parsing, called by httptools

    def on_message_begin(self) -> None:
        if self._resuming or self._reading is Reading.REFUSED:
            return
        self._reading = Reading.HEAD
        self._url = b""
        self._raw.clear()  # trailers, which are not wanted

    def on_url(self, piece: bytes) -> None:
        self._url = self._url + piece if self._url else piece

    def on_headers_complete(self) -> None:
        if self._resuming or self._reading is Reading.REFUSED:
            return
        parser, raw = self._parser, self._raw
        assert parser is not None
        if self._fed > MAX_HEAD_BYTES and len(self._url) + sum(map(len, raw)) + sum(map(len, raw.values())) > MAX_HEAD_BYTES:
            self._refuse(431, TOO_LARGE)
            return
        self._fed = 0
        self._reading = Reading.BODY
        self._moved_at = self._shared.ticks
        if len(raw) > MAX_HEADERS:
            self._refuse(431, f"too many headers: {len(raw)} of at most {MAX_HEADERS}")
            return
        headers = {name.lower(): value for name, value in raw.items()}
        if len(headers) != len(raw):  # the same name in two spellings: the first counts
            headers = {}
            for name, value in raw.items():
                headers.setdefault(name.lower(), value)
        target = self._target()
        if target is None:
            return
        verb = parser.get_method()
        request = Http1Request(_METHODS.get(verb) or verb.decode(), *target, headers, keep=parser.should_keep_alive())
        if b"connection" in headers and parser.get_http_version() == "1.0":
            request.announce_keep = request.keep
        if headers.get(b"expect", b"").lower() == b"100-continue":
            request.ask_before_body(self._continue)
        self._arriving = request

    def _target(self) -> tuple[bytes, bytes] | None:
        """Path and query. None: it was refused."""
        url = self._url
        if url[:1] == b"/" and b"#" not in url:
            path, _, query = url.partition(b"?")
            return path, query
        try:
            parsed = httptools.parse_url(url)
        except httptools.HttpParserInvalidURLError:
            self._refuse(400, "not HTTP/1.1: the request target is neither a path nor a URL")
            return None
        return parsed.path or b"/", parsed.query or b""

    def on_body(self, piece: bytes) -> None:
        self._fed = 0
        request = self._arriving
        if request is None:
            return
        if request is self._current and self._task is None:  # answered already
            self._unwanted += len(piece)
            if self._unwanted > MAX_UNWANTED:
                self._transport.abort()
            return
        request.feed(piece)

    def on_message_complete(self) -> None:
        request = self._arriving
        assert self._parser is not None
        if request is None or (_has_body(request) and self._parser.should_upgrade()):
            return
        self._fed = 0
        self._reading = Reading.IDLE
        self._arriving = None
        request.end()
        if not request.started:
            self._enqueue(request)
        elif self._task is None and request is self._current:
            self._finished(request)

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Other protocols are not spoken: the request is taken as it is, as RFC 9110 §7.8 allows.

        The parser stops behind the head of a request to upgrade; another one takes over, at the body if there is one.
        """
        request = self._arriving
        self._new_parser()
        if request is None:
            if rest:
                self._parse(rest)
            return
        length = request.headers.get(b"content-length")
        framing = b"content-length: " + length if length is not None else b"transfer-encoding: " + request.headers[b"transfer-encoding"]
        self._resuming = True
        self._parse(b"POST / HTTP/1.1\r\n" + framing + b"\r\n\r\n")
        self._resuming = False
        if rest:
            self._parse(rest)

    # ---- Serving

    def _enqueue(self, item: Http1Request | Reply) -> None:
        if isinstance(item, Http1Request):
            item.started = True
        self._queue.append(item)
        if self._current is None:
            self._next()
        elif not self._read_paused and not self._transport.is_closing():
            self._read_paused = True
            self._transport.pause_reading()

    def _next(self) -> None:
        """Serve what has waited longest, if anything."""
        self._current = None
        self._moved_at = self._shared.ticks
        if self._write_paused or self._transport.is_closing():
            return
        item = self._queue.popleft() if self._queue else None
        if self._read_paused and not self._queue:
            self._read_paused = False
            self._transport.resume_reading()
        if isinstance(item, Http1Request):
            self._current = item
            self._task = self._loop.create_task(self._serve(item))
        elif item is not None:
            self._transport.write(head(item, self._shared.date_line, None) + item.body)
            # Closing on a client that still sends would take the answer from it: the sweep closes, or the client.
            self._transport.write_eof()
        elif self._shared.closing and self._reading is Reading.IDLE:
            self._transport.close()

    async def _serve(self, request: Http1Request) -> None:
        request.settle()
        try:
            reply = await self._shared.app.handle(request)
        except CallerGone:
            self._task = None
            self._next()  # a refusal, if its body was not HTTP
            return
        self._task = None
        if not self._transport.is_closing():
            self._answer(request, reply)

    def _answer(self, request: Http1Request, reply: Reply) -> None:
        unasked = request.expects_continue and not request.ended
        if self._shared.closing or unasked or (reply.status >= 400 and CLOSE in reply.headers):
            request.keep = False
        connection = CLOSE if not request.keep else KEEP_ALIVE if request.announce_keep else None
        top = head(reply, self._shared.date_line, connection)
        body = reply.body if request.method != "HEAD" else b""
        if len(body) <= ONE_WRITE:
            self._transport.write(top + body)
        else:
            self._transport.write(top)
            self._transport.write(body)
        if request.ended or unasked:
            self._finished(request)

    def _finished(self, request: Http1Request) -> None:
        """Answered, and its body is over."""
        if request.keep:
            self._next()
        else:
            self._reading = Reading.REFUSED
            self._transport.close()

    def _continue(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(CONTINUE)

    def _refuse(self, status: int, text: str) -> None:
        """The last answer on this connection, in its turn."""
        broken, self._arriving = self._arriving, None
        self._reading = Reading.REFUSED
        if broken is not None and broken is self._current:
            if self._task is None:  # answered already
                self._transport.close()
                return
            broken.lose()
        elif broken is not None and broken.started:
            self._queue.remove(broken)
        self._enqueue(plain(status, text))


def _stop_waiting(request: Http1Request, task: asyncio.Task[None]) -> None:
    if request.waits:
        task.cancel()


def _has_body(request: Http1Request) -> bool:
    return b"transfer-encoding" in request.headers or request.headers.get(b"content-length", b"0").strip(b"0") != b""


class _Callbacks:
    """What httptools calls. Headers go straight into the dictionary: of repeated ones the first counts."""

    def __init__(self, connection: Http1Connection) -> None:
        self.on_header = connection._raw.setdefault
        self.on_message_begin = connection.on_message_begin
        self.on_url = connection.on_url
        self.on_headers_complete = connection.on_headers_complete
        self.on_body = connection.on_body
        self.on_message_complete = connection.on_message_complete
