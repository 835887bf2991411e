"""Clients of several replicas: what they ask for, which replica they turn to, and what must be true of it all afterwards."""

from __future__ import annotations

import asyncio
import collections
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import aiohttp

from bench.replicas import Replica

AVOID_S: Final = 8.0  # a replica that did not answer is not asked again for so long, while there is another
SETTLE_LIMIT_S: Final = 300.0
ONLY_SAFE: Final = (aiohttp.ClientConnectorError,)  # nothing was sent


@dataclass
class Report:
    """What was acknowledged and how long that took, and everything that is wrong."""

    acknowledged: dict[str, str] = field(default_factory=dict)  # what -> invocation id
    results: dict[str, Any] = field(default_factory=dict)  # invocation id -> result as seen under load
    appended: dict[str, int] = field(default_factory=dict)  # key -> acknowledged
    delayed: dict[str, dict[int, float]] = field(default_factory=dict)  # key -> number -> earliest time (of the epoch)
    bumped: dict[str, list[int]] = field(default_factory=dict)  # key -> [answered, outcome unknown]
    repeats: int = 0
    unknown: list[str] = field(default_factory=list)  # requests that may not be repeated and had no answer
    waits: list[tuple[float, float]] = field(default_factory=list)  # (began, seconds) until an append was acknowledged
    wrong: list[str] = field(default_factory=list)


class Balancer:
    """Which replica is asked next: those that answered, in turn; one that did not is avoided for a while."""

    def __init__(self, replicas: list[Replica]) -> None:
        self.replicas = replicas
        self._turn = 0
        self._avoided: dict[Replica, float] = {}

    def choose(self) -> Replica | None:
        now = time.monotonic()
        there = [replica for replica in self.replicas if replica.wanted]
        good = [replica for replica in there if self._avoided.get(replica, 0.0) < now]
        self._turn += 1
        among = good or there
        return among[self._turn % len(among)] if among else None

    def failed(self, replica: Replica) -> None:
        self._avoided[replica] = time.monotonic() + AVOID_S


class Client:
    """Repeats what was not answered, at another replica. limit_s: of a request. pause_s: between two requests."""

    def __init__(self, session: aiohttp.ClientSession, balancer: Balancer, report: Report, *, limit_s: float, pause_s: float) -> None:
        self.session, self.balancer, self.report = session, balancer, report
        self.limit_s, self.pause_s = limit_s, pause_s

    async def insist(self, method: str, path: str, *, body: Any = None, key: str | None = None) -> Any:
        """The answer's JSON, however often it takes. For what may be repeated."""
        headers = {"idempotency-key": key} if key is not None else {}
        while True:
            answered, value = await self._once(method, path, body, headers)
            if answered:
                return value
            self.report.repeats += 1
            await asyncio.sleep(0.05)

    async def _once(self, method: str, path: str, body: Any, headers: dict[str, str]) -> tuple[bool, Any]:
        replica = self.balancer.choose()
        if replica is None:
            return False, None
        timeout = aiohttp.ClientTimeout(total=self.limit_s)
        try:
            async with self.session.request(method, replica.url + path, json=body, headers=headers, timeout=timeout) as response:
                text = await response.text()
                if response.status in (200, 202):
                    return True, json.loads(text) if text else None
                if response.status <= 500:
                    self.report.wrong.append(f"{method} {path} answered {response.status}: {text[:300]}")
                    return True, None
        except (aiohttp.ClientError, TimeoutError, OSError):
            pass
        self.balancer.failed(replica)
        return False, None

    async def dare(self, path: str, body: Any = None) -> bool:
        """A request that must not be repeated once it was sent; whether it was answered. Refused connections and safe 503s are repeated."""
        timeout = aiohttp.ClientTimeout(total=self.limit_s)
        while True:
            replica = self.balancer.choose()
            if replica is None:
                await asyncio.sleep(0.05)
                continue
            try:
                # A connection of its own: on a kept one a request can cross with its end.
                headers = {"connection": "close"}
                async with self.session.post(replica.url + path, json=body, headers=headers, timeout=timeout) as response:
                    text = await response.text()
                    if response.status == 200:
                        return True
                    if not (response.status == 503 and "retry-after" in response.headers):
                        self.report.unknown.append(f"{response.status}: {text[:200]}")
                        return False
            except ONLY_SAFE:
                pass
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self.balancer.failed(replica)
                self.report.unknown.append(f"replica {replica.number}: {error!r}")
                return False
            self.balancer.failed(replica)
            await asyncio.sleep(0.05)

    async def send(self, path: str, body: Any, key: str, *, query: str = "") -> str | None:
        """Acknowledged: the invocation's id."""
        answer = await self.insist("POST", f"{path}/send{query}", body=body, key=key)
        if answer is None:
            return None
        invocation: str = answer["invocationId"]
        self.report.acknowledged[f"{path} {key}"] = invocation
        return invocation

    async def result(self, invocation: str) -> Any:
        return await self.insist("GET", f"/restate/invocation/{invocation}/attach")


