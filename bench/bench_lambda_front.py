"""What the Lambda service of the benchmarks can do by itself: Invoke calls to a function that does nothing.

    .venv/bin/python -m bench.bench_lambda_front [--concurrency 16,64]

The ceiling is what one core gives its front, which is one process: 1 s over its CPU per call. A server measured
through it is not held up by the front as long as it stays well below that.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path

from bench import processes
from bench.load import TICKS_PER_S, Load, measure


def own_cpu_s(pid: int) -> float:
    """Of the process alone, without the functions below it."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concurrency", type=lambda text: [int(part) for part in text.split(",")], default=[1, 16, 64])
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}\n")
    print(
        "| at once | calls per second | p50 ms | p99 ms | CPU ms of the front | CPU ms of the functions | ceiling of the front per second |"
    )
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    with processes.lambda_service() as service:
        service.add(dataclasses.replace(processes.lambda_function("empty"), handler="empty.handler"))
        pid = service._process.pid
        for concurrency in options.concurrency:
            path = "/2015-03-31/functions/empty/invocations"
            measure(Load(service.port, path, "{}", concurrency=concurrency, limit=20 * concurrency, seconds=120))  # cold starts
            before = own_cpu_s(pid)
            found = measure(
                Load(service.port, path, "{}", concurrency=concurrency, warm_up_s=0.0, seconds=options.seconds, watch={"all": [pid]})
            )
            front_s = own_cpu_s(pid) - before
            front_ms = front_s * 1000 / max(1, found.completed)
            print(
                f"| {concurrency} | {found.per_second:.0f} | {found.p50_ms:.1f} | {found.p99_ms:.1f} | {front_ms:.2f} "
                f"| {found.cpu_ms('all') - front_ms:.2f} | {1000 / front_ms:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
