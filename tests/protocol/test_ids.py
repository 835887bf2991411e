"""Identifiers: round trips, fixed widths, and the reasons the HTTP surfaces print."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.protocol import ids
from holdfast.protocol.errors import ProtocolError
from holdfast.protocol.ids import AwakeableId, IdError, InvocationId
from tests.protocol.strategies import invocations, text, uint32, uint64

INVOCATION = "inv_1b1EmpnnG3377ndgfeM33jirp6SC2e7wme"


@given(invocations)
def test_invocation_ids_round_trip(invocation: InvocationId) -> None:
    written = str(invocation)
    assert len(written) == 38
    assert InvocationId.parse(written) == invocation
    assert hash(InvocationId.parse(written)) == hash(invocation)
    assert str(invocation) is written  # made once
    assert invocation.partition_key.to_bytes(8, "big") + invocation.uuid == invocation.raw


@given(invocations, uint32)
def test_awakeable_ids_round_trip(invocation: InvocationId, index: int) -> None:
    written = ids.awakeable_id(invocation, index)
    assert len(written) == 44
    assert ids.parse_awakeable_id(written) == AwakeableId(invocation, index, legacy=False)
    legacy = written.replace("sign_", "prom_", 1)
    assert ids.parse_awakeable_id(legacy) == AwakeableId(invocation, index, legacy=True)


@given(st.binary(min_size=16, max_size=16))
def test_deployment_ids_round_trip(ulid: bytes) -> None:
    written = ids.deployment_id(ulid)
    assert len(written) == 26
    assert ids.parse_deployment_id(written) == ulid
    assert len(ids.subscription_id(ulid)) == 27


@given(st.sampled_from([8, 16]).flatmap(lambda size: st.binary(min_size=size, max_size=size)))
def test_base62_round_trips(data: bytes) -> None:
    assert ids.base62_decode(ids.base62_encode(data), len(data)) == data


@given(text | st.sampled_from(["inv_1", "sign_1", "dp_1", "prom_1"]).flatmap(lambda p: text.map(p.__add__)))
def test_any_text_parses_or_raises_id_error(written: str) -> None:
    for parse in (InvocationId.parse, ids.parse_awakeable_id, ids.parse_deployment_id):
        try:
            parse(written)
        except IdError as error:
            assert error.reason in str(error)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("abc", "bad format"),
        ("", "bad format"),
        ("inv_1foo", "bad length"),
        ("inv_", "bad length"),
        (INVOCATION + "0", "bad length"),
        (INVOCATION[:-1] + "-", "base62 decode error"),
        ("inv_1" + "Z" * 33, "base62 decode error"),
        ("inv_2" + INVOCATION[5:], "unrecognized codec version"),
        ("dp_1" + INVOCATION[5:], "id doesn't match the expected type"),
        ("foo_1bar", "unrecognized resource type: foo"),
    ],
)
def test_a_bad_invocation_id_names_its_reason(written: str, reason: str) -> None:
    with pytest.raises(IdError) as raised:
        InvocationId.parse(written)
    assert raised.value.reason == reason
    assert repr(written) in str(raised.value)
    assert "expected inv_1 and 33 base62 digits" in str(raised.value)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("foo", "bad format"),
        ("sign_1foo", "id doesn't match the expected type"),
        ("prom_1foo", "bad length"),
        ("sign_1" + "!" * 38, "bad format"),
        ("sign_1" + "é" * 38, "bad format"),
        (INVOCATION, "id doesn't match the expected type"),
    ],
)
def test_a_bad_awakeable_id_names_its_reason(written: str, reason: str) -> None:
    with pytest.raises(IdError) as raised:
        ids.parse_awakeable_id(written)
    assert raised.value.reason == reason


@pytest.mark.parametrize("size", [0, 3, 23, 25])
def test_raw_ids_have_24_bytes(size: int) -> None:
    with pytest.raises(ProtocolError, match=f"24 bytes, found {size}"):
        InvocationId.from_raw(bytes(size))


def test_invocation_ids_are_frozen() -> None:
    invocation = InvocationId.parse(INVOCATION)
    with pytest.raises(AttributeError):
        invocation.raw = bytes(24)  # type: ignore[misc]


@given(uint64, st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_random_ids_carry_partition_and_time(partition_key: int, now_ms: int, random80: bytes) -> None:
    invocation = ids.random_invocation_id(partition_key, now_ms, random80)
    assert invocation.partition_key == partition_key
    assert ids.timestamp_ms(invocation) == now_ms
    assert invocation.raw.endswith(random80)


@given(invocations, st.integers(0, 2**32), uint64)
def test_a_child_id_is_a_function_of_caller_and_command(caller: InvocationId, index: int, partition_key: int) -> None:
    child = ids.child_id(caller, index, partition_key)
    assert child == ids.child_id(caller, index, partition_key)
    assert child.partition_key == partition_key
    assert child.uuid != ids.child_id(caller, index + 1, partition_key).uuid
    other = InvocationId.from_raw(bytes(byte ^ 1 for byte in caller.raw))
    assert child.uuid != ids.child_id(other, index, partition_key).uuid


def test_child_id_preimage() -> None:
    """Stored children are found again by recomputing, so the preimage must never change."""
    child = ids.child_id(InvocationId.from_raw(bytes(range(24))), 3, 7)
    assert child.raw.hex() == "00000000000000071e75b8004d1001c8879987f5d083ba4a"


@given(text, text, text)
def test_an_idempotent_keyed_id_lives_with_its_key(service: str, handler: str, key: str) -> None:
    invocation = ids.idempotent_id(service, handler, "once", key)
    assert invocation.partition_key == ids.keyed_partition_key(key)
    assert invocation.partition_key == ids.workflow_run_id(service, key).partition_key
    assert 0 <= ids.idempotency_bucket(key) < ids.BUCKETS


def test_seed_of_the_worked_example() -> None:
    """Service protocol §8.1."""
    assert ids.random_seed(InvocationId.parse(INVOCATION).raw) == 11944059194949285744
