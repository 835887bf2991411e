"""The handlers of the scenarios, plain functions; `async_services` has the same ones async."""

from datetime import timedelta

from holdfast import CancelledError, RetryableError, Service, TerminalError, VirtualObject, Workflow
from holdfast.sync import Context, ObjectContext, SharedObjectContext, SharedWorkflowContext, WorkflowContext
from tests.sdk.behaviour.effects import failing, note, once, times
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

service = Service("sync", retry=SOON, inactivity_timeout=timedelta(minutes=1), metadata={"flavour": "sync"})
counter = VirtualObject("sync_counter", retry=SOON, journal_retention=timedelta(days=1), idempotency_retention=timedelta(days=1))
signup = Workflow("sync_signup", retry=SOON, abort_timeout=timedelta(minutes=1))
services = [service, counter, signup]


def refuse(line: str) -> str:
    note(line)
    raise TerminalError("refused", code=418, metadata={"why": "tea"})


def later(line: str) -> str:
    note(line)
    raise RetryableError("later", retry_after=timedelta(milliseconds=20))


# ---- Runs


@service.handler
def steps(ctx: Context, tag: str) -> list[str]:
    first = ctx.run(once, f"{tag}-1")
    second = ctx.run(once, f"{tag}-2")
    return [first, second, ctx.run(lambda: "three", name="third", serde=str)]


@service.handler
def retried(ctx: Context, tag: str) -> str:
    return ctx.run(failing, tag, 2, retry=QUICKLY)


@service.handler
def exhausted(ctx: Context, tag: str) -> list[str]:
    problems = []
    for policy, name in ((QUICKLY, tag), (AT_ONCE, f"{tag}-once")):
        try:
            ctx.run(failing, name, 100, retry=policy)
        except TerminalError as error:
            problems.append(str(error))
    return problems


@service.handler
def recorded(ctx: Context, tag: str) -> tuple[str, int, dict[str, str]]:
    try:
        ctx.run(refuse, tag)
    except TerminalError as error:
        ctx.sleep(MOMENT)
        return error.message, error.code, error.metadata
    raise AssertionError


@service.handler
def delayed(ctx: Context, tag: str) -> str:
    return ctx.run(later if ctx.request.attempt < 3 else once, tag, name="step")


@service.handler
def reversed_(ctx: Context, text: str) -> list[str]:
    first = ctx.run(lambda: text, name="text", serde=Reversed())
    ctx.sleep(MOMENT)
    return [first, text[::-1]]


# ---- Values


@service.handler
def typed(ctx: Context, order: Order) -> Receipt:
    return Receipt(order, ctx.run(len, order.items))


@service.handler
def binary(ctx: Context, content: bytes) -> bytes:
    return (ctx.run(lambda: content, name="content", serde=bytes))[::-1]


@service.handler
def everything(ctx: Context, value: Everything) -> Everything:
    return ctx.run(lambda: value, name="value", serde=Everything)


@service.handler
def defaulted(ctx: Context, number: int = 7) -> int:
    return number


# ---- Time, chance, request, log


@service.handler
def nap(ctx: Context, tag: str) -> str:
    before = ctx.now()
    ctx.sleep(MOMENT, name="nap")
    return "slept" if ctx.now() - before >= MOMENT else "woke early"


@service.handler
def drawn(ctx: Context, tag: str) -> list[str]:
    found = [(ctx.now()).isoformat(), ctx.uuid4().hex, str(ctx.random.random())]
    ctx.run(note, f"{tag} {' '.join(found)}")
    ctx.sleep(MOMENT)
    return found


@service.handler
def facts(ctx: Context, tag: str) -> Facts:
    asked = ctx.request
    return Facts(
        asked.invocation_id, asked.service, asked.handler, asked.key, asked.attempt, asked.headers.get("x-tag"), asked.body.decode()
    )


@service.handler
def logs(ctx: Context, tag: str) -> None:
    ctx.logger.info("%s began", tag)
    ctx.run(once, f"{tag}-1")
    ctx.logger.info("%s half", tag)
    ctx.sleep(MOMENT)
    ctx.logger.info("%s done", tag)


# ---- Failing


@service.handler
def unstable(ctx: Context, tag: str) -> str:
    ctx.run(once, tag)
    if ctx.request.attempt < 3:
        raise ValueError("not yet")
    return "stable"


