"""A function that asks for all that Powertools can be told: a log, traces, metrics."""

from aws_lambda_powertools import Logger, Metrics, Tracer

from holdfast import Context, Service, sync
from holdfast.aws import lambda_handler

watched = Service("watched")


@watched.handler
async def flowing(ctx: Context) -> int:
    ctx.logger.info("began", extra={"order_id": "o1"})
    first = await ctx.run(lambda: 1, name="first")
    ctx.logger.info("did one")
    second = await ctx.run(lambda: 2, name="second")
    ctx.logger.info("did two")
    return first + second


@watched.handler
def plain(ctx: sync.Context) -> int:
    ctx.logger.append_keys(shop="bern")
    ctx.logger.info("began", extra={"order_id": "o1"})
    first = ctx.run(lambda: 1, name="first")
    ctx.logger.info("did one")
    second = ctx.run(lambda: 2, name="second")
    ctx.logger.info("did two")
    return first + second


asked = lambda_handler(
    watched,
    logger=Logger(service="shop", level="INFO"),
    tracer=Tracer(service="shop", auto_patch=False),
    metrics=Metrics(namespace="Shop", service="shop"),
)
silent = lambda_handler(watched)
