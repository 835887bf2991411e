"""Framed bytes <-> (type, body): an 8-byte big-endian header (type, flags, length), then the message.

Rules: bodies are kept byte for byte; flags are ignored on receipt, because both answers they ask for exist
only on a live two-way stream (service protocol §1.2); a length above the limit is refused before anything is
buffered for it.
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from holdfast.protocol.errors import ProtocolError

HEADER_BYTES: Final = 8
MAX_MESSAGE_BYTES: Final = 32 * 1024 * 1024  # what the reference server accepts as one message
REQUESTED_ACK: Final = 0x8000  # set by v7 SDKs on run proposals; means nothing in request-response mode

_HEADER: Final = struct.Struct(">HHI")
_pack: Final = _HEADER.pack
_unpack_from: Final = _HEADER.unpack_from


class Frame(NamedTuple):
    """One message as it came: its type id and the exact bytes of its body."""

    type: int
    body: bytes


def encode(type: int, body: bytes, *, flags: int = 0) -> bytes:
    """Header and body of one frame. Raises ProtocolError when the body is over MAX_MESSAGE_BYTES."""
    if len(body) > MAX_MESSAGE_BYTES:
        raise _too_large(type, len(body))
    return _pack(type, flags, len(body)) + body


def header(type: int, length: int) -> bytes:
    """Only the header of a frame whose body of `length` bytes is written elsewhere."""
    if length > MAX_MESSAGE_BYTES:
        raise _too_large(type, length)
    return _pack(type, 0, length)


def raw(frame: Frame) -> bytes:
    """The bytes of a frame, flags cleared."""
    return encode(frame.type, frame.body)


def split(data: bytes | bytearray | memoryview) -> Iterator[Frame]:
    """Yield every complete frame in order, then raise ProtocolError if a torn or oversized frame is left.

    Lazy on purpose: what came before a torn frame stays valid and is processed (service protocol §3.2).
    """
    position, end = 0, len(data)
    while end - position >= HEADER_BYTES:
        type, _, length = _unpack_from(data, position)
        if length > MAX_MESSAGE_BYTES:
            raise _too_large(type, length)
        start = position + HEADER_BYTES
        position = start + length
        if position > end:
            raise _torn(f"{length} bytes of message 0x{type:04x}", end - start)
        yield Frame(type, bytes(data[start:position]))
    if position != end:
        raise _torn(f"a frame header of {HEADER_BYTES} bytes", end - position)


class FrameDecoder:
    """Collects frames from a body that arrives in pieces of any size."""

    __slots__ = ("_buffer", "_error", "_needed")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._needed = HEADER_BYTES  # no frame can be complete below this many buffered bytes
        self._error: ProtocolError | None = None

    def feed(self, data: bytes) -> list[Frame]:
        """The frames completed by `data`.

        Raises ProtocolError for an oversized frame; frames completed before it are returned first and the
        error is raised by the next call.
        """
        if self._error is not None:
            raise self._error
        buffer = self._buffer
        buffer += data
        if len(buffer) < self._needed:
            return []
        frames: list[Frame] = []
        position, end = 0, len(buffer)
        self._needed = HEADER_BYTES
        while end - position >= HEADER_BYTES:
            type, _, length = _unpack_from(buffer, position)
            if length > MAX_MESSAGE_BYTES:
                self._error = _too_large(type, length)
                break
            start = position + HEADER_BYTES
            if start + length > end:
                self._needed = HEADER_BYTES + length
                break
            position = start + length
            frames.append(Frame(type, bytes(buffer[start:position])))
        del buffer[:position]
        if self._error is not None and not frames:
            raise self._error
        return frames

    def finish(self) -> None:
        """Assert that the body ended on a frame boundary; raises ProtocolError otherwise."""
        if self._error is not None:
            raise self._error
        if self._buffer:
            raise _torn(f"a frame of at least {self._needed} bytes", len(self._buffer))


def _torn(expected: str, found: int) -> ProtocolError:
    return ProtocolError(
        f"the body ends inside a frame: expected {expected}, found {found} bytes; "
        "send whole frames and check that no proxy or size limit cuts the body"
    )


def _too_large(type: int, length: int) -> ProtocolError:
    return ProtocolError(
        f"message 0x{type:04x} announces {length} bytes: at most {MAX_MESSAGE_BYTES} are allowed; "
        "split the payload or keep it outside the journal"
    )
