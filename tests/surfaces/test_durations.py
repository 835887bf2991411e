"""Durations: every listed form of http-api §0.3, and printing is the inverse of parsing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_runtime.surfaces.durations import format_duration, parse_duration
from holdfast_runtime.surfaces.timestamps import admin_time, expires_time, sql_time

SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000

ACCEPTED = {
    "PT1S": SECOND,
    "pt1s": SECOND,
    "P0DT1S": SECOND,
    "P1D": DAY,
    "P1W": 7 * DAY,
    "PT0.5S": 500,
    "PT1H30M": 90 * MINUTE,
    "1h": HOUR,
    "1 hour": HOUR,
    "1d2h": DAY + 2 * HOUR,
    "1 day 2h": DAY + 2 * HOUR,
    "60 sec": 60 * SECOND,
    "60sec": 60 * SECOND,
    "1min": MINUTE,
    "1m": MINUTE,
    "1w": 7 * DAY,
    "1us": 1,
    "1ns": 1,
    "2000ms": 2000,
    "1.5s": 1500,
    "1s500ms": 1500,
    "1h 30m 5s": HOUR + 30 * MINUTE + 5 * SECOND,
    "1 hour, 2 minutes": HOUR + 2 * MINUTE,
    "01:02:03": HOUR + 2 * MINUTE + 3 * SECOND,
    "1d 01:02:03.5": DAY + HOUR + 2 * MINUTE + 3500,
    "0": 0,
    "0s": 0,
}
REFUSED = [
    "",
    " ",
    "5000",
    "-1s",
    "-PT1S",
    "100ms ago",
    "1_000ms",
    "1mo",
    "P1M",
    "P1Y",
    "1y",
    "abc",
    "P",
    "PT",
    "1s 1h",
    "1s1s",
    "1.5h 2s",
]


@pytest.mark.parametrize(("text", "expected"), ACCEPTED.items())
def test_accepted_forms(text: str, expected: int) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", [*REFUSED, "1000000000w", "1 fortnight", "\u0661s"])
def test_refused_forms_raise_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_duration(text)


def test_texts_seen_by_existing_clients() -> None:
    with pytest.raises(ValueError, match=r"expected duration to start with a unit value \(a decimal integer\)"):
        parse_duration("abc")
    with pytest.raises(ValueError, match="expected to find unit designator suffix"):
        parse_duration("5000")


@pytest.mark.parametrize(
    ("ms", "text"),
    [(DAY, "1d"), (12 * HOUR, "12h"), (90 * SECOND, "1m 30s"), (2 * MINUTE, "2m"), (20, "20ms"), (0, "0s")],
)
def test_printed_form(ms: int, text: str) -> None:
    assert format_duration(ms) == text


@given(st.integers(0, 900 * 365 * DAY))
def test_printing_and_parsing_are_inverse(ms: int) -> None:
    assert parse_duration(format_duration(ms)) == ms


@given(st.text(alphabet="0123456789.,:PpTtHhMmSsDdWwyouens- \u0660", max_size=12))
def test_any_text_is_a_whole_number_of_ms_or_a_value_error(text: str) -> None:
    try:
        assert parse_duration(text) >= 0
    except ValueError as error:
        assert str(error)


def test_timestamps() -> None:
    ms = 1795291447669
    assert admin_time(ms) == "2026-11-21T20:04:07.669000000Z"
    assert sql_time(ms) == "2026-11-21T20:04:07.669Z"
    assert expires_time(ms) == "2026-11-21T20:04:07.669+00:00"
