"""What an append costs: rate, latency and CPU per log put of a store, at several group sizes.

    python bench/bench_store.py [--store sqlite|memory] [--seconds 2] [--bytes 300] [--busy] [--pages 50000]

A group of n is n shards that each append again as soon as their last append was acknowledged, as the
coordinator does. CPU is that of the whole process (event loop and writer thread). `--busy` adds a task that
keeps the event loop at work, as a loaded coordinator does. `--pages n` also stores n pages and reads them
back in one call.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from holdfast_runtime.adapters.memory import memory_store
from holdfast_runtime.adapters.sqlite import open_sqlite_store
from holdfast_runtime.ports.store import LogItem, Store, StoredPage

GROUP_SIZES = (1, 8, 64)


@asynccontextmanager
async def opened(kind: str) -> AsyncIterator[Store]:
    if kind == "memory":
        yield memory_store(max(GROUP_SIZES))
        return
    with tempfile.TemporaryDirectory(prefix="bench-store-") as folder:
        held = await open_sqlite_store(Path(folder) / "store.sqlite", shards=max(GROUP_SIZES))
        try:
            yield held.store
        finally:
            await held.close()


async def append(store: Store, shard: int, operations: bytes, until: float) -> list[float]:
    """Latencies of one shard's appends, in seconds."""
    latencies: list[float] = []
    nonce, position = os.urandom(8), 1
    while (begin := time.perf_counter()) < until:
        assert await store.log.put(shard, LogItem(position, 1, nonce, position, 0, 1, operations)) is None
        latencies.append(time.perf_counter() - begin)
        position += 1
        if position % 64 == 0:
            await asyncio.sleep(0)  # the memory store never waits: let the others have their turn
    return latencies


async def keep_busy() -> None:
    while True:
        end = time.perf_counter() + 0.0005
        while time.perf_counter() < end:
            pass
        await asyncio.sleep(0)


async def bench_appends(kind: str, group: int, seconds: float, size: int, busy: bool) -> None:
    async with opened(kind) as store:
        other = asyncio.create_task(keep_busy()) if busy else None
        operations = os.urandom(size)
        cpu, begin = time.process_time(), time.perf_counter()
        runs = await asyncio.gather(*(append(store, s, operations, begin + seconds) for s in range(group)))
        cpu, wall = time.process_time() - cpu, time.perf_counter() - begin
        if other is not None:
            other.cancel()
    latencies = sorted(one for run in runs for one in run)
    count = len(latencies)
    print(
        f"{kind:7} group {group:3}: {count / wall:9,.0f} appends/s   {cpu / count * 1e6:7.1f} us CPU per append,"
        f" median {statistics.median(latencies) * 1e3:6.2f} ms,"
        f" p99 {latencies[count * 99 // 100] * 1e3:6.2f} ms"
    )


async def bench_pages(kind: str, count: int, size: int) -> None:
    async with opened(kind) as store:
        page = StoredPage(1, os.urandom(size))
        ids = [f"I/{number:032x}" for number in range(count)]
        begin = time.perf_counter()
        for start in range(0, count, 500):
            await asyncio.gather(*(store.pages.put(page_id, page) for page_id in ids[start : start + 500]))
        wrote = time.perf_counter()
        assert len(await store.pages.get(ids)) == count
        read = time.perf_counter()
        single = 2_000
        for page_id in ids[:single]:
            await store.pages.get([page_id])
        one = time.perf_counter()
        for number in range(single):
            await store.pages.get([f"absent {number}"])
        absent = time.perf_counter()
    print(
        f"{kind:7} {count:,} pages of {size} bytes: stored in {wrote - begin:.2f} s,"
        f" read in {read - wrote:.2f} s;"
        f" one page {(one - read) / single * 1e6:.1f} us,"
        f" an absent one {(absent - one) / single * 1e6:.1f} us"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--store", choices=("sqlite", "memory"), default="sqlite")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--bytes", type=int, default=300, help="size of an append, and of a page")
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--pages", type=int, default=0)
    arguments = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} CPUs")
    for group in GROUP_SIZES:
        asyncio.run(bench_appends(arguments.store, group, arguments.seconds, arguments.bytes, arguments.busy))
    if arguments.pages:
        asyncio.run(bench_pages(arguments.store, arguments.pages, arguments.bytes))


if __name__ == "__main__":
    main()
