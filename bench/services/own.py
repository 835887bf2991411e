"""The measured services on our own SDK; `official.py` has them name for name."""

from datetime import timedelta

from holdfast import Context, ObjectContext, Service, VirtualObject
from holdfast.asgi import app as asgi_app

bench = Service("Bench")
counter = VirtualObject("Counter")


@bench.handler
async def noop(_ctx: Context) -> str:
    return "done"


async def _one() -> int:
    return 1


@bench.handler
async def steps(ctx: Context, count: int) -> int:
    total = 0
    for number in range(count):
        total += await ctx.run(_one, name=f"step {number}")
    return total


@bench.handler
async def child(_ctx: Context, number: int) -> int:
    return number


@bench.handler
async def fan_out(ctx: Context, count: int) -> int:
    return sum(await ctx.gather(*[ctx.call(child, number) for number in range(count)]))


@bench.handler
async def nap(ctx: Context, seconds: int) -> str:
    await ctx.sleep(timedelta(seconds=seconds))
    return "awake"


@bench.handler
async def wait(ctx: Context) -> str:
    return await ctx.awakeable(str)


@counter.handler
async def add(ctx: ObjectContext, amount: int) -> int:
    total = await ctx.get("total", int, default=0) + amount
    ctx.set("total", total)
    return total


SERVICES = (bench, counter)
app = asgi_app(*SERVICES)
