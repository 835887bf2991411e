"""The only place with side effects. Replace these bodies by calls of your providers.

Each function is called through `ctx.run`: once its result is recorded it is not called again. When a crash comes between the effect
and its record, it is called a second time, with the same id: that is how the other side knows.
"""

from holdfast import TerminalError


def charge(payment_id: str, card: str, cents: int) -> None:
    if card.startswith("0"):
        raise TerminalError("the card was declined", code=402)  # a result, never retried; any other exception is
    print(f"charged {cents} cents as {payment_id}", flush=True)


def refund(payment_id: str) -> None:
    """Also called for a payment that was declined: the provider ignores ids that it does not know."""
    print(f"refunded {payment_id}", flush=True)


def send_mail(to: str, text: str) -> None:
    print(f"mail to {to}: {text}", flush=True)
