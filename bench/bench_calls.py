"""Calls through the ingress, ours beside the official server: rate, latency and the server's CPU.

    .venv/bin/python -m bench.bench_calls http1        the official Python SDK on hypercorn, HTTP/1.1
    .venv/bin/python -m bench.bench_calls lambda       the official Python SDK in Lambda runtime processes
    .venv/bin/python -m bench.bench_calls in-process   our SDK inside the coordinator (ours alone)
    .venv/bin/python -m bench.bench_calls canned       an endpoint that costs nothing: the coordinator alone

    [--only noop,steps] [--concurrency 1,16,64,256] [--rounds 3] [--seconds 4] [--workers 1] [--servers holdfast,restate] [--out file.json]

Rules: the servers take turns (A B A B ..), so that drift of the machine meets both; both run the whole time and
share the endpoint's processes; medians over the rounds, with the lowest and the highest; a failed request is
reported, never dropped. The bars are those of `BARS`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import statistics
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tests.conformance.servers import Server

from bench import processes
from bench.load import Load, Measured, measure


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One request to the ingress; see `services/official.py` for what it does."""

    title: str
    path: str
    body: str = ""
    keys: int = 1


SCENARIOS: Final = {
    "noop": Scenario("no-op", "/Bench/noop"),
    "steps": Scenario("ten steps", "/Bench/steps", "10"),
    "hot-key": Scenario("hot key", "/Counter/hot/add", "1"),
    "keys": Scenario("1,000 keys", "/Counter/{key}/add", "1", keys=1000),
    "fan-out": Scenario("20 children", "/Bench/fan_out", "20"),
}
TRANSPORTS: Final = ("http1", "lambda", "in-process", "canned")

# (transport, scenario, concurrency) -> the least share of the official server's throughput that is good enough.
BARS: Final = {("http1", "noop", 64): 0.5, ("lambda", "noop", 64): 0.7, ("lambda", "steps", 16): 0.8}
CPU_BAR: Final = ("noop", 0.6)  # ms of the coordinator's CPU per no-op with one ingress and one endpoint request


@dataclasses.dataclass(frozen=True)
class Setup:
    """The servers by name, all with the services registered, and the process ids whose CPU counts."""

    servers: Mapping[str, Server]
    watch: Mapping[str, list[int]]


@contextlib.contextmanager
def set_up(transport: str, names: list[str], workers: int, most_at_once: int) -> Iterator[Setup]:
    with contextlib.ExitStack() as stack:
        base = stack.enter_context(processes.folder())
        watch: dict[str, list[int]] = {}
        lambda_url, deployment = processes.NOWHERE, None
        if transport == "http1":
            url, pid = stack.enter_context(processes.http_endpoint("official", base, workers))
            watch["endpoint"], deployment = [pid], {"uri": url, "use_http_11": True}
        elif transport == "canned":
            url, pid = stack.enter_context(processes.canned_endpoint(base))
            watch["endpoint"], deployment = [pid], {"uri": url, "use_http_11": True}
        elif transport == "lambda":
            service, function = stack.enter_context(processes.lambda_service()), processes.lambda_function("official")
            service.add(function)
            processes.warm(service, function, most_at_once)
            watch["endpoint"] = [service._process.pid]
            lambda_url, deployment = service.url, {"arn": function.arn}
        kinds = {"holdfast": processes.OwnInProcess} if transport == "in-process" else processes.SERVERS
        servers: dict[str, Server] = {}
        for name in names:
            started = servers[name] = stack.enter_context(processes.server(kinds[name], base, lambda_url))
            watch[name] = [processes.pid_of(started)]
            if deployment is not None:
                started.register(deployment)
        yield Setup(servers, watch)


def load_of(port: int, scenario: Scenario, concurrency: int, options: argparse.Namespace, watch: Mapping[str, list[int]]) -> Load:
    return Load(
        port,
        scenario.path,
        scenario.body,
        scenario.keys,
        concurrency,
        warm_up_s=options.warm_up,
        seconds=options.seconds,
        watch=watch,
    )


def measure_in_turns(setup: Setup, scenario: Scenario, concurrency: int, options: argparse.Namespace) -> dict[str, list[Measured]]:
    """Round by round, every server once."""
    found: dict[str, list[Measured]] = {name: [] for name in setup.servers}
    for _ in range(options.rounds):
        for name, started in setup.servers.items():
            found[name].append(measure(load_of(started.ingress_port, scenario, concurrency, options, setup.watch)))
    return found


@dataclasses.dataclass(frozen=True)
class Summary:
    """Medians over the rounds of one server; `low` and `high` are rates."""

    per_second: float
    low: float
    high: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    endpoint_cpu_ms: float
    failed: int


