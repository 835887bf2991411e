"""The shop's own systems, which stand for yours: what can be looked up, and what cannot be undone. All side effects of tools are here."""

import logging

from holdfast import TerminalError

log = logging.getLogger(__name__)

ORDERS = {
    "o1": {"item": "teapot", "cents": 2_450, "parcel": "p1"},
    "o2": {"item": "cup", "cents": 690, "parcel": "p2"},
}


def find_order(order_id: str) -> dict[str, object]:
    if order_id not in ORDERS:
        raise TerminalError(f"there is no order {order_id}", code=404)  # a result, not retried; any other exception is
    return {"order_id": order_id, **ORDERS[order_id]}


def track_parcel(order_id: str) -> str:
    return f"The parcel of {order_id} was handed to the neighbour."


def refund(order_id: str, cents: int, request_id: str) -> str:
    """`request_id` is the same in every attempt: a payment provider that is given it does not pay twice."""
    log.info("refunded %s cents for %s as %s", cents, order_id, request_id)
    return f"Refunded {cents / 100:.2f} for {order_id}."


def ask_for_approval(approval_id: str, what: str) -> None:
    """A message to the people who may say yes, by chat or mail, with a button that calls `decide`."""
    log.info("please decide about %s: %s", approval_id, what)
