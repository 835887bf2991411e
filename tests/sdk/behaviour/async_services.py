"""The handlers of the scenarios, async; `sync_services` has the same ones as plain functions."""

from datetime import timedelta

from holdfast import (
    CancelledError,
    Context,
    ObjectContext,
    RetryableError,
    Service,
    SharedObjectContext,
    SharedWorkflowContext,
    TerminalError,
    VirtualObject,
    Workflow,
    WorkflowContext,
)
from tests.sdk.behaviour.effects import failing, note, once, once_async, times
from tests.sdk.behaviour.values import (
    AT_ONCE,
    LONG,
    MOMENT,
    NO_MORE,
    ONE_MORE,
    QUICKLY,
    SOON,
    Called,
    Everything,
    Facts,
    Order,
    Receipt,
    Reversed,
    User,
)

service = Service("async", retry=SOON, inactivity_timeout=timedelta(minutes=1), metadata={"flavour": "async"})
counter = VirtualObject("async_counter", retry=SOON, journal_retention=timedelta(days=1), idempotency_retention=timedelta(days=1))
signup = Workflow("async_signup", retry=SOON, abort_timeout=timedelta(minutes=1))
services = [service, counter, signup]


def refuse(line: str) -> str:
    note(line)
    raise TerminalError("refused", code=418, metadata={"why": "tea"})


def later(line: str) -> str:
    note(line)
    raise RetryableError("later", retry_after=timedelta(milliseconds=20))


# ---- Runs


@service.handler
async def steps(ctx: Context, tag: str) -> list[str]:
    first = await ctx.run(once, f"{tag}-1")
    second = await ctx.run(once_async, f"{tag}-2")
    return [first, second, await ctx.run(lambda: "three", name="third", serde=str)]


@service.handler
async def retried(ctx: Context, tag: str) -> str:
    return await ctx.run(failing, tag, 2, retry=QUICKLY)


@service.handler
async def exhausted(ctx: Context, tag: str) -> list[str]:
    problems = []
    for policy, name in ((QUICKLY, tag), (AT_ONCE, f"{tag}-once")):
        try:
            await ctx.run(failing, name, 100, retry=policy)
        except TerminalError as error:
            problems.append(str(error))
    return problems


@service.handler
async def recorded(ctx: Context, tag: str) -> tuple[str, int, dict[str, str]]:
    try:
        await ctx.run(refuse, tag)
    except TerminalError as error:
        await ctx.sleep(MOMENT)
        return error.message, error.code, error.metadata
    raise AssertionError


@service.handler
async def delayed(ctx: Context, tag: str) -> str:
    return await ctx.run(later if ctx.request.attempt < 3 else once, tag, name="step")


@service.handler
async def reversed_(ctx: Context, text: str) -> list[str]:
    first = await ctx.run(lambda: text, name="text", serde=Reversed())
    await ctx.sleep(MOMENT)
    return [first, text[::-1]]


# ---- Values


@service.handler
async def typed(ctx: Context, order: Order) -> Receipt:
    return Receipt(order, await ctx.run(len, order.items))


@service.handler
async def binary(ctx: Context, content: bytes) -> bytes:
    return (await ctx.run(lambda: content, name="content", serde=bytes))[::-1]


@service.handler
async def everything(ctx: Context, value: Everything) -> Everything:
    return await ctx.run(lambda: value, name="value", serde=Everything)


@service.handler
async def defaulted(ctx: Context, number: int = 7) -> int:
    return number


# ---- Time, chance, request, log


@service.handler
async def nap(ctx: Context, tag: str) -> str:
    before = await ctx.now()
    await ctx.sleep(MOMENT, name="nap")
    return "slept" if await ctx.now() - before >= MOMENT else "woke early"


@service.handler
async def drawn(ctx: Context, tag: str) -> list[str]:
    found = [(await ctx.now()).isoformat(), ctx.uuid4().hex, str(ctx.random.random())]
    await ctx.run(note, f"{tag} {' '.join(found)}")
    await ctx.sleep(MOMENT)
    return found


@service.handler
async def facts(ctx: Context, tag: str) -> Facts:
    asked = ctx.request
    return Facts(
        asked.invocation_id, asked.service, asked.handler, asked.key, asked.attempt, asked.headers.get("x-tag"), asked.body.decode()
    )


@service.handler
async def logs(ctx: Context, tag: str) -> None:
    ctx.logger.info("%s began", tag)
    await ctx.run(once, f"{tag}-1")
    ctx.logger.info("%s half", tag)
    await ctx.sleep(MOMENT)
    ctx.logger.info("%s done", tag)


