"""Times as people say them: `3s`, `5m`, `2h`, `4d`; how long something took; which moment that was."""

from __future__ import annotations

import itertools
import time
from datetime import datetime
from typing import Final

_UNITS: Final = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"))


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def short(ms: int) -> str:
    """The largest unit alone, for columns."""
    for unit, name in _UNITS:
        if ms >= unit:
            return f"{ms // unit}{name}"
    return "now"


def span(ms: int) -> str:
    """`12ms`, `1.2s`, `45s`, `3m 20s`, `2h 5m`, `4d 3h`."""
    if ms < 1_000:
        return f"{max(ms, 0)}ms"
    if ms < 10_000:
        return f"{ms / 1000:.1f}s"
    for (unit, name), (below, small) in itertools.pairwise(_UNITS):
        if ms >= unit:
            count, rest = divmod(ms, unit)
            return f"{count}{name} {rest // below}{small}" if rest >= below else f"{count}{name}"
    return f"{ms // 1000}s"


def until(at_ms: int, now: int) -> str:
    """`in 5m`, or `now` when it is due."""
    return f"in {span(at_ms - now)}" if at_ms - now >= 1_000 else "now"


def since(at_ms: int, now: int) -> str:
    return f"{span(now - at_ms)} ago" if now - at_ms >= 1_000 else "just now"


def moment(at_ms: int | None) -> str:
    """The reader's own time; with the date unless it is today."""
    if at_ms is None:
        return "-"
    at = datetime.fromtimestamp(at_ms / 1000).astimezone()
    today = datetime.now().astimezone().date()
    return at.strftime("%H:%M:%S" if at.date() == today else "%Y-%m-%d %H:%M:%S")


def instant_ms(text: str) -> int:
    """Of an RFC 3339 time as the server writes it, with up to nine digits."""
    whole, point, rest = text.rstrip("Z").partition(".")
    fraction = rest[:3].ljust(3, "0") if point else "000"
    return int(datetime.fromisoformat(f"{whole}+00:00").timestamp()) * 1000 + int(fraction)
