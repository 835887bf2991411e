"""The DynamoDB store against its stand-in on loopback: what calls cost, and how many a process does.

    .venv/bin/python -m bench.bench_dynamodb client     one conditional put: our signed client beside aiobotocore
    .venv/bin/python -m bench.bench_dynamodb calls      calls per second of one process with handlers inside, closed loop
    .venv/bin/python -m bench.bench_dynamodb curve      DynamoDB calls and write units per invocation against the load

    [--latency 5] milliseconds that every append takes longer, as with the service; 0 for the stand-in's own 1 to 2
    [--shards 1] [--seconds 5] [--retention] keep results for a day, as by default; without it only what is in flight

Rules: units are those that the stand-in charges (`ReturnConsumedCapacity`), flushes at the end included; heartbeats and the
first registration are not counted. The rate is offered, not closed-loop, in `curve`: what comes in does not wait for what went out.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import uvloop
from tests.support.dynamodb import aws_at, dynoxide, new_table_name, set_up
from tests.support.dynamodb_process import SERVICE, Metered, started

from bench.services import own
from holdfast.endpoint import Endpoint
from holdfast_runtime.adapters import dynamodb_items
from holdfast_runtime.adapters.aws_access import AwsAccess
from holdfast_runtime.adapters.dynamodb_client import DynamoDbClient, LostRace
from holdfast_runtime.adapters.system import SystemClock, SystemEntropy
from holdfast_runtime.ports.store import LogItem

PUTS: Final = 2_000
COUNTED: Final = ("log", "page", "blob")
CURVE: Final = (1, 10, 25, 50, 100, 200, 400)  # calls per second


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


# -- client


async def client(options: argparse.Namespace) -> None:
    import aioboto3
    from botocore.config import Config

    table, clock = new_table_name(), SystemClock()
    set_up(table, 1)
    thin = DynamoDbClient(table, clock=clock, entropy=SystemEntropy(), access=AwsAccess(clock), region="us-east-1")
    operations, position = os.urandom(300), 0

    def next_item() -> dict[str, Any]:
        nonlocal position
        position += 1
        return dynamodb_items.log_item(0, LogItem(position, 1, b"8 bytes.", position, 0, 1, operations), now_s=1)

    async def with_thin() -> None:
        request = {"TableName": table, "Item": next_item(), "ConditionExpression": "attribute_not_exists(pk)"}
        assert not isinstance(await thin.attempt("PutItem", "log", request), LostRace)

    config = Config(max_pool_connections=64, retries={"total_max_attempts": 1})
    async with aioboto3.Session().client("dynamodb", config=config) as other:

        async def with_aiobotocore() -> None:
            item = next_item() | {"b": {"B": operations}, "w": {"B": b"8 bytes."}}
            await other.put_item(TableName=table, Item=item, ConditionExpression="attribute_not_exists(pk)")

        print("| client | at once | per second | ms each | CPU us each |\n| --- | ---: | ---: | ---: | ---: |")
        for at_once in (1, 16):
            for name, put in (("ours", with_thin), ("aiobotocore", with_aiobotocore)):
                await _closed_loop(put, 100, at_once)
                began, used = time.perf_counter(), cpu_s()
                await _closed_loop(put, PUTS, at_once)
                took = time.perf_counter() - began
                print(
                    f"| {name} | {at_once} | {PUTS / took:.0f} | {took / PUTS * at_once * 1e3:.2f} | {(cpu_s() - used) / PUTS * 1e6:.0f} |"
                )
    await thin.close()


async def _closed_loop(work: Callable[[], Awaitable[Any]], count: int, at_once: int) -> None:
    left = iter(range(count))

    async def worker() -> None:
        for _ in left:
            await work()

    await asyncio.gather(*(worker() for _ in range(at_once)))


# -- calls


async def calls(options: argparse.Namespace) -> None:
    runtime = await _started(options)
    print("| at once | calls per second | p50 ms | CPU ms each (calls and handlers) | store calls each | write units each |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for at_once in (1, 4, 16, 64):
        took: list[float] = []

        async def one(took: list[float] = took) -> None:
            began = time.perf_counter()
            await runtime.call(SERVICE, "noop")
            took.append(time.perf_counter() - began)

        await _closed_loop(one, at_once * 5, at_once)
        took.clear()
        runtime.forget()
        began, used = time.perf_counter(), cpu_s()
        over = began + options.seconds

        async def worker(one: Callable[[], Awaitable[None]] = one, over: float = over) -> None:
            while time.perf_counter() < over:
                await one()

        await asyncio.gather(*(worker() for _ in range(at_once)))
        seconds, cpu = time.perf_counter() - began, cpu_s() - used
        count = len(took)
        puts = runtime.meter.calls["PutItem", "log"]
        print(
            f"| {at_once} | {count / seconds:.0f} | {sorted(took)[count // 2] * 1e3:.1f} | {cpu / count * 1e3:.2f} "
            f"| {puts / count:.2f} | {runtime.meter.units['PutItem', 'log'] / count:.2f} |",
            flush=True,
        )
    await runtime.stop()


# -- curve


async def curve(options: argparse.Namespace) -> None:
    print("| calls per second offered | done | store calls each | write units each, log | pages | read units each |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for rate in CURVE:
        runtime = await _started(options)
        await asyncio.gather(*(runtime.call(SERVICE, "noop") for _ in range(20)))
        runtime.forget()
        began, running = time.perf_counter(), set[asyncio.Task[Any]]()
        count = max(20, int(rate * options.seconds))
        for number in range(count):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            running.add(asyncio.create_task(runtime.call(SERVICE, "noop")))
        await asyncio.gather(*running)
        seconds = time.perf_counter() - began
        await runtime.stop()
        meter = runtime.meter
        of_calls = sum(number for (_, kind), number in meter.calls.items() if kind.partition(" ")[0] in COUNTED)
        reads = sum(number for (name, kind), number in meter.units.items() if name != "PutItem" and kind in COUNTED)
        print(
            f"| {rate} | {count / seconds:.0f} | {of_calls / count:.2f} | {meter.units['PutItem', 'log'] / count:.2f} "
            f"| {runtime.written('page') / count:.2f} | {reads / count:.2f} |",
            flush=True,
        )


async def _started(options: argparse.Namespace) -> Metered:
    table = new_table_name()
    set_up(table, options.shards)
    return await started(table, {"bench": Endpoint(own.SERVICES).handle}, retained=options.retention, append_delay_s=options.latency / 1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("client", "calls", "curve"))
    parser.add_argument("--latency", type=float, default=5.0)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--retention", action="store_true")
    options = parser.parse_args()
    with dynoxide() as url, aws_at(dynamodb=url):
        print(f"{options.what}, {os.cpu_count()} cores, load average at the start {os.getloadavg()[0]:.1f}\n")
        uvloop.run({"client": client, "calls": calls, "curve": curve}[options.what](options))


if __name__ == "__main__":
    main()
