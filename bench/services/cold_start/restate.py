"""The same service with the official SDK."""

import restate

bench = restate.Service("bench")


@bench.handler()
async def noop(ctx: restate.Context, text: str) -> str:
    return text


handler = restate.app([bench])
