"""What `bench_query` leaves invocations of: finished, failed, suspended, queued, backing off and paused ones, of two deployments."""

from datetime import timedelta

from holdfast import Context, ObjectContext, RetryPolicy, Service, TerminalError, VirtualObject, Workflow, WorkflowContext
from holdfast.endpoint import Endpoint

orders = Service("Orders")
invoices = Service("Invoices")
carts = VirtualObject("Carts")
signups = Workflow("Signups")


@orders.handler
async def place(_ctx: Context, number: int) -> int:
    return number


@orders.handler
async def ship(ctx: Context) -> str:
    return await ctx.awakeable(str)


@orders.handler(retry=RetryPolicy(initial_interval=timedelta(days=20), max_interval=timedelta(days=20)))
async def charge(ctx: Context, number: int) -> int:
    await ctx.run(_reserve, name="reserve")
    raise ValueError(f"card {number} is refused for now")


@orders.handler(retry=RetryPolicy(max_attempts=1, on_max_attempts="pause"))
async def refund(_ctx: Context) -> None:
    raise ValueError("no such payment")


async def _reserve() -> str:
    return "reserved"


@invoices.handler
async def issue(_ctx: Context, number: int) -> int:
    return number


@invoices.handler
async def void(_ctx: Context) -> None:
    raise TerminalError("was paid", code=409)


@carts.handler
async def add(ctx: ObjectContext, amount: int) -> int:
    total = await ctx.get("total", int, default=0) + amount
    ctx.set("total", total)
    return total


@carts.handler
async def hold(ctx: ObjectContext) -> str:
    return await ctx.awakeable(str)


@signups.main
async def run(ctx: WorkflowContext) -> str:
    return await ctx.promise("mail confirmed", str)


HANDLERS = {"shop": Endpoint([orders, carts]).handle, "office": Endpoint([invoices, signups]).handle}
