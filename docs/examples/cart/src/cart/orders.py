"""The saga behind the checkout: every article is taken from the shelf, then the card is charged; or everything is put back."""

from dataclasses import dataclass
from datetime import timedelta

from holdfast import Context, RetryPolicy, Service

from cart import gateways
from cart.stock import Taking, put_back, sold, take

# A provider that is down for a moment must not cost us the order; one that is down for good must not hold it.
PATIENT = RetryPolicy(initial_interval=timedelta(milliseconds=200), max_interval=timedelta(seconds=30), max_attempts=20)


@dataclass(frozen=True)
class Line:
    """So many of one article."""

    sku: str
    quantity: int
    price_cents: int


@dataclass(frozen=True)
class Payer:
    """Who pays, and how."""

    email: str
    card: str


@dataclass(frozen=True)
class Order:
    """What is bought."""

    id: str
    lines: list[Line]
    payer: Payer


@dataclass(frozen=True)
class Receipt:
    """What the customer gets."""

    order_id: str
    payment_id: str
    cents: int


orders = Service("orders", private=True)


@orders.handler
async def place(ctx: Context, order: Order) -> Receipt:
    """All of it, or nothing."""
    cents = sum(line.quantity * line.price_cents for line in order.lines)
    payment_id = str(ctx.uuid4())  # the same in every attempt: the provider will not charge twice
    async with ctx.saga():
        for line in order.lines:
            ctx.compensate_call(put_back, order.id, key=line.sku)
            await ctx.call(take, Taking(order.id, line.quantity), key=line.sku)
        ctx.compensate(gateways.refund, payment_id)
        await ctx.run(gateways.charge, payment_id, order.payer.card, cents, retry=PATIENT)
    for line in order.lines:
        ctx.send(sold, order.id, key=line.sku)
    await ctx.run(gateways.send_mail, order.payer.email, f"Thank you for order {order.id}.")
    return Receipt(order.id, payment_id, cents)
