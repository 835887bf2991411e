"""Message types, parsing, and the hand-written encoders of what the coordinator sends most.

Rules: every type id of service protocol §1.3 has a name; `parse` checks what the peer must have sent, so that
readers need not; an empty Value or Void is written, because its presence is the information; content is the
last field of a notification and of the input, so that a stored content can follow its prefix without being in
memory.
"""

from collections.abc import Iterable
from enum import IntEnum
from typing import Final

from google.protobuf.message import DecodeError, Message

from holdfast.protocol.errors import ProtocolError
from holdfast.protocol.frames import MAX_MESSAGE_BYTES, header
from holdfast.protocol.wire_pb2 import (
    AttachInvocationCommand,
    AwaitingOn,
    CallCommand,
    ClearAllStateCommand,
    ClearStateCommand,
    CommandAck,
    CompleteAwakeableCommand,
    CompletePromiseCommand,
    End,
    Error,
    Failure,
    FailureMetadata,
    Future,
    GetEagerStateCommand,
    GetEagerStateKeysCommand,
    GetInvocationOutputCommand,
    GetLazyStateCommand,
    GetLazyStateKeysCommand,
    GetPromiseCommand,
    Header,
    IdempotentRequestTarget,
    InputCommand,
    Notification,
    OneWayCallCommand,
    OutputCommand,
    PeekPromiseCommand,
    ProposeRunCompletion,
    ProposeRunCompletionAck,
    RunCommand,
    SendSignalCommand,
    SetStateCommand,
    SleepCommand,
    Start,
    StateEntry,
    StateKeys,
    Suspension,
    Value,
    Void,
    WorkflowTarget,
)

__all__ = [
    "AttachInvocationCommand",
    "AwaitingOn",
    "CallCommand",
    "ClearAllStateCommand",
    "ClearStateCommand",
    "CommandAck",
    "CompleteAwakeableCommand",
    "CompletePromiseCommand",
    "End",
    "Error",
    "Failure",
    "FailureMetadata",
    "Future",
    "GetEagerStateCommand",
    "GetEagerStateKeysCommand",
    "GetInvocationOutputCommand",
    "GetLazyStateCommand",
    "GetLazyStateKeysCommand",
    "GetPromiseCommand",
    "Header",
    "IdempotentRequestTarget",
    "InputCommand",
    "Message",
    "MessageType",
    "Notification",
    "OneWayCallCommand",
    "OutputCommand",
    "PeekPromiseCommand",
    "ProposeRunCompletion",
    "ProposeRunCompletionAck",
    "RunCommand",
    "SendSignalCommand",
    "SetStateCommand",
    "SleepCommand",
    "Start",
    "StateEntry",
    "StateKeys",
    "Suspension",
    "Value",
    "Void",
    "WorkflowTarget",
    "input_command",
    "input_prefix",
    "is_command",
    "is_notification",
    "notification",
    "parse",
    "signal_notification",
    "value_prefix",
]


class MessageType(IntEnum):
    """Type ids (service protocol §1.3)."""

    START = 0x0000
    SUSPENSION = 0x0001
    ERROR = 0x0002
    END = 0x0003
    COMMAND_ACK = 0x0004
    PROPOSE_RUN_COMPLETION = 0x0005
    AWAITING_ON = 0x0006
    PROPOSE_RUN_COMPLETION_ACK = 0x0007

    INPUT_COMMAND = 0x0400
    OUTPUT_COMMAND = 0x0401
    GET_LAZY_STATE_COMMAND = 0x0402
    SET_STATE_COMMAND = 0x0403
    CLEAR_STATE_COMMAND = 0x0404
    CLEAR_ALL_STATE_COMMAND = 0x0405
    GET_LAZY_STATE_KEYS_COMMAND = 0x0406
    GET_EAGER_STATE_COMMAND = 0x0407
    GET_EAGER_STATE_KEYS_COMMAND = 0x0408
    GET_PROMISE_COMMAND = 0x0409
    PEEK_PROMISE_COMMAND = 0x040A
    COMPLETE_PROMISE_COMMAND = 0x040B
    SLEEP_COMMAND = 0x040C
    CALL_COMMAND = 0x040D
    ONE_WAY_CALL_COMMAND = 0x040E
    SEND_SIGNAL_COMMAND = 0x0410
    RUN_COMMAND = 0x0411
    ATTACH_INVOCATION_COMMAND = 0x0412
    GET_INVOCATION_OUTPUT_COMMAND = 0x0413
    COMPLETE_AWAKEABLE_COMMAND = 0x0414

    GET_LAZY_STATE_COMPLETION = 0x8002
    GET_LAZY_STATE_KEYS_COMPLETION = 0x8006
    GET_PROMISE_COMPLETION = 0x8009
    PEEK_PROMISE_COMPLETION = 0x800A
    COMPLETE_PROMISE_COMPLETION = 0x800B
    SLEEP_COMPLETION = 0x800C
    CALL_COMPLETION = 0x800D
    CALL_INVOCATION_ID_COMPLETION = 0x800E
    RUN_COMPLETION = 0x8011
    ATTACH_INVOCATION_COMPLETION = 0x8012
    GET_INVOCATION_OUTPUT_COMPLETION = 0x8013
    SIGNAL_NOTIFICATION = 0xFBFF


