"""What alarms need, once a minute as a line of the log in CloudWatch's embedded metric format: CloudWatch makes metrics of it, and nothing
has to scrape a container that nobody can reach.

Rules: each metric costs money by the month, so only what an alarm looks at is one; totals are told as what came since the last line, so
that sums over replicas and minutes are right; a line that is lost with its process is a minute nobody misses.

Source: CloudWatch user guide, "Specification: Embedded metric format".
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, Final

from holdfast_runtime.coordinator.gauges import Gauges
from holdfast_runtime.ports.metrics import Metrics, quantile
from holdfast_runtime.ports.system import Clock

INTERVAL_S: Final = 60.0
NAMESPACE: Final = "Holdfast"
DIMENSION: Final = "Cluster"
# Name and unit. The template's alarms use these names; a test compares.
UNITS: Final = {
    "MessagesRefused": "Count",
    "OldestDirtyPageAge": "Seconds",
    "ShardsUnowned": "Count",
    "ShardsLost": "Count",
    "AppendLatencyP99": "Milliseconds",
    "WakeupsFailed": "Count",
}


class EmbeddedMetrics:
    """`run` for ever, or `line` for one."""

    def __init__(self, read: Callable[[], tuple[Metrics, Gauges]], *, cluster: str, clock: Clock) -> None:
        self._read = read
        self._cluster = cluster
        self._clock = clock
        self._last = _totals(read()[0])

    async def run(self, write: Callable[[str], Any] = sys.stderr.write) -> None:
        while True:
            await self._clock.sleep(INTERVAL_S)
            write(self.line() + "\n")

    def line(self) -> str:
        """What came since the last one, and how it stands."""
        metrics, standing = self._read()
        last, self._last = self._last, _totals(metrics)
        came = [now - before for now, before in zip(self._last, last, strict=True)]
        refused, lost, throttled, failed, *appends = came
        values = {
            "MessagesRefused": refused,
            "OldestDirtyPageAge": round(standing.oldest_dirty_s, 1),
            "ShardsUnowned": standing.shards_unowned,
            "ShardsLost": lost,
            "AppendLatencyP99": quantile(metrics.append_seconds.bounds, appends, 0.99) * 1000,
            "WakeupsFailed": failed,
        }
        declared = [{"Name": name, "Unit": unit} for name, unit in UNITS.items()]
        directive = {"Namespace": NAMESPACE, "Dimensions": [[DIMENSION]], "Metrics": declared}
        about = {"Timestamp": self._clock.now_ms(), "CloudWatchMetrics": [directive]}
        return json.dumps(
            {"_aws": about, "event": "metrics", DIMENSION: self._cluster, "Appends": sum(appends), "StoreThrottled": throttled, **values}
        )


def _totals(metrics: Metrics) -> list[int]:
    """What only grows."""
    single = [metrics.inbox["refused"], metrics.shards_lost, metrics.store_throttles, metrics.wakeups["failed"]]
    return single + metrics.append_seconds.counts
