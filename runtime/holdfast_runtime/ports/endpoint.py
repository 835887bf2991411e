"""Endpoints: where handlers run. One request with the journal so far, one response with what is new (service protocol §5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
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
    "Refusal",
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


class Refusal(Enum):
    """Why a platform did not start the handler."""

    LIMIT = "limit"  # as many as may run are running, or were started just now
    TROUBLE = "trouble"  # it could not, this time: an error of its own, or a function that is just being changed


class EndpointFailure(Exception):
    """No usable response: refused, timed out, function error, throttled, too large. Never a result (service protocol §5.1.5).

    code: HTTP-style status shown to users. error_code: RT00xx of http-api §6.6. retry_after_ms: exact next delay or None.
    refusal: the platform did not start the handler, so this is no attempt: nothing is recorded, and it does not count for the retry policy.
    hopeless: the same request will fail in the same way, so the retry policy's attempts are used up at once.
    """

    def __init__(
        self,
        message: str,
        *,
        code: int = 500,
        error_code: str = "RT0010",
        retry_after_ms: int | None = None,
        refusal: Refusal | None = None,
        hopeless: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.error_code = error_code
        self.retry_after_ms = retry_after_ms
        self.refusal = refusal
        self.hopeless = hopeless


class Endpoint(Protocol):
    """One transport. `timeout_s` bounds the whole exchange; when it is over, the request is aborted and EndpointFailure raised."""

    async def request(self, address: Address, request: EndpointRequest, *, timeout_s: float) -> EndpointResponse: ...

    async def close(self) -> None: ...
