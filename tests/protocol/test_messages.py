"""Messages: parsing refuses exactly what it must, and the hand-written encoders equal protobuf's."""

import itertools
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from holdfast.protocol import messages
from holdfast.protocol.errors import ProtocolError
from holdfast.protocol.frames import encode, split
from holdfast.protocol.messages import (
    CLASSES,
    RESULTS,
    Failure,
    FailureMetadata,
    Header,
    InputCommand,
    MessageType,
    Notification,
    StateKeys,
    Value,
    Void,
    input_command,
    input_prefix,
    is_command,
    is_notification,
    notification,
    parse,
    signal_notification,
    value_prefix,
)
from tests.protocol.strategies import contents, known_types, text, uint32, value_notifications

SIGNAL = MessageType.SIGNAL_NOTIFICATION
failures = st.builds(
    Failure,
    code=uint32,
    message=text,
    metadata=st.lists(st.builds(FailureMetadata, key=text, value=text), max_size=2),
)
results = st.one_of(
    contents.map(lambda content: ("value", content, Value(content=content))),
    failures.map(lambda failure: ("failure", failure, failure)),
    st.just(("void", True, Void())),
    text.map(lambda id: ("invocation_id", id, id)),
    st.lists(contents, max_size=3).map(lambda keys: ("state_keys", keys, StateKeys(keys=keys))),
)


@given(st.integers(0, 0xFFFF) | known_types, st.binary(max_size=80), st.sampled_from([5, 6, 7]))
def test_any_bytes_parse_or_raise_protocol_error(type: int, body: bytes, version: int) -> None:
    try:
        assert isinstance(parse(type, body, version=version), Message)
    except ProtocolError as error:
        assert error.code == 571


@given(uint32, results)
def test_notifications_equal_protobuf(completion_id: int, result: tuple[str, Any, Any]) -> None:
    name, argument, field = result
    expected = Notification(completion_id=completion_id, **{name: field})
    frame = notification(MessageType.CALL_COMPLETION, completion_id, **{name: argument})
    assert frame == encode(MessageType.CALL_COMPLETION, expected.SerializeToString())


@given(uint32 | text, results)
def test_signals_equal_protobuf(signal: int | str, result: tuple[str, Any, Any]) -> None:
    name, argument, field = result
    if name not in RESULTS[SIGNAL]:
        return
    identity: dict[str, Any] = {"idx" if isinstance(signal, int) else "name": signal}
    expected = Notification(**identity, **{name: field})
    frame = signal_notification(**identity, **{name: argument})
    assert frame == encode(SIGNAL, expected.SerializeToString())


@given(value_notifications, uint32, contents)
def test_prefix_and_content_equal_the_notification(type: int, completion_id: int, content: bytes) -> None:
    whole = notification(type, completion_id, value=content)
    assert value_prefix(type, completion_id, len(content)) + content == whole
    ((found, body),) = split(whole)
    message = parse(found, body)
    assert isinstance(message, Notification)
    assert (message.completion_id, message.value.content) == (completion_id, content)


@given(uint32 | text, contents)
def test_prefix_and_content_equal_the_signal(signal: int | str, content: bytes) -> None:
    identity: dict[str, Any] = {"idx" if isinstance(signal, int) else "name": signal}
    whole = signal_notification(**identity, value=content)
    assert value_prefix(SIGNAL, signal, len(content)) + content == whole


@given(st.lists(st.tuples(text, text), max_size=4), contents)
def test_prefix_and_content_equal_the_input(headers: list[tuple[str, str]], content: bytes) -> None:
    expected = InputCommand(headers=[Header(key=key, value=value) for key, value in headers], value=Value(content=content))
    whole = encode(MessageType.INPUT_COMMAND, expected.SerializeToString())
    assert input_prefix(headers, len(content)) + content == whole == input_command(headers, content)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 128, 16_381, 16_384, 2_097_152])
def test_prefix_holds_at_the_edges_of_length_encoding(size: int) -> None:
    content = b"x" * size
    whole = encode(
        MessageType.RUN_COMPLETION,
        Notification(completion_id=1, value=Value(content=content)).SerializeToString(),
    )
    assert value_prefix(MessageType.RUN_COMPLETION, 1, size) + content == whole


def test_presence_is_written() -> None:
    assert notification(MessageType.SLEEP_COMPLETION, 2, void=True).hex() == "800c00000000000408022200"
    assert notification(MessageType.CALL_COMPLETION, 2, value=b"").hex() == "800d00000000000408022a00"
    assert signal_notification(idx=1, void=True).hex() == "fbff00000000000410012200"
    assert input_command([], b"").hex() == "04000000000000027200"
    assert notification(MessageType.GET_LAZY_STATE_KEYS_COMPLETION, 1, state_keys=[]).endswith(b"\x8a\x01\x00")


