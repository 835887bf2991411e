"""HTTP/1.1 messages: a request while its body arrives, and an answer as bytes (RFC 9112)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, Final, TypeVar

from holdfast_runtime.surfaces.asgi import CallerGone
from holdfast_runtime.surfaces.ingress_replies import Reply
from holdfast_runtime.surfaces.ingress_request import Request

T = TypeVar("T")

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSE: Final = (b"connection", b"close")
KEEP_ALIVE: Final = (b"connection", b"keep-alive")

_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}
# Handlers choose status codes up to 999.
_STATUS_LINES: Final = {status: f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\n".encode() for status in range(200, 1000)}


class Http1Request(Request):
    """`keep`: the connection may serve others after it. `ended`: the body has arrived.

    waits: what is left to do for it is waiting, which ends when the caller goes away.
    """

    __slots__ = ("_arrived", "_gone", "_on_wanted", "_pieces", "announce_keep", "ended", "keep", "started", "waits")

    def __init__(self, method: str, path: bytes, query: bytes, headers: dict[bytes, bytes], *, keep: bool) -> None:
        super().__init__(method, path, query, headers)
        self.keep = keep
        self.announce_keep = False  # to HTTP/1.0, which would not expect it
        self.started = False
        self.ended = False
        self.waits = False
        self._on_wanted: Callable[[], None] | None = None
        self._pieces: list[bytes] = []
        self._arrived: asyncio.Future[None] | None = None
        self._gone = False

    # ---- For the connection

    @property
    def expects_continue(self) -> bool:
        """The client may wait with the body for a word that has not been given."""
        return self._on_wanted is not None

    def ask_before_body(self, ask: Callable[[], None]) -> None:
        """`ask` tells the client to send the body, should anybody want it."""
        self._on_wanted = ask

    def feed(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._wake()

    def end(self) -> None:
        self.ended = True
        self._wake()

    def lose(self) -> None:
        """The rest of the body will not come."""
        self._gone = True
        self._wake()

    def settle(self) -> None:
        """What has arrived becomes `body`, the rest is for `more`."""
        self.body = self._take()
        self.complete = self.ended

    def _take(self) -> bytes:
        pieces = self._pieces
        taken = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        return taken

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    # ---- For the ingress

    async def more(self) -> tuple[bytes, bool]:
        if self._on_wanted is not None:
            if not (self._pieces or self.ended):
                self._on_wanted()
            self._on_wanted = None
        while not (self._pieces or self.ended or self._gone):
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        if self._gone:
            raise CallerGone
        return self._take(), not self.ended

    def waiting(self, work: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        self.waits = True
        return work


def head(reply: Reply, date_line: bytes, connection: tuple[bytes, bytes] | None) -> bytes:
    """Everything before the body. `connection`: a header to add."""
    lines = [b"%b: %b\r\n" % header for header in reply.headers]
    if connection is not None and connection not in reply.headers:
        lines.append(b"%b: %b\r\n" % connection)
    return b"".join((_STATUS_LINES[reply.status], date_line, *lines, b"\r\n"))


def plain(status: int, text: str) -> Reply:
    """What is not even a request is refused in plain text, and no other follows on its connection."""
    body = text.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body)), CLOSE]
    return Reply(status, headers, body)
