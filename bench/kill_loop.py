"""`kill -9` of the coordinator at random moments under load, again and again, and what must hold afterwards.

    .venv/bin/python -m bench.kill_loop [--kills 200] [--seed 1] [--dynamodb]

Rules
- Clients send with an idempotency key and repeat until acknowledged. To a key of an object they send 0, 1, 2 ..,
  each only after the last was acknowledged.
- Most kills come between 30 ms and 700 ms after the coordinator answers, every fourth at any moment of its start.
- Checked: no acknowledged invocation is lost; every key saw 0, 1, 2 .. in this order, each once; a recorded step
  has one value in all attempts; an invocation has one result, to whoever asks and whenever; the result is what
  the handler returned.
- With --dynamodb the store is a table of the stand-in, kept on disk. The next process must then first see that the last
  one is dead (2 s here), and counts as answering when it owns every shard.
- The endpoint is not killed. A send that was not acknowledged before the end is not judged.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
from tests.conformance.servers import AWS_DUMMIES, HoldfastServer

from bench import processes

KEYS: Final = 8  # clients that send to an object, each to its own key
FLOWS: Final = 8  # clients that send to the service and wait for the result
PAUSE_S: Final = 0.02  # between two requests of a client: the load of a service that is not saturated
SETTLE_LIMIT_S: Final = 180.0
START_LIMIT_S: Final = 60.0
REQUEST_LIMIT_S: Final = 5.0
TABLE, SHARDS = "kill-loop", 2


@dataclass
class Report:
    """What was sent, and everything that is wrong. `results`: by idempotency key, as the client got them under way."""

    kills: int = 0
    kills_while_starting: int = 0
    acknowledged: dict[str, str] = field(default_factory=dict)  # path with idempotency key -> invocation id
    sent_by_key: dict[str, int] = field(default_factory=dict)  # object key -> how many were acknowledged
    results: dict[str, Any] = field(default_factory=dict)  # invocation id -> result as seen under load
    repeats: int = 0
    slowest_start_s: float = 0.0
    wrong: list[str] = field(default_factory=list)


class OnDynamoDb(HoldfastServer):
    """On a table at `dynamodb_url`, quicker to see that its predecessor is dead."""

    dynamodb_url = ""

    def command(self) -> list[str]:
        command = super().command()
        command[command.index("--store") + 1] = f"dynamodb://{TABLE}"
        return command

    def variables(self) -> dict[str, str]:
        own = {"HOLDFAST_HEARTBEAT_INTERVAL": "500ms", "HOLDFAST_PRESUMED_DEAD_AFTER": "2s", "AWS_ENDPOINT_URL_DYNAMODB": self.dynamodb_url}
        return {**super().variables(), **own}


class Coordinator:
    """The process that is killed."""

    def __init__(self, server: HoldfastServer, report: Report) -> None:
        self.server, self.report = server, report
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        environment = {**os.environ, **AWS_DUMMIES, **self.server.variables()}
        with self.server.log.open("ab") as log:
            self.log_begins = log.tell()
            self.process = await asyncio.create_subprocess_exec(*self.server.command(), env=environment, stdout=log, stderr=log)
        self.started_at = time.monotonic()

    async def until_ready(self) -> None:
        while not (self._owns_all() and await self._answers()):
            assert self.process is not None
            if self.process.returncode is not None or time.monotonic() - self.started_at > START_LIMIT_S:
                tail = self.server.log.read_text()[-3000:]
                raise RuntimeError(f"the coordinator did not start again (exit status {self.process.returncode}); its log ends:\n{tail}")
            await asyncio.sleep(0.05)
        self.report.slowest_start_s = max(self.report.slowest_start_s, time.monotonic() - self.started_at)

    def _owns_all(self) -> bool:
        """Alone on its store a process says that it is ready when it is so."""
        if not isinstance(self.server, OnDynamoDb):
            return True
        return self.server.log.read_bytes()[self.log_begins :].count(b"shard.taken") >= SHARDS

    async def _answers(self) -> bool:
        """Whether the ingress calls itself healthy; bare, because it is asked all the time."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.server.ingress_port)
        except OSError:
            return False
        try:
            writer.write(b"GET /restate/health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            async with asyncio.timeout(REQUEST_LIMIT_S):
                return b" 200 " in await reader.readline()
        except (OSError, TimeoutError):
            return False
        finally:
            writer.close()

    async def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


class Client:
    """Repeats what was not answered; anything but an answer that may be repeated is wrong."""

    def __init__(self, session: aiohttp.ClientSession, url: str, report: Report) -> None:
        self.session, self.url, self.report = session, url.rstrip("/"), report

    async def insist(self, method: str, path: str, *, body: Any = None, key: str | None = None) -> Any:
        """The answer's JSON, however many kills it takes."""
        headers = {"idempotency-key": key} if key is not None else {}
        while True:
            try:
                async with self.session.request(method, self.url + path, json=body, headers=headers) as response:
                    if response.status in (200, 202):
                        return await response.json()
                    text = await response.text()
                    if response.status < 500 or response.status == 500:
                        self.report.wrong.append(f"{method} {path} answered {response.status}: {text[:300]}")
                        return None
            except (aiohttp.ClientError, TimeoutError, ConnectionError):
                pass
            self.report.repeats += 1
            await asyncio.sleep(0.1)

    async def send(self, path: str, number: int, key: str) -> str | None:
        """Acknowledged: the invocation's id. The same request again must name the same one."""
        answer = await self.insist("POST", f"{path}/send", body=number, key=key)
        if answer is None:
            return None
        invocation: str = answer["invocationId"]
        self.report.acknowledged[f"{path} {key}"] = invocation
        return invocation

    async def result(self, invocation: str) -> Any:
        return await self.insist("GET", f"/restate/invocation/{invocation}/attach")


async def sequence_client(client: Client, name: str, stopping: asyncio.Event) -> None:
    report = client.report
    while not stopping.is_set():
        number = report.sent_by_key.get(name, 0)
        if await client.send(f"/Sequence/{name}/append", number, f"n{number}") is None:
            return
        report.sent_by_key[name] = number + 1
        await asyncio.sleep(PAUSE_S)


async def flow_client(client: Client, name: str, stopping: asyncio.Event) -> None:
    number = 0
    while not stopping.is_set():
        invocation = await client.send("/Flow/run", number, f"{name}-{number}")
        if invocation is None:
            return
        client.report.results[invocation] = await client.result(invocation)
        number += 1
        await asyncio.sleep(PAUSE_S)


async def kill_again_and_again(coordinator: Coordinator, kills: int, chance: random.Random, progress: Callable[[int], None]) -> None:
    for number in range(kills):
        while_starting = number % 4 == 3
        if while_starting:
            await asyncio.sleep(chance.uniform(0.0, 1.5))
            coordinator.report.kills_while_starting += 1
        else:
            await coordinator.until_ready()
            await asyncio.sleep(chance.uniform(0.03, 0.7))
        await coordinator.kill()
        coordinator.report.kills += 1
        progress(number + 1)
        await coordinator.start()
    await coordinator.until_ready()


async def check(client: Client, ledger: Path) -> None:
    """Everything acknowledged has ended, once and consistently. Adds to `report.wrong`."""
    report = client.report
    final: dict[str, Any] = {}
    for label, invocation in report.acknowledged.items():
        try:
            async with asyncio.timeout(SETTLE_LIMIT_S):
                final[invocation] = await client.result(invocation)
        except TimeoutError:
            report.wrong.append(f"{label} ({invocation}) was acknowledged and has not ended {SETTLE_LIMIT_S:g} s after the last kill")
    for invocation, result in report.results.items():
        if final.get(invocation) != result:
            report.wrong.append(f"{invocation} was answered {result}, later {final.get(invocation)}")
    for name, count in report.sent_by_key.items():
        seen = await client.insist("GET", f"/Sequence/{name}/seen")
        if seen is None or seen["violations"] or seen["next"] != count:
            report.wrong.append(f"key {name}: {count} appends acknowledged, the object saw {seen}")
    check_ledger(report, ledger, final)


def check_ledger(report: Report, ledger: Path, final: dict[str, Any]) -> None:
    """One value per step, one result per invocation, in all attempts."""
    saw: dict[tuple[str, str], set[str]] = collections.defaultdict(set)
    ends: dict[str, set[str]] = collections.defaultdict(set)
    for line in ledger.read_text().splitlines():
        match json.loads(line):
            case ["saw", invocation, step, value]:
                saw[invocation, step].add(json.dumps(value))
            case ["ends", invocation, result]:
                ends[invocation].add(json.dumps(result))
    for (invocation, step), values in saw.items():
        if len(values) > 1:
            report.wrong.append(f"{invocation}: step {step} had {len(values)} values: {sorted(values)}")
    for invocation, results in ends.items():
        if len(results) > 1:
            report.wrong.append(f"{invocation} ended with {len(results)} results: {sorted(results)}")
    for invocation, result in final.items():
        if ends.get(invocation) != {json.dumps(result)}:
            report.wrong.append(f"{invocation} answers {result}, its handler ended with {sorted(ends.get(invocation, ()))}")


async def loop(server: HoldfastServer, ledger: Path, kills: int, seed: int, progress: Callable[[int], None]) -> Report:
    """The coordinator of `server` runs when it is called, and when it returns."""
    report = Report()
    coordinator = Coordinator(server, report)
    await coordinator.start()
    await coordinator.until_ready()
    timeout = aiohttp.ClientTimeout(total=REQUEST_LIMIT_S)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        client = Client(session, server.ingress_url, report)
        stopping = asyncio.Event()
        work: list[Awaitable[None]] = [sequence_client(client, f"key{number}", stopping) for number in range(KEYS)]
        work += [flow_client(client, f"flow{number}", stopping) for number in range(FLOWS)]
        clients = [asyncio.ensure_future(one) for one in work]
        try:
            await kill_again_and_again(coordinator, kills, random.Random(seed), progress)
            stopping.set()
            await asyncio.gather(*clients)
            await check(client, ledger)
        finally:
            for one in clients:
                one.cancel()
            with contextlib.suppress(ProcessLookupError):
                await coordinator.kill()
    return report


def run(kills: int, seed: int, progress: Callable[[int], None] = lambda number: None, *, dynamodb: bool = False) -> Report:
    """Endpoint, registration, the loop, the checks."""
    with contextlib.ExitStack() as stack:
        base = stack.enter_context(processes.folder())
        ledger = base / "ledger"
        ledger.touch()
        url, _ = stack.enter_context(processes.http_endpoint("killed", base, variables={"KILL_LOOP_LEDGER": str(ledger)}))
        server = stack.enter_context(on_dynamodb(base)) if dynamodb else HoldfastServer(base, processes.NOWHERE)
        server.start()
        try:
            server.register({"uri": url, "use_http_11": True})
        finally:
            server.kill()
        return asyncio.run(loop(server, ledger, kills, seed, progress))


@contextlib.contextmanager
def on_dynamodb(base: Path) -> Iterator[OnDynamoDb]:
    from tests.support.dynamodb import aws_at, dynoxide, set_up

    with dynoxide(base / "dynamodb.sqlite") as url:
        with aws_at(dynamodb=url):
            set_up(TABLE, SHARDS)
        server = OnDynamoDb(base, processes.NOWHERE)
        server.dynamodb_url = url
        yield server


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1, help="of the moments of the kills; the rest is up to the machine")
    parser.add_argument("--dynamodb", action="store_true", help="on a DynamoDB table instead of the embedded store")
    options = parser.parse_args()
    begin = time.monotonic()

    def progress(number: int) -> None:
        if sys.stderr.isatty() or number % 20 == 0:
            print(f"\rkill {number} of {options.kills}", end="" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)

    report = run(options.kills, options.seed, progress, dynamodb=options.dynamodb)
    appended = sum(report.sent_by_key.values())
    print(
        f"\n{report.kills} kills ({report.kills_while_starting} while starting) in {time.monotonic() - begin:.0f} s; "
        f"{len(report.acknowledged)} invocations acknowledged, {appended} of them in order on {len(report.sent_by_key)} keys, "
        f"{len(report.results)} awaited under way; {report.repeats} requests repeated; slowest start {report.slowest_start_s:.1f} s"
    )
    for line in report.wrong[:50]:
        print(f"WRONG: {line}")
    print("everything holds" if not report.wrong else f"{len(report.wrong)} violations")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
