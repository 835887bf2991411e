"""Answers of the ingress as data: status, headers, body (http-api §1.6, §1.7, §1.9).

Every answer carries the CORS headers except the refusal of an oversized declared length. `source` tells
clients who failed: `ingress` (we refused or failed, maybe retry) or `invocation` (its final outcome, never
retry).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from holdfast_runtime.coordinator.front import CoordinatorUnavailable, Failed, Outcome, Success
from holdfast_runtime.surfaces.asgi import RawHeaders
from holdfast_runtime.surfaces.ingress_routes import HandlerRoute
from holdfast_runtime.surfaces.timestamps import admin_time, expires_time

CORS: Final[RawHeaders] = [
    (b"vary", b"origin, access-control-request-method, access-control-request-headers"),
    (b"access-control-allow-credentials", b"true"),
]
JSON: Final = (b"content-type", b"application/json")
FROM_INGRESS: Final = (b"x-restate-error-source", b"ingress")
FROM_INVOCATION: Final = (b"x-restate-error-source", b"invocation")
NO_BODY_STATUS: Final = frozenset({204, 304})


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: RawHeaders
    body: bytes = b""


def complete(reply: Reply, asked: Mapping[bytes, bytes]) -> Reply:
    """With the headers every answer has; `asked`: those of the request."""
    headers = reply.headers
    if reply.status != 413 or reply.body[:1] == b"{":
        headers = headers + CORS
        origin = asked.get(b"origin")
        if origin is not None:
            headers.append((b"access-control-allow-origin", origin))
    if reply.status in NO_BODY_STATUS:
        return Reply(reply.status, headers)
    return Reply(reply.status, [*headers, (b"content-length", b"%d" % len(reply.body))], reply.body)


class Refused(Exception):
    """The ingress answers without an invocation."""

    def __init__(self, status: int, message: str, headers: RawHeaders | None = None) -> None:
        super().__init__(message)
        self.reply = ingress_error(status, message, headers)


def compact(document: object) -> bytes:
    """JSON without white space, as UTF-8."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def ingress_error(status: int, message: str, headers: RawHeaders | None = None) -> Reply:
    body = compact({"code": status, "message": message, "source": "ingress"})
    return Reply(status, [FROM_INGRESS, JSON, *(headers or [])], body)


def unavailable(error: CoordinatorUnavailable) -> Reply:
    if error.retry_safe:
        hint = "The request did not take effect or is idempotent: it is safe to retry it."
        return ingress_error(503, f"internal routing error: {error}. {hint}", [(b"retry-after", b"1")])
    hint = "The request may have been accepted: retrying it without an idempotency key may run it twice."
    return ingress_error(503, f"internal routing error: {error}. {hint}")


def invocation_error(invocation_id: bytes, failed: Failed) -> Reply:
    """The invocation's own failure. The JSON keeps the original code, whatever status can be sent for it."""
    document: dict[str, object] = {"code": failed.code, "message": failed.message}
    if failed.metadata:
        document["metadata"] = dict(failed.metadata)
    document["source"] = "invocation"
    headers = [(b"x-restate-id", invocation_id), FROM_INVOCATION, JSON]
    if failed.expires_at_ms is not None:
        headers.append(expires(failed.expires_at_ms))
    # 1xx announces another answer and would leave the client waiting, so it is sent as 500 as well.
    status = failed.code if 200 <= failed.code <= 999 else 500
    return Reply(status, headers, compact(document))


def outcome_reply(invocation_id: bytes, outcome: Outcome, route: HandlerRoute | None) -> Reply:
    """`route` None: the handler is not known; its result is labelled as without an output rule."""
    if not isinstance(outcome, Success):
        return invocation_error(invocation_id, outcome)
    headers: RawHeaders = [(b"x-restate-id", invocation_id)]
    content_type, if_empty = (JSON, False) if route is None else (route.content_type, route.content_type_if_empty)
    if content_type is not None and (outcome.value or if_empty):
        headers.append(content_type)
    if outcome.expires_at_ms is not None:
        headers.append(expires(outcome.expires_at_ms))
    return Reply(200, headers, outcome.value)


def accepted(invocation_id: str, new: bool, execution_time_ms: int | None) -> Reply:
    scheduled = "" if execution_time_ms is None else f'"executionTime":"{admin_time(execution_time_ms)}",'
    status = "Accepted" if new else "PreviouslyAccepted"
    body = f'{{"invocationId":"{invocation_id}",{scheduled}"status":"{status}"}}'
    return Reply(202, [JSON, (b"x-restate-id", invocation_id.encode())], body.encode())


def expires(expires_at_ms: int) -> tuple[bytes, bytes]:
    return b"idempotency-expires", expires_time(expires_at_ms).encode()


def too_large() -> Reply:
    """A declared length over the limit; the one answer that is plain text."""
    return Reply(413, [(b"content-type", b"text/plain; charset=utf-8")], b"length limit exceeded")


def preflight(headers: Mapping[bytes, bytes]) -> Reply:
    """OPTIONS on any path: everything asked for is allowed."""
    reply: RawHeaders = []
    for asked, allowed in (
        (b"access-control-request-method", b"access-control-allow-methods"),
        (b"access-control-request-headers", b"access-control-allow-headers"),
    ):
        if asked in headers:
            reply.append((allowed, headers[asked]))
    return Reply(200, reply)
