"""The measured services on the official Python SDK; `own.py` has them name for name.

Served by hypercorn (`official:app`) or, when `AWS_LAMBDA_FUNCTION_NAME` is set, by the Lambda runtime (`official.app`).
"""

from datetime import timedelta

import restate
from restate import Context, ObjectContext, Service, VirtualObject

bench = Service("Bench")
counter = VirtualObject("Counter")


@bench.handler()
async def noop(_ctx: Context) -> str:
    return "done"


async def _one() -> int:
    return 1


@bench.handler()
async def steps(ctx: Context, count: int) -> int:
    total = 0
    for number in range(count):
        total += await ctx.run_typed(f"step {number}", _one)
    return total


@bench.handler()
async def child(_ctx: Context, number: int) -> int:
    return number


@bench.handler()
async def fan_out(ctx: Context, count: int) -> int:
    calls = [ctx.service_call(child, number) for number in range(count)]
    return sum([await call for call in await restate.gather(*calls)])


@bench.handler()
async def nap(ctx: Context, seconds: int) -> str:
    await ctx.sleep(timedelta(seconds=seconds))
    return "awake"


@bench.handler()
async def wait(ctx: Context) -> str:
    _, promise = ctx.awakeable(type_hint=str)
    return await promise


@counter.handler()
async def add(ctx: ObjectContext, amount: int) -> int:
    total = (await ctx.get("total", type_hint=int) or 0) + amount
    ctx.set("total", total)
    return total


app = restate.app([bench, counter])
