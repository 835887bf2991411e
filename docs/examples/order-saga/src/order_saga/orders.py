"""The saga: reserve the stock, charge the card, dispatch the parcel; when a step is refused, undo the others, last one first.

Rules: what undoes a step is registered before the step, because a step that failed half-way must be undone too; so every undoing
must put up with there being nothing to undo. Each service is another function; calls between them are recorded like everything else.
"""

from dataclasses import dataclass
from datetime import timedelta

from holdfast import Context, Service, TerminalError
from holdfast.aws import lambda_handler

from order_saga import gateways
from order_saga.payment import Charge, charge, refund
from order_saga.shipping import Parcel, dispatch
from order_saga.stock import Reservation, hand_out, release, reserve

PRICES_CENTS = {"teapot": 2_450, "cup": 690}
SURVEY_AFTER = timedelta(days=7)


@dataclass(frozen=True)
class Order:
    """What a customer sends. Callers use `id` as idempotency key, so that two clicks are one order."""

    id: str
    email: str
    item: str
    quantity: int
    card: str
    street: str


@dataclass(frozen=True)
class Receipt:
    """What the customer gets back."""

    order_id: str
    payment_id: str
    tracking: str
    cents: int


@dataclass(frozen=True)
class Mail:
    """One mail."""

    to: str
    text: str


orders = Service("orders")


@orders.handler
async def checkout(ctx: Context, order: Order) -> Receipt:
    """Takes an order to the customer's door, or leaves no trace of it."""
    cents = price(order)
    payment_id = str(ctx.uuid4())  # the same in every attempt
    try:
        async with ctx.saga():
            ctx.compensate_call(release, order.id, key=order.item)
            await ctx.call(reserve, Reservation(order.id, order.quantity), key=order.item)

            ctx.compensate_call(refund, payment_id)
            await ctx.call(charge, Charge(payment_id, order.card, cents))

            tracking = await ctx.call(dispatch, Parcel(order.id, order.item, order.quantity, order.street))
    except TerminalError as refused:
        ctx.send(mail, Mail(order.email, f"Order {order.id} could not be completed: {refused}"))
        raise
    ctx.send(hand_out, order.id, key=order.item)
    ctx.send(mail, Mail(order.email, f"Order {order.id} is on its way: {tracking}"))
    ctx.send(mail, Mail(order.email, f"How was order {order.id}?"), delay=SURVEY_AFTER)
    return Receipt(order.id, payment_id, tracking, cents)


@orders.handler(private=True)
async def mail(ctx: Context, message: Mail) -> None:
    """Now or a week later: nothing runs in between."""
    await ctx.run(gateways.send_mail, message.to, message.text)


def price(order: Order) -> int:
    """Total in cents; a pure function of the order, so it needs no `ctx.run`."""
    if order.item not in PRICES_CENTS:
        raise TerminalError(f"unknown item '{order.item}', known are {', '.join(PRICES_CENTS)}", code=400)
    if order.quantity < 1:
        raise TerminalError(f"quantity must be at least 1, found {order.quantity}", code=400)
    return PRICES_CENTS[order.item] * order.quantity


handler = lambda_handler(orders)
