"""The queue before an API: a virtual object whose key is the API's name, and the lease by which handlers go through it.

Rules: no handler here waits, so that nobody holds the key and hundreds pass in a second; whoever wants to go in leaves the id of an
awakeable, which is resolved when its turn has come.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

from holdfast import Context, ObjectContext, SharedObjectContext, TerminalError, VirtualObject

from rate_limited_client.gate import Gate, Limits, admit, without

LIMITS = {"translator": Limits(per_second=5, burst=5, at_once=5, lease_ms=300_000, queue=1_000)}

# Nobody looks back at who went through.
limiter = VirtualObject("limiter", journal_retention=timedelta(0))


@asynccontextmanager
async def lease(ctx: Context, api: str) -> AsyncGenerator[None, None]:
    """`async with lease(ctx, "translator"):` waits for a place at the API, and gives it back.

    Not by `finally`: a handler that waits is suspended by an exception, and would give its place back each time. What remains are the end
    of the block, and failures for good; any other exception is retried, and keeps the place.
    """
    if api not in LIMITS:  # said here, because an answer to `enter` would be nobody's
        raise unknown(api)
    turn = ctx.awakeable()
    ctx.send(enter, turn.id, key=api)
    try:
        await turn
        yield
    except TerminalError:
        ctx.send(leave, turn.id, key=api)
        raise
    ctx.send(leave, turn.id, key=api)


@limiter.handler(private=True)
async def enter(ctx: ObjectContext, id: str) -> None:
    """Queues up. `id`: of an awakeable."""
    gate, limits = await read(ctx)
    if len(gate.waiting) >= limits.queue:
        ctx.reject_awakeable(id, f"{ctx.key}: {limits.queue} are waiting already; try again later", code=503)
        return
    await let_in(ctx, replace(gate, waiting=[*gate.waiting, id]))


@limiter.handler(private=True)
async def leave(ctx: ObjectContext, id: str) -> None:
    """Gives a place back, in the queue too."""
    gate, _ = await read(ctx)
    await let_in(ctx, without(gate, id))


@limiter.handler(private=True)
async def look(ctx: ObjectContext) -> None:
    """The alarm: time has passed."""
    gate, _ = await read(ctx)
    await let_in(ctx, replace(gate, alarm_ms=None))


@limiter.shared
async def show(ctx: SharedObjectContext) -> str:
    """How it stands, for people."""
    gate, _ = await read(ctx)
    return f"{len(gate.inside)} inside, {len(gate.waiting)} waiting"


async def read(ctx: SharedObjectContext) -> tuple[Gate, Limits]:
    """What is remembered, and what is allowed."""
    if ctx.key not in LIMITS:
        raise unknown(ctx.key)
    return await ctx.get("gate", Gate, default=Gate()), LIMITS[ctx.key]


def unknown(api: str) -> TerminalError:
    return TerminalError(f"no limits are known for '{api}', only for {', '.join(LIMITS)}", code=404)


async def let_in(ctx: ObjectContext, gate: Gate) -> None:
    """Wakes whoever may go, and sees to it that somebody looks again when the next one may."""
    now_ms = int((await ctx.now()).timestamp() * 1000)
    admission = admit(gate, LIMITS[ctx.key], now_ms)
    gate = admission.gate
    for id in admission.admitted:
        ctx.resolve_awakeable(id)
    again_ms = admission.look_again_ms
    if again_ms is not None and (gate.alarm_ms is None or again_ms < gate.alarm_ms):
        ctx.send(look, key=ctx.key, delay=timedelta(milliseconds=max(0, again_ms - now_ms)))
        gate = replace(gate, alarm_ms=again_ms)
    ctx.set("gate", gate)
