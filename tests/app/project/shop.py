"""Services the command line's tests run; `app` serves the same over HTTP."""

import os
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from holdfast import Context, ObjectContext, Service, TerminalError, VirtualObject, asgi, sync

greeter = Service("greeter")
carts = VirtualObject("carts")
LEDGER = Path(os.environ.get("SHOP_LEDGER", os.devnull))


@dataclass
class Item:
    name: str
    count: int


def note(line: str) -> str:
    with LEDGER.open("a") as ledger:
        ledger.write(line + "\n")
    return line


@greeter.handler
async def greet(ctx: Context, name: str) -> str:
    return f"hi {name}"


@greeter.handler
async def nap(ctx: Context, ms: int) -> str:
    before = await ctx.run(note, f"before {ctx.request.invocation_id}")
    await ctx.sleep(timedelta(milliseconds=ms))
    await ctx.run(note, f"after {ctx.request.invocation_id}")
    return before


@greeter.handler
async def refuse(ctx: Context, why: str) -> None:
    raise TerminalError(why, 418)


@greeter.handler
async def flaky(ctx: Context) -> None:
    raise ValueError("not [yet]")


@greeter.handler
def hang(ctx: sync.Context, seconds: int) -> str:
    note("hanging")
    time.sleep(seconds)
    return "woke"


@carts.handler
async def add(ctx: ObjectContext, item: Item) -> int:
    count = await ctx.get("count", int, default=0) + item.count
    ctx.set("count", count)
    ctx.set("last", item.name)
    return count


app = asgi.app(greeter, carts)
