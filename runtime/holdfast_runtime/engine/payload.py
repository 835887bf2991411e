"""Values and journal entries that may be too large to live in a page.

A payload is bytes, or a `BlobRef` when it is larger than `model.INLINE_LIMIT`; the engine passes references on without ever seeing the
content.
A journal entry is the exact bytes of a frame, or a list of chunks (bytes and references) whose concatenation they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.protocol import frames, messages
from holdfast.protocol.messages import Failure, FailureMetadata, Header, InputCommand, MessageType


@dataclass(frozen=True, slots=True)
class BlobRef:
    """`size` bytes of content kept in the blob store under `id`."""

    id: str
    size: int


Payload = bytes | BlobRef
Entry = bytes | list[Any]  # list of bytes | BlobRef
Result = list[Any]  # ["v", payload] | ["f", code, message, {metadata}] | ["0"] void | ["i", invocation id] | ["k", [state keys]]

VOID: Result = ["0"]


def success(payload: Payload) -> Result:
    return ["v", payload]


def failure(code: int, message: str, metadata: Mapping[str, str] | None = None) -> Result:
    return ["f", code, message, dict(metadata or {})]


def failure_result(message: Failure) -> Result:
    return failure(message.code, message.message, {item.key: item.value for item in message.metadata})


def failure_message(result: Result) -> Failure:
    message = Failure(code=result[1], message=result[2])
    for key, value in result[3].items():
        message.metadata.append(FailureMetadata(key=key, value=value))
    return message


def size_of(payload: Payload) -> int:
    return payload.size if isinstance(payload, BlobRef) else len(payload)


def entry_size(entry: Entry) -> int:
    return len(entry) if isinstance(entry, bytes) else sum(size_of(chunk) for chunk in entry)


def stored_size(entry: Entry) -> int:
    """Bytes the entry takes in a page: references count as little."""
    return len(entry) if isinstance(entry, bytes) else sum(len(c) if isinstance(c, bytes) else 80 for c in entry)


def entry_type(entry: Entry) -> int:
    """Message type of the frame."""
    head = entry if isinstance(entry, bytes) else entry[0]
    return (head[0] << 8) | head[1]


def blob_refs(entries: Sequence[Any]) -> list[BlobRef]:
    """Every reference among entries or payloads."""
    found: list[BlobRef] = []
    for entry in entries:
        if isinstance(entry, BlobRef):
            found.append(entry)
        elif isinstance(entry, list):
            found.extend(chunk for chunk in entry if isinstance(chunk, BlobRef))
    return found


def materialize(entry: Entry | Payload, contents: Mapping[str, bytes]) -> bytes:
    """The bytes of an entry or payload; `contents` holds what its references name."""
    if isinstance(entry, bytes):
        return entry
    if isinstance(entry, BlobRef):
        return contents[entry.id]
    return b"".join(contents[chunk.id] if isinstance(chunk, BlobRef) else chunk for chunk in entry)


def input_entry(headers: Sequence[Sequence[str]], payload: Payload) -> Entry:
    """Journal entry 0. The value is always written, even empty (service protocol §2.3)."""
    if isinstance(payload, BlobRef):
        return [messages.input_prefix([(name, value) for name, value in headers], payload.size), payload]
    command = InputCommand(headers=[Header(key=name, value=value) for name, value in headers])
    command.value.content = payload
    command.value.SetInParent()
    return frames.encode(MessageType.INPUT_COMMAND, command.SerializeToString())


def completion_entry(type_: int, completion_id: int, result: Result) -> Entry:
    """The notification frame that completes `completion_id`."""
    match result[0]:
        case "v":
            if isinstance(result[1], BlobRef):
                return [messages.value_prefix(type_, completion_id, result[1].size), result[1]]
            return messages.notification(type_, completion_id, value=result[1])
        case "f":
            return messages.notification(type_, completion_id, failure=failure_message(result))
        case "0":
            return messages.notification(type_, completion_id, void=True)
        case "i":
            return messages.notification(type_, completion_id, invocation_id=result[1])
        case "k":
            return messages.notification(type_, completion_id, state_keys=[name.encode() for name in result[1]])
    raise AssertionError(f"unknown result {result[0]!r}")


def signal_entry(signal: int | str, result: Result) -> Entry:
    """A SignalNotification by index or by name."""
    if result[0] == "v" and isinstance(result[1], BlobRef):
        return [messages.value_prefix(MessageType.SIGNAL_NOTIFICATION, signal, result[1].size), result[1]]
    idx, name = (signal, None) if isinstance(signal, int) else (None, signal)
    if result[0] == "v":
        return messages.signal_notification(idx=idx, name=name, value=result[1])
    if result[0] == "f":
        return messages.signal_notification(idx=idx, name=name, failure=failure_message(result))
    return messages.signal_notification(idx=idx, name=name, void=True)
