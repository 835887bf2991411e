"""All services in one process, for development and tests. Deployed, each is a function of its own (template.yaml)."""

from order_saga.orders import orders
from order_saga.payment import payment
from order_saga.shipping import shipping
from order_saga.stock import stock

services = [orders, payment, stock, shipping]