@service.handler
def refused(ctx: Context, _: str) -> None:
    raise TerminalError("never", code=418, metadata={"why": "tea"})


@service.handler(retry=ONE_MORE)
def hopeless(ctx: Context, tag: str) -> None:
    raise ValueError(f"hopeless {tag}")


@service.handler(retry=NO_MORE)
def paused(ctx: Context, tag: str) -> str:
    if not times(f"{tag} mended"):
        raise ValueError("broken")
    return "mended"


@service.handler
def undone(ctx: Context, tag: str) -> str:
    try:
        with ctx.saga():
            ctx.compensate(once, f"{tag} undo-1")
            ctx.run(once, f"{tag} do-1")
            ctx.compensate(once, f"{tag} undo-2")
            ctx.run(once, f"{tag} do-2")
            ctx.call(long_nap, tag)
    except CancelledError:
        ctx.run(once, f"{tag} cancelled")
        raise
    return "never cancelled"


@service.handler
def long_nap(ctx: Context, tag: str) -> None:
    try:
        ctx.run(once, f"{tag}-child-began")
        ctx.sleep(LONG)
    except CancelledError:
        ctx.run(once, f"{tag}-child-cancelled")
        raise


@service.handler
def compensated(ctx: Context, tag: str) -> None:
    with ctx.saga():
        ctx.compensate(once, f"{tag} undo-1")
        with ctx.saga():
            ctx.compensate(once, f"{tag} never")
        ctx.compensate(refuse, f"{tag} undo-2")
        ctx.run(refuse, f"{tag} do")


@service.handler
def recovers(ctx: Context, tag: str) -> str:
    try:
        ctx.run(once, tag)
        ctx.sleep(LONG)
    except CancelledError:
        ctx.sleep(MOMENT)
        return "recovered"
    return "never cancelled"


@service.handler
def deadline(ctx: Context, tag: str) -> str:
    try:
        with ctx.timeout(LONG), ctx.timeout(MOMENT):
            return ctx.awakeable(str).result()
    except TimeoutError:
        ctx.run(once, tag)
        with ctx.timeout(LONG):
            ctx.sleep(MOMENT)
        return "late"


@service.handler
def overdue(ctx: Context, tag: str) -> None:
    with ctx.timeout(MOMENT):
        ctx.sleep(LONG)


# ---- Other handlers


@service.handler
def calls(ctx: Context, key: str) -> Called:
    totals = [ctx.call(add, 2, key=key)]
    sent = ctx.send(add, 3, key=key, delay=MOMENT)
    totals.append(ctx.invocation(sent.invocation_id).attach(int))
    totals.append(ctx.call("sync_counter/count", key=key, returns=int))
    totals += [ctx.call(add, 10, key=key, idempotency_key=f"{key}-ten") for _ in range(2)]
    call = ctx.start.call(facts, "x", headers={"x-tag": key}, name="ask")
    asked = call.result()
    plain = [ctx.call(hidden), (ctx.call("sync/binary", b"ab", returns=bytes)).decode()]
    try:
        ctx.call(refused, "x")
    except TerminalError as error:
        refusal = error.message, error.code, error.metadata
    return Called(totals, refusal, asked, asked.invocation_id == call.invocation_id, plain)


@service.handler(private=True)
def hidden(ctx: Context) -> str:
    return "hidden"


@service.handler
def outputs(ctx: Context, tag: str) -> list[str | None]:
    other = ctx.invocation(ctx.send(waits, tag).invocation_id)
    before = other.output(str)
    other.signal("go", "went")
    after = other.attach(str)
    return [before, after, other.output(str)]


@service.handler
def waits(ctx: Context, tag: str) -> str:
    return ctx.signal("go", str)


@service.handler
def stops(ctx: Context, id: str) -> int:
    ctx.invocation(id).cancel()
    try:
        ctx.invocation(id).attach()
    except TerminalError as error:
        return error.code
    return 200


# ---- Combining


@service.handler
def parallel(ctx: Context, tag: str) -> list[object]:
    both = ctx.start.gather(ctx.start.run(once, f"{tag}-a"), ctx.start.run(once, f"{tag}-b"))
    (a, b), _ = ctx.gather(both, ctx.start.sleep(MOMENT))
    mapped = ctx.map(len, ["x", "xx", "xxx"], concurrency=2)
    return [a, b, mapped]