Work = Callable[[Client, str, asyncio.Event], Awaitable[None]]


async def appends(client: Client, name: str, stopping: asyncio.Event) -> None:
    """0, 1, 2 .. to one key, each once the last was acknowledged."""
    report = client.report
    number = report.appended.setdefault(name, 0)
    while not stopping.is_set():
        began = time.monotonic()
        if await client.send(f"/Sequence/{name}/append", number, f"n{number}") is None:
            return
        report.waits.append((began, time.monotonic() - began))
        number += 1
        report.appended[name] = number
        await asyncio.sleep(client.pause_s)


async def flows(client: Client, name: str, stopping: asyncio.Event) -> None:
    number = 0
    while not stopping.is_set():
        invocation = await client.send("/Flow/run", number, f"{name}-{number}")
        if invocation is None:
            return
        client.report.results[invocation] = await client.result(invocation)
        number += 1
        await asyncio.sleep(client.pause_s)


def asks(ledger: Path) -> Work:
    async def work(client: Client, name: str, stopping: asyncio.Event) -> None:
        """Starts one that waits for an answer, gives it twice, the second time another one, and looks which counted."""
        number = 0
        while not stopping.is_set():
            what = f"{name}-{number}"
            invocation = await client.send("/Flow/ask", what, what)
            if invocation is None:
                return
            awakeable = await asked(ledger, what)
            for answer in ("yes", "no"):
                await client.insist("POST", f"/restate/awakeables/{awakeable}/resolve", body=answer)
            result = client.report.results[invocation] = await client.result(invocation)
            if result != [what, "yes"]:
                client.report.wrong.append(f"{invocation} was first answered yes and got {result}")
            number += 1
            await asyncio.sleep(client.pause_s)

    return work


async def asked(ledger: Path, what: str) -> str:
    wanted = f'["asks", "{what}", '
    while True:
        for line in ledger.read_text().splitlines():  # noqa: ASYNC240 - a file of this machine
            if line.startswith(wanted):
                return str(json.loads(line)[2])
        await asyncio.sleep(0.1)


async def delays(client: Client, name: str, stopping: asyncio.Event) -> None:
    chance, number = Random(name), 0
    given = client.report.delayed.setdefault(name, {})
    while not stopping.is_set():
        delay_ms = chance.choice((100, 500, 2_000, 10_000))
        earliest = time.time() + delay_ms / 1000
        if await client.send(f"/Delayed/{name}/mark", number, f"n{number}", query=f"?delay={delay_ms}ms") is None:
            return
        given[number] = earliest
        number += 1
        await asyncio.sleep(client.pause_s * 4)


async def bumps(client: Client, name: str, stopping: asyncio.Event) -> None:
    """Calls that nobody may repeat: each happens once when it is answered, and at most once when it is not."""
    counts = client.report.bumped.setdefault(name, [0, 0])
    while not stopping.is_set():
        counts[0 if await client.dare(f"/Sequence/{name}/bump") else 1] += 1
        await asyncio.sleep(client.pause_s)


# -- afterwards


