"""The same without async."""

from holdfast import Service
from holdfast.aws import lambda_handler
from holdfast.sync import Context

bench = Service("bench")


@bench.handler
def noop(ctx: Context, text: str) -> str:
    return text


handler = lambda_handler(bench)
