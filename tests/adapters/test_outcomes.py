"""The outcome table of service protocol §5.1.5."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holdfast_runtime.ports.endpoint import EndpointResponse
from holdfast_runtime.ports.outcomes import MAX_RETRY_AFTER_MS, failure_of, retry_after_ms

VECTORS = Path(__file__).parents[1] / "golden" / "vectors"
EXPECTED = "application/vnd.restate.invocation.v6"
NOON_MS = 1_795_262_400_000  # Sat, 21 Nov 2026 12:00:00 GMT


def response(status: int, body: bytes = b"", **headers: str) -> EndpointResponse:
    return EndpointResponse(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def test_frames_are_no_failure() -> None:
    assert failure_of(response(200, b"\x00", content_type=EXPECTED), EXPECTED, now_ms=0) is None


def test_a_broken_answer_still_has_whole_frames() -> None:
    broken = EndpointResponse(200, {"content-type": EXPECTED}, b"\x00", "the connection was closed by the peer")
    assert failure_of(broken, EXPECTED, now_ms=0) is None


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "content-type none, expected 'application/vnd.restate.invocation.v6'"),
        ({"content_type": "application/json"}, "content-type 'application/json'"),
        ({"content_type": "application/vnd.restate.invocation.v5"}, "invocation.v5'"),
        ({"content_type": EXPECTED, "content_encoding": "gzip"}, "content-encoding 'gzip', which was not asked for"),
    ],
)
def test_200_with_something_else(headers: dict[str, str], message: str) -> None:
    failure = failure_of(response(200, b'{"a": 1}', **headers), EXPECTED, now_ms=0)
    assert failure is not None
    assert message in str(failure)
    assert (failure.code, failure.error_code, failure.refusal) == (500, "RT0012", None)


@pytest.mark.parametrize(
    ("status", "error_code"),
    [
        (429, "RT0023"),
        (503, "RT0023"),
        (502, "RT0010"),
        (504, "RT0010"),
        (413, "RT0019"),
        (415, "RT0015"),
        (401, "RT0012"),
        (404, "RT0012"),
        (204, "RT0012"),
        (302, "RT0012"),
        (500, "RT0012"),
    ],
)
def test_statuses(status: int, error_code: str) -> None:
    failure = failure_of(response(status, b"why", content_type=EXPECTED), EXPECTED, now_ms=0)
    assert failure is not None
    assert (failure.code, failure.error_code, failure.retry_after_ms) == (status, error_code, None)
    assert f"status {status}: " in str(failure)
    assert str(failure).endswith(" Body: why")


def test_the_captured_503() -> None:
    captured = json.loads((VECTORS / "38-http-503-retry-after.json").read_text())["exchanges"][0]["response"]
    failure = failure_of(EndpointResponse(captured["status"], captured["headers"], b""), EXPECTED, now_ms=0)
    assert failure is not None
    assert (failure.code, failure.retry_after_ms) == (503, 1000)


@pytest.mark.parametrize(
    ("value", "date", "expected"),
    [
        ("0", None, 0),
        (" 7 ", None, 7000),
        ("Sat, 21 Nov 2026 12:00:30 GMT", None, 30_000),
        ("Sat, 21 Nov 2026 11:00:00 GMT", None, 0),
        ("Sat, 21 Nov 2026 09:00:30 GMT", "Sat, 21 Nov 2026 09:00:00 GMT", 30_000),
        ("Saturday, 21-Nov-26 12:00:30 GMT", None, 30_000),
        ("99999999999999999999", None, MAX_RETRY_AFTER_MS),
        ("soon", None, None),
        ("-1", None, None),
        ("1.5", None, None),
        ("", None, None),
        (None, None, None),
    ],
)
def test_retry_after(value: str | None, date: str | None, expected: int | None) -> None:
    headers = {name: text for name, text in (("retry_after", value), ("date", date)) if text is not None}
    assert retry_after_ms(response(503, **headers), now_ms=NOON_MS) == expected


def test_only_429_and_503_dictate_the_delay() -> None:
    for status, expected in ((429, 5000), (503, 5000), (500, None), (302, None)):
        failure = failure_of(response(status, retry_after="5"), EXPECTED, now_ms=0)
        assert failure is not None
        assert failure.retry_after_ms == expected


def test_bodies_that_are_no_text_are_not_shown() -> None:
    failure = failure_of(response(500, b"\x00\x01\xff\xfe"), EXPECTED, now_ms=0)
    assert "Body" not in str(failure)
    long = failure_of(response(500, b"x" * 10_000), EXPECTED, now_ms=0)
    assert len(str(long)) < 700
