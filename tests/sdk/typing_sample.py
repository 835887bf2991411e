"""Checked by mypy, never executed: what must pass, and what must not (each line with an ignore is an error without it)."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import assert_type

from holdfast import (
    Context,
    DurableFuture,
    Handler,
    ObjectContext,
    Service,
    SharedObjectContext,
    VirtualObject,
    Workflow,
    WorkflowContext,
    sync,
)


@dataclass
class Order:
    id: str
    total: int


orders, carts, signup = Service("orders"), VirtualObject("carts"), Workflow("signup")


def charge(card: str, amount: int, currency: str = "EUR") -> str:
    return f"{card} {amount} {currency}"


async def ship(order: Order) -> bool:
    return order.total > 0


@carts.handler
async def add(ctx: ObjectContext, number: int) -> list[str]:
    items = await ctx.get("items", list[str], default=[])
    assert_type(items, list[str])
    assert_type(await ctx.get("items", list[str]), list[str] | None)
    ctx.set("items", items)
    return items


@carts.shared(lazy_state=True)
async def count(ctx: SharedObjectContext) -> int:
    ctx.set("count", 1)  # type: ignore[attr-defined]
    return len(await ctx.keys())


@orders.handler
def plain(ctx: sync.Context, order: Order) -> str:
    assert_type(ctx.run(charge, "card", order.total), str)
    assert_type(ctx.call(add, 1, key="k"), list[str])
    a, b = ctx.gather(ctx.start.run(charge, "card", 1), ctx.start.call(count, key="k"))
    assert_type(a, str)
    assert_type(b, int)
    assert_type(ctx.now(), datetime)
    return a


@orders.handler(name="checkout")
async def checkout(ctx: Context, order: Order) -> bool:
    assert_type(await ctx.run(charge, "card", order.total), str)
    assert_type(await ctx.run(charge, "card", order.total, "USD", name="charge"), str)
    assert_type(await ctx.run(ship, order), bool)
    await ctx.run(charge, order, 3)  # type: ignore[arg-type, call-arg]
    await ctx.run(ship)  # type: ignore[arg-type, call-arg]

    assert_type(await ctx.call(add, 3, key="k"), list[str])
    assert_type(await ctx.call(count, key="k"), int)
    assert_type(await ctx.call(plain, order), str)
    assert_type(await ctx.call("other/handler", 1, returns=int), int)
    await ctx.call(add, "three", key="k")  # type: ignore[misc]
    await ctx.call(add, key="k")  # type: ignore[arg-type]
    assert_type(await ctx.send(add, 3, key="k", delay=timedelta(1)).invocation_id, str)
    ctx.send(add, "three", key="k")  # type: ignore[misc]

    a, b = await ctx.gather(ctx.call(count, key="k"), ctx.awakeable(str))
    assert_type(a, int)
    assert_type(b, str)
    assert_type(await ctx.map(ship, [order]), list[bool])
    assert_type(ctx.signal("go", int), DurableFuture[int])
    ctx.get("state")  # type: ignore[attr-defined]
    ctx.sleep(3)  # type: ignore[arg-type]
    return True


@signup.main
async def run(ctx: WorkflowContext, order: Order) -> bool:
    promise = ctx.promise("confirmed", bool)
    await promise.resolve("yes")  # type: ignore[arg-type]
    assert_type(await promise.peek(), bool | None)
    return await promise


assert_type(add, Handler[int, list[str]])
assert_type(count, Handler[None, int])
assert_type(plain, Handler[Order, str])
assert_type(checkout, Handler[Order, bool])
