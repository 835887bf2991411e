"""A service with one handler, as it is deployed."""

from holdfast import Context, Service
from holdfast.aws import lambda_handler

bench = Service("bench")


@bench.handler
async def noop(ctx: Context, text: str) -> str:
    return text


handler = lambda_handler(bench)
