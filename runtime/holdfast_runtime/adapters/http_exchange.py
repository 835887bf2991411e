"""One HTTP exchange, whatever the version: what `http1`, `http2`, `http_endpoint` and `aws_lambda` share."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

MAX_HEAD_BYTES: Final = 64 * 1024  # status line and headers of a response


@dataclass(frozen=True, slots=True)
class Limits:
    """What an operator may set for calls to handlers."""

    connect_timeout_s: float = 10.0  # name, TCP, TLS and HTTP/2 settings; an unreachable address must not use the abort timeout
    idle_timeout_s: float = 30.0  # kept-alive connections nobody used for so long are closed
    response_bytes: int = 64 * 1024 * 1024  # an attempt's new frames; above, a peer could fill our memory
    compress_from_bytes: int = 4 * 1024 * 1024  # of a request to Lambda; below, base64 still fits


DEFAULT_LIMITS: Final = Limits()

# The transport decides about these: a caller's own would contradict the framing.
FRAMING_HEADERS: Final = frozenset(
    {
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "upgrade",
    }
)

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9a-zA-Z-]+").fullmatch
_FORBIDDEN_IN_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]").search
_FORBIDDEN_IN_TARGET = re.compile(r"[^\x21-\x7e]").search


class ExchangeFailed(Exception):
    """No answer.

    `reason` continues the sentence "error when calling <uri>: "; `error_code` as in EndpointFailure.
    """

    def __init__(self, reason: str, error_code: str = "RT0010") -> None:
        super().__init__(reason)
        self.reason = reason
        self.error_code = error_code


# A connection that the peer had closed before the request came is found out within a round trip. One that is lost later may have carried a
# request that somebody works on: sent again by us, it would run beside itself, unseen by its caller and his retry policy.
STALE_WITHIN_S: Final = 3.0


class NotStarted(ExchangeFailed):
    """The peer never looked at the request, or so all signs say: it may be sent again elsewhere."""


class Unconnected(ExchangeFailed):
    """No connection could be made: nothing was sent."""


class ProtocolChanged(Exception):
    """A new TLS connection negotiated another HTTP version than the origin's earlier ones."""


class Outgoing(NamedTuple):
    """A request ready for the wire; everything in it is validated.

    `authority` is the Host header or :authority.
    """

    scheme: str
    method: str
    authority: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes


@lru_cache(maxsize=1024)
def header_name(name: str) -> str:
    """`name` in lower case. ExchangeFailed when it is no header name or one the transport sets itself."""
    lowered = name.lower()
    if not _TOKEN(name):
        raise ExchangeFailed(f"header name {name!r} is not allowed in HTTP; correct the deployment's headers", "RT0006")
    if lowered in FRAMING_HEADERS:
        raise ExchangeFailed(f"header '{lowered}' is set by the transport; remove it from the deployment's headers", "RT0006")
    return lowered


def merged_headers(*sources: Mapping[str, str]) -> list[tuple[str, str]]:
    """All headers, lower-case names, later sources win.

    ExchangeFailed for one that would break the framing.
    """
    merged: dict[str, str] = {}
    for source in sources:
        for name, value in source.items():
            if _FORBIDDEN_IN_VALUE(value):
                raise ExchangeFailed(f"the value of header '{name}' contains a control character; correct it", "RT0006")
            merged[header_name(name)] = value
    return list(merged.items())


def checked_target(target: str) -> str:
    """The request target when it can stand in a request line."""
    if _FORBIDDEN_IN_TARGET(target) or not target.startswith("/"):
        raise ExchangeFailed(f"request path {target!r} is not an absolute, percent-encoded path", "RT0006")
    return target


def first_of(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Response headers as text, lower-case names; of repeated ones the first."""
    headers: dict[str, str] = {}
    for name, value in pairs:
        headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
    return headers


def too_large(limit: int) -> ExchangeFailed:
    return ExchangeFailed(
        f"the response is larger than {limit} bytes; return less at once, keep large values in a store of their own",
        "RT0003",
    )


def head_too_large() -> ExchangeFailed:
    return ExchangeFailed(f"the response's headers are larger than {MAX_HEAD_BYTES} bytes", "RT0003")


class TimedOut(ExchangeFailed):
    """The time of the exchange was over. Who knows the whole limit completes the message with `within`."""

    def __init__(self) -> None:
        super().__init__("no complete response in time; the request was given up", "RT0001")

    def within(self, timeout_s: float) -> str:
        return f"no complete response within {timeout_s:g} s (abort timeout); the request was given up"


def broken_connection(exc: BaseException | None) -> str:
    """Why a connection ended, in words."""
    if exc is None:
        return "the connection was closed by the peer"
    return f"the connection was lost ({describe(exc)})"


def describe(exc: BaseException) -> str:
    """An OSError or ssl error as people know it: "Connection refused (os error 111)"."""
    if isinstance(exc, OSError) and exc.errno is not None and exc.strerror:
        text = exc.strerror
        if text.startswith(("Connect call failed", "Multiple exceptions")):
            text = os.strerror(exc.errno)
        return f"{text} (os error {exc.errno})"
    return str(exc) or type(exc).__name__
