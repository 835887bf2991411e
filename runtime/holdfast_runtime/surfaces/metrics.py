"""`GET /metrics` of the admin API: what a coordinator counts, in the text format of Prometheus or OpenMetrics, as the scraper asks.

Rules: `METRICS` is the whole of it: what is served, and the table of docs/operations.md, which a test compares; names follow Prometheus'
conventions (base units, `_total` for counters); no label takes values from outside. The official server serves its own on another port
and under other names (http-api §5.5); where one of them means the same, the values of its labels are kept.

`prometheus_client` is imported when somebody asks for the first time: it takes 50 ms, and a laptop never does.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import Request
from starlette.responses import Response

from holdfast_runtime.coordinator.gauges import Gauges
from holdfast_runtime.ports.metrics import Histogram, Metrics

if TYPE_CHECKING:
    from prometheus_client.registry import CollectorRegistry

COUNTER, GAUGE, HISTOGRAM, INFO = "counter", "gauge", "histogram", "info"
_NO_LABEL: Final = ""

Handler = Callable[[Request, int], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Reading:
    """What there is at one instant. about: of the process, told as labels of `holdfast_build_info`."""

    metrics: Metrics
    gauges: Gauges
    about: Mapping[str, str]


Value = float | Mapping[str, float] | Mapping[str, str] | Histogram  # texts: labels of a metric that is always 1


@dataclass(frozen=True, slots=True)
class Metric:
    """label: its name, when `read` answers a mapping from label values. name: as scraped."""

    name: str
    kind: str
    meaning: str
    read: Callable[[Reading], Value]
    label: str = _NO_LABEL


METRICS: Final = (
    Metric(
        "holdfast_invocations_accepted_total",
        COUNTER,
        "new invocations, those that handlers started included",
        lambda r: r.metrics.invocations_accepted,
    ),
    Metric(
        "holdfast_invocations_finished_total",
        COUNTER,
        "invocations that got their result; `cancelled` is any failure with code 409",
        lambda r: r.metrics.invocations_finished,
        "outcome",
    ),
    Metric("holdfast_invocations_running", GAUGE, "invocations with an attempt to make", lambda r: r.gauges.invocations_running),
    Metric("holdfast_attempts_started_total", COUNTER, "requests sent to handlers", lambda r: r.metrics.attempts_started),
    Metric(
        "holdfast_attempts_ended_total",
        COUNTER,
        "how attempts ended; `throttled`: Lambda had no room; `failed` includes those that could not be sent",
        lambda r: r.metrics.attempts_ended,
        "how",
    ),
    Metric("holdfast_attempts_in_flight", GAUGE, "attempts under way", lambda r: r.gauges.attempts_in_flight),
    Metric(
        "holdfast_attempts_waiting",
        GAUGE,
        "attempts that wait for one under way to end (`concurrent-invocations-limit`)",
        lambda r: r.gauges.attempts_waiting,
    ),
    Metric("holdfast_attempts_limit", GAUGE, "`concurrent-invocations-limit`", lambda r: r.gauges.attempts_limit),
    Metric(
        "holdfast_transitions_total",
        COUNTER,
        "changes that were decided; divided by appends: how many share one",
        lambda r: r.metrics.transitions,
    ),
    Metric(
        "holdfast_append_duration_seconds",
        HISTOGRAM,
        "from the close of a batch until it is in the log, tries included; its count is the number of appends",
        lambda r: r.metrics.append_seconds,
    ),
    Metric("holdfast_append_bytes_total", COUNTER, "bytes appended, before compression", lambda r: r.metrics.append_bytes),
    Metric(
        "holdfast_store_errors_total",
        COUNTER,
        "calls of the store that failed and were tried again: appends, pages and large values, leases",
        lambda r: r.metrics.store_errors,
        "call",
    ),
    Metric("holdfast_store_throttled_total", COUNTER, "answers of DynamoDB that say: too fast", lambda r: r.metrics.store_throttles),
    Metric("holdfast_shards_owned", GAUGE, "shards of this process", lambda r: r.gauges.shards_owned),
    Metric(
        "holdfast_shards_unowned",
        GAUGE,
        "shards that no living process holds, as this one sees it",
        lambda r: r.gauges.shards_unowned,
    ),
    Metric("holdfast_shards_taken_total", COUNTER, "take-overs", lambda r: r.metrics.shards_taken),
    Metric(
        "holdfast_shards_lost_total",
        COUNTER,
        "shards lost other than by handing them over: to another process, to a stale lease, to a fault",
        lambda r: r.metrics.shards_lost,
    ),
    Metric(
        "holdfast_oldest_dirty_page_age_seconds",
        GAUGE,
        "how long the page that has waited longest has waited to be written back",
        lambda r: r.gauges.oldest_dirty_s,
    ),
    Metric("holdfast_dirty_pages", GAUGE, "pages that wait to be written back", lambda r: r.gauges.dirty_pages),
    Metric("holdfast_page_memory_bytes", GAUGE, "pages in memory, as they are stored (`page-memory-limit`)", lambda r: r.gauges.page_bytes),
    Metric(
        "holdfast_log_behind_checkpoint_bytes",
        GAUGE,
        "log that this process wrote and recovery would have to read",
        lambda r: r.gauges.log_bytes_behind,
    ),
    Metric("holdfast_timers_armed", GAUGE, "timers and retries in memory", lambda r: r.gauges.timers_armed),
    Metric(
        "holdfast_wakeup_schedules_total",
        COUNTER,
        "schedules for far timers, created or refused; the refused are tried again",
        lambda r: r.metrics.wakeups,
        "outcome",
    ),
    Metric(
        "holdfast_inbox_messages_total",
        COUNTER,
        "messages received; `refused` cannot become invocations, `failed` come again",
        lambda r: r.metrics.inbox,
        "outcome",
    ),
    Metric(
        "holdfast_ingress_requests_total",
        COUNTER,
        "requests answered; `invocation_error`: the failure is the handler's; `gone`: the caller did not wait",
        lambda r: r.metrics.ingress,
        "status",
    ),
    Metric(
        "holdfast_ingress_request_duration_seconds",
        HISTOGRAM,
        "requests of all kinds, the waiting of calls for their result included",
        lambda r: r.metrics.ingress_seconds,
    ),
    Metric("holdfast_build_info", INFO, "always 1; labels say version, Python and cluster", lambda r: r.about, "version, python, cluster"),
)


def metrics_routes(read: Callable[[], tuple[Metrics, Gauges]], *, version: str, cluster: str) -> Mapping[str, Mapping[str, Handler]]:
    about = {"version": version, "python": platform.python_version(), "cluster": cluster}
    made: list[CollectorRegistry] = []  # when it is asked for the first time

    async def metrics(request: Request, api: int) -> Response:
        if not made:
            made.append(await asyncio.to_thread(_registry, lambda: Reading(*read(), about)))
        from prometheus_client.exposition import choose_encoder

        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(made[0]), headers={"content-type": content_type})

    return {"/metrics": {"GET": metrics}}


def _registry(read: Callable[[], Reading]) -> CollectorRegistry:
    from prometheus_client import ProcessCollector
    from prometheus_client.registry import Collector, CollectorRegistry

    class Ours(Collector):
        def collect(self) -> Iterator[Any]:
            reading = read()
            return (_family(metric, reading) for metric in METRICS)

        def describe(self) -> list[Any]:
            return []  # nothing is read at registration

    registry = CollectorRegistry()
    registry.register(Ours())
    ProcessCollector(registry=registry)  # process_cpu_seconds_total, process_resident_memory_bytes and the like
    return registry


def _family(metric: Metric, reading: Reading) -> Any:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily

    value = metric.read(reading)
    if isinstance(value, Histogram):
        return HistogramMetricFamily(metric.name, metric.meaning, buckets=_cumulated(value), sum_value=value.total)
    if metric.kind == INFO:
        assert isinstance(value, Mapping)
        texts = {name: str(text) for name, text in value.items()}
        return InfoMetricFamily(metric.name.removesuffix("_info"), metric.meaning, value=texts)
    family = CounterMetricFamily if metric.kind == COUNTER else GaugeMetricFamily
    if not isinstance(value, Mapping):
        return family(metric.name, metric.meaning, value=value)
    made = family(metric.name, metric.meaning, labels=[metric.label])
    for label, number in value.items():
        made.add_metric([label], float(number))
    return made


def _cumulated(histogram: Histogram) -> list[tuple[str, float]]:
    """What Prometheus wants: of each bound the number of observations up to it."""
    seen, buckets = 0, []
    for bound, count in zip((*map(str, histogram.bounds), "+Inf"), histogram.counts, strict=True):
        seen += count
        buckets.append((bound, float(seen)))
    return buckets


def table() -> str:
    """Of docs/operations.md."""
    rows = [f"| `{metric.name}` | {metric.kind} | {_quoted(metric.label)} | {metric.meaning} |" for metric in METRICS]
    return "\n".join(["| name | kind | labels | what |", "| --- | --- | --- | --- |", *rows])


def _quoted(label: str) -> str:
    return ", ".join(f"`{one}`" for one in label.split(", ")) if label else ""
