"""What a coordinator counts about itself: plain numbers, raised where something happens and read when somebody asks.

Rules: one process, one event loop, so no locks: raising a number costs 50 ns, where a metrics library takes a microsecond; no label whose
values come from outside (services, keys, addresses), so the number of series is fixed; what can be looked up when asked is not counted
but read then (`coordinator.gauges`). What the names mean to a scraper is in `surfaces.metrics`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

APPEND_BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
REQUEST_BOUNDS_S: Final = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0)  # calls may wait long


# As the official server names them (http-api §5.5), and `gone`: the caller did not wait for the answer.
INGRESS_STATUSES: Final = ("completed", "request_error", "rate-limited", "ingress_error", "invocation_error", "gone")


class Histogram:
    """Durations in seconds by upper bound; the last count is of what exceeds them all."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


def quantile(bounds: Sequence[float], counts: Sequence[int], q: float) -> float:
    """The bound below which a share `q` of the observations lies; 0 of none, the last bound for what exceeds it."""
    wanted, seen = q * sum(counts), 0
    for bound, count in zip(bounds, counts, strict=False):
        seen += count
        if seen >= wanted:
            return bound if sum(counts) else 0.0
    return bounds[-1]


def _zeros(*labels: str) -> dict[str, int]:
    return dict.fromkeys(labels, 0)


@dataclass(slots=True)
class Metrics:
    """Totals since the process began; a dict counts by the label its keys are."""

    invocations_accepted: int = 0
    invocations_finished: dict[str, int] = field(default_factory=lambda: _zeros("succeeded", "failed", "cancelled", "killed"))
    attempts_started: int = 0
    attempts_ended: dict[str, int] = field(default_factory=lambda: _zeros("ended", "suspended", "failed", "throttled"))
    transitions: int = 0
    appends: int = 0
    append_bytes: int = 0
    append_seconds: Histogram = field(default_factory=lambda: Histogram(APPEND_BOUNDS_S))
    store_errors: dict[str, int] = field(default_factory=lambda: _zeros("append", "page", "lease"))
    store_throttles: int = 0
    shards_taken: int = 0
    shards_lost: int = 0
    inbox: dict[str, int] = field(default_factory=lambda: _zeros("accepted", "refused", "failed"))
    wakeups: dict[str, int] = field(default_factory=lambda: _zeros("arranged", "failed"))
    ingress: dict[str, int] = field(default_factory=lambda: _zeros(*INGRESS_STATUSES))
    ingress_seconds: Histogram = field(default_factory=lambda: Histogram(REQUEST_BOUNDS_S))
