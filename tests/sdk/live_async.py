"""Handlers of both flavours of the live suite, async: `tests.sdk.live_sync` has the same ones as plain functions."""

from dataclasses import dataclass
from datetime import timedelta

from holdfast import (
    CancelledError,
    Context,
    ObjectContext,
    RetryPolicy,
    Service,
    SharedObjectContext,
    SharedWorkflowContext,
    TerminalError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    asgi,
    aws,
)
from tests.sdk import live_sync
from tests.sdk.ledger import failing, note, once, once_async

MOMENT = timedelta(milliseconds=200)
LONG = timedelta(hours=10)
QUICKLY = RetryPolicy(initial_interval=timedelta(milliseconds=20), max_attempts=3)


@dataclass
class Order:
    id: str
    items: list[str]


@dataclass
class Receipt:
    order: Order
    total: int


live = Service("async", retry=RetryPolicy(initial_interval=timedelta(milliseconds=20)))
counter = VirtualObject("async_counter")
signup = Workflow("async_signup")


@live.handler
async def steps(ctx: Context, tag: str) -> list[str]:
    first = await ctx.run(once, f"{tag}-1")
    second = await ctx.run(once_async, f"{tag}-2")
    return [first, second, await ctx.run(lambda: "three", name="third")]


@live.handler
async def typed(ctx: Context, order: Order) -> Receipt:
    return Receipt(order, await ctx.run(len, order.items))


@live.handler
async def binary(ctx: Context, content: bytes) -> bytes:
    return content[::-1]


@live.handler
async def retried(ctx: Context, tag: str) -> str:
    return await ctx.run(failing, tag, 2, retry=QUICKLY)


@live.handler
async def exhausted(ctx: Context, tag: str) -> str:
    try:
        return await ctx.run(failing, tag, 100, retry=QUICKLY)
    except TerminalError as error:
        return f"gave up: {error}"


@live.handler
async def unstable(ctx: Context, tag: str) -> str:
    await ctx.run(once, f"{tag}-before")
    failing(f"{tag}-outside", 2)
    return "stable"


@live.handler
async def refused(ctx: Context, _: str) -> None:
    raise TerminalError("never", code=418)


@live.handler
async def nap(ctx: Context, tag: str) -> str:
    before = await ctx.now()
    await ctx.sleep(MOMENT)
    return "slept" if await ctx.now() - before >= MOMENT else "woke early"


@live.handler
async def calls(ctx: Context, key: str) -> list[object]:
    await ctx.call(add, 2, key=key)
    sent = ctx.send(add, 3, key=key, delay=MOMENT)
    total = await ctx.invocation(await sent.invocation_id).attach(int)
    try:
        await ctx.call(refused, "x")
    except TerminalError as error:
        return [total, error.code, await ctx.call("async_counter/count", key=key, returns=int)]
    return []


@live.handler
async def parallel(ctx: Context, tag: str) -> list[object]:
    both = ctx.gather(ctx.run(once, f"{tag}-a"), ctx.run(once_async, f"{tag}-b"))
    (a, b), _ = await ctx.gather(both, ctx.sleep(MOMENT))
    mapped = await ctx.map(len, ["x", "xx", "xxx"], concurrency=2)
    return [a, b, mapped]


@live.handler
async def race(ctx: Context, tag: str) -> list[object]:
    winner, _ = await ctx.select(slow=ctx.sleep(LONG), quick=ctx.sleep(MOMENT))
    naps = [ctx.sleep(2 * MOMENT, name="b"), ctx.sleep(MOMENT, name="a")]
    order = [naps.index(future) async for future in ctx.as_completed(naps)]
    return [winner, *order]


@live.handler
async def deadline(ctx: Context, tag: str) -> str:
    try:
        async with ctx.timeout(MOMENT):
            return await ctx.awakeable(str)
    except TimeoutError:
        await ctx.run(once, f"{tag}-late")
        return "late"


@live.handler
async def undone(ctx: Context, tag: str) -> str:
    try:
        async with ctx.saga():
            ctx.compensate(once, f"{tag}-undo-1")
            await ctx.run(once, f"{tag}-do-1")
            ctx.compensate(once, f"{tag}-undo-2")
            await ctx.run(once, f"{tag}-do-2")
            await ctx.call(nap_long, tag)
    except CancelledError:
        await ctx.run(once, f"{tag}-cancelled")
        raise
    return "never cancelled"


@live.handler
async def nap_long(ctx: Context, tag: str) -> None:
    try:
        await ctx.sleep(LONG)
    except CancelledError:
        await ctx.run(once, f"{tag}-child-cancelled")
        raise


@live.handler
async def answered(ctx: Context, tag: str) -> Order:
    awakeable = ctx.awakeable(Order)
    await ctx.run(note, f"{tag} {awakeable.id}")
    return await awakeable


@live.handler
async def told(ctx: Context, tag: str) -> list[int]:
    await ctx.run(note, f"{tag} {ctx.request.invocation_id}")
    return [await ctx.signal("number", int) for _ in range(3)]


@live.handler
async def tell(ctx: Context, id: str) -> None:
    for number in range(3):
        ctx.invocation(id).signal("number", number)


@counter.handler
async def add(ctx: ObjectContext, number: int) -> int:
    total = await ctx.get("count", int, default=0) + number
    ctx.set("count", total)
    return total


@counter.handler(lazy_state=True)
async def reset(ctx: ObjectContext) -> list[str]:
    names = await ctx.keys()
    assert await ctx.get("nothing", int) is None
    ctx.clear_all()
    return names


@counter.shared
async def count(ctx: SharedObjectContext) -> int:
    return await ctx.get("count", int, default=0)


@signup.main
async def run(ctx: WorkflowContext, name: str) -> str:
    ctx.set("status", "waiting")
    async with ctx.timeout(LONG):
        answer = await ctx.promise("confirmed", str)
    ctx.set("status", "confirmed")
    return f"{name} {answer}"


@signup.handler
async def confirm(ctx: SharedWorkflowContext, answer: str) -> str | None:
    promise = ctx.promise("confirmed", str)
    before = await promise.peek()
    await promise.resolve(answer)
    return before


@signup.handler
async def status(ctx: SharedWorkflowContext) -> str | None:
    return await ctx.get("status", str)


services = [live, counter, signup, live_sync.live, live_sync.counter, live_sync.signup]
app = asgi.app(*services)
handler = aws.lambda_handler(*services)
