"""DBOS under load, in one process: run by `bench_dbos.py` with the Python of DBOS's own environment.

Idiomatic DBOS: decorated async functions, called directly. There is no HTTP in between, unlike with our side,
so that only DBOS itself is measured. Prints one JSON line: completed, window_s, p50_ms, p99_ms, cpu_s.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop
from dbos import DBOS, DBOSConfig  # type: ignore[import-not-found,unused-ignore]  # of its own environment


@DBOS.workflow()  # type: ignore[untyped-decorator,unused-ignore]
async def noop() -> str:
    return "done"


@DBOS.step()  # type: ignore[untyped-decorator,unused-ignore]
async def one() -> int:
    return 1


@DBOS.workflow()  # type: ignore[untyped-decorator,unused-ignore]
async def steps(count: int) -> int:
    total = 0
    for _ in range(count):
        total += await one()
    return total


async def run(scenario: str, concurrency: int, warm_up_s: float, seconds: float) -> dict[str, float]:
    latencies: list[float] = []
    begin = time.perf_counter() + warm_up_s
    end = begin + seconds

    async def client() -> None:
        while (sent := time.perf_counter()) < end:
            if scenario == "noop":
                assert await noop() == "done"
            else:
                assert await steps(10) == 10
            now = time.perf_counter()
            if begin <= now < end:
                latencies.append(now - sent)

    async def cpu() -> float:
        await asyncio.sleep(begin - time.perf_counter())
        before = time.process_time()
        await asyncio.sleep(end - time.perf_counter())
        return time.process_time() - before

    clients = [asyncio.create_task(client()) for _ in range(concurrency)]
    spent = await cpu()
    await asyncio.gather(*clients)
    latencies.sort()
    middle, high = (latencies[int(len(latencies) * share)] * 1000 for share in (0.5, 0.99))
    return {"completed": len(latencies), "window_s": seconds, "p50_ms": middle, "p99_ms": high, "cpu_s": spent}


async def main() -> None:
    url, scenario, concurrency, warm_up_s, seconds, pool = sys.argv[1:7]
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": url,
        "log_level": "ERROR",
        "sys_db_pool_size": int(pool),
    }
    DBOS(config=config)
    DBOS.launch()
    print(json.dumps(await run(scenario, int(concurrency), float(warm_up_s), float(seconds))), flush=True)
    DBOS.destroy()


if __name__ == "__main__":
    uvloop.run(main())
