"""What the replicas run while they are killed, paused and cut off from each other; every step leaves a line in the ledger.

`CHAOS_LEDGER` names a file to which every attempt appends JSON lists: ["saw", invocation, step, value] after a step, ["ends",
invocation, result] as its last act, ["asks", number, awakeable], ["marked", key, number, time] when a delayed request is carried out.
"""

import json
import os
import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

from holdfast import Context, ObjectContext, Service, SharedObjectContext, VirtualObject
from holdfast.asgi import app as asgi_app

LEDGER = os.open(Path(os.environ["CHAOS_LEDGER"]), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

flow = Service("Flow")
sequence = VirtualObject("Sequence")
tally = VirtualObject("Tally")
delayed = VirtualObject("Delayed")


def note(*what: Any) -> None:
    os.write(LEDGER, json.dumps(what).encode() + b"\n")  # one write: lines of several processes do not mix


async def draw() -> str:
    """A value that can never be drawn twice."""
    return uuid.uuid4().hex


async def step(ctx: Context | ObjectContext, name: str) -> str:
    value = await ctx.run(draw, name=name)
    note("saw", ctx.request.invocation_id, name, value)
    return value


@flow.handler
async def leaf(ctx: Context, number: int) -> str:
    return f"{number} {await step(ctx, 'leaf')}"


@flow.handler
async def run(ctx: Context, number: int) -> list[str]:
    """Two steps around a fan-out over the shards and a short sleep."""
    first = await step(ctx, "first")
    children = await ctx.gather(*[ctx.call(leaf, number * 10 + one) for one in range(3)])
    note("saw", ctx.request.invocation_id, "children", children)
    await ctx.sleep(timedelta(milliseconds=50))
    result = [first, *children, await step(ctx, "last")]
    note("ends", ctx.request.invocation_id, result)
    return result


async def tell(name: str, awakeable: str) -> None:
    note("asks", name, awakeable)


@flow.handler
async def ask(ctx: Context, name: str) -> list[str]:
    """Waits for an answer from outside, which may be given more than once."""
    awakeable = ctx.awakeable(str)
    await ctx.run(tell, name, awakeable.id, name="tell")
    result = [name, await awakeable]
    note("ends", ctx.request.invocation_id, result)
    return result


@sequence.handler
async def append(ctx: ObjectContext, number: int) -> list[int | str]:
    """Counts what the key has seen and tells its tally; a number that is not the next one is kept as a violation."""
    expected = await ctx.get("next", int, default=0)
    value = await step(ctx, "draw")
    if number != expected:
        ctx.set("violations", [*await ctx.get("violations", list[list[int]], default=[]), [expected, number]])
    ctx.set("next", expected + 1)
    ctx.send(count, number, key=f"of-{ctx.key}")
    result: list[int | str] = [number, expected, value]
    note("ends", ctx.request.invocation_id, result)
    return result


@sequence.handler
async def bump(ctx: ObjectContext) -> int:
    """Without an idempotency key and without a step."""
    total = await ctx.get("next", int, default=0) + 1
    ctx.set("next", total)
    return total


@tally.handler
async def count(ctx: ObjectContext, number: int) -> None:
    """Messages of one sender come in order and once."""
    expected = await ctx.get("next", int, default=0)
    if number != expected:
        ctx.set("violations", [*await ctx.get("violations", list[list[int]], default=[]), [expected, number]])
    ctx.set("next", expected + 1)


@delayed.handler
async def mark(ctx: ObjectContext, number: int) -> int:
    marks = await ctx.get("marks", dict[str, int], default={})
    marks[str(number)] = marks.get(str(number), 0) + 1
    ctx.set("marks", marks)
    note("marked", ctx.key, number, time.time())
    note("ends", ctx.request.invocation_id, number)
    return number


@sequence.shared
async def seen(ctx: SharedObjectContext) -> dict[str, Any]:
    return {"next": await ctx.get("next", int, default=0), "violations": await ctx.get("violations", list[list[int]], default=[])}


@tally.shared
async def counted(ctx: SharedObjectContext) -> dict[str, Any]:
    return {"next": await ctx.get("next", int, default=0), "violations": await ctx.get("violations", list[list[int]], default=[])}


@delayed.shared
async def marked(ctx: SharedObjectContext) -> dict[str, int]:
    return await ctx.get("marks", dict[str, int], default={})


app = asgi_app(flow, sequence, tally, delayed)
