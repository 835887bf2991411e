"""What an endpoint's answer means: the table of service protocol §5.1.5, the same for every transport.

No outcome here ends an invocation: every failure is a failed attempt. What differs is the code shown to
users and the next delay.
"""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

from holdfast_runtime.ports.endpoint import EndpointFailure, EndpointResponse

MAX_RETRY_AFTER_MS: Final = 24 * 3600 * 1000  # a peer's typing error must not park an invocation for years
_SHOWN_BODY: Final = 500  # characters of an error body that go into the message

_STATUS_MEANING: Final = {
    401: (
        "RT0012",
        "the endpoint refused the request's identity; configure its identity key or the deployment's headers",
    ),
    404: (
        "RT0012",
        "nothing is served at this path; check the deployment's URI and that the service exists there",
    ),
    413: (
        "RT0019",
        "the request is too large for the endpoint; keep large values elsewhere or split the work into calls",
    ),
    415: (
        "RT0015",
        "the endpoint no longer speaks the protocol version of this invocation; deploy an SDK that does",
    ),
    429: ("RT0023", "the endpoint limits the rate of requests"),
    502: ("RT0010", "a gateway in front of the endpoint could not reach it"),
    503: ("RT0023", "the endpoint is unavailable for now"),
    504: ("RT0010", "a gateway in front of the endpoint got no answer from it in time"),
}


def failure_of(response: EndpointResponse, expected_content_type: str, *, now_ms: int) -> EndpointFailure | None:
    """The failure an answer stands for, None when its body is frames to decode.

    A `broken` answer with the right status and content-type is None too: its whole frames count, then the
    attempt failed. `now_ms` (wall clock) is only read for a `retry-after` that is a date.
    """
    if response.status == 200:
        return _wrong_content(response, expected_content_type)
    error_code, meaning = _STATUS_MEANING.get(response.status, ("RT0012", "an invocation is answered with 200"))
    message = f"the endpoint answered status {response.status}: {meaning}.{_shown(response)}"
    delay = retry_after_ms(response, now_ms=now_ms) if response.status in (429, 503) else None
    return EndpointFailure(message, code=response.status, error_code=error_code, retry_after_ms=delay)


def retry_after_ms(response: EndpointResponse, *, now_ms: int) -> int | None:
    """The delay a `retry-after` header asks for, as seconds or as an HTTP date; None when absent or
    unreadable.

    A date is compared with the answer's own `date` header if it has one, so the two clocks need not agree.
    """
    value = response.headers.get("retry-after", "").strip()
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return min(int(value[:12]) * 1000, MAX_RETRY_AFTER_MS)
    until_ms = _http_date_ms(value)
    if until_ms is None:
        return None
    sent_ms = _http_date_ms(response.headers.get("date", ""))
    return min(max(0, until_ms - (sent_ms if sent_ms is not None else now_ms)), MAX_RETRY_AFTER_MS)


def _wrong_content(response: EndpointResponse, expected: str) -> EndpointFailure | None:
    found = response.headers.get("content-type")
    encoding = response.headers.get("content-encoding", "identity")
    if encoding.strip().lower() not in ("", "identity"):
        return EndpointFailure(
            f"the endpoint answered with content-encoding '{encoding}', which was not asked for; "
            "turn compression off in what stands between the coordinator and the endpoint",
            error_code="RT0012",
        )
    if found is not None and found.strip().lower() == expected.lower():
        return None
    shown = f"'{found}'" if found is not None else "none"
    return EndpointFailure(
        f"the endpoint answered 200 with content-type {shown}, expected '{expected}'; "
        f"is something other than a service endpoint behind this address?{_shown(response)}",
        error_code="RT0012",
    )


def _shown(response: EndpointResponse) -> str:
    """The body when it is text a person can read, cut."""
    text = response.body[: _SHOWN_BODY * 4].decode("utf-8", "replace").strip()
    if not text or not all(char.isprintable() or char in "\r\n\t" for char in text.rstrip("�")):
        return ""
    return f" Body: {text[:_SHOWN_BODY]}"


def _http_date_ms(text: str) -> int | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return int((moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp() * 1000)
