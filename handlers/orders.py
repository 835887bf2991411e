"""An order saga: reserve the stock, charge the card, dispatch the parcel, and undo it all when a step is refused.

Each step is a `ctx.run`, so it happens once however often the function is interrupted and started again. Before a step
is taken, the one that undoes it is registered; a terminal error or a cancellation that leaves the `saga` block runs
those registered so far, last one first.

Try: `POST /orders/checkout {"id": "o1", "item": "teapot", "quantity": 1, "card": "4242", "street": "Main St 1"}`.
A card that starts with 0 is declined; a street named "Nowhere" cannot be delivered to.
"""

from dataclasses import dataclass
from datetime import timedelta

from handlers.ledger import record
from holdfast import Context, RetryPolicy, Service, TerminalError
from holdfast.aws import lambda_handler

PRICES_CENTS = {"teapot": 2_450, "cup": 690}
# A payment provider that is down for a moment must not cost us the order; one that is down for good must not hold it.
PATIENT = RetryPolicy(initial_interval=timedelta(milliseconds=200), max_interval=timedelta(seconds=30), max_attempts=20)


@dataclass(frozen=True)
class Order:
    """What a customer sends. `id` is chosen by the shop, and makes gateways recognise a repeated request."""

    id: str
    item: str
    quantity: int
    card: str
    street: str


@dataclass(frozen=True)
class Receipt:
    """What the customer gets back."""

    order_id: str
    payment_id: str
    parcel_id: str
    total_cents: int


orders = Service("orders", metadata={"team": "shop"})


@orders.handler
async def checkout(ctx: Context, order: Order) -> Receipt:
    """Takes an order to the customer's door, or leaves no trace of it."""
    total = price(order)
    async with ctx.saga():
        ctx.compensate(release_stock, order)
        await ctx.run(reserve_stock, order)

        # The id is ours and the same in every attempt: the provider will not charge it twice.
        payment_id = f"pay-{ctx.uuid4()}"
        ctx.compensate(refund, payment_id, total)
        await ctx.run(charge, order.card, total, payment_id, retry=PATIENT)

        parcel_id = await ctx.run(dispatch, order)
    ctx.logger.info("order completed", extra={"order_id": order.id})
    ctx.send(thank, order.id, delay=timedelta(days=7))
    return Receipt(order.id, payment_id, parcel_id, total)


@orders.handler(private=True)
async def thank(ctx: Context, order_id: str) -> None:
    """A week later, without anything running in between."""
    await ctx.run(send_survey, order_id)


def price(order: Order) -> int:
    """Total in cents; a pure function of the order, so it needs no `ctx.run`."""
    if order.item not in PRICES_CENTS:
        raise TerminalError(f"unknown item '{order.item}', known are {', '.join(PRICES_CENTS)}", code=400)
    if order.quantity < 1:
        raise TerminalError(f"quantity must be at least 1, found {order.quantity}", code=400)
    return PRICES_CENTS[order.item] * order.quantity


# ---- Gateways: the only places with side effects


def reserve_stock(order: Order) -> None:
    record("stock.reserved", order_id=order.id, item=order.item, quantity=order.quantity)


def release_stock(order: Order) -> None:
    record("stock.released", order_id=order.id, item=order.item, quantity=order.quantity)


def charge(card: str, cents: int, payment_id: str) -> None:
    if card.startswith("0"):
        raise TerminalError("the card was declined", code=402)
    record("payment.charged", payment_id=payment_id, cents=cents)


def refund(payment_id: str, cents: int) -> None:
    """Also called for a payment that was declined: the provider ignores ids it does not know."""
    record("payment.refunded", payment_id=payment_id, cents=cents)


def dispatch(order: Order) -> str:
    if "Nowhere" in order.street:
        raise TerminalError(f"cannot deliver to '{order.street}'", code=422)
    record("parcel.dispatched", order_id=order.id, street=order.street)
    return f"parcel-{order.id}"


def send_survey(order_id: str) -> None:
    record("survey.sent", order_id=order_id)


handler = lambda_handler(orders)
