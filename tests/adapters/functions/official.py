"""A service of the official Python SDK: over HTTP an ASGI app, in Lambda the handler itself."""

import restate

demo = restate.Service("Demo")


@demo.handler()
async def echo(ctx: restate.Context, name: str) -> str:
    return f"hi {name}"


app = restate.app(services=[demo])
