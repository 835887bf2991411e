"""The handlers behind the golden vectors, written with this SDK: what they ask for must be what was captured."""

from collections.abc import Iterator
from datetime import timedelta
from itertools import count

from holdfast import (
    Context,
    ObjectContext,
    RetryPolicy,
    Service,
    SharedObjectContext,
    SharedWorkflowContext,
    TerminalError,
    VirtualObject,
    Workflow,
    WorkflowContext,
)
from holdfast.service import ServiceBase

SECOND = timedelta(seconds=1)


def services() -> list[ServiceBase]:
    """Fresh ones: some handlers count their attempts."""
    return [_demo(), _counter(), _approval(), _ts_demo(), _legacy()]


def _demo() -> Service:
    demo = Service("Demo")
    attempts: Iterator[int] = count(1)

    @demo.handler
    async def echo(ctx: Context, name: str) -> str:
        return f"hi {name}"

    @demo.handler
    async def run_sleep(ctx: Context, name: str) -> str:
        result = await ctx.run(lambda: f"ran {name}", name="step")
        await ctx.sleep(SECOND)
        return result

    @demo.handler
    async def two_runs(ctx: Context, name: str) -> str:
        a, b = ctx.run(lambda: "A", name="a"), ctx.run(lambda: "B", name="b")
        return await a + await b

    @demo.handler
    async def call_echo(ctx: Context, name: str) -> str:
        return await ctx.call(echo, name, headers={"x-h": "1"})

    @demo.handler
    async def call_object(ctx: Context, key: str) -> int:
        return await ctx.call("Counter/add", 3, key=key, returns=int)

    @demo.handler
    async def call_twice_same_key(ctx: Context, name: str) -> str:
        a = ctx.call(run_sleep, name, idempotency_key="same")
        b = ctx.call(run_sleep, name, idempotency_key="same")
        return await a + await b

    @demo.handler
    async def send_later(ctx: Context, name: str) -> str:
        return await ctx.send(echo, name, delay=2 * SECOND).invocation_id

    @demo.handler
    async def wait_awakeable(ctx: Context, _: str) -> str:
        return await ctx.awakeable(str)

    @demo.handler
    async def resolve(ctx: Context, id: str) -> None:
        ctx.resolve_awakeable(id, "payload")

    @demo.handler
    async def reject(ctx: Context, id: str) -> None:
        ctx.reject_awakeable(id, "nope", code=418)

    @demo.handler
    async def terminal(ctx: Context, name: str) -> str:
        raise TerminalError(f"bad {name}", code=422)

    @demo.handler
    async def flaky(ctx: Context, name: str) -> str:
        if (attempt := next(attempts)) < 3:
            raise ValueError(f"boom {attempt}")
        return "ok"

    @demo.handler
    async def run_retry(ctx: Context, name: str) -> str:
        def fail() -> str:
            raise ValueError("run boom")

        policy = RetryPolicy(initial_interval=timedelta(milliseconds=100), max_attempts=3)
        return await ctx.run(fail, name="flaky", retry=policy)

    @demo.handler
    async def pick_first(ctx: Context, name: str) -> str:
        winner, _ = await ctx.select(a=ctx.awakeable(str), s=ctx.sleep(60 * SECOND))
        return winner

    @demo.handler
    async def wait_both(ctx: Context, name: str) -> str:
        await ctx.gather(ctx.awakeable(str), ctx.sleep(2 * SECOND))
        return "done"

    @demo.handler
    async def start_twice(ctx: Context, key: str) -> str:
        ctx.call("Approval/run", "doc", key=key)
        try:
            return await ctx.call("Approval/run", "doc", key=key, returns=str)
        except TerminalError as error:
            return f"{error.code} {error.message}"

    @demo.handler
    async def catch_cancel(ctx: Context, name: str) -> str:
        try:
            await ctx.sleep(60 * SECOND)
        except TerminalError as error:
            await ctx.run(lambda: "compensated", name="comp")
            return f"caught {error.code} {error.message}"
        return "not cancelled"

    @demo.handler
    async def child(ctx: Context, name: str) -> None:
        await ctx.sleep(60 * SECOND)

    @demo.handler
    async def parent(ctx: Context, name: str) -> None:
        await ctx.call(child, name)

    @demo.handler
    async def canceller(ctx: Context, id: str) -> None:
        ctx.invocation(id).cancel()

    @demo.handler
    async def wait_signal(ctx: Context, name: str) -> str:
        return await ctx.signal("go", str)

    @demo.handler
    async def send_signal(ctx: Context, id: str) -> None:
        ctx.invocation(id).signal("go", "went")

    @demo.handler
    async def attach(ctx: Context, id: str) -> str:
        return await ctx.invocation(id).attach(str)

    @demo.handler
    async def call_unknown(ctx: Context, name: str) -> str:
        return await ctx.call("Nope/x", 1, returns=str)

    return demo


def _counter() -> VirtualObject:
    counter = VirtualObject("Counter")

    @counter.handler
    async def add(ctx: ObjectContext, number: int) -> int:
        total = await ctx.get("count", int, default=0) + number
        ctx.set("count", total)
        return total

    @counter.shared(name="get")
    async def read(ctx: SharedObjectContext) -> int | None:
        return await ctx.get("count", int)

    @counter.handler(lazy_state=True)
    async def lazy(ctx: ObjectContext, number: int) -> list[object]:
        now = await ctx.get("count", int, default=0)
        missing = await ctx.get("missing", int)
        names = await ctx.keys()
        ctx.set("count", now + number)
        return [now, missing, names, await ctx.get("count", int)]

    @counter.handler
    async def keys_clear(ctx: ObjectContext) -> list[object]:
        before = await ctx.keys()
        ctx.clear("count")
        ctx.set("other", "x")
        ctx.clear_all()
        return [before, await ctx.keys()]

    @counter.handler
    async def slow(ctx: ObjectContext, number: int) -> int | None:
        ctx.set("count", number)
        await ctx.sleep(SECOND)
        return await ctx.get("count", int)

    return counter


def _approval() -> Workflow:
    approval = Workflow("Approval")

    @approval.main
    async def run(ctx: WorkflowContext, document: str) -> str:
        ctx.set("st", "waiting")
        return f"{document} {await ctx.promise('approval', str)}"

    @approval.handler
    async def status(ctx: SharedWorkflowContext) -> str | None:
        return await ctx.get("st", str)

    @approval.handler
    async def approve(ctx: SharedWorkflowContext, answer: str) -> str:
        promise = ctx.promise("approval", str)
        before = await promise.peek()
        await promise.resolve(answer)
        return str(before)

    return approval


def _ts_demo() -> Service:
    demo = Service("TsDemo")
    attempts = count(1)

    @demo.handler
    async def metadata(ctx: Context, _: str) -> None:
        raise TerminalError("meta", code=499, metadata={"k": "v", "k2": "v2"})

    @demo.handler
    async def mismatch(ctx: Context, _: str) -> str:
        if next(attempts) == 2:
            await ctx.sleep(SECOND)
        await ctx.run(lambda: 1, name="a")
        return "mm"

    @demo.handler
    async def all(ctx: Context, _: str) -> str:
        await ctx.gather(ctx.sleep(SECOND), ctx.sleep(2 * SECOND))
        return "all"

    return demo


def _legacy() -> Service:
    legacy = Service("Legacy")

    @legacy.handler
    async def run_sleep(ctx: Context, name: str) -> str:
        result = await ctx.run(lambda: f"ran {name}", name="step")
        await ctx.sleep(SECOND)
        return f"{result} {ctx.uuid4()}"

    return legacy
