"""The sample services behind a web server: `uvicorn tests.support.sample_app:app`."""

from handlers.cart import cart
from handlers.orders import orders

from holdfast.asgi import app as asgi_app

app = asgi_app(orders, cart)
