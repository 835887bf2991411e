"""What is on the shelf: a virtual object for each article.

Rules: `put_back` may come after, and without, its `take`, and may come twice: what an order took is remembered under its id.
"""

from dataclasses import dataclass

from holdfast import ObjectContext, SharedObjectContext, TerminalError, VirtualObject


@dataclass(frozen=True)
class Taking:
    """So many pieces for one order."""

    order_id: str
    quantity: int


stock = VirtualObject("stock")


@stock.handler
async def deliver(ctx: ObjectContext, quantity: int) -> int:
    """Goods have come in. Gives what there is now."""
    left = await ctx.get("left", int, default=0) + quantity
    ctx.set("left", left)
    return left


@stock.handler(private=True)
async def take(ctx: ObjectContext, wanted: Taking) -> None:
    """Takes pieces for an order, once."""
    left = await ctx.get("left", int, default=0)
    if await ctx.get(f"order {wanted.order_id}", int) is not None:
        return
    if wanted.quantity > left:
        raise TerminalError(f"{ctx.key}: {wanted.quantity} wanted, {left} left", code=409)
    ctx.set("left", left - wanted.quantity)
    ctx.set(f"order {wanted.order_id}", wanted.quantity)


@stock.handler(private=True)
async def put_back(ctx: ObjectContext, order_id: str) -> None:
    """Undoes `take`; nothing happens where nothing was taken."""
    quantity = await ctx.get(f"order {order_id}", int, default=0)
    ctx.set("left", await ctx.get("left", int, default=0) + quantity)
    ctx.clear(f"order {order_id}")


@stock.handler(private=True)
async def sold(ctx: ObjectContext, order_id: str) -> None:
    """The order is done: nothing of it will be put back, so there is nothing to remember."""
    ctx.clear(f"order {order_id}")


@stock.shared
async def left(ctx: SharedObjectContext) -> int:
    """What there is."""
    return await ctx.get("left", int, default=0)
