"""The JSON given to and returned by Lambda's Invoke for one request (service protocol §5.1.1 to §5.1.4).

Pure.

- The event satisfies every SDK: lower-case header names, `body` a string even when empty, `isBase64Encoded`
  always true.
- Frames are compressed before base64, from a size on, when the deployment announced zstd; what comes back says
  itself whether it is.
- An event above Lambda's limit is refused here: the service would only say that it is too large, and a retry
  cannot help.
"""

from __future__ import annotations

import binascii
import io
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any, Final

import zstandard

from holdfast_runtime.adapters.http_exchange import DEFAULT_LIMITS, Limits
from holdfast_runtime.ports.endpoint import EndpointFailure, EndpointRequest, EndpointResponse, LambdaAddress

MAX_EVENT_BYTES: Final = 6 * 1024 * 1024  # Lambda's limit for synchronous payloads, each way
MAX_PLAIN_BYTES: Final = MAX_EVENT_BYTES // 4 * 3 - 256 * 1024  # frames whose base64 fits beside the headers: above, compression decides
COMPRESSION_LEVEL: Final = 3
_CHUNK: Final = 1024 * 1024


def event_of(address: LambdaAddress, request: EndpointRequest, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """The payload of Invoke. EndpointFailure RT0003 when it cannot fit."""
    headers = {name.lower(): value for name, value in address.additional_headers.items()} | dict(request.headers)
    body = request.body
    if address.compression == "zstd":
        headers["accept-encoding"] = "zstd"
        if len(body) >= min(limits.compress_from_bytes, MAX_PLAIN_BYTES):
            body = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL).compress(body)
            headers["content-encoding"] = "zstd"
    opening = f'{{"path":{json.dumps(request.path)},"httpMethod":{json.dumps(request.method)},"headers":{json.dumps(headers)},"body":"'
    event = b"".join((opening.encode(), b64encode(body), b'","isBase64Encoded":true}'))
    if len(event) > MAX_EVENT_BYTES:
        raise request_too_large(len(request.body), len(event), compressed=address.compression == "zstd")
    return event


def request_too_large(body_bytes: int, event_bytes: int, *, compressed: bool) -> EndpointFailure:
    advice = "" if compressed else " or use an SDK that announces zstd compression for Lambda"
    return EndpointFailure(
        f"the journal and state of this invocation are {body_bytes} bytes, {event_bytes} as a Lambda event"
        f"{' after compression' if compressed else ''}; the limit is {MAX_EVENT_BYTES}. Retrying cannot help: keep large "
        f"values in a store of their own and journal references to them, split the work into calls{advice}",
        code=413,
        error_code="RT0003",
        hopeless=True,  # a journal only grows
    )


def response_of(payload: bytes, limits: Limits = DEFAULT_LIMITS) -> EndpointResponse:
    """The answer inside a function's result. EndpointFailure RT0012 names what is not as §5.1.2 says."""
    try:
        result = json.loads(payload)
    except ValueError as exc:
        raise _unexpected(f"it is not JSON ({exc})", payload) from exc
    if not isinstance(result, dict):
        raise _unexpected("it is not an object", payload)
    status = result.get("statusCode")
    if not isinstance(status, int) or isinstance(status, bool) or not 100 <= status <= 599:
        raise _unexpected(f"statusCode is {status!r}", payload)
    headers = _headers(result.get("headers") or {}, payload)
    body = _body(result.get("body"), result.get("isBase64Encoded") is True, payload)
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding == "zstd":
        body = decompress(body, limits.response_bytes)
        del headers["content-encoding"]
    return EndpointResponse(status, headers, body)


def decompress(body: bytes, limit: int = DEFAULT_LIMITS.response_bytes) -> bytes:
    """zstd, bounded: a small body can stand for terabytes."""
    pieces, size = [], 0
    try:
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body), read_across_frames=True) as reader:
            while piece := reader.read(_CHUNK):
                pieces.append(piece)
                size += len(piece)
                if size > limit:
                    raise EndpointFailure(
                        f"the response is larger than {limit} bytes after decompression; return less at once",
                        error_code="RT0003",
                    )
    except zstandard.ZstdError as exc:
        raise EndpointFailure(f"the function's response says content-encoding zstd but is not: {exc}", error_code="RT0012") from exc
    return b"".join(pieces)


def function_failure(payload: bytes) -> EndpointFailure:
    """What `X-Amz-Function-Error` stands for: a crash, a timeout, an exception outside the SDK."""
    kind, message = "", ""
    try:
        error = json.loads(payload)
    except ValueError:
        error = None
    if isinstance(error, dict):
        kind, message = str(error.get("errorType") or ""), str(error.get("errorMessage") or "")
    if not message:
        message = payload[:2000].decode("utf-8", "replace")
    text = f"the Lambda function failed: {kind + ': ' if kind else ''}{message[:2000]}"
    if kind == "Function.ResponseSizeTooLarge" or "payload size exceeded" in message:
        advice = "return less at once: keep large values in a store of their own and journal references to them"
        return EndpointFailure(f"{text}; {advice}", code=413, error_code="RT0019")
    if kind == "Sandbox.Timedout" or "Task timed out after" in message:
        return EndpointFailure(f"{text}; raise the function's timeout or suspend more often", error_code="RT0006")
    if kind == "Runtime.OutOfMemory" or "signal: killed" in message:  # how the end of its memory looks from outside
        return EndpointFailure(f"{text}; it was most likely out of memory: raise the function's memory", error_code="RT0006")
    return EndpointFailure(text, error_code="RT0006")


def _headers(raw: object, payload: bytes) -> dict[str, str]:
    """Lower-case names; of a list of values the first; numbers and booleans as text."""
    if not isinstance(raw, Mapping):
        raise _unexpected("headers is not an object", payload)
    headers: dict[str, str] = {}
    for name, value in raw.items():
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, str | int | float):
            headers.setdefault(str(name).lower(), str(first))
    return headers


def _body(raw: Any, is_base64: bool, payload: bytes) -> bytes:
    if raw is None or raw == "":
        return b""
    if not isinstance(raw, str):
        raise _unexpected("body is not a string", payload)
    if not is_base64:
        return raw.encode("utf-8", "surrogatepass")
    try:
        return b64decode(raw, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise _unexpected(f"body is not base64 ({exc})", payload) from exc


def _unexpected(what: str, payload: bytes) -> EndpointFailure:
    return EndpointFailure(
        "expected the result of a service endpoint: an object with statusCode, headers, body and isBase64Encoded; "
        f"{what}. Is this function built with an SDK? It returned: {payload[:500].decode('utf-8', 'replace')}",
        error_code="RT0012",
    )
