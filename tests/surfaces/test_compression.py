"""Which answers are compressed, with what, and that they come back whole."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator

import pytest
import zstandard
from starlette.responses import Response, StreamingResponse

from holdfast_runtime.surfaces.compression import MIN_BYTES, chosen, compressed
from tests.surfaces.http import Http

OFFERS = {
    None: None,
    "": None,
    "identity": None,
    "deflate": None,
    "br": None,
    "gzip": "gzip",
    "zstd": "zstd",
    "gzip, zstd": "zstd",
    "gzip, deflate, br, zstd": "zstd",
    "GZIP ;q=0.5": "gzip",
    "zstd;q=0.1, gzip;q=0.9": "gzip",
    "zstd;q=0, gzip": "gzip",
    "zstd;q=0, gzip;q=0": None,
    "*": "zstd",
    "*;q=0, gzip": "gzip",
    "gzip;q=nonsense": None,
}


@pytest.mark.parametrize("offer", OFFERS)
def test_the_heaviest_offer_wins_then_our_preference(offer: str | None) -> None:
    assert chosen(offer) == OFFERS[offer]


def plain(response: Response, body: bytes) -> bytes:
    encoding = response.headers.get("content-encoding")
    if encoding == "gzip":
        return zlib.decompress(body, 16 + zlib.MAX_WBITS)
    return zstandard.ZstdDecompressor().decompressobj().decompress(body) if encoding == "zstd" else body


@pytest.mark.parametrize("encoding", ["gzip", "zstd", None])
def test_a_whole_answer_comes_back(encoding: str | None) -> None:
    content = b"the same again " * 500
    response = compressed(Response(content), encoding)
    assert plain(response, bytes(response.body)) == content
    assert response.headers["vary"] == "accept-encoding"
    assert response.headers["content-length"] == str(len(response.body))
    assert response.headers.get("content-encoding") == encoding
    assert (len(response.body) < len(content) / 10) is (encoding is not None)


@pytest.mark.parametrize("encoding", ["gzip", "zstd", None])
async def test_a_stream_comes_back(encoding: str | None) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for number in range(300):
            yield f"part {number} ".encode() * 50

    response = compressed(StreamingResponse(parts()), encoding)
    assert isinstance(response, StreamingResponse)
    body = b"".join([bytes(part) if not isinstance(part, str) else part.encode() async for part in response.body_iterator])
    assert plain(response, body) == b"".join([part async for part in parts()])
    assert response.headers["vary"] == "accept-encoding"


@pytest.mark.parametrize(("size", "touched"), [(0, False), (MIN_BYTES - 1, False), (MIN_BYTES, True)])
def test_short_answers_are_left_alone(size: int, touched: bool) -> None:
    response = compressed(Response(b"a" * size), "zstd")
    assert ("vary" in response.headers) is touched
    assert ("content-encoding" in response.headers) is touched


async def test_the_admin_api_compresses_when_asked(admin: Http) -> None:
    answer = await admin.get("/services", {"accept-encoding": "gzip, zstd"})
    assert (answer.headers["content-encoding"], answer.headers["content-type"]) == ("zstd", "application/json")
    whole = await admin.get("/services")
    assert "content-encoding" not in whole.headers
    assert zstandard.ZstdDecompressor().decompressobj().decompress(answer.body) == whole.body
    assert (await admin.get("/v1/x", {"accept-encoding": "gzip"})).headers["content-encoding"] == "gzip"
    assert "vary" not in (await admin.get("/subscriptions", {"accept-encoding": "zstd"})).headers
