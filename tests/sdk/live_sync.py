"""Handlers of both flavours of the live suite, plain functions: `tests.sdk.live_async` has the same ones async."""

from dataclasses import dataclass
from datetime import timedelta

from holdfast import CancelledError, RetryPolicy, Service, TerminalError, VirtualObject, Workflow
from holdfast.sync import Context, ObjectContext, SharedObjectContext, SharedWorkflowContext, WorkflowContext
from tests.sdk.ledger import failing, note, once

MOMENT = timedelta(milliseconds=200)
LONG = timedelta(hours=10)
QUICKLY = RetryPolicy(initial_interval=timedelta(milliseconds=20), max_attempts=3)


@dataclass
class Order:
    id: str
    items: list[str]


@dataclass
class Receipt:
    order: Order
    total: int


live = Service("sync", retry=RetryPolicy(initial_interval=timedelta(milliseconds=20)))
counter = VirtualObject("sync_counter")
signup = Workflow("sync_signup")


@live.handler
def steps(ctx: Context, tag: str) -> list[str]:
    first = ctx.run(once, f"{tag}-1")
    second = ctx.run(once, f"{tag}-2")
    return [first, second, ctx.run(lambda: "three", name="third")]


@live.handler
def typed(ctx: Context, order: Order) -> Receipt:
    return Receipt(order, ctx.run(len, order.items))


@live.handler
def binary(ctx: Context, content: bytes) -> bytes:
    return content[::-1]


@live.handler
def retried(ctx: Context, tag: str) -> str:
    return ctx.run(failing, tag, 2, retry=QUICKLY)


@live.handler
def exhausted(ctx: Context, tag: str) -> str:
    try:
        return ctx.run(failing, tag, 100, retry=QUICKLY)
    except TerminalError as error:
        return f"gave up: {error}"


@live.handler
def unstable(ctx: Context, tag: str) -> str:
    ctx.run(once, f"{tag}-before")
    failing(f"{tag}-outside", 2)
    return "stable"


@live.handler
def refused(ctx: Context, _: str) -> None:
    raise TerminalError("never", code=418)


@live.handler
def nap(ctx: Context, tag: str) -> str:
    before = ctx.now()
    ctx.sleep(MOMENT)
    return "slept" if ctx.now() - before >= MOMENT else "woke early"


@live.handler
def calls(ctx: Context, key: str) -> list[object]:
    ctx.call(add, 2, key=key)
    sent = ctx.send(add, 3, key=key, delay=MOMENT)
    total = ctx.invocation(sent.invocation_id).attach(int)
    try:
        ctx.call(refused, "x")
    except TerminalError as error:
        return [total, error.code, ctx.call("sync_counter/count", key=key, returns=int)]
    return []


@live.handler
def parallel(ctx: Context, tag: str) -> list[object]:
    both = ctx.start.gather(ctx.start.run(once, f"{tag}-a"), ctx.start.run(once, f"{tag}-b"))
    (a, b), _ = ctx.gather(both, ctx.start.sleep(MOMENT))
    mapped = ctx.map(len, ["x", "xx", "xxx"], concurrency=2)
    return [a, b, mapped]


@live.handler
def race(ctx: Context, tag: str) -> list[object]:
    winner, _ = ctx.select(slow=ctx.start.sleep(LONG), quick=ctx.start.sleep(MOMENT))
    naps = [ctx.start.sleep(2 * MOMENT, name="b"), ctx.start.sleep(MOMENT, name="a")]
    order = [naps.index(future) for future in ctx.as_completed(naps)]
    return [winner, *order]


@live.handler
def deadline(ctx: Context, tag: str) -> str:
    try:
        with ctx.timeout(MOMENT):
            return ctx.awakeable(str).result()
    except TimeoutError:
        ctx.run(once, f"{tag}-late")
        return "late"


@live.handler
def undone(ctx: Context, tag: str) -> str:
    try:
        with ctx.saga():
            ctx.compensate(once, f"{tag}-undo-1")
            ctx.run(once, f"{tag}-do-1")
            ctx.compensate(once, f"{tag}-undo-2")
            ctx.run(once, f"{tag}-do-2")
            ctx.call(nap_long, tag)
    except CancelledError:
        ctx.run(once, f"{tag}-cancelled")
        raise
    return "never cancelled"


@live.handler
def nap_long(ctx: Context, tag: str) -> None:
    try:
        ctx.sleep(LONG)
    except CancelledError:
        ctx.run(once, f"{tag}-child-cancelled")
        raise


@live.handler
def answered(ctx: Context, tag: str) -> Order:
    awakeable = ctx.awakeable(Order)
    ctx.run(note, f"{tag} {awakeable.id}")
    return awakeable.result()


@live.handler
def told(ctx: Context, tag: str) -> list[int]:
    ctx.run(note, f"{tag} {ctx.request.invocation_id}")
    return [ctx.signal("number", int) for _ in range(3)]


@live.handler
def tell(ctx: Context, id: str) -> None:
    for number in range(3):
        ctx.invocation(id).signal("number", number)


@counter.handler
def add(ctx: ObjectContext, number: int) -> int:
    total = ctx.get("count", int, default=0) + number
    ctx.set("count", total)
    return total


@counter.handler(lazy_state=True)
def reset(ctx: ObjectContext) -> list[str]:
    names = ctx.keys()
    assert ctx.get("nothing", int) is None
    ctx.clear_all()
    return names


@counter.shared
def count(ctx: SharedObjectContext) -> int:
    return ctx.get("count", int, default=0)


@signup.main
def run(ctx: WorkflowContext, name: str) -> str:
    ctx.set("status", "waiting")
    with ctx.timeout(LONG):
        answer = ctx.promise("confirmed", str).result()
    ctx.set("status", "confirmed")
    return f"{name} {answer}"


@signup.handler
def confirm(ctx: SharedWorkflowContext, answer: str) -> str | None:
    promise = ctx.promise("confirmed", str)
    before = promise.peek()
    promise.resolve(answer)
    return before


@signup.handler
def status(ctx: SharedWorkflowContext) -> str | None:
    return ctx.get("status", str)