async def check(client: Client, ledger: Path) -> None:
    """Adds to `report.wrong`."""
    report = client.report
    final: dict[str, Any] = {}
    deadline = time.monotonic() + SETTLE_LIMIT_S
    for label, invocation in report.acknowledged.items():
        try:
            async with asyncio.timeout(max(5.0, deadline - time.monotonic())):
                final[invocation] = await client.result(invocation)
        except TimeoutError:
            report.wrong.append(f"{label} ({invocation}) was acknowledged and has not ended {SETTLE_LIMIT_S:g} s after the last event")
            if len(report.wrong) > 20:
                return
    for invocation, result in report.results.items():
        if final.get(invocation) != result:
            report.wrong.append(f"{invocation} was answered {result}, later {final.get(invocation)}")
    for name, count in report.appended.items():
        await _sequence_is(client, f"/Sequence/{name}/seen", count)
        await _sequence_is(client, f"/Tally/of-{name}/counted", count)
    for name, (answered, unknown) in report.bumped.items():
        total = (await client.insist("GET", f"/Sequence/{name}/seen"))["next"]
        if not answered <= total <= answered + unknown:
            report.wrong.append(f"key {name}: {answered} bumps answered, {unknown} unknown, {total} counted")
    for name, given in report.delayed.items():
        marks = await client.insist("GET", f"/Delayed/{name}/marked")
        if marks != {str(number): 1 for number in given}:
            report.wrong.append(f"key {name}: {len(given)} delayed requests acknowledged, found {marks}")
    _check_ledger(report, ledger, final)


async def _sequence_is(client: Client, path: str, count: int) -> None:
    """The tallies are told by messages, which may still be on their way."""
    deadline = time.monotonic() + SETTLE_LIMIT_S
    while True:
        seen = await client.insist("GET", path)
        if seen == {"next": count, "violations": []}:
            return
        if seen["violations"] or seen["next"] > count or time.monotonic() > deadline:
            client.report.wrong.append(f"{path}: {count} appends acknowledged, the object saw {seen}")
            return
        await asyncio.sleep(0.2)


def _check_ledger(report: Report, ledger: Path, final: dict[str, Any]) -> None:
    """One value per step and one result per invocation in all attempts; nothing before its time."""
    saw: dict[tuple[str, str], set[str]] = collections.defaultdict(set)
    ends: dict[str, set[str]] = collections.defaultdict(set)
    for line in ledger.read_text().splitlines():
        match json.loads(line):
            case ["saw", invocation, step, value]:
                saw[invocation, step].add(json.dumps(value))
            case ["ends", invocation, result]:
                ends[invocation].add(json.dumps(result))
            case ["marked", key, number, at] if at < report.delayed.get(key, {}).get(number, 0.0) - 0.002:  # the delay counts in whole ms
                report.wrong.append(f"{key} {number} was marked {report.delayed[key][number] - at:.3f} s too early")
    for (invocation, step), values in saw.items():
        if len(values) > 1:
            report.wrong.append(f"{invocation}: step {step} had {len(values)} values: {sorted(values)}")
    for invocation, results in ends.items():
        if len(results) > 1:
            report.wrong.append(f"{invocation} ended with {len(results)} results: {sorted(results)}")
    for invocation, result in final.items():
        if ends.get(invocation) != {json.dumps(result)}:
            report.wrong.append(f"{invocation} answers {result}, its handler ended with {sorted(ends.get(invocation, ()))}")


async def check_lists(session: aiohttp.ClientSession, replicas: list[Replica], report: Report) -> None:
    """Every replica lists the same invocations, among them all that were acknowledged, all of them ended, and no key is held."""
    for replica in replicas:
        deadline = time.monotonic() + SETTLE_LIMIT_S
        while True:
            rows = await _sql(session, replica, "SELECT id, status FROM sys_invocation")
            held = await _sql(session, replica, "SELECT service_name, service_key, invocation_id FROM sys_keyed_service_status")
            held = [row for row in held if row.get("invocation_id")]
            if (not held and all(row["status"] == "completed" for row in rows)) or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.5)
        seen = collections.Counter(row["id"] for row in rows)
        open_rows = [row for row in rows if row["status"] != "completed"]
        missing = set(report.acknowledged.values()) - set(seen)
        for rows_wrong, what in ((missing, "does not list"), (open_rows, "lists as not ended"), (held, "lists as held")):
            if rows_wrong:
                report.wrong.append(f"replica {replica.number} {what} {len(rows_wrong)}: {list(rows_wrong)[:5]}")
        if any(count > 1 for count in seen.values()):
            report.wrong.append(f"replica {replica.number} lists invocations twice: {seen.most_common(3)}")


async def _sql(session: aiohttp.ClientSession, replica: Replica, statement: str) -> list[dict[str, Any]]:
    headers = {"accept": "application/json"}
    async with session.post(f"{replica.admin_url}/query", json={"query": statement}, headers=headers) as response:
        text = await response.text()
        if response.status != 200:
            raise RuntimeError(f"replica {replica.number} answered {response.status} to {statement}: {text[:500]}")
        rows: list[dict[str, Any]] = json.loads(text)["rows"]
        return rows
