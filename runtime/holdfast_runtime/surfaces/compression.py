"""Compressing answers for clients that offer it (http-api §2): zstd before gzip, `vary` wherever it could have happened.

Short answers stay as they are: the headers would be longer than what is saved.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterable, AsyncIterator
from typing import Final, Protocol

import zstandard
from starlette.responses import Response, StreamingResponse

MIN_BYTES: Final = 32
PREFERRED: Final = ("zstd", "gzip")
_ZSTD_LEVEL: Final = 3
_GZIP: Final = 16 + zlib.MAX_WBITS  # of zlib's `wbits`: with gzip's header and checksum


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


def compressed(response: Response, accept_encoding: str | None) -> Response:
    """The response, compressed as the request's `accept-encoding` allows. It is changed in place."""
    streamed = isinstance(response, StreamingResponse)
    if not streamed and len(response.body) < MIN_BYTES:
        return response
    response.headers["vary"] = "accept-encoding"
    encoding = chosen(accept_encoding)
    if encoding is None or "content-encoding" in response.headers:
        return response
    response.headers["content-encoding"] = encoding
    if isinstance(response, StreamingResponse):
        response.body_iterator = _each(response.body_iterator, _compressor(encoding))
        return response
    compressor = _compressor(encoding)
    response.body = compressor.compress(bytes(response.body)) + compressor.flush()
    response.headers["content-length"] = str(len(response.body))
    return response


def chosen(accept_encoding: str | None) -> str | None:
    """The best encoding we have of those offered: by weight, then by our preference. None: send it as it is."""
    weights = dict(_offer(part) for part in (accept_encoding or "").split(","))
    usable = [name for name in PREFERRED if weights.get(name, weights.get("*", 0.0)) > 0]
    return max(usable, key=lambda name: weights.get(name, weights.get("*", 0.0)), default=None)


def _offer(part: str) -> tuple[str, float]:
    name, _, parameter = part.partition(";")
    try:
        weight = float(parameter.strip().removeprefix("q=")) if parameter else 1.0
    except ValueError:
        weight = 0.0
    return name.strip().lower(), weight


def _compressor(encoding: str) -> _Compressor:
    if encoding == "zstd":
        found: _Compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()
        return found
    return zlib.compressobj(wbits=_GZIP)


async def _each(parts: AsyncIterable[str | bytes | memoryview[int]], compressor: _Compressor) -> AsyncIterator[bytes]:
    async for part in parts:
        if piece := compressor.compress(part.encode() if isinstance(part, str) else bytes(part)):
            yield piece
    yield compressor.flush()
