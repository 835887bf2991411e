"""SQL introspection over many invocations: how long statements take, and what calls notice of it.

    .venv/bin/python -m bench.bench_query --invocations 100000 [--hours 12] [--folder kept]

First the invocations are made: through the engine, into an SQLite store, in a process that handles them itself, on a clock that passes
`--hours` meanwhile. Then a server is started on that store, and asked over HTTP: what the official CLI asks for its lists (ids and count
at the same time, then the details of those ids), what it asks for `services status`, and plain counts. A statement's first time is kept
apart: it starts the engine's process. At last calls are made at a fixed rate, with and without somebody listing all the time.
`--folder` keeps the store for the next time. Bar: a filtered list of 50 in less than a second.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import logging
import os
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import uvloop
from tests.conformance.servers import Server

from bench import processes
from bench.bench_suspended import resident_mb
from bench.load import cpu_seconds
from bench.services import shop
from holdfast_runtime.adapters.system import SystemClock
from holdfast_runtime.app.runtime import Runtime, RuntimeConfig
from holdfast_runtime.coordinator.front import NewInvocation, Scan, Target
from holdfast_runtime.surfaces.server import Listener

BAR_S: Final = 1.0
AT_ONCE: Final = 256
HOUR_MS: Final = 3_600_000
# Of a hundred invocations: (how many, service, handler, number of keys or 0, delay in ms or None).
MIX: Final = (
    (40, "Orders", "place", 0, None),
    (10, "Invoices", "issue", 0, None),
    (3, "Invoices", "void", 0, None),
    (22, "Carts", "add", 1000, None),
    (9, "Orders", "ship", 0, None),
    (3, "Signups", "run", 10**9, None),
    (2, "Orders", "charge", 0, None),
    (1, "Orders", "refund", 0, None),
    (2, "Carts", "hold", 40, None),
    (8, "Invoices", "issue", 0, 200 * HOUR_MS),
)
_HUNDRED: Final = [mixed for mixed in MIX for _ in range(mixed[0])]
COUNT: Final = "SELECT COUNT(1) FROM (SELECT * FROM sys_invocation inv LIMIT 50000)"
DETAIL: Final = (
    "SELECT inv.id, inv.target, inv.target_service_ty, inv.idempotency_key, inv.status, inv.created_at, inv.modified_at as "
    "state_modified_at, inv.pinned_deployment_id, inv.retry_count as num_retries, inv.last_failure as last_failure_message, "
    "inv.last_failure_related_entry_index as last_failure_entry_index, inv.last_failure_related_entry_name as last_failure_entry_name, "
    "inv.last_failure_related_entry_type as last_failure_entry_ty, inv.last_attempt_deployment_id, inv.last_attempt_server, "
    "inv.next_retry_at, inv.last_start_at, inv.invoked_by_id, inv.invoked_by_target, inv.trace_id, inv.completion_result, "
    "inv.completion_failure, dp.id IS NOT NULL as pinned_deployment_exists FROM sys_invocation inv LEFT JOIN sys_deployment dp ON "
    "dp.id = inv.pinned_deployment_id"
)
SERVICES: Final = "('Carts','Invoices','Orders','Signups')"
STATUS_OF_SERVICES: Final = (
    "SELECT target_service_name, target_handler_name, 'pending' as status, COUNT(1) as num_invocations, MIN(created_at) as oldest_at, "
    "FIRST_VALUE(id ORDER BY created_at ASC) as oldest_invocation FROM sys_invocation_status WHERE status == 'inboxed' AND "
    f"target_service_name IN {SERVICES} GROUP BY target_service_name, target_handler_name",
    "SELECT target_service_name, target_handler_name, status, COUNT(1) as num_invocations, MIN(created_at) as oldest_at, "
    f"FIRST_VALUE(id ORDER BY created_at ASC) as oldest_invocation FROM sys_invocation WHERE target_service_name IN {SERVICES} "
    "GROUP BY target_service_name, target_handler_name, status ORDER BY target_handler_name",
    "SELECT service_name, service_key, COUNT(1) as num_pending FROM sys_inbox WHERE service_name IN ('Carts','Signups') "
    "GROUP BY service_name, service_key ORDER BY num_pending DESC",
    "SELECT target_service_name as service_name, target_service_key as service_key, status as invocation_status, first_value(id) as "
    "invocation_holding_lock, first_value(target_handler_name) as invocation_method_holding_lock, first_value(created_at) as "
    "invocation_created_at, first_value(modified_at) as modified_at, first_value(pinned_deployment_id) as pinned_deployment_id, "
    "first_value(last_attempt_deployment_id) as last_attempt_deployment_id, first_value(last_failure) as last_failure_message, "
    "first_value(next_retry_at) as next_retry_at, first_value(last_start_at) as last_start_at, 0 as num_pending, sum(retry_count) as "
    "num_retries FROM sys_invocation WHERE status != 'pending' AND target_service_name IN ('Carts','Signups') GROUP BY "
    "target_service_name, target_service_key, status",
)


# ---- The invocations


class PastClock(SystemClock):
    """Begins `hours` ago and catches up with the real time as the work does."""

    def __init__(self, hours: float) -> None:
        super().__init__()
        self._hours = hours
        self.done = 0.0  # share of the work

    def now_ms(self) -> int:
        return super().now_ms() - int(self._hours * HOUR_MS * (1 - self.done))


async def populate(store: Path, count: int, hours: float) -> None:
    logging.disable()  # of handlers that fail on purpose
    runtime = Runtime(RuntimeConfig(store, Listener(port=0), Listener(port=0)))
    runtime.clock = clock = PastClock(hours)
    await runtime.start(shop.HANDLERS)
    try:
        left = iter(range(count))

        async def work() -> None:
            for number in left:
                clock.done = number / count
                new = _new(number)
                await runtime.coordinator.send(runtime.coordinator.mint(new), new)

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        clock.done = 1.0
        where = {"status": ["running", "ready"]}
        while (await runtime.coordinator.scan(Scan("invocations", ["id"], where, 1))).rows:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.5)
    finally:
        await runtime.stop()


def _new(number: int) -> NewInvocation:
    """Interleaved: 61 and 100 have no common factor."""
    _, service, handler, keys, delay = _HUNDRED[number * 61 % 100]
    body = b"1" if handler in ("place", "issue", "charge", "add") else b""
    headers = [("content-type", "application/json")] if body else []
    return NewInvocation(Target(service, handler, f"k{number // 7 % keys}" if keys else None), body, headers, delay_ms=delay)


# ---- The server


class Shop(Server):
    kind = "holdfast"

    def command(self) -> list[str]:
        store = str(self.folder / "store.sqlite")
        return [sys.executable, "-m", "bench.bench_query", "--serve", store, str(self.ingress_port), str(self.admin_port)]

    def variables(self) -> dict[str, str]:
        return {"PYTHONPATH": str(processes.ROOT)}

    def describe(self, invocation_id: str) -> None:
        raise NotImplementedError


async def serve(store: str, ingress_port: str, admin_port: str) -> None:
    runtime = Runtime(RuntimeConfig(Path(store), Listener(port=int(ingress_port)), Listener(port=int(admin_port))))
    await runtime.start(shop.HANDLERS)
    await asyncio.Event().wait()


# ---- What is asked


@dataclasses.dataclass(frozen=True)
class Asked:
    """Seconds of each repetition; rows of the last statement."""

    name: str
    seconds: list[float]
    rows: int

    def line(self) -> str:
        return f"| {self.name} | {statistics.median(self.seconds) * 1000:.0f} | {max(self.seconds) * 1000:.0f} | {self.rows} |"


async def query(session: aiohttp.ClientSession, statement: str) -> list[dict[str, Any]]:
    async with session.post("/query", json={"query": statement}, headers={"accept": "application/json"}) as answer:
        document = await answer.json(content_type=None)
        if answer.status != 200:
            raise RuntimeError(f"{answer.status} {document} for {statement}")
        rows: list[dict[str, Any]] = document["rows"]
        return rows


async def listing(session: aiohttp.ClientSession, where: str, *, oldest_first: bool = False) -> list[dict[str, Any]]:
    """As `invocations list` asks, with a limit of 50."""
    order = f"ORDER BY inv.created_at {'ASC' if oldest_first else 'DESC'}, inv.id"
    condition = f"WHERE {where}" if where else ""
    of_ids = f"SELECT id FROM sys_invocation inv {condition} {order} LIMIT 50"
    asked = [query(session, statement) for statement in (f"{COUNT} {condition.replace('inv.', '')}", of_ids)]
    _, found = await asyncio.gather(*asked)
    if not found:
        return []
    named = "inv.id in (" + ",".join(f"'{row['id']}'" for row in found) + ")"
    return await query(session, f"{DETAIL} WHERE {f'{where} AND ' if where else ''}{named} {order}")


async def services_status(session: aiohttp.ClientSession) -> list[dict[str, Any]]:
    """One after the other, as `services status` does."""
    found: list[dict[str, Any]] = []
    for statement in STATUS_OF_SERVICES:
        found += await query(session, statement)
    return found


Ask = Callable[[aiohttp.ClientSession], Awaitable[list[dict[str, Any]]]]


def questions(deployment: str) -> dict[str, Ask]:
    of_deployment = f"(inv.pinned_deployment_id IN ('{deployment}') OR inv.last_attempt_deployment_id IN ('{deployment}'))"
    lists = {
        "list 50: default (not completed)": "status != 'completed'",
        "list 50: status": "status IN ('suspended')",
        "list 50: backing off": "status IN ('backing-off')",
        "list 50: failed": "status = 'completed' AND inv.completion_result = 'failure'",
        "list 50: service": "inv.target_service_name IN ('Invoices') AND status != 'completed'",
        "list 50: key": "inv.target_service_key IN ('k7')",
        "list 50: status and service": "inv.target_service_name IN ('Orders') AND status IN ('completed')",
        "list 50: deployment": f"{of_deployment} AND status != 'completed'",
        "list 50: deployment, all": of_deployment,
        "list 50: all": "",
    }
    asked: dict[str, Ask] = {name: lambda session, where=where: listing(session, where) for name, where in lists.items()}  # type: ignore[misc]
    asked["list 50: all, oldest first"] = lambda session: listing(session, "", oldest_first=True)
    plain = {
        "count(*)": "SELECT count(*) FROM sys_invocation",
        "counts by status": "SELECT status, count(*) AS n FROM sys_invocation GROUP BY status",
        "created in the last hour": "SELECT count(*) FROM sys_invocation WHERE created_at > now() - interval '1' hour",
        "live ones of a deployment": "SELECT COUNT(1) AS inv_count FROM sys_invocation_status WHERE pinned_deployment_id = "
        f"'{deployment}' AND status != 'completed'",
        "finished ones of a deployment": f"SELECT COUNT(1) FROM sys_invocation_status WHERE pinned_deployment_id = '{deployment}'",
        "slowest answers": "SELECT id, completed_at - created_at AS took FROM sys_invocation WHERE status = 'completed' ORDER BY took DESC "
        "LIMIT 10",
    }
    asked |= {name: lambda session, statement=statement: query(session, statement) for name, statement in plain.items()}  # type: ignore[misc]
    asked["services status"] = services_status
    return asked


async def ask(url: str, repeat: int) -> list[Asked]:
    found = []
    async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(total=60)) as session:
        begin = time.perf_counter()
        deployments = await query(session, "SELECT id, services FROM sys_deployment")
        print(f"first statement, with the start of the engine's process: {time.perf_counter() - begin:.2f} s\n")
        deployment = next(row["id"] for row in deployments if "Orders" in row["services"])
        print("| question | median ms | slowest ms | rows |\n| --- | ---: | ---: | ---: |")
        for name, question in questions(deployment).items():
            seconds = []
            rows: list[dict[str, Any]] = []
            for _ in range(repeat):
                begin = time.perf_counter()
                rows = await question(session)
                seconds.append(time.perf_counter() - begin)
            found.append(Asked(name, seconds, len(rows)))
            print(found[-1].line(), flush=True)
    return found


# ---- What calls notice


@contextlib.asynccontextmanager
async def asking(url: str, question: Ask | None) -> AsyncIterator[list[float]]:
    """Somebody who asks again as soon as the answer is there; the seconds of each answer."""
    seconds: list[float] = []

    async def again() -> None:
        assert question is not None
        async with aiohttp.ClientSession(url) as session:
            while True:
                begin = time.perf_counter()
                await question(session)
                seconds.append(time.perf_counter() - begin)

    task = asyncio.create_task(again()) if question is not None else None
    try:
        yield seconds
    finally:
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def calls(ingress: str, rate: float, seconds: float) -> list[float]:
    """Milliseconds of calls begun at a fixed rate, each counted from when it was due."""
    latencies: list[float] = []
    failed: deque[str] = deque(maxlen=1)
    async with aiohttp.ClientSession(ingress, connector=aiohttp.TCPConnector(limit=256)) as session, asyncio.TaskGroup() as group:

        async def call(due: float) -> None:
            async with session.post("/Orders/place", json=1) as answer:
                if answer.status != 200:
                    failed.append(await answer.text())
                await answer.read()
            latencies.append((time.perf_counter() - due) * 1000)

        begin = time.perf_counter()
        for number in range(int(rate * seconds)):
            due = begin + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(call(due))
    if failed:
        raise RuntimeError(f"a call failed: {failed[0]}")
    return sorted(latencies)


async def beside(server: Server, rate: float, seconds: float) -> None:
    pid = processes.pid_of(server)
    print(f"\n{rate:g} calls a second, each 1 ms of the server's CPU or so:\n")
    print("| somebody asks all the time for | calls p50 ms | p99 ms | slowest ms | questions a second | server's CPU, cores |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    chosen: dict[str, Ask | None] = {
        "nothing": None,
        "the default list of 50": lambda session: listing(session, "status != 'completed'"),
        "counts by status": lambda session: query(session, "SELECT status, count(*) AS n FROM sys_invocation GROUP BY status"),
    }
    for name, question in chosen.items():
        async with asking(server.admin_url, question) as asked:
            await calls(server.ingress_url, rate, 1)
            before, begin, count = cpu_seconds([pid]), time.perf_counter(), len(asked)
            latencies = await calls(server.ingress_url, rate, seconds)
            window = time.perf_counter() - begin
            cpu = (cpu_seconds([pid]) - before) / window
            p50, p99 = (latencies[int(len(latencies) * share)] for share in (0.5, 0.99))
            asked_per_second = (len(asked) - count) / window
            print(f"| {name} | {p50:.1f} | {p99:.1f} | {latencies[-1]:.1f} | {asked_per_second:.1f} | {cpu:.2f} |", flush=True)


@contextlib.contextmanager
def place(kept: Path | None) -> Iterator[Path]:
    """The folder of the store."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
    else:
        with processes.folder() as found:
            yield found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--invocations", type=int, default=100_000)
    parser.add_argument("--hours", type=float, default=12.0)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--folder", type=Path, help="keep the store there, and use it if it is there")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--populate", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        uvloop.run(serve(*options.serve))
        return
    if options.populate:
        uvloop.run(populate(Path(options.populate), options.invocations, options.hours))
        return
    with place(options.folder and options.folder.resolve()) as folder:
        store = folder / "store.sqlite"
        if not store.exists():
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-m", "bench.bench_query", "--populate", str(store), *sys.argv[1:]], check=True)
            size = sum(file.stat().st_size for file in folder.glob("store.sqlite*")) / 1e6
            print(f"{options.invocations} invocations made in {time.perf_counter() - begin:.0f} s, store of {size:.0f} MB")
        server = Shop(folder, processes.NOWHERE)
        server.start()
        try:
            print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}")
            found = uvloop.run(ask(server.admin_url, options.repeat))
            slow = [asked.name for asked in found if asked.name.startswith("list 50") and statistics.median(asked.seconds) >= BAR_S]
            print(f"\nfiltered lists of 50 in less than {BAR_S:g} s: {'MISSED by ' + ', '.join(slow) if slow else 'met'}")
            uvloop.run(beside(server, options.rate, options.seconds))
            print(f"\nresident: {resident_mb(processes.pid_of(server)):.0f} MB")
        finally:
            server.kill()


if __name__ == "__main__":
    main()
