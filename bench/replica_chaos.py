"""Several replicas on one DynamoDB table, killed, paused, stopped, scaled and cut off from each other under load.

    .venv/bin/python -m bench.replica_chaos [--events 100] [--rounds 1] [--seed 1] [--faults]     anything may happen
    .venv/bin/python -m bench.replica_chaos --crashes [--events 100] ..                            kills and pauses alone, of three replicas
    .venv/bin/python -m bench.replica_chaos --rolling 20                                           deployments, no error allowed
    .venv/bin/python -m bench.replica_chaos --failover 20 [--pause]                                how long a crash is felt, default times

Rules
- Real `holdfast serve` processes on the stand-in for DynamoDB, which keeps its data in a file; handlers on an endpoint of their own.
- Clients fail over between replicas. What has an idempotency key they repeat until it is acknowledged; `bump` they never repeat once sent.
- Checked at the end of a round: no acknowledged invocation is lost; every key saw 0, 1, 2 .. in this order, each once, and so did the
  object that its handler tells by message; a recorded step has one value in all attempts; an invocation has one result; a delayed request
  happens once and not early; a request that was not repeated happens once if it was answered, else at most once; two replicas list the
  same, nothing is left open, no key is held; every shard has an owner that lives; no log has a stack trace.
- Chaos runs with quick times (a process is presumed dead after 2 s), so that much happens; `--failover` measures the defaults.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import shutil
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Final

import aiohttp
from tests.support.dynamodb import aws_at, dynoxide, set_up
from tests.support.fault_proxy import FaultProxy

from bench import processes
from bench.replica_failover import failover
from bench.replica_load import Balancer, Client, Report, Work, appends, asks, bumps, check, check_lists, delays, flows
from bench.replicas import TABLE, Replica, owners

SHARDS: Final = 8
QUICK: Final = {"HOLDFAST_HEARTBEAT_INTERVAL": "500ms", "HOLDFAST_PRESUMED_DEAD_AFTER": "2s", "HOLDFAST_LEASE_DURATION": "3s"}
SPARING: Final = 0.85  # share of events that wait for two healthy replicas; the others hit whatever is there
PAUSES_S: Final = (0.3, 1.0, 2.0, 3.0, 4.0, 6.0, 10.0, 60.0)
CALM_LIMIT_S: Final = 180.0


@dataclass
class Options:
    seed: int = 1
    faults: bool = False
    crashes: bool = False  # nothing but kills and pauses
    clients: int = 3  # of each kind
    most: int = 4  # replicas
    longest_pause_s: float = 60.0
    longest_calm_s: float = 2.0  # between two events
    request_limit_s: float = 3.0
    pause_s: float = 0.05  # between two requests of a client: the load of a service that is not saturated
    variables: dict[str, str] | None = None  # of the replicas, instead of those of the kind of run


class World:
    """The replicas and everything around them."""

    def __init__(self, replicas: list[Replica], session: aiohttp.ClientSession, report: Report, ledger: Path, options: Options) -> None:
        self.replicas, self.session, self.report, self.ledger = replicas, session, report, ledger
        self.chance = Random(options.seed)
        self.client = Client(session, Balancer(replicas), report, limit_s=options.request_limit_s, pause_s=options.pause_s)
        self.options = options
        self.shards = SHARDS
        self.counts: collections.Counter[str] = collections.Counter()
        self.proxy: FaultProxy | None = None
        self._healing: set[asyncio.Task[None]] = set()
        self._busy: set[Replica] = set()

    # -- events; what they break heals by itself later, while more happens

    async def disturb(self) -> None:
        """One random event."""
        if self.chance.random() < SPARING:
            await self._until_somebody_serves()
        free = [replica for replica in self.replicas if replica not in self._busy]
        there = [replica for replica in free if replica.wanted]
        absent = [replica for replica in free if not replica.wanted]
        kinds = ["kill"] * 4 + ["pause"] * 4
        if not self.options.crashes:
            kinds += ["stop", "cut", "swallow"] + ["join"] * (2 if absent else 0) + ["leave"] * (len(there) > 1)
            kinds += ["faults"] * 2 * (self.proxy is not None)
        kind = self.chance.choice(kinds)
        if not there and (self.options.crashes or kind not in ("faults", "join")):
            return
        replica = self.chance.choice(absent if kind == "join" else there or self.replicas)
        self.counts[kind] += 1
        self.note(kind, replica)
        match kind:
            case "faults":
                self._heal(self._faults(), None)
            case "join":
                await replica.start()
            case "kill":
                await replica.kill()
                self._heal(self._start_after(replica, self.chance.choice((0.0, 0.0, 0.5, 3.0))), replica)
            case "pause":
                replica.pause()
                pause_s = min(self.chance.choice(PAUSES_S), self.options.longest_pause_s)
                self._heal(self._resume_after(replica, pause_s), replica)
            case "stop":
                replica.wanted = False
                self._heal(self._stopped(replica, again=True), replica)
            case "leave":
                replica.wanted = False
                self._heal(self._stopped(replica, again=False), replica)
            case "cut" | "swallow":
                replica.wire.become("cut" if kind == "cut" else "swallowing")
                self._heal(self._whole_after(replica, self.chance.uniform(0.5, 6.0)), None)

    async def _until_somebody_serves(self) -> None:
        """Two replicas that answer, so that one is left; else little is acknowledged that could be lost."""
        deadline = time.monotonic() + CALM_LIMIT_S
        while time.monotonic() < deadline:
            able = [replica for replica in self.replicas if replica.wanted and replica not in self._busy]
            answering = await asyncio.gather(*(replica.healthy(self.session) for replica in able))
            if sum(answering) >= 2:
                return
            await asyncio.sleep(0.2)
            if not self._busy and len(able) < 2:
                return

    def note(self, what: str, replica: Replica) -> None:
        """For whoever looks for the cause of a violation: the logs have the same clock."""
        with (self.ledger.parent / "events").open("a") as events:
            at = datetime.now(UTC).isoformat(timespec="milliseconds")
            events.write(f"{at} {time.monotonic():.3f} {what} replica {replica.number} pid {replica.process and replica.process.pid}\n")

    def _heal(self, work: Coroutine[None, None, None], replica: Replica | None) -> None:
        """In the background; until then nothing else happens to the process of `replica`. Its network may heal meanwhile."""
        task = asyncio.create_task(work)
        self._healing.add(task)
        if replica is not None:
            self._busy.add(replica)
            task.add_done_callback(lambda _: self._busy.discard(replica))
        task.add_done_callback(self._healing.discard)

    async def _start_after(self, replica: Replica, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await replica.start()
        self.note("started", replica)

    async def _resume_after(self, replica: Replica, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self.note("resumed", replica)
        replica.resume()

    async def _whole_after(self, replica: Replica, seconds: float) -> None:
        await asyncio.sleep(seconds)
        replica.wire.become("whole")

    async def _stopped(self, replica: Replica, *, again: bool) -> None:
        status = await replica.stop()
        if status != 0 and status is not None and status != -15:  # -15: the signal came before the process had its handler
            self.report.wrong.append(f"replica {replica.number} ended with {status} when it was asked to stop")
        if status is None:
            self.report.wrong.append(f"replica {replica.number} did not end when it was asked to stop")
        if again:
            await replica.start()

    async def _faults(self) -> None:
        assert self.proxy is not None
        self.proxy.chaos(self.chance, self.chance.choice((0.05, 0.2, 0.5)))
        await asyncio.sleep(self.chance.uniform(0.5, 5.0))
        self.proxy.calm()
        self.proxy.landed.clear()

    async def calm(self) -> None:
        """Everything heals; all replicas run again."""
        while self._healing:
            await asyncio.gather(*self._healing)
        for replica in self.replicas:
            replica.resume()
            if not replica.running:
                await replica.start()
        for replica in self.replicas:
            await replica.until_ready(self.session)

    async def check(self) -> None:
        await check(self.client, self.ledger)
        await check_lists(self.session, self.chance.sample(self.replicas, 2), self.report)
        await self._check_owners()
        for replica in self.replicas:
            for line in replica.faults()[:3]:
                self.report.wrong.append(f"log of replica {replica.number}: {line[:600]}")

    async def _check_owners(self) -> None:
        """Every shard is owned by a process that still lives."""
        deadline = time.monotonic() + CALM_LIMIT_S
        while True:
            found = await owners()
            if len(found) == SHARDS:
                self.counts["owners at the end"] += len(set(found.values()))
                return
            if time.monotonic() > deadline:
                self.report.wrong.append(f"of {SHARDS} shards only these have an owner that lives: {found}")
                return
            await asyncio.sleep(0.5)


@contextlib.asynccontextmanager
async def world(base: Path, options: Options, replicas: int, most: int, variables: dict[str, str]) -> AsyncIterator[World]:
    """Running replicas that know the services, with nobody asking yet."""
    ledger = base / "ledger"
    ledger.touch()
    async with contextlib.AsyncExitStack() as stack:
        endpoint, _ = stack.enter_context(processes.http_endpoint("chaos", base, variables={"CHAOS_LEDGER": str(ledger)}))
        url = stack.enter_context(dynoxide(base / "dynamodb.sqlite"))
        stack.enter_context(aws_at(dynamodb=url))
        set_up(TABLE, SHARDS)
        proxy = await stack.enter_async_context(FaultProxy(url)) if options.faults else None
        all_of_them = [Replica(number, base, proxy.url if proxy else url, variables) for number in range(most)]
        for replica in all_of_them:
            stack.push_async_callback(replica.close)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        for replica in all_of_them[:replicas]:
            await replica.start()
        for replica in all_of_them[:replicas]:
            await replica.until_ready(session)
        async with session.post(f"{all_of_them[0].admin_url}/deployments", json={"uri": endpoint, "use_http_11": True}) as response:
            if response.status not in (200, 201):
                raise RuntimeError(f"registering answered {response.status}: {await response.text()}")
        for replica in all_of_them[:replicas]:
            await _knows_services(session, replica)
        made = World(all_of_them, session, Report(), ledger, options)
        made.proxy = proxy
        yield made


async def _knows_services(session: aiohttp.ClientSession, replica: Replica) -> None:
    """The others look for new deployments every few seconds."""
    while True:
        async with session.get(f"{replica.admin_url}/services") as response:
            if len((await response.json())["services"]) == 4:
                return
        await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def load(world: World, kinds: list[tuple[str, Work]], each: int) -> AsyncIterator[None]:
    """Clients that work until the block ends, and then finish what they have begun."""
    stopping = asyncio.Event()
    tasks = [asyncio.ensure_future(work(world.client, f"{name}{number}", stopping)) for name, work in kinds for number in range(each)]
    try:
        yield
        stopping.set()
        async with asyncio.timeout(CALM_LIMIT_S * 2):
            await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def every_kind(ledger: Path) -> list[tuple[str, Work]]:
    return [("append", appends), ("flow", flows), ("ask", asks(ledger)), ("delay", delays), ("bump", bumps)]


async def chaos(base: Path, events: int, options: Options) -> World:
    """One round on a fresh table."""
    async with world(base, options, replicas=1, most=options.most, variables=options.variables or QUICK) as made:
        made.counts["join"] += 2
        await made.replicas[1].start()
        await made.replicas[2].start()
        async with load(made, every_kind(made.ledger), options.clients):
            for number in range(events):
                await asyncio.sleep(made.chance.uniform(0.1, options.longest_calm_s))
                await made.disturb()
                progress(number + 1, events, made)
            await made.calm()
        await made.check()
        return made


async def rolling(base: Path, deployments: int, options: Options) -> World:
    """Each replica in turn stopped and started again; nobody who repeats only what is safe may see an error."""
    async with world(base, options, replicas=3, most=3, variables=options.variables or {}) as made:
        async with load(made, every_kind(made.ledger), options.clients):
            for number in range(deployments):
                for replica in made.replicas:
                    await made._stopped(replica, again=True)
                    await replica.until_ready(made.session)
                    made.counts["stop"] += 1
                progress(number + 1, deployments, made)
        await made.check()
        made.report.wrong += [f"not answered: {what}" for what in made.report.unknown]
        return made


async def crashes(base: Path, count: int, options: Options, *, pausing: bool) -> World:
    """Prints how long shards could not be reached."""
    options.request_limit_s = 3.0 if pausing else 60.0  # a paused replica holds what it was asked
    async with world(base, options, replicas=3, most=3, variables={}) as made:
        lost, others = await failover(made, count, pausing=pausing)
        print(f"shards of the lost replica: {len(lost)}, without an answer for {percentiles(lost)}")
        print(f"other shards: {len(others)}, without an answer for {percentiles(others)}")
        return made


def progress(number: int, of: int, made: World) -> None:
    if sys.stderr.isatty() or number % 20 == 0 or number == of:
        print(
            f"{number} of {of}: {len(made.report.acknowledged)} acknowledged, {len(made.report.wrong)} wrong", file=sys.stderr, flush=True
        )


def summary(made: World, seconds: float) -> str:
    report = made.report
    events = ", ".join(f"{count} {name}" for name, count in sorted(made.counts.items()))
    answered, unknown = (sum(counts[index] for counts in report.bumped.values()) for index in (0, 1))
    delayed = sum(map(len, report.delayed.values()))
    appended = f"{sum(report.appended.values())} of them in order on {len(report.appended)} keys"
    return (
        f"{events} in {seconds:.0f} s; {len(report.acknowledged)} invocations acknowledged, {appended}, {len(report.results)} awaited, "
        f"{delayed} delayed; {answered} calls without a key answered, {unknown} not; {report.repeats} requests repeated; "
        f"an append took {percentiles([wait for _, wait in report.waits])}"
    )


def percentiles(values: list[float]) -> str:
    ordered = sorted(values)
    if not ordered:
        return "nothing"
    at = {share: ordered[min(len(ordered) - 1, int(len(ordered) * share / 100))] for share in (50, 90, 99)}
    return ", ".join(f"p{share} {value:.3f} s" for share, value in at.items()) + f", at most {ordered[-1]:.1f} s"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100, help="of one round")
    parser.add_argument("--rounds", type=int, default=1, help="each on a fresh table, with the next seed")
    parser.add_argument("--crashes", action="store_true", help="nothing but kills and pauses, of three replicas")
    parser.add_argument("--rolling", type=int, metavar="DEPLOYMENTS")
    parser.add_argument("--failover", type=int, metavar="CRASHES")
    parser.add_argument("--pause", action="store_true", help="with --failover: paused for a minute instead of killed")
    parser.add_argument("--seed", type=int, default=1, help="of the course of events; the rest is up to the machine")
    parser.add_argument("--faults", action="store_true", help="DynamoDB throttles, fails, loses answers and carries out late")
    parser.add_argument("--clients", type=int, default=3, help="of each of the five kinds")
    parser.add_argument("--keep", action="store_true", help="logs, ledger and table, also when nothing is wrong")
    chosen = parser.parse_args()
    failed = 0
    for number in range(chosen.rounds):
        options = Options(chosen.seed + number, chosen.faults, chosen.crashes, chosen.clients, most=3 if chosen.crashes else 4)
        begin = time.monotonic()
        with processes.folder() as base:
            if chosen.rolling:
                options.request_limit_s = 60.0
                made = asyncio.run(rolling(base, chosen.rolling, options))
            elif chosen.failover:
                made = asyncio.run(crashes(base, chosen.failover, options, pausing=chosen.pause))
            else:
                made = asyncio.run(chaos(base, chosen.events, options))
            if chosen.keep or made.report.wrong:
                kept = processes.ROOT / ".holdfast" / f"chaos-{options.seed}"
                shutil.copytree(base, kept, dirs_exist_ok=True)
                (kept / "waits").write_text("".join(f"{began:.3f} {seconds:.3f}\n" for began, seconds in made.report.waits))
                print(f"logs, ledger and table are in {kept}")
        print(f"seed {options.seed}: {summary(made, time.monotonic() - begin)}")
        for line in made.report.wrong[:30]:
            print(f"WRONG: {line}")
        print("everything holds" if not made.report.wrong else f"{len(made.report.wrong)} violations", flush=True)
        failed += bool(made.report.wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
