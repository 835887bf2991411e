"""Reads the captured vectors and prints messages the way they do.

A vector file holds exchanges; each request and response has `body_hex` (after base64, still compressed when
a `content-encoding` header says so) and `decoded`: one `{type, name, length, flags?, fields}` per frame.
Fields not set are absent; bytes are text when they are printable, else `hex:...`; enum values are names; text
above 400 characters is `{string_length, sha256_of_utf8}`.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, MutableSequence
from pathlib import Path
from typing import Any, NamedTuple

import zstandard
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from holdfast.protocol.frames import Frame
from holdfast.protocol.messages import CLASSES, MessageType
from holdfast.protocol.versions import parse_content_type

VECTORS = Path(__file__).parent / "vectors"
LONGEST_TEXT = 400


class Body(NamedTuple):
    """One captured body: its place, bytes, protocol version, and what it must decode to."""

    place: str
    content: bytes
    version: int
    decoded: list[dict[str, Any]]


def load(name: str) -> dict[str, Any]:
    """The vector of this name, without `.json`."""
    document: dict[str, Any] = json.loads((VECTORS / f"{name}.json").read_text())
    return document


def names() -> list[str]:
    """Every vector, in order."""
    return sorted(path.stem for path in VECTORS.glob("*.json"))


def bodies(vector: Mapping[str, Any]) -> Iterator[Body]:
    """Every body of a vector that decodes to frames."""
    for exchange in vector.get("exchanges", ()):
        for side in ("request", "response"):
            message = exchange[side]
            if "decoded" not in message:
                continue
            headers = {key.lower(): value for key, value in message["headers"].items()}
            content = bytes.fromhex(message["body_hex"])
            if headers.get("content-encoding") == "zstd":
                content = zstandard.ZstdDecompressor().decompressobj().decompress(content)
            version = parse_content_type(headers["content-type"])
            assert version is not None, headers
            yield Body(f"exchange {exchange['n']} {side}", content, version, message["decoded"])


def summarise(frame: Frame, message: Message) -> dict[str, Any]:
    """One entry of `decoded`, without flags."""
    return {
        "type": f"0x{frame.type:04x}",
        "name": wire_name(frame.type),
        "length": len(frame.body),
        "fields": fields(message),
    }


def wire_name(type: int) -> str:
    """The protocol's own name of a message type."""
    name = MessageType(type).name.title().replace("_", "")
    return f"{name}Notification" if type in range(0x8000, 0xFBFF) else name


def message_class(type: int) -> type[Message]:
    """What a body of this type decodes to."""
    return CLASSES[type]


def fields(message: Message) -> dict[str, Any]:
    """The fields that are present."""
    return {field.name: _printed(field, value) for field, value in message.ListFields()}


def _printed(field: FieldDescriptor, value: Any) -> Any:
    if isinstance(value, Message):
        return fields(value)
    if isinstance(value, MutableSequence):
        return [_printed(field, item) for item in value]
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    if isinstance(value, bytes):
        try:
            text = value.decode()
        except UnicodeDecodeError:
            return f"hex:{value.hex()}"
        if any(not (character.isprintable() or character in "\t\r\n") for character in text):
            return f"hex:{value.hex()}"
        value = text
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        return {
            "string_length": len(value),
            "sha256_of_utf8": hashlib.sha256(value.encode()).hexdigest(),
        }
    return value
