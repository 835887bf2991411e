"""Parcels. A plain `def` handler: most Lambda code is synchronous, and needs no rewriting."""

from dataclasses import dataclass
from datetime import timedelta

from holdfast import Service
from holdfast.aws import lambda_handler
from holdfast.sync import Context

from order_saga import gateways

PACKING = timedelta(seconds=5)  # time to kill the server in; days would do as well


@dataclass(frozen=True)
class Parcel:
    """What goes where."""

    order_id: str
    item: str
    quantity: int
    street: str


shipping = Service("shipping")


@shipping.handler
def dispatch(ctx: Context, parcel: Parcel) -> str:
    """Has it packed and hands it to the carrier; the tracking number."""
    ctx.sleep(PACKING)
    return ctx.run(gateways.dispatch, parcel.order_id, parcel.street)


handler = lambda_handler(shipping)