_VALUE_OR_FAILURE: Final = frozenset({"value", "failure"})
_ANY_RESULT: Final = frozenset({"void", "value", "failure"})

# What each notification may carry (service protocol §2.4).
RESULTS: Final[dict[int, frozenset[str]]] = {
    MessageType.GET_LAZY_STATE_COMPLETION: frozenset({"void", "value"}),
    MessageType.GET_LAZY_STATE_KEYS_COMPLETION: frozenset({"state_keys"}),
    MessageType.GET_PROMISE_COMPLETION: _VALUE_OR_FAILURE,
    MessageType.PEEK_PROMISE_COMPLETION: _ANY_RESULT,
    MessageType.COMPLETE_PROMISE_COMPLETION: frozenset({"void", "failure"}),
    MessageType.SLEEP_COMPLETION: frozenset({"void"}),
    MessageType.CALL_COMPLETION: _VALUE_OR_FAILURE,
    MessageType.CALL_INVOCATION_ID_COMPLETION: frozenset({"invocation_id"}),
    MessageType.RUN_COMPLETION: _VALUE_OR_FAILURE,
    MessageType.ATTACH_INVOCATION_COMPLETION: _VALUE_OR_FAILURE,
    MessageType.GET_INVOCATION_OUTPUT_COMPLETION: _ANY_RESULT,
    MessageType.SIGNAL_NOTIFICATION: _ANY_RESULT,
}

# What a body decodes to.
CLASSES: Final[dict[int, type[Message]]] = {
    MessageType.START: Start,
    MessageType.SUSPENSION: Suspension,
    MessageType.ERROR: Error,
    MessageType.END: End,
    MessageType.COMMAND_ACK: CommandAck,
    MessageType.PROPOSE_RUN_COMPLETION: ProposeRunCompletion,
    MessageType.AWAITING_ON: AwaitingOn,
    MessageType.PROPOSE_RUN_COMPLETION_ACK: ProposeRunCompletionAck,
    MessageType.INPUT_COMMAND: InputCommand,
    MessageType.OUTPUT_COMMAND: OutputCommand,
    MessageType.GET_LAZY_STATE_COMMAND: GetLazyStateCommand,
    MessageType.SET_STATE_COMMAND: SetStateCommand,
    MessageType.CLEAR_STATE_COMMAND: ClearStateCommand,
    MessageType.CLEAR_ALL_STATE_COMMAND: ClearAllStateCommand,
    MessageType.GET_LAZY_STATE_KEYS_COMMAND: GetLazyStateKeysCommand,
    MessageType.GET_EAGER_STATE_COMMAND: GetEagerStateCommand,
    MessageType.GET_EAGER_STATE_KEYS_COMMAND: GetEagerStateKeysCommand,
    MessageType.GET_PROMISE_COMMAND: GetPromiseCommand,
    MessageType.PEEK_PROMISE_COMMAND: PeekPromiseCommand,
    MessageType.COMPLETE_PROMISE_COMMAND: CompletePromiseCommand,
    MessageType.SLEEP_COMMAND: SleepCommand,
    MessageType.CALL_COMMAND: CallCommand,
    MessageType.ONE_WAY_CALL_COMMAND: OneWayCallCommand,
    MessageType.SEND_SIGNAL_COMMAND: SendSignalCommand,
    MessageType.RUN_COMMAND: RunCommand,
    MessageType.ATTACH_INVOCATION_COMMAND: AttachInvocationCommand,
    MessageType.GET_INVOCATION_OUTPUT_COMMAND: GetInvocationOutputCommand,
    MessageType.COMPLETE_AWAKEABLE_COMMAND: CompleteAwakeableCommand,
    **dict.fromkeys(RESULTS, Notification),
}

