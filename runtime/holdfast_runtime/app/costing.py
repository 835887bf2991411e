"""What a workload costs in a month: counted units times list prices.

Rules: the units are those that tests/adapters/test_dynamodb_cost.py counts; what is not counted but estimated is a constant here, with
its reason beside it; everything is rounded against us. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from holdfast_runtime.app import cost_prices as price

KB: Final = 1024
GB: Final = 1e9
RECORD_BYTES: Final = 300  # of a log record beside its values: ids, names, frames; an estimate on the safe side
ATTEMPT_MS: Final = 5.0  # of a warm function beside the work of its step; a protocol step measures 1 to 3
CALL_RECORDS: Final = 2  # accepted, ended
SLEEP_RECORDS: Final = 2  # suspended, due
PACKED_UNITS: Final = 0.1  # of a kept call's page beside its values, in a pack: 0.05 is counted without steps, 0.08 with ten
PACKED_BYTES: Final = 8 * KB  # a larger page is written alone
ENTRY_BYTES: Final = 50  # of a kept record beside its value, in the page of its call
SLEEP_PAGES: Final = 2  # written as it sleeps, and the mark that it is gone
ALONE_PER_S: Final = 50.0  # records a second of a shard that hardly ever share an append of 6 ms
SHARED_PER_S: Final = 400.0
SHARED_UNITS: Final = 0.45  # of a small record at that rate
OWN_PAGES: Final = 30.0  # units of a shard's own pages in one flush; 45 in the first of an owner
FLUSH_S: Final = 300.0
HEARTBEAT_WRITES_PER_S: Final = 0.5  # of a replica
HEARTBEAT_READS_PER_S: Final = 1.0
POLL_S: Final = 20.0  # of the inbox queue
LOG_DAYS: Final = 16.0  # that a record stays in the table: 14, and up to two until DynamoDB deletes it
PAGE_DAYS: Final = 17.0  # that a page stays besides: it outlives the records that may be redone onto it
ALARMS: Final = 10
METRICS: Final = 6  # of our own, for some of the alarms


@dataclass(frozen=True)
class Workload:
    """In a month. payload_bytes: of each request, result and step. step_ms: how long a step computes. kept_days: results and journals."""

    calls: float = 100_000
    steps: int = 3
    sleeps: int = 0
    payload_bytes: int = 500
    step_ms: float = 50.0
    memory_mb: int = 512
    kept_days: float = 1.0


@dataclass(frozen=True)
class Cluster:
    """As the template's parameters say."""

    replicas: int = 1
    cores: float = 0.25
    memory_gb: float = 0.5
    shards: int = 8
    public: bool = True
    load_balancer: bool = False


PRODUCTION: Final = Cluster(replicas=2, cores=1.0, memory_gb=2.0, public=False, load_balancer=True)


@dataclass(frozen=True)
class Line:
    """fixed: the same whatever is called."""

    service: str
    what: str
    quantity: float
    unit: str
    dollars: float
    fixed: bool


def records(work: Workload) -> float:
    """Of one call."""
    return CALL_RECORDS + work.steps + SLEEP_RECORDS * work.sleeps


def units_per_record(work: Workload, cluster: Cluster) -> float:
    """Write units of a log record: what shares an append costs less, down to what its bytes cost."""
    size = (RECORD_BYTES + work.payload_bytes) / KB
    rate = work.calls * records(work) / price.SECONDS / cluster.shards
    share = min(1.0, max(0.0, (rate - ALONE_PER_S) / (SHARED_PER_S - ALONE_PER_S)))
    alone, shared = float(math.ceil(size)), max(SHARED_UNITS, size)
    return alone + (shared - alone) * share


def kept_units(work: Workload, cluster: Cluster) -> float:
    """Write units of a finished call's page: 1 for each KB alone; its part of a pack where others of its shard end in the same minutes.

    Values count in full, because they need not be alike; what slept has a page of its own; calls have no idempotency keys.
    """
    if not work.kept_days:
        return 0.0
    alone = float(math.ceil((RECORD_BYTES + work.payload_bytes) * records(work) / KB))
    size = RECORD_BYTES + (ENTRY_BYTES + work.payload_bytes) * records(work)
    together = work.calls * FLUSH_S / price.SECONDS / cluster.shards
    if work.sleeps or size > PACKED_BYTES or together < 1:
        return alone
    return min(alone, PACKED_UNITS + work.payload_bytes * records(work) / KB + 1 / together)  # the last unit of a pack is begun, not full


def invocations(work: Workload) -> float:
    """Requests to Lambda of one call: each step and each sleep ends an attempt."""
    return 1 + work.steps + work.sleeps


def estimate(work: Workload, cluster: Cluster) -> list[Line]:
    return [*_running(cluster), *_working(work, cluster)]


