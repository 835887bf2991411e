"""What is in the warehouse: a virtual object for each article, whose state is the stock itself.

Rules: exclusive handlers run one at a time per article, so the last teapot is sold once; `release` may come without its
`reserve`, and twice.
"""

from dataclasses import dataclass

from holdfast import ObjectContext, SharedObjectContext, TerminalError, VirtualObject
from holdfast.aws import lambda_handler


@dataclass(frozen=True)
class Reservation:
    """So many pieces for one order."""

    order_id: str
    quantity: int


stock = VirtualObject("stock")


@stock.handler
async def deliver(ctx: ObjectContext, quantity: int) -> int:
    """Goods have come in. Gives what can be sold now."""
    free = await ctx.get("free", int, default=0) + quantity
    ctx.set("free", free)
    return free


@stock.handler
async def reserve(ctx: ObjectContext, wanted: Reservation) -> None:
    """Puts pieces aside for an order; an order has one reservation, however often it asks."""
    reserved = await ctx.get("reserved", dict[str, int], default={})
    free = await ctx.get("free", int, default=0)
    if wanted.order_id in reserved:
        return
    if wanted.quantity > free:
        raise TerminalError(f"{ctx.key}: {wanted.quantity} wanted, {free} in stock", code=409)
    ctx.set("free", free - wanted.quantity)
    ctx.set("reserved", {**reserved, wanted.order_id: wanted.quantity})


@stock.handler
async def release(ctx: ObjectContext, order_id: str) -> None:
    """Undoes `reserve`; nothing happens where nothing is reserved."""
    reserved = await ctx.get("reserved", dict[str, int], default={})
    quantity = reserved.pop(order_id, 0)
    ctx.set("free", await ctx.get("free", int, default=0) + quantity)
    ctx.set("reserved", reserved)


@stock.handler
async def hand_out(ctx: ObjectContext, order_id: str) -> None:
    """The pieces have left the house: they are reserved no more."""
    reserved = await ctx.get("reserved", dict[str, int], default={})
    reserved.pop(order_id, None)
    ctx.set("reserved", reserved)


@stock.shared
async def free(ctx: SharedObjectContext) -> int:
    """What can be sold now; may be asked at any time."""
    return await ctx.get("free", int, default=0)


handler = lambda_handler(stock)
