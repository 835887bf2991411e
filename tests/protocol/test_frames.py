"""Frames: any split gives the same frames, and anything else is one ProtocolError."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.protocol.errors import ProtocolError
from holdfast.protocol.frames import MAX_MESSAGE_BYTES, Frame, FrameDecoder, encode, header, raw, split
from tests.protocol.strategies import frames


@given(st.lists(frames))
def test_frames_round_trip(sent: list[Frame]) -> None:
    body = b"".join(raw(frame) for frame in sent)
    assert list(split(body)) == sent
    assert list(split(bytearray(body))) == sent


@given(st.lists(frames), st.lists(st.integers(0, 400)))
def test_bytes_may_arrive_in_any_pieces(sent: list[Frame], cuts: list[int]) -> None:
    body = b"".join(raw(frame) for frame in sent)
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    decoder = FrameDecoder()
    received: list[Frame] = []
    for start, end in pairwise(edges):
        received += decoder.feed(body[start:end])
    decoder.finish()
    assert received == sent


@given(st.binary(max_size=60), st.integers(0, 60))
def test_any_bytes_give_frames_or_one_error_and_both_readers_agree(data: bytes, cut: int) -> None:
    whole: list[Frame] = []
    torn = False
    try:
        whole.extend(split(data))
    except ProtocolError:
        torn = True
    decoder = FrameDecoder()
    pieces: list[Frame] = []
    try:
        for piece in (data[:cut], data[cut:]):
            pieces += decoder.feed(piece)
        decoder.finish()
        assert not torn
        assert pieces == whole
    except ProtocolError:
        assert torn
        assert pieces == whole[: len(pieces)]


@given(st.lists(frames, min_size=1), st.data())
def test_frames_before_a_torn_one_are_kept(sent: list[Frame], data: st.DataObject) -> None:
    last = raw(sent[-1])
    missing = data.draw(st.integers(1, len(last) - 1))
    body = b"".join(raw(frame) for frame in sent)[:-missing]
    received: list[Frame] = []
    with pytest.raises(ProtocolError, match=r"expected .* found .* bytes"):
        received.extend(split(body))
    assert received == sent[:-1]


def test_flags_are_ignored() -> None:
    assert list(split(encode(5, b"x", flags=0xFFFF))) == [Frame(5, b"x")]
    assert FrameDecoder().feed(encode(5, b"x", flags=0x8000)) == [Frame(5, b"x")]


def test_header_layout() -> None:
    assert encode(0x0411, b"abc", flags=0x8000) == bytes.fromhex("0411800000000003") + b"abc"


def test_oversized_message_is_refused_before_its_bytes_arrive() -> None:
    good = encode(3, b"")
    oversized = bytes.fromhex("0411000002000001")
    assert int.from_bytes(oversized[4:]) == MAX_MESSAGE_BYTES + 1
    received: list[Frame] = []
    with pytest.raises(ProtocolError, match="at most 33554432"):
        received.extend(split(good + oversized))
    assert received == [Frame(3, b"")]

    decoder = FrameDecoder()
    assert decoder.feed(good + oversized) == [Frame(3, b"")]
    with pytest.raises(ProtocolError, match="at most 33554432"):
        decoder.feed(b"more")
    with pytest.raises(ProtocolError, match="at most 33554432"):
        decoder.finish()
    with pytest.raises(ProtocolError, match="at most 33554432"):
        FrameDecoder().feed(oversized)
    with pytest.raises(ProtocolError, match="at most 33554432"):
        header(3, MAX_MESSAGE_BYTES + 1)


def test_the_largest_message_passes() -> None:
    body = bytes(MAX_MESSAGE_BYTES)
    assert list(split(encode(3, body))) == [Frame(3, body)]
