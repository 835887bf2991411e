"""Translations by another company's API, of which every handler on every machine together may use so much and no more."""

from datetime import timedelta

from holdfast import Context, RetryPolicy, Service
from holdfast.aws import lambda_handler

from rate_limited_client import gateways
from rate_limited_client.limiter import lease, limiter

POLL_EVERY = timedelta(seconds=2)
# Retries go out without a new place in the queue, so they are few and far between; and they end before the lease does.
SELDOM = RetryPolicy(initial_interval=timedelta(seconds=5), factor=2, max_attempts=5)

translations = Service("translations")


@translations.handler
async def word(ctx: Context, text: str) -> str:
    """One request."""
    async with lease(ctx, "translator"):
        return await ctx.run(gateways.translate, text, retry=SELDOM)


@translations.handler
async def document(ctx: Context, name: str) -> str:
    """Takes the provider minutes; so long the place is held, but nothing runs."""
    async with lease(ctx, "translator"):
        id = await ctx.run(gateways.submit, name, str(ctx.uuid4()), retry=SELDOM)
        while not await ctx.run(gateways.is_done, id, retry=SELDOM):
            await ctx.sleep(POLL_EVERY)
        return await ctx.run(gateways.fetch, id, retry=SELDOM)


handler = lambda_handler(translations, limiter)
