"""What the kill loop runs, on the official Python SDK: every awaited step ends the attempt, so what a handler sees
after `await` has been recorded, and must be the same in every later attempt.

`KILL_LOOP_LEDGER` names a file to which every attempt appends what it saw, one JSON list per line:
["saw", invocation, step, value] after a step, ["ends", invocation, result] as its last act.
"""

import json
import os
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import restate
from restate import Context, ObjectContext, ObjectSharedContext, Service, VirtualObject

LEDGER = os.open(Path(os.environ["KILL_LOOP_LEDGER"]), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

flow = Service("Flow")
sequence = VirtualObject("Sequence")


def note(*what: Any) -> None:
    os.write(LEDGER, json.dumps(what).encode() + b"\n")  # one write: lines of several processes do not mix


def draw() -> str:
    return uuid.uuid4().hex


async def step(ctx: Context, name: str) -> str:
    """A value that can never be drawn twice."""
    value = await ctx.run_typed(name, draw)
    note("saw", ctx.request().id, name, value)
    return value


@flow.handler()
async def leaf(ctx: Context, number: int) -> str:
    return f"{number} {await step(ctx, 'leaf')}"


@flow.handler()
async def run(ctx: Context, number: int) -> list[str]:
    """Two steps around a child and a short sleep."""
    first = await step(ctx, "first")
    child = await ctx.service_call(leaf, number)
    note("saw", ctx.request().id, "child", child)
    await ctx.sleep(timedelta(milliseconds=30))
    result = [first, child, await step(ctx, "last")]
    note("ends", ctx.request().id, result)
    return result


@sequence.handler()
async def append(ctx: ObjectContext, number: int) -> list[int | str]:
    """Counts what the key has seen; a number that is not the next one is kept as a violation."""
    expected = await ctx.get("next", type_hint=int) or 0
    note("saw", ctx.request().id, "expected", expected)
    value = await step(ctx, "draw")
    if number != expected:
        violations = await ctx.get("violations", type_hint=list) or []
        ctx.set("violations", [*violations, [expected, number]])
    ctx.set("next", expected + 1)
    result: list[int | str] = [number, expected, value]
    note("ends", ctx.request().id, result)
    return result


@sequence.handler(kind="shared")
async def seen(ctx: ObjectSharedContext) -> dict[str, Any]:
    return {"next": await ctx.get("next", type_hint=int) or 0, "violations": await ctx.get("violations", type_hint=list) or []}


app = restate.app([flow, sequence])