# The oneofs without which a message has no meaning.
_REQUIRED_ONEOFS: Final[dict[int, tuple[str, ...]]] = {
    MessageType.PROPOSE_RUN_COMPLETION: ("result",),
    MessageType.OUTPUT_COMMAND: ("result",),
    MessageType.GET_EAGER_STATE_COMMAND: ("result",),
    MessageType.COMPLETE_PROMISE_COMMAND: ("completion",),
    MessageType.SEND_SIGNAL_COMMAND: ("signal_id", "result"),
    MessageType.ATTACH_INVOCATION_COMMAND: ("target",),
    MessageType.GET_INVOCATION_OUTPUT_COMMAND: ("target",),
    MessageType.COMPLETE_AWAKEABLE_COMMAND: ("result",),
    **dict.fromkeys(RESULTS, ("id", "result")),
}


def is_command(type: int) -> bool:
    """True for ids of the command range, known or not."""
    return 0x0400 <= type <= 0x7FFF


def is_notification(type: int) -> bool:
    """True for ids of the notification range, known or not."""
    return 0x8000 <= type <= 0xFBFF


def parse(type: int, body: bytes, *, version: int = 6) -> Message:
    """The message of a frame, checked for the pieces it must have.

    Raises ProtocolError for an unknown type id, undecodable bytes and a missing or forbidden piece. What
    depends on other messages or on the target (service protocol §3.4) is not checked here.
    """
    message_class = CLASSES.get(type)
    if message_class is None:
        raise ProtocolError(
            f"unknown message type 0x{type:04x}: expected an id of protocol version {version}; use an SDK release that speaks this version"
        )
    try:
        message = message_class.FromString(body)
    except (DecodeError, RecursionError) as error:
        raise ProtocolError(
            f"{_name(type)}: expected a protobuf message, found {len(body)} bytes that do not "
            f"decode ({error}); "
            "check the encoder and that the body was not altered on the way"
        ) from error
    for oneof in _REQUIRED_ONEOFS.get(type, ()):
        if message.WhichOneof(oneof) is None:
            raise _missing(type, message, oneof)
    _check_pieces(type, message, version)
    return message


def _check_pieces(type: int, message: Message, version: int) -> None:
    """Required pieces that are not a oneof."""
    if isinstance(message, Notification):
        _check_notification(type, message)
    elif isinstance(message, SetStateCommand):
        if not message.HasField("value"):
            raise ProtocolError(f"{_name(type)}: field value is missing; send an empty Value for empty content")
    elif isinstance(message, Start):
        if message.known_entries == 0:
            raise ProtocolError(f"{_name(type)}: known_entries is 0, expected at least 1, the InputCommand")
    elif isinstance(message, Suspension) and version >= 7 and not message.HasField("awaiting_on"):
        raise ProtocolError(f"{_name(type)}: field awaiting_on is missing, version {version} requires it")


def _check_notification(type: int, message: Notification) -> None:
    signal = type == MessageType.SIGNAL_NOTIFICATION
    if (message.WhichOneof("id") == "completion_id") is signal:
        expected = "a signal index or name" if signal else "a completion id"
        raise ProtocolError(f"{_name(type)}: found {message.WhichOneof('id')}, expected {expected}")
    result = message.WhichOneof("result")
    if result not in RESULTS[type]:
        allowed = ", ".join(sorted(RESULTS[type]))
        raise ProtocolError(f"{_name(type)}: result is {result}, expected one of {allowed}")


def _missing(type: int, message: Message, oneof: str) -> ProtocolError:
    members = ", ".join(field.name for field in message.DESCRIPTOR.oneofs_by_name[oneof].fields)
    return ProtocolError(f"{_name(type)}: expected one of {members}, found none; an empty message must be written, its presence counts")


def _name(type: int) -> str:
    return f"{MessageType(type).name} (0x{type:04x})"


# ---- Encoders. By hand, because notifications are most of what a coordinator sends, and because a prefix
# ---- must be computable without its content. Fields ascend, as in the reference encoders, so bytes are
# ---- comparable.

_TAG_VOID: Final = b"\x22"  # field 4, length-delimited
_TAG_VALUE: Final = b"\x2a"  # field 5
_TAG_FAILURE: Final = b"\x32"  # field 6
_TAG_INVOCATION_ID: Final = b"\x82\x01"  # field 16
_TAG_STATE_KEYS: Final = b"\x8a\x01"  # field 17
_TAG_INPUT_VALUE: Final = b"\x72"  # field 14
_TAG_CONTENT: Final = b"\x0a"  # field 1 of Value
_ONE_BYTE: Final = tuple(bytes((number,)) for number in range(0x80))