# ---- Failing


@service.handler
async def unstable(ctx: Context, tag: str) -> str:
    await ctx.run(once, tag)
    if ctx.request.attempt < 3:
        raise ValueError("not yet")
    return "stable"


@service.handler
async def refused(ctx: Context, _: str) -> None:
    raise TerminalError("never", code=418, metadata={"why": "tea"})


@service.handler(retry=ONE_MORE)
async def hopeless(ctx: Context, tag: str) -> None:
    raise ValueError(f"hopeless {tag}")


@service.handler(retry=NO_MORE)
async def paused(ctx: Context, tag: str) -> str:
    if not times(f"{tag} mended"):
        raise ValueError("broken")
    return "mended"


@service.handler
async def undone(ctx: Context, tag: str) -> str:
    try:
        async with ctx.saga():
            ctx.compensate(once, f"{tag} undo-1")
            await ctx.run(once, f"{tag} do-1")
            ctx.compensate(once, f"{tag} undo-2")
            await ctx.run(once, f"{tag} do-2")
            await ctx.call(long_nap, tag)
    except CancelledError:
        await ctx.run(once, f"{tag} cancelled")
        raise
    return "never cancelled"


@service.handler
async def long_nap(ctx: Context, tag: str) -> None:
    try:
        await ctx.run(once, f"{tag}-child-began")
        await ctx.sleep(LONG)
    except CancelledError:
        await ctx.run(once, f"{tag}-child-cancelled")
        raise


@service.handler
async def compensated(ctx: Context, tag: str) -> None:
    async with ctx.saga():
        ctx.compensate(once, f"{tag} undo-1")
        async with ctx.saga():
            ctx.compensate(once, f"{tag} never")
        ctx.compensate(refuse, f"{tag} undo-2")
        await ctx.run(refuse, f"{tag} do")


@service.handler
async def recovers(ctx: Context, tag: str) -> str:
    try:
        await ctx.run(once, tag)
        await ctx.sleep(LONG)
    except CancelledError:
        await ctx.sleep(MOMENT)
        return "recovered"
    return "never cancelled"


@service.handler
async def deadline(ctx: Context, tag: str) -> str:
    try:
        async with ctx.timeout(LONG), ctx.timeout(MOMENT):
            return await ctx.awakeable(str)
    except TimeoutError:
        await ctx.run(once, tag)
        async with ctx.timeout(LONG):
            await ctx.sleep(MOMENT)
        return "late"


@service.handler
async def overdue(ctx: Context, tag: str) -> None:
    async with ctx.timeout(MOMENT):
        await ctx.sleep(LONG)


# ---- Other handlers


@service.handler
async def calls(ctx: Context, key: str) -> Called:
    totals = [await ctx.call(add, 2, key=key)]
    sent = ctx.send(add, 3, key=key, delay=MOMENT)
    totals.append(await ctx.invocation(await sent.invocation_id).attach(int))
    totals.append(await ctx.call("async_counter/count", key=key, returns=int))
    totals += [await ctx.call(add, 10, key=key, idempotency_key=f"{key}-ten") for _ in range(2)]
    call = ctx.call(facts, "x", headers={"x-tag": key}, name="ask")
    asked = await call
    plain = [await ctx.call(hidden), (await ctx.call("async/binary", b"ab", returns=bytes)).decode()]
    try:
        await ctx.call(refused, "x")
    except TerminalError as error:
        refusal = error.message, error.code, error.metadata
    return Called(totals, refusal, asked, asked.invocation_id == await call.invocation_id, plain)


@service.handler(private=True)
async def hidden(ctx: Context) -> str:
    return "hidden"


@service.handler
async def outputs(ctx: Context, tag: str) -> list[str | None]:
    other = ctx.invocation(await ctx.send(waits, tag).invocation_id)
    before = await other.output(str)
    other.signal("go", "went")
    after = await other.attach(str)
    return [before, after, await other.output(str)]


@service.handler
async def waits(ctx: Context, tag: str) -> str:
    return await ctx.signal("go", str)


@service.handler
async def stops(ctx: Context, id: str) -> int:
    ctx.invocation(id).cancel()
    try:
        await ctx.invocation(id).attach()
    except TerminalError as error:
        return error.code
    return 200


# ---- Combining