@service.handler
def race(ctx: Context, tag: str) -> list[object]:
    winner, _ = ctx.select(slow=ctx.start.sleep(LONG), quick=ctx.start.sleep(MOMENT))
    naps = [ctx.start.sleep(2 * MOMENT, name="b"), ctx.start.sleep(MOMENT, name="a")]
    order = [naps.index(future) for future in ctx.as_completed(naps)]
    return [winner, *order, [nap.done() for nap in naps]]


@service.handler
def failures(ctx: Context, tag: str) -> list[str]:
    problems = []
    for combined in (
        ctx.start.gather(ctx.start.call(refused, "x"), ctx.start.sleep(LONG)),
        ctx.start.select(call=ctx.start.call(refused, "x"), slow=ctx.start.sleep(LONG)),
    ):
        try:
            combined.result()
        except TerminalError as error:
            problems.append(str(error))
    for future in ctx.as_completed([ctx.start.call(refused, "x")]):
        try:
            future.result()
        except TerminalError as error:
            problems.append(str(error))
    return problems


# ---- Results from outside


@service.handler
def answered(ctx: Context, tag: str) -> Order:
    awakeable = ctx.awakeable(Order)
    ctx.run(note, f"{tag} {awakeable.id}")
    return awakeable.result()


@service.handler
def answers(ctx: Context, id: str) -> None:
    ctx.resolve_awakeable(id, Order("o", []))


@service.handler
def rejects(ctx: Context, id: str) -> None:
    ctx.reject_awakeable(id, "no", 418)


@service.handler
def told(ctx: Context, tag: str) -> list[int | None]:
    ctx.run(note, f"{tag} {ctx.request.invocation_id}")
    return [ctx.signal("number", int | None) for _ in range(3)]


@service.handler
def tells(ctx: Context, id: str) -> None:
    for number in (0, None, 2):
        ctx.invocation(id).signal("number", number, serde=int | None)


# ---- State


@counter.handler
def add(ctx: ObjectContext, number: int) -> int:
    total = ctx.get("count", int, default=0) + number
    ctx.set("count", total)
    return total


@counter.handler(lazy_state=True)
def add_lazily(ctx: ObjectContext, number: int) -> int:
    total = ctx.get("count", int, default=0) + number
    ctx.set("count", total)
    ctx.sleep(MOMENT)
    return ctx.get("count", int, default=0)


@counter.handler
def clears(ctx: ObjectContext) -> list[list[str]]:
    ctx.set("other", None, serde=int | None)
    found = [ctx.keys()]
    ctx.clear("other")
    found.append(ctx.keys())
    ctx.clear_all()
    return [*found, ctx.keys()]


@counter.handler(lazy_state=True)
def clears_lazily(ctx: ObjectContext) -> list[str]:
    names = ctx.keys()
    assert ctx.get("nothing", int) is None
    ctx.clear_all()
    return names


@counter.shared
def count(ctx: SharedObjectContext) -> int:
    return ctx.get("count", int, default=0)


@counter.shared
def key(ctx: SharedObjectContext) -> list[str]:
    return [ctx.key, ctx.request.key, *ctx.keys()]


# ---- Workflows


@signup.main(workflow_retention=timedelta(days=1))
def run(ctx: WorkflowContext, user: User) -> str:
    ctx.set("status", "waiting")
    try:
        with ctx.timeout(timedelta(milliseconds=user.patience_ms)):
            answer = ctx.promise("confirmed", str).result()
    except TimeoutError:
        return f"{user.name} expired"
    ctx.set("status", "confirmed")
    return f"{user.name} {answer}"


@signup.handler
def confirm(ctx: SharedWorkflowContext, answer: str) -> str | None:
    promise = ctx.promise("confirmed", str)
    before = promise.peek()
    promise.resolve(answer)
    return before


@signup.handler
def refuses(ctx: SharedWorkflowContext, reason: str) -> None:
    ctx.promise("confirmed", str).reject(reason, 418)


@signup.handler
def confirmed(ctx: SharedWorkflowContext) -> str:
    return ctx.promise("confirmed", str).result()


@signup.handler
def status(ctx: SharedWorkflowContext) -> str | None:
    return ctx.get("status", str)