@pytest.mark.parametrize("given", [{}, {"value": b"", "void": True}, {"void": True, "state_keys": []}])
def test_a_notification_has_exactly_one_result(given: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        notification(MessageType.CALL_COMPLETION, 1, **given)


@pytest.mark.parametrize("given", [{}, {"idx": 1, "name": "x"}])
def test_a_signal_has_exactly_one_identity(given: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        signal_notification(void=True, **given)


def test_every_type_has_a_class_and_a_range() -> None:
    assert set(CLASSES) == set(MessageType)
    for type in MessageType:
        in_name = type.name.endswith("_COMMAND"), type.name.endswith(("_COMPLETION", "_NOTIFICATION"))
        if type >= 0x0400:
            assert (is_command(type), is_notification(type)) == in_name
        else:
            assert not is_command(type)
            assert not is_notification(type)
    assert {type for type in MessageType if is_notification(type)} == set(RESULTS)
    assert not is_notification(0xFC00)


@pytest.mark.parametrize(
    ("type", "body", "text"),
    [
        (0x040F, b"", "unknown message type 0x040f"),
        (0xFC00, b"", "unknown message type 0xfc00"),
        (0x0411, b"\xff", "do not decode"),
        (0x0400, b"\x62\x01\xff", "do not decode"),  # text that is not UTF-8
        (0x0000, b"\x0a\x01a", "known_entries is 0"),
        (0x0005, b"\x08\x01", "expected one of value, failure, found none"),
        (0x0401, b"", "expected one of value, failure, found none"),
        (0x0403, b"\x0a\x01k", "field value is missing"),
        (0x0407, b"\x0a\x01k", "expected one of void, value, found none"),
        (0x040B, b"\x0a\x01k", "expected one of completion_value, completion_failure, found none"),
        (0x0410, b"\x0a\x01k\x22\x00", "expected one of idx, name, found none"),
        (0x0410, b"\x0a\x01k\x10\x01", "expected one of void, value, failure, found none"),
        (0x0412, b"\x58\x01", "expected one of invocation_id"),
        (0x0413, b"\x58\x01", "expected one of invocation_id"),
        (0x0414, b"\x0a\x01k", "expected one of value, failure"),
        (0x800C, b"\x08\x01", "found none"),
        (0x800C, b"\x22\x00", "expected one of completion_id, idx, name"),
        (0x800C, b"\x08\x01\x2a\x00", "result is value, expected one of void"),
        (0x800C, b"\x10\x01\x22\x00", "found idx, expected a completion id"),
        (0xFBFF, b"\x08\x01\x22\x00", "found completion_id, expected a signal index or name"),
    ],
)
def test_a_broken_message_is_refused(type: int, body: bytes, text: str) -> None:
    with pytest.raises(ProtocolError, match=text) as raised:
        parse(type, body)
    assert raised.value.code == 571


def test_a_v7_suspension_must_carry_its_tree() -> None:
    flat = b"\x0a\x01\x01\x12\x01\x01"
    assert parse(0x0001, flat, version=6)
    with pytest.raises(ProtocolError, match="awaiting_on is missing"):
        parse(0x0001, flat, version=7)
    assert parse(0x0001, b"\x22\x05\x12\x01\x01\x28\x01", version=7)


def test_an_absurdly_nested_tree_is_refused_not_a_crash() -> None:
    body = b""
    for _ in range(300):
        body = b"\x22" + _varint(len(body)) + body
    with pytest.raises(ProtocolError, match="do not decode"):
        parse(0x0001, body, version=7)


def test_every_notification_accepts_exactly_its_results() -> None:
    made: dict[str, Any] = {
        "void": Void(),
        "value": Value(),
        "failure": Failure(),
        "invocation_id": "",
        "state_keys": StateKeys(),
    }
    for (type, allowed), result in itertools.product(RESULTS.items(), made):
        identity: dict[str, Any] = {"idx": 17} if type == SIGNAL else {"completion_id": 1}
        body = Notification(**identity, **{result: made[result]}).SerializeToString()
        if result in allowed:
            assert parse(type, body)
        else:
            with pytest.raises(ProtocolError):
                parse(type, body)


def test_unpacked_lists_and_unknown_fields_are_read() -> None:
    message = parse(0x0001, b"\x08\x01\x08\x02\x10\x01\xf8\x01\x07")
    assert isinstance(message, messages.Suspension)
    assert list(message.waiting_completions) == [1, 2]
    assert list(message.waiting_signals) == [1]


def _varint(number: int) -> bytes:
    return bytes((number,)) if number < 0x80 else bytes((number & 0x7F | 0x80,)) + _varint(number >> 7)
