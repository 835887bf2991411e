"""The services of the demonstration: orders that are paid, packed and shipped, or undone.

Rules: every side effect goes through the gateway, which writes one line to the ledger (HOLDFAST_DEMO_LEDGER) before it answers,
and recognises a request that it has seen by its key. That is what real gateways offer, and what exactly-once takes: a step
whose result was not recorded when the process died runs again, and only the far side can tell that it has done it already.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from holdfast import SharedWorkflowContext, TerminalError, Workflow, WorkflowContext

orders = Workflow("orders")


@dataclass
class Order:
    """city: Atlantis is where nobody delivers. step_s: how long each gateway takes to answer. parcel_s: the same of the carrier.

    approval: whether somebody must approve it first. keep_s: how long the parcel waits before it leaves.
    """

    city: str = "Vienna"
    step_s: float = 0.2
    parcel_s: float = 0.2
    approval: bool = False
    keep_s: float = 0.0


@orders.main
async def run(ctx: WorkflowContext, order: Order) -> str:
    """Charge, pack, ship; when a step is refused for good, undo what was done."""
    if order.approval:
        await ctx.promise("approved", bool)
    async with ctx.saga():
        ctx.compensate(gateway, ctx.key, "refund", order.step_s, name="refund")
        await ctx.run(gateway, ctx.key, "charge", order.step_s, name="charge")
        ctx.compensate(gateway, ctx.key, "unpack", order.step_s, name="unpack")
        await ctx.run(gateway, ctx.key, "pack", order.step_s, name="pack")
        if order.keep_s:
            await ctx.sleep(timedelta(seconds=order.keep_s))
        await ctx.run(carrier, ctx.key, order.city, order.parcel_s, name="ship")
    return "shipped"


@orders.handler
async def approve(ctx: SharedWorkflowContext) -> None:
    """Lets an order that waits go on."""
    await ctx.promise("approved", bool).resolve(True)


async def gateway(order: str, step: str, answers_after_s: float) -> str:
    """Do `step` once, however often it is asked for; the answer takes its time."""
    repeated = record(f"{order}/{step}")
    await asyncio.sleep(answers_after_s)
    return "already done" if repeated else "done"


async def carrier(order: str, city: str, answers_after_s: float) -> str:
    if city == "Atlantis":
        raise TerminalError("nobody delivers to Atlantis", 422)
    return await gateway(order, "ship", answers_after_s)


def record(key: str) -> bool:
    """Append to the ledger; whether the key was there already. On disk when it returns."""
    with Path(os.environ["HOLDFAST_DEMO_LEDGER"]).open("a+") as ledger:
        fcntl.flock(ledger, fcntl.LOCK_EX)
        ledger.seek(0)
        repeated = any(line["key"] == key for line in map(json.loads, ledger))
        line: dict[str, Any] = {"key": key, "repeated": repeated, "pid": os.getpid(), "at": time.time()}
        ledger.write(json.dumps(line) + "\n")
        ledger.flush()
        os.fsync(ledger.fileno())
    return repeated