def notification(
    type: int,
    completion_id: int,
    *,
    value: bytes | None = None,
    failure: Failure | None = None,
    void: bool = False,
    invocation_id: str | None = None,
    state_keys: Iterable[bytes] | None = None,
) -> bytes:
    """The whole frame of a completion. Exactly one result must be given; `value=b""` is the empty value."""
    identity = b"\x08" + _varint(completion_id)
    if invocation_id is not None:
        assert value is None and failure is None and not void and state_keys is None
        return _frame(type, identity + _TAG_INVOCATION_ID + _sized(invocation_id.encode()))
    if state_keys is not None:
        assert value is None and failure is None and not void
        keys = b"".join([b"\x0a" + _sized(key) for key in state_keys])
        return _frame(type, identity + _TAG_STATE_KEYS + _sized(keys))
    return _frame(type, identity + _result(value, failure, void))


def signal_notification(
    *,
    idx: int | None = None,
    name: str | None = None,
    value: bytes | None = None,
    failure: Failure | None = None,
    void: bool = False,
) -> bytes:
    """The whole frame of a signal. Exactly one of `idx` and `name`, and exactly one result."""
    return _frame(MessageType.SIGNAL_NOTIFICATION, _signal_id(idx, name) + _result(value, failure, void))


def value_prefix(type: int, completion_id_or_signal: int | str, size: int) -> bytes:
    """What precedes `size` bytes of content in a notification that carries a value, frame header included.

    `completion_id_or_signal`: the completion id; for SIGNAL_NOTIFICATION the signal index or its name.
    `value_prefix(type, id, len(content)) + content == notification(type, id, value=content)`.
    """
    if type != MessageType.SIGNAL_NOTIFICATION:
        assert isinstance(completion_id_or_signal, int)
        identity = b"\x08" + _varint(completion_id_or_signal)
    elif isinstance(completion_id_or_signal, str):
        identity = _signal_id(None, completion_id_or_signal)
    else:
        identity = _signal_id(completion_id_or_signal, None)
    return _content_prefix(type, identity + _TAG_VALUE, size)


def input_prefix(headers: Iterable[tuple[str, str]], size: int) -> bytes:
    """What precedes `size` bytes of request body in the frame of an InputCommand, frame header included."""
    return _content_prefix(MessageType.INPUT_COMMAND, _headers(headers) + _TAG_INPUT_VALUE, size)


def input_command(headers: Iterable[tuple[str, str]], content: bytes) -> bytes:
    """The whole frame of an InputCommand; the value is written even when the body is empty."""
    return input_prefix(headers, len(content)) + content


def _content_prefix(type: int, before: bytes, size: int) -> bytes:
    """`before` ends with the tag of the Value; adds the lengths and the tag of its content."""
    assert size >= 0
    if size == 0:  # proto3 leaves an empty content out; the Value itself stays
        return header(type, len(before) + 1) + before + b"\x00"
    content_head = _TAG_CONTENT + _varint(size)
    before += _varint(len(content_head) + size) + content_head
    return header(type, len(before) + size) + before


def _headers(headers: Iterable[tuple[str, str]]) -> bytes:
    parts = []
    for key, value in headers:
        pair = b""
        if key:
            pair = b"\x0a" + _sized(key.encode())
        if value:
            pair += b"\x12" + _sized(value.encode())
        parts.append(b"\x0a" + _sized(pair))
    return b"".join(parts)


def _signal_id(idx: int | None, name: str | None) -> bytes:
    assert (idx is None) is not (name is None), "exactly one of idx and name"
    if idx is not None:
        return b"\x10" + _varint(idx)
    assert name is not None
    return b"\x1a" + _sized(name.encode())


def _result(value: bytes | None, failure: Failure | None, void: bool) -> bytes:
    if value is not None:
        assert failure is None and not void, "exactly one result"
        content = _TAG_CONTENT + _sized(value) if value else b""
        return _TAG_VALUE + _sized(content)
    if failure is not None:
        assert not void, "exactly one result"
        return _TAG_FAILURE + _sized(failure.SerializeToString())
    assert void, "exactly one result"
    return _TAG_VOID + b"\x00"


def _frame(type: int, body: bytes) -> bytes:
    return header(type, len(body)) + body


def _sized(data: bytes) -> bytes:
    return _varint(len(data)) + data


def _varint(number: int) -> bytes:
    if 0 <= number < 0x80:
        return _ONE_BYTE[number]
    assert 0 <= number <= 0xFFFF_FFFF, "lengths, ids and indexes are uint32"
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


assert MAX_MESSAGE_BYTES < 0xFFFF_FFFF
