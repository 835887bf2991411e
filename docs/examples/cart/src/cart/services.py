"""Everything that is served; what template.yaml names."""

from holdfast.aws import lambda_handler

from cart.carts import carts
from cart.orders import orders
from cart.stock import stock

services = [carts, orders, stock]
handler = lambda_handler(*services)
