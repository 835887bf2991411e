"""From the bytes of a response to what the engine decides on (service protocol §3.2). Pure: large contents are named, not stored, here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf.message import Message as Protobuf

from holdfast.protocol import awaiting, frames, messages
from holdfast.protocol.errors import ProtocolError
from holdfast.protocol.frames import MAX_MESSAGE_BYTES, Frame
from holdfast.protocol.messages import MessageType as M
from holdfast_runtime.engine import blob_ids
from holdfast_runtime.engine.events import AttemptEnd, AttemptFailed, Ended, ReceivedFrame, Suspended
from holdfast_runtime.engine.model import INLINE_LIMIT
from holdfast_runtime.engine.payload import BlobRef, Entry, Payload

MAX_TEXT: Final = 4096  # of an error message or stack trace that is kept with the invocation


@dataclass(slots=True)
class Response:
    """blobs: contents that must be in the blob store before the response is decided."""

    frames: list[ReceivedFrame]
    end: AttemptEnd
    blobs: dict[str, bytes] = field(default_factory=dict)


def read_response(
    invocation: str, body: bytes, *, version: int, broken: str | None = None, max_message_bytes: int = MAX_MESSAGE_BYTES
) -> Response:
    """Every frame before the end counts; `broken` says why the body may be incomplete."""
    received: list[ReceivedFrame] = []
    blobs: dict[str, bytes] = {}
    try:
        for frame in frames.split(body):
            if frame.type == M.AWAITING_ON:
                continue
            message = messages.parse(frame.type, frame.body, version=version)
            if len(frame.body) > max_message_bytes:
                return Response(received, _too_large(frame, max_message_bytes), blobs)
            end = _end_of(frame, message, version)
            if end is not None:
                return Response(received, end, blobs)
            _check_direction(frame.type)
            received.append(_keep(invocation, frame, message, blobs))
    except ProtocolError as error:
        return Response(received, AttemptFailed(error.code, str(error), "RT0012"), blobs)
    missing = "the response ended without Suspension, Error or End"
    text = f"{missing}: {broken}" if broken else f"{missing}; the handler process may have died or the response was cut"
    return Response(received, AttemptFailed(500, text, "RT0010" if broken else "RT0012"), blobs)


def _too_large(frame: Frame, limit: int) -> AttemptFailed:
    text = (
        f"message {M(frame.type).name} has {len(frame.body)} bytes, at most {limit} are accepted (message-size-limit); "
        "keep large values in a store of their own and pass references to them"
    )
    return AttemptFailed(413, text, "RT0003")


def _end_of(frame: Frame, message: Any, version: int) -> AttemptEnd | None:
    match frame.type:
        case M.SUSPENSION:
            return Suspended(awaiting.from_suspension(message, version=version))
        case M.END:
            return Ended()
        case M.ERROR:
            return _error(message)
    return None


def _error(message: Any) -> AttemptFailed:
    related = (
        message.related_command_index if message.HasField("related_command_index") else None,
        message.related_command_name if message.HasField("related_command_name") else None,
        message.related_command_type if message.HasField("related_command_type") else None,
    )
    return AttemptFailed(
        message.code,
        message.message[:MAX_TEXT],
        {570: "RT0016", 571: "RT0012"}.get(message.code, "RT0007"),
        message.next_retry_delay if message.HasField("next_retry_delay") else None,
        related,
        message.stacktrace[:MAX_TEXT],
    )


def _check_direction(type_: int) -> None:
    if type_ == M.INPUT_COMMAND or not (messages.is_command(type_) or type_ == M.PROPOSE_RUN_COMPLETION):
        name = M(type_).name
        raise ProtocolError(f"expected commands, run proposals, Suspension, Error or End in a response, found {name}; update the SDK")


def _keep(invocation: str, frame: Frame, message: Protobuf, blobs: dict[str, bytes]) -> ReceivedFrame:
    raw = frames.raw(frame)
    if len(raw) <= INLINE_LIMIT:
        return ReceivedFrame(frame.type, raw, message)
    content = content_of(frame.type, message)
    if content is None or len(content) <= INLINE_LIMIT:
        raise ProtocolError(
            f"a {M(frame.type).name} of {len(raw)} bytes carries at most {INLINE_LIMIT} bytes beside its value; "
            "shorten headers, names, keys or the failure message"
        )
    reference = name_blob(invocation, content)
    blobs[reference.id] = content
    at = raw.rfind(content)
    chunks: list[Any] = [
        raw[:at],
        reference,
        *([raw[at + len(content) :]] if at + len(content) < len(raw) else []),
    ]
    entry: Entry = chunks
    return ReceivedFrame(frame.type, entry, message, reference)


def content_of(type_: int, message: Any) -> bytes | None:
    """The one value a frame may carry that can be large."""
    match type_:
        case M.PROPOSE_RUN_COMPLETION:
            return bytes(message.value)
        case M.CALL_COMMAND | M.ONE_WAY_CALL_COMMAND:
            return bytes(message.parameter)
        case M.COMPLETE_PROMISE_COMMAND:
            return bytes(message.completion_value.content)
        case M.OUTPUT_COMMAND | M.SET_STATE_COMMAND | M.SEND_SIGNAL_COMMAND | M.COMPLETE_AWAKEABLE_COMMAND | M.GET_EAGER_STATE_COMMAND:
            return bytes(message.value.content)
    return None


def name_blob(owner: str, content: bytes) -> BlobRef:
    return BlobRef(blob_ids.of_value(owner, content), len(content))


def as_payload(owner: str, content: bytes, blobs: dict[str, bytes], *, limit: int = INLINE_LIMIT) -> Payload:
    """`content` itself when small, else a reference that is added to `blobs`."""
    if len(content) <= limit:
        return content
    reference = name_blob(owner, content)
    blobs[reference.id] = content
    return reference