def summarise(name: str, rounds: list[Measured]) -> Summary:
    rates = [one.per_second for one in rounds]
    return Summary(
        statistics.median(rates),
        min(rates),
        max(rates),
        statistics.median(one.p50_ms for one in rounds),
        statistics.median(one.p99_ms for one in rounds),
        statistics.median(one.cpu_ms(name) for one in rounds),
        statistics.median(one.cpu_ms("endpoint") if "endpoint" in one.cpu_s else 0.0 for one in rounds),
        sum(one.failed for one in rounds),
    )


HEAD: Final = (
    "| scenario | at once | server | per second (lowest to highest) | p50 ms | p99 ms | server CPU ms | endpoint CPU ms | of official |\n"
    "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
)


def share_of(ours: Summary, theirs: Summary) -> float:
    """Not a number when either completed nothing: the window was too short for a machine so busy."""
    return ours.per_second / theirs.per_second if ours.per_second and theirs.per_second else float("nan")


def print_rows(scenario: Scenario, concurrency: int, summaries: Mapping[str, Summary]) -> None:
    official = summaries.get("restate")
    for name, s in summaries.items():
        share = f"{share_of(s, official):.2f}" if official is not None and name != "restate" else ""
        title = "official" if name == "restate" else name
        failed = f" **{s.failed} failed**" if s.failed else ""
        print(
            f"| {scenario.title} | {concurrency} | {title} | {s.per_second:.0f} ({s.low:.0f} to {s.high:.0f}){failed} "
            f"| {s.p50_ms:.1f} | {s.p99_ms:.1f} | {s.cpu_ms:.2f} | {s.endpoint_cpu_ms:.2f} | {share} |",
            flush=True,
        )


def verdicts(transport: str, results: Mapping[tuple[str, int], Mapping[str, Summary]]) -> Iterator[str]:
    """Each bar that this run can judge."""
    for (of, scenario, concurrency), least in BARS.items():
        found = results.get((scenario, concurrency), {})
        if of == transport and {"holdfast", "restate"} <= found.keys():
            share = share_of(found["holdfast"], found["restate"])
            verdict = "met" if share >= least else "MISSED"
            yield f"{scenario} at {concurrency} through {transport}: {share:.2f} of the official server, at least {least} wanted: {verdict}"
    scenario, most = CPU_BAR
    if transport in ("http1", "canned"):
        for (name, concurrency), found in results.items():
            if name == scenario and "holdfast" in found:
                cpu_ms = found["holdfast"].cpu_ms
                verdict = "met" if cpu_ms < most else "MISSED"
                yield f"coordinator CPU per no-op at {concurrency} through {transport}: {cpu_ms:.2f} ms, under {most} wanted: {verdict}"


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("transport", choices=TRANSPORTS)
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(SCENARIOS), help="scenarios, by comma")
    parser.add_argument("--concurrency", type=lambda text: [int(part) for part in text.split(",")], default=[1, 16, 64, 256])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--warm-up", type=float, default=1.5)
    parser.add_argument("--workers", type=int, default=1, help="processes of hypercorn")
    parser.add_argument("--servers", type=lambda text: text.split(","), default=["holdfast", "restate"])
    parser.add_argument("--out", type=Path, help="every round, as JSON")
    options = parser.parse_args()
    unknown = [name for name in options.only if name not in SCENARIOS]
    if unknown:
        parser.error(f"--only takes {', '.join(SCENARIOS)}; found {', '.join(unknown)}")
    if options.transport == "in-process":
        options.servers = ["holdfast"]
    if options.transport == "canned":
        options.only = ["noop"]
    if options.transport == "lambda":
        options.concurrency = [c for c in options.concurrency if c <= processes.LAMBDA_CONCURRENCY]
    return options


def main() -> None:
    options = parse_options()
    raw: list[dict[str, Any]] = []
    results: dict[tuple[str, int], dict[str, Summary]] = {}
    with set_up(options.transport, options.servers, options.workers, max(options.concurrency)) as setup:
        # What happens besides on the machine shows here; above the number of cores rates are of little use.
        print(f"{options.transport}, {os.cpu_count()} cores, load average at the start {os.getloadavg()[0]:.1f}\n\n{HEAD}", flush=True)
        for name in options.only:
            for concurrency in options.concurrency:
                found = measure_in_turns(setup, SCENARIOS[name], concurrency, options)
                for server, rounds in found.items():
                    raw += [{"scenario": name, "concurrency": concurrency, "server": server, **dataclasses.asdict(one)} for one in rounds]
                    for failure in {one.failure for one in rounds if one.failure}:
                        print(f"{server}, {name} at {concurrency}: {failure}", file=sys.stderr)
                summaries = {server: summarise(server, rounds) for server, rounds in found.items()}
                results[name, concurrency] = summaries
                print_rows(SCENARIOS[name], concurrency, summaries)
    print(f"\nload average at the end {os.getloadavg()[0]:.1f}")
    for verdict in verdicts(options.transport, results):
        print(verdict)
    if options.out is not None:
        options.out.write_text(json.dumps(raw, indent=1))


if __name__ == "__main__":
    main()
