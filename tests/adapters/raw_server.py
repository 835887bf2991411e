"""A TCP server whose every answer the test writes, byte by byte: for what well-behaved servers never do."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Script = Callable[["Peer"], Awaitable[None]]


@dataclass
class Peer:
    """One accepted connection as its script sees it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    requests: list[tuple[bytes, bytes]] = field(default_factory=list)  # (head, body) of the whole server
    number: int = 0  # of this connection, from 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)  # the server has seen a request

    async def request(self) -> tuple[bytes, bytes]:
        """Read one request with a content-length."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")),
            0,
        )
        body = await self.reader.readexactly(length)
        self.requests.append((head, body))
        self.asked.set()
        return head, body

    async def send(self, *pieces: bytes) -> None:
        """Each piece arrives on its own: the loop turns between them."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def gone(self) -> None:
        """Return when the client has closed the connection."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass

    def reset(self) -> None:
        """Close with RST."""
        self.writer.transport.abort()


@dataclass
class RawServer:
    port: int
    requests: list[tuple[bytes, bytes]]
    connections: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def raw_server(script: Script, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[RawServer]:
    """Runs `script` for each connection; what a script raises fails the test, unless the client left."""
    state = RawServer(0, [])
    running: set[asyncio.Task[None]] = set()
    failures: list[BaseException] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        peer = Peer(reader, writer, state.requests, state.connections, state.asked)
        state.connections += 1
        try:
            await script(peer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client left, or the test is over
        except Exception as exc:
            failures.append(exc)
        finally:
            running.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    state.port = server.sockets[0].getsockname()[1]
    try:
        yield state
    finally:
        server.close()
        for task in list(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    if failures:
        raise failures[0]
