"""Durations as people write them (http-api §0.3): ISO-8601, `1h 30m`, `01:02:03`. Pure; whole milliseconds.

Anything below a millisecond is rounded up, so that a timer never fires early. Years and months are refused:
they have no fixed length.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

MS: Final = 1_000_000  # nanoseconds, the unit of the arithmetic below
SECOND: Final = 1000 * MS
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
WEEK: Final = 7 * DAY

# Far beyond any use, and instants made from it still fit into four-digit years.
MAX_DURATION_MS: Final = 1000 * 365 * DAY // MS

_NAMES: Final = {
    WEEK: "w wk wks week weeks",
    DAY: "d day days",
    HOUR: "h hr hrs hour hours",
    MINUTE: "m min mins minute minutes",
    SECOND: "s sec secs second seconds",
    MS: "ms msec msecs milli millis millisecond milliseconds",
    1000: "us µs μs usec usecs micro micros microsecond microseconds",
    1: "ns nsec nsecs nano nanos nanosecond nanoseconds",
}
_UNITS: Final = {name: unit for unit, names in _NAMES.items() for name in names.split()}
_CALENDAR: Final = frozenset(["y", "yr", "yrs", "year", "years", "mo", "mos", "month", "months"])

_ISO: Final = re.compile(
    r"P(?:(?P<w>\d+)W)?(?:(?P<d>\d+)D)?"
    r"(?P<t>T(?:(?P<h>\d+)(?P<hf>[.,]\d{1,9})?H)?(?:(?P<m>\d+)(?P<mf>[.,]\d{1,9})?M)?(?:(?P<s>\d+)(?P<sf>[.,]\d{1,9})?S)?)?",
    re.ASCII,
)
_PART: Final = re.compile(r"(\d+)([.,]\d{1,9})?\s*([a-zµμ]*)(?:,\s|\s*)", re.ASCII)
_CLOCK: Final = re.compile(r"(\d+):([0-5]?\d):([0-5]?\d)([.,]\d{1,9})?", re.ASCII)

_FRIENDLY: Final = 'failed to parse input in the "friendly" duration format: '
_NO_INTEGER: Final = (
    _FRIENDLY + "expected duration to start with a unit value (a decimal integer) " + "after an optional sign, but no integer was found"
)
_NO_UNIT: Final = _FRIENDLY + "expected to find unit designator suffix (e.g., `years` or `secs`) after parsing integer"


@lru_cache(maxsize=1024)
def parse_duration(text: str) -> int:
    """Milliseconds, zero or more, rounded up. Raises ValueError; of bare numbers only `0` is accepted."""
    given = text.strip()
    if not given:
        raise ValueError("expected a duration such as '10s', '1h 30m' or 'PT10S', found an empty text")
    if given == "0":
        return 0
    lowered = given.removeprefix("+").lower()
    if lowered.startswith("-") or lowered.endswith("ago"):
        raise ValueError(f"expected a duration of zero or more, found the negative '{text}'")
    nanos = _iso(lowered, text) if lowered.startswith("p") else _friendly(lowered, text)
    if nanos > MAX_DURATION_MS * MS:
        raise ValueError(f"expected a duration below 1000 years, found '{text}'")
    return -(-nanos // MS)


def format_duration(ms: int) -> str:
    """Largest units first, zero units left out: `1d`, `1m 30s`, `20ms`, `0s`."""
    parts = []
    rest = ms
    for unit, name in (
        (DAY // MS, "d"),
        (HOUR // MS, "h"),
        (MINUTE // MS, "m"),
        (SECOND // MS, "s"),
        (1, "ms"),
    ):
        count, rest = divmod(rest, unit)
        if count:
            parts.append(f"{count}{name}")
    return " ".join(parts) or "0s"


def _iso(lowered: str, text: str) -> int:
    match = _ISO.fullmatch(lowered.upper())
    if match is None or lowered.endswith(("p", "t")):
        if re.search(r"\d[ym]", lowered.split("t", maxsplit=1)[0], re.ASCII):
            raise ValueError(_no_calendar(text))
        raise ValueError(f"expected an ISO-8601 duration such as 'PT10S' or 'P1DT2H', found '{text}'")
    if (match["hf"] and (match["m"] or match["s"])) or (match["mf"] and match["s"]):
        raise ValueError(f"only the smallest unit may have a fraction, found '{text}'")
    nanos = int(match["w"] or 0) * WEEK + int(match["d"] or 0) * DAY
    for name, unit in (("h", HOUR), ("m", MINUTE), ("s", SECOND)):
        nanos += int(match[name] or 0) * unit + _fraction(match[name + "f"], unit)
    return nanos


def _friendly(lowered: str, text: str) -> int:
    nanos, position, previous = 0, 0, 2 * WEEK
    while position < len(lowered):
        clock = _CLOCK.fullmatch(lowered, position)
        if clock is not None and previous > HOUR:
            return nanos + _clock(clock)
        part = _PART.match(lowered, position)
        if part is None:
            raise ValueError(_NO_INTEGER if position == 0 else f"expected number and unit after '{text[:position]}' in '{text}'")
        number, fraction, name = part.groups()
        if not name:
            raise ValueError(_NO_UNIT)
        if name in _CALENDAR:
            raise ValueError(_no_calendar(text))
        unit = _UNITS.get(name)
        if unit is None:
            raise ValueError(f"expected a unit such as 'd', 'h', 'm', 's' or 'ms', found '{name}' in '{text}'")
        if unit >= previous:
            raise ValueError(f"expected units from large to small, each once, found '{text}'")
        if fraction and (part.end() != len(lowered) or unit > HOUR):
            raise ValueError(f"only the smallest unit, hours or below, may have a fraction, found '{text}'")
        nanos += int(number) * unit + _fraction(fraction, unit)
        position, previous = part.end(), unit
    return nanos


def _clock(match: re.Match[str]) -> int:
    hours, minutes, seconds, fraction = match.groups()
    return int(hours) * HOUR + int(minutes) * MINUTE + int(seconds) * SECOND + _fraction(fraction, SECOND)


def _fraction(text: str | None, unit: int) -> int:
    """`.5` of `unit` in nanoseconds, rounded up."""
    if not text:
        return 0
    digits = text[1:]
    scale: int = 10 ** len(digits)
    return -(-int(digits) * unit // scale)


def _no_calendar(text: str) -> str:
    return f"years and months have no fixed length, use weeks, days or smaller units instead, found '{text}'"
