"""An endpoint made by hand that misbehaves in every way a handler's name says, until it is told to heal.

It speaks HTTP/1.1 over a bare socket, so it can break off anywhere. An attempt is known by the invocation id in the
request's headers; a healed invocation is answered with the output "healed".
"""

import asyncio
import contextlib
import json
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Self

OUTPUT, END, INPUT = 0x0401, 0x0003, 0x0400  # service protocol §1.3
ABORT_TIMEOUT_MS: Final = 1_500
RETRY_AFTER_S: Final = 1
HUGE: Final = 6_000_000


def varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def frame(kind: int, message: bytes = b"") -> bytes:
    return struct.pack(">HHI", kind, 0, len(message)) + message


def output(body: bytes) -> bytes:
    """An OutputCommand with a value: field 14 is a Value, whose field 1 is the content."""
    value = b"\x0a" + varint(len(body)) + body
    return frame(OUTPUT, b"\x72" + varint(len(value)) + value)


@dataclass(frozen=True)
class Attempt:
    """One request to a handler."""

    handler: str
    invocation_id: str
    content_type: str
    number: int
    writer: asyncio.StreamWriter
    overtaken: asyncio.Event  # shared by the attempts of one invocation

    def answer(self, body: bytes, status: str = "200 OK", kind: str | None = None, more: str = "") -> None:
        head = (
            f"HTTP/1.1 {status}\r\ncontent-type: {kind or self.content_type}\r\n"
            f"content-length: {len(body)}\r\n{more}connection: close\r\n\r\n"
        )
        self.writer.write(head.encode() + body)


async def well(attempt: Attempt) -> None:
    attempt.answer(output(b'"healed"') + frame(END))


async def wrong_bytes(attempt: Attempt) -> None:
    attempt.answer(b"<html>this is no frame at all, though it is long enough for a header</html>")


async def wrong_content_type(attempt: Attempt) -> None:
    attempt.answer(output(b'"not counted"') + frame(END), kind="text/html")


async def nothing_at_all(attempt: Attempt) -> None:
    attempt.answer(b"")


async def half_a_frame(attempt: Attempt) -> None:
    attempt.answer((output(b'"not counted"') + frame(END))[:13])


async def no_end(attempt: Attempt) -> None:
    attempt.answer(output(b'"not counted"'))


async def closes_before_the_answer(attempt: Attempt) -> None:
    attempt.writer.close()


async def closes_in_the_answer(attempt: Attempt) -> None:
    body = output(b'"not counted"') + frame(END)
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {attempt.content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    attempt.writer.write(head.encode() + body[:10])


async def server_error(attempt: Attempt) -> None:
    attempt.answer(b"out of order", "500 Internal Server Error", "text/plain")


async def not_found(attempt: Attempt) -> None:
    attempt.answer(b"no such page", "404 Not Found", "text/plain")


async def hangs(attempt: Attempt) -> None:
    await asyncio.sleep(60)


async def late(attempt: Attempt) -> None:
    """The first attempt answers after the second one has: by then it has been given up for long."""
    if attempt.number == 1:
        await attempt.overtaken.wait()
        attempt.answer(output(b'"late"') + frame(END))
    else:
        attempt.answer(output(b'"in time"') + frame(END))
        attempt.overtaken.set()


async def busy(attempt: Attempt) -> None:
    attempt.answer(b"later", "429 Too Many Requests", "text/plain", f"retry-after: {RETRY_AFTER_S}\r\n")


async def huge(attempt: Attempt) -> None:
    attempt.answer(output(b"x" * HUGE) + frame(END))


async def input_again(attempt: Attempt) -> None:
    attempt.answer(frame(INPUT) + output(b'"not counted"') + frame(END))


BEHAVIOURS: Final[dict[str, Callable[[Attempt], Awaitable[None]]]] = {
    behaviour.__name__: behaviour
    for behaviour in (
        well,
        wrong_bytes,
        wrong_content_type,
        nothing_at_all,
        half_a_frame,
        no_end,
        closes_before_the_answer,
        closes_in_the_answer,
        server_error,
        not_found,
        hangs,
        late,
        busy,
        huge,
        input_again,
    )
}


class RawEndpoint:
    """The endpoint on a thread of its own; its service is `Wild`."""

    def __init__(self) -> None:
        self.attempts: defaultdict[str, list[float]] = defaultdict(list)  # invocation id to monotonic instants
        self.answered_late: set[str] = set()
        self._overtaken: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._healed: set[str] = set()

    def __enter__(self) -> Self:
        listening = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(listening)), daemon=True)
        self._thread.start()
        listening.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(10)

    def heal(self, invocation_id: str) -> None:
        """From now on the invocation is answered as it should be."""
        self._healed.add(invocation_id)

    @property
    def deployment(self) -> dict[str, Any]:
        return {"uri": f"http://127.0.0.1:{self.port}", "use_http_11": True}

    @staticmethod
    def manifest() -> dict[str, Any]:
        return {
            "protocolMode": "REQUEST_RESPONSE",
            "minProtocolVersion": 5,
            "maxProtocolVersion": 6,
            "services": [
                {
                    "name": "Wild",
                    "ty": "SERVICE",
                    "inactivityTimeout": 100,
                    "abortTimeout": ABORT_TIMEOUT_MS,
                    "retryPolicyInitialInterval": 30,
                    "retryPolicyExponentiationFactor": 1.0,
                    "retryPolicyMaxInterval": 100,
                    "handlers": [{"name": name} for name in BEHAVIOURS],
                }
            ],
        }

    async def _serve(self, listening: threading.Event) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port: int = server.sockets[0].getsockname()[1]
        listening.set()
        await self._ended.wait()
        server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Cancelled: the endpoint ends while an attempt hangs.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._respond(reader, writer)
            await writer.drain()
        writer.close()

    async def _respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        start, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        await self._read_body(reader, headers)
        path = start.split(" ")[1]
        if not path.startswith("/invoke/"):
            kind = "application/vnd.restate.endpointmanifest.v4+json"
            discovery = Attempt("discover", "", kind, 1, writer, asyncio.Event())
            return discovery.answer(json.dumps(self.manifest()).encode())
        handler, invocation_id = path.rsplit("/", 1)[1], headers["x-restate-invocation-id"]
        self.attempts[invocation_id].append(time.monotonic())
        number = len(self.attempts[invocation_id])
        behaviour = well if invocation_id in self._healed else BEHAVIOURS[handler]
        overtaken = self._overtaken[invocation_id]
        await behaviour(Attempt(handler, invocation_id, headers["content-type"], number, writer, overtaken))
        if number == 1 and overtaken.is_set():
            self.answered_late.add(invocation_id)
        return None

    @staticmethod
    async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> None:
        if "content-length" in headers:
            await reader.readexactly(int(headers["content-length"]))
        elif headers.get("transfer-encoding") == "chunked":
            while size := int((await reader.readline()).strip(), 16):
                await reader.readexactly(size + 2)
            await reader.readline()
