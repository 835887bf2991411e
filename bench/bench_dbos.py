"""Our SDK inside the coordinator beside DBOS on PostgreSQL: no-op and ten steps, durable, at the same concurrency.

    bench/setup_dbos.sh                              once
    .venv/bin/python -m bench.bench_dbos [--concurrency 1,16,64] [--rounds 3] [--seconds 4] [--pool 20]

Rules: in turns (A B A B ..); ours is called through its HTTP ingress by the load generator, DBOS by direct calls in
its own process, which spares it the HTTP; PostgreSQL is a fresh cluster with its default durability (fsync and
synchronous_commit on); the bar is three times DBOS's rate.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.conformance.servers import free_port

from bench import processes
from bench.bench_calls import SCENARIOS, Summary, load_of, summarise
from bench.load import Measured, cpu_seconds, measure

PYTHON: Final = processes.ROOT / "tools" / "dbos" / "bin" / "python"
BAR: Final = 3.0


@contextlib.contextmanager
def postgres(base: Path) -> Iterator[tuple[str, int]]:
    """A cluster of its own on loopback; the URL of a database in it, and the process id of the server."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found or not PYTHON.exists():
        raise SystemExit("PostgreSQL and DBOS expected, not found; install them with bench/setup_dbos.sh")
    bin_folder, data, port = found[-1].parent, base / "postgres", free_port()
    data.mkdir()
    as_user: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(data, "postgres")
        base.chmod(0o755)
        as_user = ["runuser", "-u", "postgres", "--"]
    common = [*as_user, str(bin_folder / "initdb"), "-D", str(data), "-U", "postgres", "--auth=trust", "-E", "UTF8"]
    subprocess.run(common, check=True, stdout=subprocess.DEVNULL, cwd="/")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=300"
    control = [*as_user, str(bin_folder / "pg_ctl"), "-D", str(data), "-w"]
    subprocess.run([*control, "-o", options, "-l", str(data / "log"), "start"], check=True, stdout=subprocess.DEVNULL, cwd="/")
    try:
        pid = int((data / "postmaster.pid").read_text().split()[0])
        yield f"postgresql://postgres@127.0.0.1:{port}/bench", pid
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=True, stdout=subprocess.DEVNULL, cwd="/")


def dbos_round(url: str, pid: int, scenario: str, concurrency: int, options: argparse.Namespace) -> Measured:
    arguments = [url, scenario, str(concurrency), str(options.warm_up), str(options.seconds), str(options.pool)]
    before = cpu_seconds([pid])
    done = subprocess.run(
        [str(PYTHON), "bench/dbos_load.py", *arguments], cwd=processes.ROOT, check=True, stdout=subprocess.PIPE, timeout=300
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    # The database's CPU of the whole run, scaled to the window: close enough for a figure that is only told beside.
    database = (cpu_seconds([pid]) - before) * options.seconds / (options.seconds + options.warm_up)
    return Measured(
        completed=found["completed"],
        failed=0,
        window_s=found["window_s"],
        p50_ms=found["p50_ms"],
        p99_ms=found["p99_ms"],
        cpu_s={"dbos": found["cpu_s"] + database},
        self_cpu_s=0.0,
        failure="",
    )


def print_row(title: str, concurrency: int, name: str, s: Summary, other: Summary | None) -> None:
    share = f"{s.per_second / other.per_second:.1f}" if other is not None else ""
    print(
        f"| {title} | {concurrency} | {name} | {s.per_second:.0f} ({s.low:.0f} to {s.high:.0f}) | {s.p50_ms:.1f} | {s.p99_ms:.1f} "
        f"| {s.cpu_ms:.2f} | {share} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concurrency", type=lambda text: [int(part) for part in text.split(",")], default=[1, 16, 64])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--warm-up", type=float, default=2.0)
    parser.add_argument("--pool", type=int, default=20, help="database connections of DBOS")
    options = parser.parse_args()
    judged: list[str] = []
    with processes.folder() as base, postgres(base) as (url, pid), processes.server(processes.OwnInProcess, base) as own:
        watch = {"holdfast": [processes.pid_of(own)]}
        print(f"{os.cpu_count()} cores, load average at the start {os.getloadavg()[0]:.1f}\n")
        print("| scenario | concurrency | | per second (lowest to highest) | p50 ms | p99 ms | CPU ms, all processes | of DBOS |")
        print("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
        for name in ("noop", "steps"):
            scenario = SCENARIOS[name]
            for concurrency in options.concurrency:
                ours: list[Measured] = []
                theirs: list[Measured] = []
                for _ in range(options.rounds):
                    ours.append(measure(load_of(own.ingress_port, scenario, concurrency, options, watch)))
                    theirs.append(dbos_round(url, pid, name, concurrency, options))
                mine, other = summarise("holdfast", ours), summarise("dbos", theirs)
                print_row(scenario.title, concurrency, "holdfast", mine, other)
                print_row(scenario.title, concurrency, "DBOS", other, None)
                factor = statistics.median(o.per_second / t.per_second for o, t in zip(ours, theirs, strict=True))
                judged.append(
                    f"{name} at {concurrency}: {factor:.1f} times DBOS, at least {BAR:g} wanted: {'met' if factor >= BAR else 'MISSED'}"
                )
        print(f"\nload average at the end {os.getloadavg()[0]:.1f}")
    print("\n".join(judged))


if __name__ == "__main__":
    main()
