"""Instants as text (http-api §0.4). All inputs are wall-clock milliseconds since the Unix epoch."""

from __future__ import annotations

from datetime import UTC, datetime


def _seconds(ms: int) -> tuple[str, int]:
    seconds, millis = divmod(ms, 1000)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S"), millis


def admin_time(ms: int) -> str:
    """`2026-11-21T20:04:07.669000000Z`: admin JSON and the ingress's executionTime."""
    text, millis = _seconds(ms)
    return f"{text}.{millis:03d}000000Z"


def sql_time(ms: int) -> str:
    """`2026-11-21T20:04:45.399Z`."""
    text, millis = _seconds(ms)
    return f"{text}.{millis:03d}Z"


def expires_time(ms: int) -> str:
    """`2026-11-22T20:05:32.433+00:00`: the idempotency-expires header."""
    text, millis = _seconds(ms)
    return f"{text}.{millis:03d}+00:00"
