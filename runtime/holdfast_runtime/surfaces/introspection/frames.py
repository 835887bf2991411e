"""Messages between the server and the engine's process: 4 bytes of length, then msgpack. One question at a time.

Server: {"query", "json"}; then for each read {"rows"} any number of times and {"more"} once.
Engine: {"read": {source, columns, where, limit}} for each read; then {"error": [status, message]}, or {"bytes"} any number of times
and {"end"}.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgpack

LENGTH: Final = struct.Struct(">I")
CHUNK_ROWS: Final = 2_000
CHUNK_BYTES: Final = 256 * 1024

Message = dict[str, Any]


def encode(message: Message) -> bytes:
    body: bytes = msgpack.packb(message, use_bin_type=True)
    return LENGTH.pack(len(body)) + body


def decode(body: bytes) -> Message:
    message: Message = msgpack.unpackb(body, raw=False, strict_map_key=False)
    return message
