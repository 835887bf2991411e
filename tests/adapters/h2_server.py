"""An HTTP/2 server over `h2` that a test scripts per stream: it can refuse, reset, go away, starve clients."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings

OnRequest = Callable[["Http2Server", "Connection", "Received"], None]


@dataclass
class Received:
    """One complete request."""

    stream_id: int
    headers: dict[str, str]
    body: bytearray = field(default_factory=bytearray)


class Connection(asyncio.Protocol):
    """The server's end. Bodies that do not fit into the client's windows are sent as they open."""

    def __init__(self, server: Http2Server) -> None:
        self.server = server
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.open: dict[int, Received] = {}
        self.unsent: dict[int, memoryview] = {}
        self.resets: list[tuple[int, int]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop has transports of its own class
        self.server.connections.append(self)
        self.h2.local_settings = h2.settings.Settings(client=False, initial_values=self.server.settings)
        self.h2.initiate_connection()
        self.flush()

    def data_received(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            self.handle(event)
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.lost.set()

    def handle(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived():
                headers = {str(name): str(value) for name, value in event.headers}
                self.open[event.stream_id] = Received(event.stream_id, headers)
                self.server.peak = max(self.server.peak, len(self.open))
                self.server.begun.set()
            case h2.events.DataReceived():
                self.open[event.stream_id].body += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded():
                request = self.open[event.stream_id]
                self.server.requests.append(request)
                self.server.asked.set()
                self.server.on_request(self.server, self, request)
            case h2.events.StreamReset():
                self.open.pop(event.stream_id, None)
                self.unsent.pop(event.stream_id, None)
                self.resets.append((event.stream_id, event.error_code))
                self.server.reset.set()
            case h2.events.WindowUpdated():
                for stream_id in list(self.unsent):
                    self.pump(stream_id)
            case _:
                pass

    def answer(self, request: Received, body: bytes, *headers: tuple[str, str], status: int = 200, end: bool = True) -> None:
        self.h2.send_headers(request.stream_id, [(":status", str(status)), *headers], end_stream=end and not body)
        self.unsent[request.stream_id] = memoryview(body)
        if body:
            self.pump(request.stream_id, end)
        if end and not self.unsent.get(request.stream_id):
            self.open.pop(request.stream_id, None)
        self.flush()

    def pump(self, stream_id: int, end: bool = True) -> None:
        body = self.unsent[stream_id]
        while body:
            room = min(self.h2.local_flow_control_window(stream_id), self.h2.max_outbound_frame_size)
            if room <= 0:
                break
            chunk, body = body[:room], body[room:]
            self.h2.send_data(stream_id, bytes(chunk), end_stream=end and not body)
        self.unsent[stream_id] = body
        if not body:
            del self.unsent[stream_id]
            self.open.pop(stream_id, None)
        self.flush()

    def flush(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(self.h2.data_to_send())


@dataclass
class Http2Server:
    on_request: OnRequest
    settings: dict[int, int]
    port: int = 0
    requests: list[Received] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)
    peak: int = 0  # streams open at once on one connection
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    reset: asyncio.Event = field(default_factory=asyncio.Event)
    lost: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def h2_server(on_request: OnRequest, *, tls: ssl.SSLContext | None = None, **settings: int) -> AsyncIterator[Http2Server]:
    """`settings` by their names in RFC 9113, lower case: max_concurrent_streams=2."""
    codes = {int(h2.settings.SettingCodes[name.upper()]): value for name, value in settings.items()}
    state = Http2Server(on_request, codes)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(state), "127.0.0.1", 0, ssl=tls)
    state.port = server.sockets[0].getsockname()[1]
    try:
        yield state
    finally:
        server.close()
        for connection in state.connections:
            connection.transport.abort()
