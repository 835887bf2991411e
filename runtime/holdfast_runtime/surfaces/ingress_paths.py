"""Reading what a caller put into path, query and headers (http-api §1.2-1.4, §1.7).

Rules: only keys are percent-decoded; of repeated headers the first counts, which the caller of these
functions has already done; whatever cannot be read is refused with 400.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote, unquote_to_bytes

from holdfast.protocol.ids import AwakeableId, IdError, InvocationId, parse_awakeable_id
from holdfast_runtime.surfaces.durations import parse_duration
from holdfast_runtime.surfaces.ingress_replies import Refused

BAD_PATH: Final = "bad path, expected either /:service-name/:handler or /:object-name/:object-key/:handler"
BAD_NEW_PATH: Final = (
    "bad path, expected /restate/call/:service/:handler, /restate/send/:service/:handler, "
    "/restate/scope/:scope/call/:service/:handler, /restate/attach/:invocation_id, "
    "/restate/output/:invocation_id, or /restate/lookup"
)
BAD_AWAKEABLE_PATH: Final = "bad path, expected either /restate/awakeables/:id/resolve or /restate/awakeables/:id/reject"
BAD_INVOCATION_PATH: Final = (
    "bad path, expected either /restate/invocation/:invocation_id/output or "
    "/restate/invocation/:invocation_id/attach or "
    "/restate/invocation/:invocation_target/:idempotency_key/output or "
    "/restate/invocation/:invocation_target/:idempotency_key/attach"
)
BAD_WORKFLOW_PATH: Final = (
    "bad path, expected either /restate/workflow/:workflow_name/:workflow_key/output or "
    "/restate/workflow/:workflow_name/:workflow_key/attach"
)
# Hop-by-hop, or already used up here; everything else reaches the handler.
_NOT_FORWARDED: Final = frozenset({b"connection", b"host", b"idempotency-expires", b"idempotency-key"})


def decode_key(segment: bytes) -> str:
    """Only keys are percent-decoded; `+` is a plus."""
    try:
        return (unquote_to_bytes(segment) if b"%" in segment else segment).decode()
    except UnicodeDecodeError as error:
        raise Refused(400, f"bad path, cannot decode key: {error}") from error


def idempotency_key_of(value: bytes) -> str:
    try:
        return value.decode("ascii")
    except UnicodeDecodeError as error:
        raise Refused(400, "bad header idempotency-key: expected ASCII characters only") from error


def forwarded_headers(path: bytes, query: bytes, headers: dict[bytes, bytes]) -> list[tuple[str, str]]:
    shown = path + b"?" + query if query else path
    forwarded = [("x-restate-ingress-path", shown.decode("latin-1"))]
    name = b""
    try:
        for name, value in headers.items():
            if name not in _NOT_FORWARDED:
                forwarded.append((name.decode("ascii"), value.decode("ascii")))
    except UnicodeDecodeError as error:
        raise Refused(400, f"bad header {name.decode('latin-1')}: expected ASCII characters only") from error
    return forwarded


def delay_ms_of(query: bytes) -> int | None:
    """The `delay` parameter in ms; a bare integer is milliseconds, as one official client sends it."""
    for pair in query.split(b"&"):
        name, _, value = pair.partition(b"=")
        if name == b"delay":
            text = unquote(value.replace(b"+", b" ").decode("latin-1"))
            try:
                return parse_duration(f"{text}ms" if text.isascii() and text.isdecimal() else text)
            except ValueError as error:
                raise Refused(400, f"bad delay query parameter, must be a ISO8601 duration: {error}") from error
    return None


def invocation_id_of(segment: bytes) -> InvocationId:
    text = segment.decode("utf-8", "replace")
    try:
        return InvocationId.parse(text)
    except IdError as error:
        raise Refused(400, f"bad invocation id '{text}': {error.reason}") from error


def awakeable_id_of(segment: bytes) -> AwakeableId:
    text = segment.decode("utf-8", "replace")
    try:
        return parse_awakeable_id(text)
    except IdError as error:
        raise Refused(400, f"bad awakeable id '{text}': {error.reason}") from error


def operation_of(segment: bytes) -> bytes:
    """`attach` or `output`."""
    if segment not in (b"attach", b"output"):
        raise Refused(404, "not found")
    return segment


def only(method: str, allowed: str) -> None:
    if method != allowed:
        raise Refused(405, "method not allowed")
