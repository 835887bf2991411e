"""100,000 invocations that wait: what they cost in memory, and how long a start takes after kill -9.

    .venv/bin/python -m bench.bench_suspended [--count 100000] [--on sleep,awakeable]

For each kind of waiting, on a coordinator and a store of its own: start, a few calls, resident memory (idle); so many sends; wait
until nothing moves any more; resident memory; SIGKILL; start; the time until a call is answered. Then some of
them are ended from outside, to show that they were not only remembered. "CPU %" is of one core, while nothing
happens. The handlers are our SDK's, in an HTTP/1.1
endpoint of their own. Bars: less than 150 MB over idle, less than 10 s.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import time
from pathlib import Path
from typing import Final

import httpx
from tests.conformance.servers import HoldfastServer, Server

from bench import processes
from bench.load import Load, cpu_seconds, measure

PATHS: Final = {"sleep": ("/Bench/nap/send", "86400"), "awakeable": ("/Bench/wait/send", "")}
MEMORY_BAR_MB: Final = 150.0
START_BAR_S: Final = 10.0
SETTLED: Final = 0.02  # of a core, over SETTLE_S
SETTLE_S: Final = 3.0
SETTLE_LIMIT_S: Final = 900.0
SAMPLES: Final = 20


def resident_mb(pid: int) -> float:
    """Resident memory, in MB of 10^6 bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"no VmRSS in /proc/{pid}/status")


def settle(endpoint: int) -> None:
    """Until no attempts are made any more: the endpoint is idle."""
    deadline = time.monotonic() + SETTLE_LIMIT_S
    while time.monotonic() < deadline:
        before = cpu_seconds([endpoint])
        time.sleep(SETTLE_S)
        if cpu_seconds([endpoint]) - before < SETTLED * SETTLE_S:
            return
    raise RuntimeError(f"still busy after {SETTLE_LIMIT_S:g} s: attempts that never end in suspension? see the server's log")


@dataclasses.dataclass(frozen=True)
class Found:
    idle_mb: float
    waiting_mb: float
    later_mb: float
    restarted_mb: float
    accept_s: float
    start_s: float
    store_mb: float
    waiting_cpu: float  # cores used while nothing happens
    ended: int


def run(kind: str, count: int, later_s: float) -> Found:
    with contextlib.ExitStack() as stack:
        base = stack.enter_context(processes.folder())
        url, endpoint = stack.enter_context(processes.http_endpoint("own", base))
        server = stack.enter_context(processes.server(HoldfastServer, base))
        server.register({"uri": url, "use_http_11": True})
        pid = processes.pid_of(server)
        measure(Load(server.ingress_port, "/Bench/noop", concurrency=16, limit=500, seconds=120))
        settle(endpoint)
        idle = resident_mb(pid)
        path, body = PATHS[kind]
        sent = measure(Load(server.ingress_port, path, body, concurrency=64, limit=count, seconds=count / 20))
        if sent.completed != count:
            raise RuntimeError(f"{count} sends expected to be accepted, {sent.completed} were; first failure: {sent.failure}")
        settle(endpoint)
        waiting = resident_mb(pid)
        time.sleep(later_s)
        later, before = resident_mb(pid), cpu_seconds([pid])
        time.sleep(SETTLE_S)
        waiting_cpu = (cpu_seconds([pid]) - before) / SETTLE_S
        server.kill()
        begin = time.monotonic()
        server.start()
        answer = httpx.post(f"{server.ingress_url}/Bench/noop", timeout=60)
        start_s = time.monotonic() - begin
        assert answer.status_code == 200, answer.text
        pid = processes.pid_of(server)
        settle(endpoint)
        store_mb = sum(file.stat().st_size for file in server.folder.glob("store.sqlite*")) / 1e6
        return Found(idle, waiting, later, resident_mb(pid), sent.window_s, start_s, store_mb, waiting_cpu, end_some(server))


def end_some(server: Server) -> int:
    """Cancels some of the waiting ones; how many of them end with 409, as cancelled ones do."""
    waiting = httpx.get(f"{server.admin_url}/holdfast/invocations", params={"status": "suspended", "limit": SAMPLES}, timeout=60)
    rows = waiting.json()
    ids = [row["id"] for row in (rows["invocations"] if isinstance(rows, dict) else rows)]
    ended = 0
    for invocation in ids:
        httpx.patch(f"{server.admin_url}/invocations/{invocation}/cancel", timeout=30).raise_for_status()
        ended += httpx.get(f"{server.ingress_url}/restate/invocation/{invocation}/attach", timeout=60).status_code == 409
    return ended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--on", type=lambda text: text.split(","), default=list(PATHS))
    parser.add_argument("--later", type=float, default=10.0, help="seconds until memory is looked at once more")
    options = parser.parse_args()
    print(f"{options.count} invocations each, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}\n")
    titles = (
        "waiting on",
        "idle MB",
        "waiting MB",
        "growth MB",
        "restarted MB",
        "accepted in s",
        "start s",
        "store MB",
        "CPU %",
        "ended",
        "bars",
    )
    print(f"| {' | '.join(titles)} |\n|{' --- |' * len(titles)}")
    for kind in options.on:
        f = run(kind, options.count, options.later)
        growth = max(f.waiting_mb, f.later_mb) - f.idle_mb
        good = growth < MEMORY_BAR_MB and f.start_s < START_BAR_S and f.ended == SAMPLES
        judged = "met" if good else "MISSED"
        print(
            f"| {kind} | {f.idle_mb:.0f} | {f.waiting_mb:.0f} | {growth:.0f} | {f.restarted_mb:.0f} | {f.accept_s:.0f} "
            f"| {f.start_s:.1f} | {f.store_mb:.0f} | {100 * f.waiting_cpu:.0f} | {f.ended} of {SAMPLES} | {judged} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
