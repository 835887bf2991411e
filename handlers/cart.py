"""A shopping cart per customer: a virtual object whose key is the customer and whose state is the cart.

Exclusive handlers run one at a time per customer, so two clicks at once cannot lose an item; `show` is shared and reads
at any time. State lives with the object: no table, no locks, no transactions of one's own.

Try: `POST /cart/ann/add {"sku": "cup", "quantity": 2, "price_cents": 690}`, then `POST /cart/ann/show`.
"""

from dataclasses import dataclass, replace

from handlers.ledger import record
from holdfast import ObjectContext, SharedObjectContext, TerminalError, VirtualObject
from holdfast.aws import lambda_handler

MAX_LINES = 100  # the whole cart travels with every request


@dataclass(frozen=True)
class Line:
    """So many of one article."""

    sku: str
    quantity: int
    price_cents: int


@dataclass(frozen=True)
class Cart:
    """What is in the cart, and what it costs."""

    lines: list[Line]
    total_cents: int


cart = VirtualObject("cart")


@cart.handler
async def add(ctx: ObjectContext, line: Line) -> Cart:
    """Adds to the cart; the same article again adds to its line."""
    if line.quantity < 1:
        raise TerminalError(f"quantity must be at least 1, found {line.quantity}", code=400)
    lines = {present.sku: present for present in await ctx.get("lines", list[Line], default=[])}
    if line.sku in lines:
        line = replace(line, quantity=line.quantity + lines[line.sku].quantity)
    elif len(lines) >= MAX_LINES:
        raise TerminalError(f"a cart holds at most {MAX_LINES} articles", code=409)
    lines[line.sku] = line
    ctx.set("lines", list(lines.values()))
    return summed(list(lines.values()))


@cart.handler
async def remove(ctx: ObjectContext, sku: str) -> Cart:
    """Takes an article out of the cart; nothing happens when it is not there."""
    lines = [line for line in await ctx.get("lines", list[Line], default=[]) if line.sku != sku]
    ctx.set("lines", lines)
    return summed(lines)


@cart.shared
async def show(ctx: SharedObjectContext) -> Cart:
    """The cart as it is now."""
    return summed(await ctx.get("lines", list[Line], default=[]))


@cart.handler
async def checkout(ctx: ObjectContext) -> Cart:
    """Hands the cart over to the shop and empties it. The shop hears of it once."""
    bought = summed(await ctx.get("lines", list[Line], default=[]))
    if not bought.lines:
        raise TerminalError("the cart is empty", code=409)
    await ctx.run(hand_over, ctx.key, bought)
    ctx.clear("lines")
    return bought


def summed(lines: list[Line]) -> Cart:
    """The cart with its total."""
    return Cart(lines, sum(line.quantity * line.price_cents for line in lines))


# ---- Gateway: the only place with side effects


def hand_over(customer: str, bought: Cart) -> None:
    record("cart.handed_over", customer=customer, total_cents=bought.total_cents)


handler = lambda_handler(cart)