@service.handler
async def parallel(ctx: Context, tag: str) -> list[object]:
    both = ctx.gather(ctx.run(once, f"{tag}-a"), ctx.run(once_async, f"{tag}-b"))
    (a, b), _ = await ctx.gather(both, ctx.sleep(MOMENT))
    mapped = await ctx.map(len, ["x", "xx", "xxx"], concurrency=2)
    return [a, b, mapped]


@service.handler
async def race(ctx: Context, tag: str) -> list[object]:
    winner, _ = await ctx.select(slow=ctx.sleep(LONG), quick=ctx.sleep(MOMENT))
    naps = [ctx.sleep(2 * MOMENT, name="b"), ctx.sleep(MOMENT, name="a")]
    order = [naps.index(future) async for future in ctx.as_completed(naps)]
    return [winner, *order, [nap.done() for nap in naps]]


@service.handler
async def failures(ctx: Context, tag: str) -> list[str]:
    problems = []
    for combined in (
        ctx.gather(ctx.call(refused, "x"), ctx.sleep(LONG)),
        ctx.select(call=ctx.call(refused, "x"), slow=ctx.sleep(LONG)),
    ):
        try:
            await combined
        except TerminalError as error:
            problems.append(str(error))
    async for future in ctx.as_completed([ctx.call(refused, "x")]):
        try:
            await future
        except TerminalError as error:
            problems.append(str(error))
    return problems


# ---- Results from outside


@service.handler
async def answered(ctx: Context, tag: str) -> Order:
    awakeable = ctx.awakeable(Order)
    await ctx.run(note, f"{tag} {awakeable.id}")
    return await awakeable


@service.handler
async def answers(ctx: Context, id: str) -> None:
    ctx.resolve_awakeable(id, Order("o", []))


@service.handler
async def rejects(ctx: Context, id: str) -> None:
    ctx.reject_awakeable(id, "no", 418)


@service.handler
async def told(ctx: Context, tag: str) -> list[int | None]:
    await ctx.run(note, f"{tag} {ctx.request.invocation_id}")
    return [await ctx.signal("number", int | None) for _ in range(3)]


@service.handler
async def tells(ctx: Context, id: str) -> None:
    for number in (0, None, 2):
        ctx.invocation(id).signal("number", number, serde=int | None)


# ---- State


@counter.handler
async def add(ctx: ObjectContext, number: int) -> int:
    total = await ctx.get("count", int, default=0) + number
    ctx.set("count", total)
    return total


@counter.handler(lazy_state=True)
async def add_lazily(ctx: ObjectContext, number: int) -> int:
    total = await ctx.get("count", int, default=0) + number
    ctx.set("count", total)
    await ctx.sleep(MOMENT)
    return await ctx.get("count", int, default=0)


@counter.handler
async def clears(ctx: ObjectContext) -> list[list[str]]:
    ctx.set("other", None, serde=int | None)
    found = [await ctx.keys()]
    ctx.clear("other")
    found.append(await ctx.keys())
    ctx.clear_all()
    return [*found, await ctx.keys()]


@counter.handler(lazy_state=True)
async def clears_lazily(ctx: ObjectContext) -> list[str]:
    names = await ctx.keys()
    assert await ctx.get("nothing", int) is None
    ctx.clear_all()
    return names


@counter.shared
async def count(ctx: SharedObjectContext) -> int:
    return await ctx.get("count", int, default=0)


@counter.shared
async def key(ctx: SharedObjectContext) -> list[str]:
    return [ctx.key, ctx.request.key, *await ctx.keys()]


# ---- Workflows


@signup.main(workflow_retention=timedelta(days=1))
async def run(ctx: WorkflowContext, user: User) -> str:
    ctx.set("status", "waiting")
    try:
        async with ctx.timeout(timedelta(milliseconds=user.patience_ms)):
            answer = await ctx.promise("confirmed", str)
    except TimeoutError:
        return f"{user.name} expired"
    ctx.set("status", "confirmed")
    return f"{user.name} {answer}"


@signup.handler
async def confirm(ctx: SharedWorkflowContext, answer: str) -> str | None:
    promise = ctx.promise("confirmed", str)
    before = await promise.peek()
    await promise.resolve(answer)
    return before


@signup.handler
async def refuses(ctx: SharedWorkflowContext, reason: str) -> None:
    await ctx.promise("confirmed", str).reject(reason, 418)


@signup.handler
async def confirmed(ctx: SharedWorkflowContext) -> str:
    return await ctx.promise("confirmed", str)


@signup.handler
async def status(ctx: SharedWorkflowContext) -> str | None:
    return await ctx.get("status", str)
