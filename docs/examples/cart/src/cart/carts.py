"""A cart for each customer: a virtual object whose key is the customer and whose state is the cart.

Rules: exclusive handlers run one at a time for each customer, so two clicks at once lose nothing, and nothing is put into a cart that is
being paid for; a cart that is not paid for stays as it is. One timer for each cart: it looks how long the cart was left alone, and
waits again if that was not long enough.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from holdfast import ObjectContext, SharedObjectContext, TerminalError, VirtualObject

from cart import gateways
from cart.orders import Line, Order, Payer, Receipt, place

MAX_LINES = 100  # the whole cart travels with every request
EXPIRES_AFTER = timedelta(hours=24)


@dataclass(frozen=True)
class Cart:
    """What is in the cart, and what it costs."""

    lines: list[Line]
    cents: int


carts = VirtualObject("cart")


@carts.handler
async def add(ctx: ObjectContext, line: Line) -> Cart:
    """Adds to the cart; the same article again adds to its line."""
    if line.quantity < 1:
        raise TerminalError(f"quantity must be at least 1, found {line.quantity}", code=400)
    lines = {present.sku: present for present in await ctx.get("lines", list[Line], default=[])}
    if line.sku in lines:
        line = replace(line, quantity=line.quantity + lines[line.sku].quantity)
    elif len(lines) >= MAX_LINES:
        raise TerminalError(f"a cart holds at most {MAX_LINES} articles", code=409)
    return await changed(ctx, [*({**lines, line.sku: line}.values())])


@carts.handler
async def remove(ctx: ObjectContext, sku: str) -> Cart:
    """Takes an article out of the cart; nothing happens when it is not there."""
    lines = await ctx.get("lines", list[Line], default=[])
    return await changed(ctx, [line for line in lines if line.sku != sku])


@carts.shared
async def show(ctx: SharedObjectContext) -> Cart:
    """The cart as it is now; also while it is being paid for."""
    return summed(await ctx.get("lines", list[Line], default=[]))


@carts.handler
async def checkout(ctx: ObjectContext, payer: Payer) -> Receipt:
    """Buys what is in the cart. If that fails, the cart is as it was."""
    lines = await ctx.get("lines", list[Line], default=[])
    if not lines:
        raise TerminalError("the cart is empty", code=409)
    receipt = await ctx.call(place, Order(f"o-{ctx.uuid4()}", lines, payer))
    ctx.clear("lines")
    return receipt


@carts.handler(private=True)
async def expire(ctx: ObjectContext) -> None:
    """The timer has come."""
    lines = await ctx.get("lines", list[Line], default=[])
    if not lines:
        ctx.clear_all()
        return
    now = await ctx.now()
    idle = now - await ctx.get("changed_at", datetime, default=now)
    if idle < EXPIRES_AFTER:
        ctx.send(expire, key=ctx.key, delay=EXPIRES_AFTER - idle)
        return
    ctx.clear_all()
    await ctx.run(gateways.send_mail, ctx.key, f"Your cart of {len(lines)} articles has expired.")


async def changed(ctx: ObjectContext, lines: list[Line]) -> Cart:
    """Keeps the lines, and sees to it that they expire."""
    ctx.set("lines", lines)
    ctx.set("changed_at", await ctx.now())
    if not await ctx.get("timer", bool, default=False):
        ctx.set("timer", True)
        ctx.send(expire, key=ctx.key, delay=EXPIRES_AFTER)
    return summed(lines)


def summed(lines: list[Line]) -> Cart:
    """The cart with its total."""
    return Cart(lines, sum(line.quantity * line.price_cents for line in lines))
