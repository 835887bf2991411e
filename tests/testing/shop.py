"""Services of the kinds people write: a saga, a cart, an approval with a deadline, a fan-out; side effects go to `EFFECTS`."""

from dataclasses import dataclass
from datetime import timedelta

from holdfast import (
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
    sync,
)

EFFECTS: list[str] = []


@dataclass(frozen=True)
class Trip:
    city: str
    price: int


@dataclass(frozen=True)
class Item:
    sku: str
    price: int


def effect(name: str) -> str:
    EFFECTS.append(name)
    return f"{name}-1"


def charge(amount: int) -> str:
    EFFECTS.append(f"charge {amount}")
    return f"payment-{amount}"


trips, carts, approvals, reports, naps = (
    Service("trips"),
    VirtualObject("carts"),
    Workflow("approvals"),
    Service("reports"),
    Service("naps"),
)


@trips.handler
async def book(ctx: Context, trip: Trip) -> list[str]:
    """A saga: flight, hotel, payment; undone in reverse when one is refused."""
    async with ctx.saga():
        ctx.compensate(effect, "cancel flight", name="cancel flight")
        flight = await ctx.run(effect, "flight", name="flight")
        ctx.compensate(effect, "cancel hotel", name="cancel hotel")
        hotel = await ctx.run(effect, "hotel", name="hotel")
        payment = await ctx.run(pay, trip.price, name="payment", retry=RetryPolicy(max_attempts=3))
    return [flight, hotel, payment]


def pay(price: int) -> str:
    if price > 1_000:
        raise TerminalError("the card was declined", code=402)
    return charge(price)


@carts.handler
async def add(ctx: ObjectContext, item: Item) -> int:
    items = await ctx.get("items", list[Item], default=[])
    ctx.set("items", [*items, item])
    return len(items) + 1


@carts.handler
async def checkout(ctx: ObjectContext) -> str:
    items = await ctx.get("items", list[Item], default=[])
    if not items:
        raise TerminalError("the cart is empty", code=409)
    total = sum(item.price for item in items)
    ctx.clear("items")
    return await ctx.call(bill, total)


@carts.shared
async def count(ctx: SharedObjectContext) -> int:
    return len(await ctx.get("items", list[Item], default=[]))


payments = Service("payments")


@payments.handler
async def bill(ctx: Context, amount: int) -> str:
    return await ctx.run(charge, amount)


@approvals.main
async def request(ctx: WorkflowContext, what: str) -> str:
    """Asked for by mail; whoever does not answer within three days has refused."""
    ctx.set("status", "asked")
    await ctx.run(effect, f"mail {what}", name="mail")
    try:
        async with ctx.timeout(timedelta(days=3)):
            approved = await ctx.promise("decision", bool)
    except TimeoutError:
        ctx.set("status", "expired")
        return "expired"
    ctx.set("status", "approved" if approved else "refused")
    return "approved" if approved else "refused"


@approvals.handler
async def decide(ctx: SharedWorkflowContext, approved: bool) -> None:
    await ctx.promise("decision", bool).resolve(approved)


@approvals.handler
async def status(ctx: SharedWorkflowContext) -> str:
    return await ctx.get("status", str, default="unknown")


@reports.handler
async def summarize(ctx: Context, parts: list[int]) -> int:
    """Fan out and in."""
    squares = await ctx.gather(*(ctx.call(square, part) for part in parts))
    return sum(squares)


@reports.handler
async def square(ctx: Context, number: int) -> int:
    await ctx.sleep(timedelta(hours=number))
    return number * number


@reports.handler
def sync_summarize(ctx: sync.Context, parts: list[int]) -> int:
    first = ctx.start.call(square, parts[0])
    rest = ctx.map(double, parts[1:])
    return ctx.gather(first, ctx.start.run(double, 1))[0] + sum(rest)


def double(number: int) -> int:
    EFFECTS.append(f"double {number}")
    return 2 * number


@naps.handler
async def nap(ctx: Context, days: int) -> str:
    await ctx.sleep(timedelta(days=days))
    return (await ctx.now()).isoformat()


@naps.handler
def sync_nap(ctx: sync.Context, days: int) -> str:
    ctx.sleep(timedelta(days=days))
    return ctx.now().isoformat()


@naps.handler
async def wait_for_word(ctx: Context) -> str:
    return await ctx.signal("word", str)


@naps.handler
async def wait_for_answer(ctx: Context) -> str:
    awakeable = ctx.awakeable(str)
    await ctx.run(effect, f"ask {awakeable.id}", name="ask")
    return await awakeable


@naps.handler
async def broken(ctx: Context) -> None:
    await ctx.run(effect, "before", name="before")
    raise ValueError("no good")


@reports.handler
async def draw(ctx: Context) -> list[str]:
    """Names its steps by chance: only with the seed of its journal can it be replayed."""
    first = await ctx.run(effect, "first", name=f"first {ctx.uuid4()}")
    return [first, await ctx.run(effect, "second", name=f"second {ctx.random.randint(1, 10**9)}")]
