"""Endpoints: where handlers run. One request with the journal so far, one response with what is new (service protocol §5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from holdfast_runtime.engine.registry import (
    Address,
    HttpAddress,
    HttpVersion,
    InProcessAddress,
    LambdaAddress,
)

__all__ = [
    "Address",
    "Endpoint",
    "EndpointFailure",
    "EndpointRequest",
    "EndpointResponse",
    "HttpAddress",
    "HttpVersion",
    "InProcessAddress",
    "LambdaAddress",
]


@dataclass(frozen=True, slots=True)
class EndpointRequest:
    """What is sent, whatever the transport. `path` is absolute below the base path; header names are lower case."""

    method: str  # "POST" for an invocation, "GET" for discovery
    path: str  # "/invoke/{service}/{handler}" or "/discover"
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class EndpointResponse:
    """What came back. `broken` names why the body is incomplete (connection lost in the middle); its whole frames still count."""

    status: int
    headers: Mapping[str, str]  # lower-case names; of repeated headers the first
    body: bytes
    broken: str | None = None


class EndpointFailure(Exception):
    """No usable response: refused, timed out, function error, throttled, too large. Always transient (service protocol §5.1.5).

    code: HTTP-style status shown to users. error_code: RT00xx of http-api §6.6. retry_after_ms: exact next delay or None.
    throttled: the platform refused to start it (it never reached user code), so it does not consume a retry attempt.
    """

    def __init__(
        self,
        message: str,
        *,
        code: int = 500,
        error_code: str = "RT0010",
        retry_after_ms: int | None = None,
        throttled: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.error_code = error_code
        self.retry_after_ms = retry_after_ms
        self.throttled = throttled


class Endpoint(Protocol):
    """One transport. `timeout_s` bounds the whole exchange; when it is over, the request is aborted and EndpointFailure raised."""

    async def request(self, address: Address, request: EndpointRequest, *, timeout_s: float) -> EndpointResponse: ...

    async def close(self) -> None: ...
