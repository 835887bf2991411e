"""Money. The provider is another company's, so every request carries an id by which it recognises a repetition."""

from dataclasses import dataclass
from datetime import timedelta

from holdfast import Context, RetryPolicy, Service
from holdfast.aws import lambda_handler

from order_saga import gateways

# A provider that is down for a moment must not cost us the order; one that is down for good must not hold it.
PATIENT = RetryPolicy(initial_interval=timedelta(milliseconds=200), max_interval=timedelta(seconds=30), max_attempts=20)


@dataclass(frozen=True)
class Charge:
    """`payment_id` is chosen by whoever asks, before asking."""

    payment_id: str
    card: str
    cents: int


payment = Service("payment")


@payment.handler
async def charge(ctx: Context, wanted: Charge) -> None:
    """Takes the money, or fails for good."""
    await ctx.run(gateways.charge, wanted.payment_id, wanted.card, wanted.cents, retry=PATIENT)


@payment.handler
async def refund(ctx: Context, payment_id: str) -> None:
    """Undoes `charge`. Retried by the server's policy, which pauses in the end, for a person to look, because money is at stake."""
    await ctx.run(gateways.refund, payment_id)


handler = lambda_handler(payment)
