"""What operators look at and act upon: calls within calls, things that wait, fail, hold a key, or keep state that is no JSON."""

from datetime import timedelta

from shop import greet, nap, note

from holdfast import Context, ObjectContext, Service, TerminalError, VirtualObject

errands = Service("errands")
tills = VirtualObject("tills")


@errands.handler
async def tree(ctx: Context, name: str) -> str:
    await ctx.run(note, f"charge {name}", name="charge card")
    await ctx.call(greet, name)
    long = ctx.call(nap, 3_600_000)
    approval = ctx.awakeable(str)
    winner, value = await ctx.select(nap=long, approval=approval, limit=ctx.sleep(timedelta(hours=2)))
    return f"{winner}: {value}"


@errands.handler
async def stumble(ctx: Context) -> str:
    await ctx.run(note, "before")

    def refuse() -> str:
        raise ValueError("the card gateway answered 503")

    return await ctx.run(refuse, name="charge card")


@errands.handler
async def park(ctx: Context) -> str:
    """Waits to be told `go`, or fails."""
    told = await ctx.awakeable(str)
    if told != "go":
        raise TerminalError(f"told to {told}", 409)
    return "gone"


@tills.handler
async def hold(ctx: ObjectContext) -> str:
    return await ctx.awakeable(str)


@tills.handler
async def fill(ctx: ObjectContext) -> None:
    ctx.set("count", 2)
    ctx.set("owner", {"name": "Ada", "tags": ["a", "b"]})
    ctx.set("seal", b"\x00\xff\x01", serde=bytes)
    ctx.set("motto", b"no json", serde=bytes)
