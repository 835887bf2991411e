"""The conversation between processes as bytes: any split, any change, the wrong secret."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_runtime.adapters.peer_link import MAGIC, MAX_CONTENT_BYTES, Frame, Kind, Link, LinkBroken

SECRET = b"s" * 32
CONTENTS = [b"", b"a", b"b" * 1_000, bytes(range(256))]


def ends(secret: bytes = SECRET, other: bytes = SECRET) -> tuple[Link, Link]:
    return Link(secret, b"c" * 16, calling=True), Link(other, b"a" * 16, calling=False)


def shaken() -> tuple[Link, Link]:
    caller, answerer = ends()
    greeting, _ = answerer.receive(caller.hello())
    proof, _ = caller.receive(greeting)
    assert caller.ready
    assert not answerer.ready
    nothing, frames = answerer.receive(proof)
    assert answerer.ready
    assert (nothing, frames) == (b"", [])
    return caller, answerer


@given(st.lists(st.integers(1, 40), min_size=1, max_size=200), st.booleans())
def test_frames_arrive_whole_and_in_order_however_the_bytes_are_cut(sizes: list[int], to_caller: bool) -> None:
    caller, answerer = shaken()
    sender, receiver = (answerer, caller) if to_caller else (caller, answerer)
    stream = b"".join(sender.frame(Kind.REQUEST, number, content) for number, content in enumerate(CONTENTS))
    found: list[Frame] = []
    for size in sizes:
        found += receiver.receive(stream[:size])[1]
        stream = stream[size:]
    found += receiver.receive(stream)[1]
    assert found == [Frame(Kind.REQUEST, number, content) for number, content in enumerate(CONTENTS)]


def test_the_greeting_may_come_byte_by_byte_and_with_the_first_frame() -> None:
    caller, answerer = ends()
    back = b""
    for octet in caller.hello():
        back += answerer.receive(bytes([octet]))[0]
    proof = b""
    for octet in back:
        proof += caller.receive(bytes([octet]))[0]
    answer, frames = answerer.receive(proof + caller.frame(Kind.REQUEST, 7, b"x"))
    assert answer == b""
    assert frames == [Frame(Kind.REQUEST, 7, b"x")]


def test_an_answerer_without_the_secret_is_refused() -> None:
    caller, answerer = ends(other=b"t" * 32)
    greeting, _ = answerer.receive(caller.hello())
    with pytest.raises(LinkBroken, match="does not know the secret"):
        caller.receive(greeting)


def test_a_caller_without_the_secret_is_refused_before_any_frame_is_read() -> None:
    caller, answerer = ends()
    answerer.receive(caller.hello())
    with pytest.raises(LinkBroken, match="does not know the secret"):
        answerer.receive(b"\0" * 32 + Link(SECRET, b"x" * 16, calling=True).frame(Kind.REQUEST, 1))


def test_a_proof_of_another_conversation_does_not_count() -> None:
    caller, answerer = ends()
    proof, _ = caller.receive(answerer.receive(caller.hello())[0])
    other = Link(SECRET, b"o" * 16, calling=False)
    other.receive(caller.hello())
    with pytest.raises(LinkBroken, match="does not know the secret"):
        other.receive(proof)


@given(st.integers(0, 10_000))
def test_any_change_of_a_frame_is_noticed(position: int) -> None:
    caller, answerer = shaken()
    frame = bytearray(caller.frame(Kind.REQUEST, 3, b"pay 10"))
    frame[position % len(frame)] ^= 1
    try:
        _, frames = answerer.receive(bytes(frame))
    except LinkBroken:
        return
    assert frames == []  # a longer length: the rest never comes


def test_a_frame_cannot_be_replayed_or_left_out() -> None:
    caller, answerer = shaken()
    first, second = caller.frame(Kind.REQUEST, 1), caller.frame(Kind.REQUEST, 2)
    with pytest.raises(LinkBroken, match="changed on its way"):
        answerer.receive(second)
    caller, answerer = shaken()
    answerer.receive(first)
    with pytest.raises(LinkBroken, match="changed on its way"):
        answerer.receive(first)


@given(st.binary(min_size=1, max_size=200))
def test_anything_else_is_refused_or_awaits_more(garbage: bytes) -> None:
    _, answerer = ends()
    try:
        _, frames = answerer.receive(garbage)
    except LinkBroken:
        return
    assert frames == []
    assert MAGIC.startswith(garbage[: len(MAGIC)])


def test_an_impossible_length_is_refused_before_it_is_awaited() -> None:
    _, answerer = shaken()
    with pytest.raises(LinkBroken, match="announces"):
        answerer.receive((MAX_CONTENT_BYTES + 1).to_bytes(4, "big") + bytes(30))


def test_a_message_that_is_too_large_is_not_sent() -> None:
    caller, _ = shaken()
    with pytest.raises(ValueError, match="holds at most"):
        caller.frame(Kind.REQUEST, 1, bytes(MAX_CONTENT_BYTES + 1))