def _running(cluster: Cluster) -> list[Line]:
    hours = price.HOURS * cluster.replicas
    seconds = price.SECONDS * cluster.replicas
    found = [
        Line("Fargate", "cores", cluster.cores * hours, "core hours", cluster.cores * hours * price.FARGATE_CORE_H, True),
        Line("Fargate", "memory", cluster.memory_gb * hours, "GB hours", cluster.memory_gb * hours * price.FARGATE_GB_H, True),
        _line("DynamoDB", "signs of life, written", seconds * HEARTBEAT_WRITES_PER_S, "units", price.DYNAMODB_WRITE, True),
        _line("DynamoDB", "signs of life, read", seconds * HEARTBEAT_READS_PER_S, "units", price.DYNAMODB_READ, True),
        _line("SQS", "asking the inbox queue", seconds / POLL_S, "requests", price.SQS_REQUEST, True),
        _line("CloudWatch", "alarms", ALARMS, "alarms", price.ALARM, True),
        _line("CloudWatch", "metrics for them", METRICS, "metrics", price.METRIC, True),
        _line("Cloud Map", "name of the coordinator", 1, "zone", price.PRIVATE_ZONE, True),
    ]
    if cluster.public:
        found.append(_line("VPC", "public addresses", hours, "hours", price.PUBLIC_ADDRESS_H, True))
    if cluster.load_balancer:
        found.append(_line("Load balancer", "one, with a unit of capacity", price.HOURS, "hours", price.LOAD_BALANCER_H, True))
    return found


def _working(work: Workload, cluster: Cluster) -> list[Line]:
    per_record, count = units_per_record(work, cluster), work.calls * records(work)
    kept = work.calls * kept_units(work, cluster)
    sleeping = work.calls * work.sleeps * SLEEP_PAGES
    busy = min(1.0, work.calls * FLUSH_S / price.SECONDS / cluster.shards)  # share of flushes in which a shard has anything to write
    own = OWN_PAGES * cluster.shards * price.SECONDS / FLUSH_S * busy
    attempts = work.calls * invocations(work)
    compute = (work.calls * work.steps * work.step_ms + attempts * ATTEMPT_MS) / 1000 * work.memory_mb / 1024
    days = price.HOURS / 24
    stored = (count * (RECORD_BYTES + work.payload_bytes) * LOG_DAYS + kept * KB * (work.kept_days + PAGE_DAYS)) / days / GB
    return [
        _line("DynamoDB", "log", count * per_record, "units", price.DYNAMODB_WRITE),
        _line("DynamoDB", "kept results and journals", kept, "units", price.DYNAMODB_WRITE),
        _line("DynamoDB", "sleeping invocations", sleeping, "units", price.DYNAMODB_WRITE),
        _line("DynamoDB", "pages of the shards", own, "units", price.DYNAMODB_WRITE),
        _line("DynamoDB", "storage, with recovery", stored, "GB months", price.DYNAMODB_GB + price.DYNAMODB_RECOVERY_GB),
        _line("Lambda", "attempts", attempts, "requests", price.LAMBDA_REQUEST),
        _line("Lambda", "computing", compute, "GB seconds", price.LAMBDA_GB_S),
    ]


def _line(service: str, what: str, quantity: float, unit: str, each: float, fixed: bool = False) -> Line:
    return Line(service, what, quantity, unit, quantity * each, fixed)


def total(lines: list[Line], *, fixed: bool | None = None) -> float:
    return sum(line.dollars for line in lines if fixed is None or line.fixed == fixed)


def per_million_calls(work: Workload, cluster: Cluster) -> float:
    """Dollars for a million more calls, computing of steps included."""
    more = replace(work, calls=work.calls + price.MILLION)
    return total(estimate(more, cluster), fixed=False) - total(estimate(work, cluster), fixed=False)


def elsewhere(work: Workload) -> dict[str, float]:
    """What others ask for coordinating the same work in a month; computing comes on top there as here.

    Step Functions Standard: a transition for the start, each step and each wait. Lambda durable functions: an operation likewise, and
    what is written. Temporal Cloud: an action likewise, with the Developer plan; workers and storage are not counted.
    """
    actions = work.calls * (1 + work.steps + work.sleeps)
    written = work.calls * work.payload_bytes * (CALL_RECORDS + work.steps) / GB
    return {
        "Step Functions (Standard)": actions * price.STEP_FUNCTIONS_TRANSITION,
        "Lambda durable functions": actions * price.LAMBDA_DURABLE_OPERATION + written * price.LAMBDA_DURABLE_WRITTEN_GB,
        "Temporal Cloud": actions * price.TEMPORAL_ACTION * (1 + price.TEMPORAL_SUPPORT),
    }


def coordinating(lines: list[Line]) -> float:
    """Without what the handlers compute."""
    return sum(line.dollars for line in lines if line.service != "Lambda")
