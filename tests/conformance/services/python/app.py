"""The conformance services on the official Python SDK; `../typescript/services.mjs` has them name for name.

`CONFORMANCE_PREFIX` goes before every service name, so that several deployments of the set live side by side.
A step named "ready" tells the test that the steps before it are recorded: a kill or a cancel may come now.
Served by hypercorn (`app:app`) or, when `AWS_LAMBDA_FUNCTION_NAME` is set, by the Lambda runtime (`app.app`).
"""

import os
from datetime import timedelta
from typing import Any

import effects
import restate
from restate import (
    Context,
    InvocationRetryPolicy,
    ObjectContext,
    ObjectSharedContext,
    RunOptions,
    Service,
    TerminalError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
)
from restate.exceptions import RetryableError
from restate.serde import BytesSerde

PREFIX = os.environ["CONFORMANCE_PREFIX"]
Request = dict[str, Any]

# Tests wait for retries; the server's default of half a second would be most of their time.
QUICK = InvocationRetryPolicy(
    initial_interval=timedelta(milliseconds=20),
    exponentiation_factor=1.5,
    max_interval=timedelta(milliseconds=200),
)


def milliseconds(number: float) -> timedelta:
    return timedelta(milliseconds=number)


def policy(attempts: int, then: Any) -> InvocationRetryPolicy:
    return InvocationRetryPolicy(
        initial_interval=milliseconds(20),
        exponentiation_factor=1.0,
        max_attempts=attempts,
        on_max_attempts=then,
    )


def quick_run(attempts: int) -> RunOptions[Any]:
    return RunOptions(max_attempts=attempts, initial_retry_interval=milliseconds(10), retry_interval_factor=1.0)


# --- Runs: side effects recorded once
runs = Service(PREFIX + "Runs", invocation_retry_policy=QUICK)


@runs.handler("once")
async def runs_once(ctx: Context, req: Request) -> Any:
    return await ctx.run_typed("once", effects.count, RunOptions(), req["effect"])


@runs.handler("three")
async def runs_three(ctx: Context, req: Request) -> Any:
    return [await ctx.run_typed(f"step {n}", effects.count, RunOptions(), f"{req['effect']}-{n}") for n in range(3)]


@runs.handler("parallel")
async def runs_parallel(ctx: Context, req: Request) -> Any:
    steps = [ctx.run_typed(f"step {n}", effects.count, RunOptions(), f"{req['effect']}-{n}") for n in range(3)]
    return [await step for step in await restate.gather(*steps)]


@runs.handler("flaky")
async def runs_flaky(ctx: Context, req: Request) -> Any:
    def attempt() -> int:
        number = effects.count(req["effect"])
        if number <= req["failures"]:
            raise ValueError(f"failure {number}")
        return number

    try:
        return {"succeeded": await ctx.run_typed("flaky", attempt, quick_run(req["attempts"]))}
    except TerminalError as e:
        return {"exhausted": e.message, "code": e.status_code}


@runs.handler("terminal")
async def runs_terminal(ctx: Context, req: Request) -> Any:
    def refuse() -> None:
        effects.count(req["effect"])
        raise TerminalError("refused inside", status_code=418)

    try:
        await ctx.run_typed("refuse", refuse)
    except TerminalError as e:
        return {"message": e.message, "code": e.status_code}


@runs.handler("gated")
async def runs_gated(ctx: Context, req: Request) -> Any:
    async def wait() -> int:
        number = effects.count(req["effect"])
        await effects.passed(req["gate"])
        return number

    before = await ctx.run_typed("before", effects.count, RunOptions(), req["effect"] + "-before")
    during = await ctx.run_typed("gated", wait)
    after = await ctx.run_typed("after", effects.count, RunOptions(), req["effect"] + "-after")
    return {"before": before, "during": during, "after": after}


# --- Timers
timers = Service(PREFIX + "Timers", invocation_retry_policy=QUICK)


@timers.handler("sleep")
async def timers_sleep(ctx: Context, req: Request) -> Any:
    await ctx.sleep(milliseconds(req["ms"]))
    return "slept"


@timers.handler("between")
async def timers_between(ctx: Context, req: Request) -> Any:
    before = await ctx.run_typed("before", effects.count, RunOptions(), req["effect"] + "-before")
    await ctx.run_typed("ready", effects.count, RunOptions(), req["effect"] + "-ready")
    await ctx.sleep(milliseconds(req["ms"]))
    return [before, await ctx.run_typed("after", effects.count, RunOptions(), req["effect"] + "-after")]


@timers.handler("race")
async def timers_race(ctx: Context, req: Request) -> Any:
    winner, _ = await restate.select(slow=ctx.sleep(milliseconds(60_000)), fast=ctx.sleep(milliseconds(req["ms"])))
    return winner


# --- Calls: from handler to handler
calls = Service(PREFIX + "Calls", invocation_retry_policy=QUICK)


@calls.handler("greet")
async def calls_greet(ctx: Context, req: Request) -> Any:
    if "effect" in req:
        await ctx.run_typed("greet", effects.count, RunOptions(), req["effect"])
    return f"hello {req['name']}"


@calls.handler("call_service")
async def calls_service(ctx: Context, req: Request) -> Any:
    return await ctx.service_call(calls_greet, req)


@calls.handler("call_object")
async def calls_object(ctx: Context, req: Request) -> Any:
    await ctx.object_call(COUNTER["add"], req["key"], {"by": req["by"]})
    return await ctx.object_call(COUNTER["value"], req["key"], {})


@calls.handler("call_workflow")
async def calls_workflow(ctx: Context, req: Request) -> Any:
    await ctx.workflow_call(flow_approve, req["key"], {"value": "yes"})
    return await ctx.workflow_call(flow_run, req["key"], {"effect": req["effect"]})


@calls.handler("call_self")
async def calls_self(ctx: Context, req: Request) -> Any:
    if req["depth"] == 0:
        return 0
    return 1 + await ctx.service_call(calls_self, {"depth": req["depth"] - 1})


@calls.handler("call_many")
async def calls_many(ctx: Context, req: Request) -> Any:
    futures = [ctx.service_call(calls_greet, {"name": str(n)}) for n in range(req["n"])]
    return [await future for future in await restate.gather(*futures)]


@calls.handler("call_generic")
async def calls_generic(ctx: Context, req: Request) -> Any:
    raw = await ctx.generic_call(PREFIX + "Calls", "greet", b'{"name":"generic"}')
    return raw.decode()


@calls.handler("call_with_header")
async def calls_with_header(ctx: Context, req: Request) -> Any:
    return await ctx.service_call(payloads_headers, {}, headers={"x-from-caller": req["value"]})


@calls.handler("call_idempotent")
async def calls_idempotent(ctx: Context, req: Request) -> Any:
    body = {"name": "twice", "effect": req["effect"]}
    first = ctx.service_call(calls_greet, body, idempotency_key=req["key"])
    second = ctx.service_call(calls_greet, body, idempotency_key=req["key"])
    same = await first.invocation_id() == await second.invocation_id()
    return {"same": same, "results": [await first, await second]}


@calls.handler("call_failing")
async def calls_failing(ctx: Context, req: Request) -> Any:
    try:
        return await ctx.service_call(errors_terminal, req)
    except TerminalError as e:
        return {"message": e.message, "code": e.status_code, "metadata": e.metadata or {}}


@calls.handler("pass_on_failure")
async def calls_pass_on_failure(ctx: Context, req: Request) -> Any:
    return await ctx.service_call(errors_terminal, req)


@calls.handler("call_missing")
async def calls_missing(ctx: Context, req: Request) -> Any:
    return (await ctx.generic_call(PREFIX + "Absent", "nothing", b"{}")).decode()


@calls.handler("call_hidden")
async def calls_hidden(ctx: Context, req: Request) -> Any:
    return [await ctx.service_call(hidden_secret, {}), await ctx.service_call(calls_internal, {})]


@calls.handler("internal", ingress_private=True)
async def calls_internal(ctx: Context, req: Request) -> Any:
    return "internal"


@calls.handler("send")
async def calls_send(ctx: Context, req: Request) -> Any:
    handle = ctx.service_send(calls_greet, {"name": "sent", "effect": req["effect"]})
    return await handle.invocation_id()


@calls.handler("send_delayed")
async def calls_send_delayed(ctx: Context, req: Request) -> Any:
    body = {"name": "later", "effect": req["effect"]}
    return await ctx.service_send(calls_greet, body, send_delay=milliseconds(req["ms"])).invocation_id()


@calls.handler("send_in_order")
async def calls_send_in_order(ctx: Context, req: Request) -> Any:
    for n in range(req["n"]):
        ctx.object_send(COUNTER["append"], req["key"], {"value": n})
    return await ctx.object_call(COUNTER["fetch"], req["key"], {"name": "list"})


@calls.handler("attach")
async def calls_attach(ctx: Context, req: Request) -> Any:
    try:
        return {"result": await ctx.attach_invocation(req["id"])}
    except TerminalError as e:
        return {"message": e.message, "code": e.status_code}


# --- Counter and LazyCounter: virtual objects, eager and lazy state
counter = VirtualObject(PREFIX + "Counter", invocation_retry_policy=QUICK)
lazy_counter = VirtualObject(PREFIX + "LazyCounter", invocation_retry_policy=QUICK, enable_lazy_state=True)


async def counter_add(ctx: ObjectContext, req: Request) -> Any:
    total = (await ctx.get("total") or 0) + req["by"]
    ctx.set("total", total)
    return total


async def counter_value(ctx: ObjectSharedContext, req: Request) -> Any:
    return await ctx.get("total")


async def counter_append(ctx: ObjectContext, req: Request) -> Any:
    values = (await ctx.get("list") or []) + [req["value"]]
    ctx.set("list", values)
    return values


async def counter_put(ctx: ObjectContext, req: Request) -> Any:
    for name, value in req.items():
        ctx.set(name, value)
    return "put"


async def counter_fetch(ctx: ObjectContext, req: Request) -> Any:
    return await ctx.get(req["name"])


async def counter_drop(ctx: ObjectContext, req: Request) -> Any:
    ctx.clear(req["name"])
    return await ctx.get(req["name"])


async def counter_drop_all(ctx: ObjectContext, req: Request) -> Any:
    ctx.clear_all()
    return sorted(await ctx.state_keys())


async def counter_keys(ctx: ObjectSharedContext, req: Request) -> Any:
    return sorted(await ctx.state_keys())


async def counter_rewrite(ctx: ObjectContext, req: Request) -> Any:
    """Reads, writes and reads again around suspensions; every read must see the write before it."""
    seen = [await ctx.get("total")]
    ctx.set("total", 10)
    seen.append(await ctx.get("total"))
    await ctx.sleep(milliseconds(10))
    seen.append(await ctx.get("total"))
    ctx.clear("total")
    await ctx.run_typed("pause", lambda: None)
    seen.append(await ctx.get("total"))
    ctx.set("total", 20)
    return [*seen, await ctx.get("total")]


async def counter_hold(ctx: ObjectContext, req: Request) -> Any:
    """Keeps the key until the awakeable whose id it notes is resolved."""
    ident, result = ctx.awakeable()
    await ctx.run_typed("note", effects.note, RunOptions(), req["note"], ident)
    return await result


async def counter_key(ctx: ObjectSharedContext, req: Request) -> Any:
    return ctx.key()


EXCLUSIVE = (
    counter_add,
    counter_append,
    counter_put,
    counter_fetch,
    counter_drop,
    counter_drop_all,
    counter_rewrite,
    counter_hold,
)
SHARED = (counter_value, counter_keys, counter_key)


def give_handlers(target: VirtualObject) -> dict[str, Any]:
    """Both objects get the same handlers; the answer is what `object_call` takes, by handler name."""
    handlers = {}
    for kind, functions in (("exclusive", EXCLUSIVE), ("shared", SHARED)):
        for function in functions:
            name = function.__name__.removeprefix("counter_")
            handlers[name] = target.handler(name, kind=kind)(function)
    return handlers


COUNTER = give_handlers(counter)
give_handlers(lazy_counter)


# --- Flow: a workflow with durable promises
flow = Workflow(PREFIX + "Flow", invocation_retry_policy=QUICK)


@flow.main("run")
async def flow_run(ctx: WorkflowContext, req: Request) -> Any:
    number = await ctx.run_typed("start", effects.count, RunOptions(), req["effect"])
    ctx.set("stage", "waiting")
    await ctx.run_typed("ready", effects.count, RunOptions(), req["effect"] + "-ready")
    answer = await ctx.promise("approval").value()
    ctx.set("stage", "done")
    return {"answer": answer, "runs": number}


@flow.handler("approve")
async def flow_approve(ctx: WorkflowSharedContext, req: Request) -> Any:
    await ctx.promise("approval").resolve(req["value"])
    return "approved"


@flow.handler("reject")
async def flow_reject(ctx: WorkflowSharedContext, req: Request) -> Any:
    await ctx.promise("approval").reject(req["reason"])
    return "rejected"


@flow.handler("peek")
async def flow_peek(ctx: WorkflowSharedContext, req: Request) -> Any:
    return await ctx.promise("approval").peek()


@flow.handler("wait")
async def flow_wait(ctx: WorkflowSharedContext, req: Request) -> Any:
    return await ctx.promise("approval").value()


@flow.handler("stage")
async def flow_stage(ctx: WorkflowSharedContext, req: Request) -> Any:
    return await ctx.get("stage")


# --- Awakeables
awakeables = Service(PREFIX + "Awakeables", invocation_retry_policy=QUICK)


@awakeables.handler("wait")
async def awakeables_wait(ctx: Context, req: Request) -> Any:
    ident, result = ctx.awakeable()
    await ctx.run_typed("note", effects.note, RunOptions(), req["note"], ident)
    try:
        return {"value": await result}
    except TerminalError as e:
        if e.status_code == 409:  # cancelled, not rejected
            raise
        return {"message": e.message, "code": e.status_code}


@awakeables.handler("wait_for_two")
async def awakeables_two(ctx: Context, req: Request) -> Any:
    first, first_result = ctx.awakeable()
    second, second_result = ctx.awakeable()
    await ctx.run_typed("note", effects.note, RunOptions(), req["note"], f"{first} {second}")
    return [await first_result, await second_result]


@awakeables.handler("resolve")
async def awakeables_resolve(ctx: Context, req: Request) -> Any:
    ctx.resolve_awakeable(req["id"], req["value"])
    return "resolved"


@awakeables.handler("reject")
async def awakeables_reject(ctx: Context, req: Request) -> Any:
    ctx.reject_awakeable(req["id"], req["reason"])
    return "rejected"


# --- Combine: waiting for several results
combine = Service(PREFIX + "Combine", invocation_retry_policy=QUICK)


@combine.handler("all")
async def combine_all(ctx: Context, req: Request) -> Any:
    futures = [
        ctx.service_call(calls_greet, {"name": "a"}),
        ctx.run_typed("b", lambda: "b"),
        ctx.service_call(timers_sleep, {"ms": 20}),
    ]
    return [await future for future in await restate.gather(*futures)]


@combine.handler("first")
async def combine_first(ctx: Context, req: Request) -> Any:
    fast = ctx.service_call(calls_greet, {"name": "fast"})
    slow = ctx.service_call(timers_sleep, {"ms": 60_000})
    who, what = await restate.select(slow=slow, fast=fast)
    await slow.cancel_invocation()
    return [who, what]


@combine.handler("any")
async def combine_any(ctx: Context, req: Request) -> Any:
    """The first success: failures are passed over."""
    failing = ctx.service_call(errors_terminal, {"message": "not me", "code": 400})
    working = ctx.service_call(timers_sleep, {"ms": 30})
    async for future in restate.as_completed(failing, working):
        try:
            return await future
        except TerminalError:
            continue
    return "none"


@combine.handler("settled")
async def combine_settled(ctx: Context, req: Request) -> Any:
    failing = ctx.service_call(errors_terminal, {"message": "bad", "code": 400})
    working = ctx.service_call(calls_greet, {"name": "good"})
    outcomes = []
    for future in await restate.gather(failing, working):
        try:
            outcomes.append(await future)
        except TerminalError as e:
            outcomes.append(e.message)
    return outcomes


@combine.handler("timeout")
async def combine_timeout(ctx: Context, req: Request) -> Any:
    _, never = ctx.awakeable()
    who, _ = await restate.select(answer=never, timeout=ctx.sleep(milliseconds(req["ms"])))
    return who


# --- Cancels
cancels = Service(PREFIX + "Cancels", invocation_retry_policy=QUICK)


@cancels.handler("wait")
async def cancels_wait(ctx: Context, req: Request) -> Any:
    """Waits for ever; on a cancel compensates, and passes the cancel on."""
    await ctx.run_typed("started", effects.count, RunOptions(), req["effect"] + "-started")
    try:
        await ctx.run_typed("ready", effects.count, RunOptions(), req["effect"] + "-ready")
        await ctx.sleep(timedelta(hours=1))
    except TerminalError:
        await ctx.run_typed("undo", effects.count, RunOptions(), req["effect"] + "-undone")
        raise
    return "not cancelled"


@cancels.handler("compensate")
async def cancels_compensate(ctx: Context, req: Request) -> Any:
    """Waits for ever; on a cancel compensates with steps that suspend, and ends well."""
    await ctx.run_typed("started", effects.count, RunOptions(), req["effect"] + "-started")
    try:
        await ctx.run_typed("ready", effects.count, RunOptions(), req["effect"] + "-ready")
        await ctx.sleep(timedelta(hours=1))
    except TerminalError as e:
        await ctx.sleep(milliseconds(20))
        await ctx.service_call(calls_greet, {"name": "undo", "effect": req["effect"] + "-undone"})
        await ctx.sleep(milliseconds(20))
        return {"compensated": e.status_code}
    return "not cancelled"


@cancels.handler("parent")
async def cancels_parent(ctx: Context, req: Request) -> Any:
    return await ctx.service_call(cancels_wait, req)


@cancels.handler("parent_of_three")
async def cancels_parent_of_three(ctx: Context, req: Request) -> Any:
    """One child called, one sent, one sent for later; waits for the called one."""
    called = ctx.service_call(cancels_wait, {"effect": req["effect"] + "-called"})
    sent = ctx.service_send(cancels_wait, {"effect": req["effect"] + "-sent"})
    later = ctx.service_send(cancels_wait, {"effect": req["effect"] + "-later"}, send_delay=timedelta(hours=1))
    ids = [await child.invocation_id() for child in (called, sent, later)]
    await ctx.run_typed("note", effects.note, RunOptions(), req["note"], " ".join(ids))
    return await called


@cancels.handler("cancel")
async def cancels_cancel(ctx: Context, req: Request) -> Any:
    ctx.cancel_invocation(req["id"])
    return "cancelled"


# --- Errors
errors = Service(PREFIX + "Errors", invocation_retry_policy=QUICK)


@errors.handler("terminal")
async def errors_terminal(ctx: Context, req: Request) -> Any:
    raise TerminalError(req["message"], status_code=req["code"], metadata=req.get("metadata"))


@errors.handler("flaky")
async def errors_flaky(ctx: Context, req: Request) -> Any:
    """Fails, outside of any run, the first attempts."""
    before = await ctx.run_typed("before", effects.count, RunOptions(), req["effect"] + "-before")
    number = effects.count(req["effect"])
    if number <= req["failures"]:
        raise ValueError(f"attempt {number} fails")
    return {"before": before, "attempts": number}


@errors.handler("retry_after")
async def errors_retry_after(ctx: Context, req: Request) -> Any:
    number = effects.count(req["effect"])
    if number <= req["failures"]:
        raise RetryableError("later", retry_after=milliseconds(req["ms"]))
    return number


@errors.handler("killed_after_two", invocation_retry_policy=policy(2, "kill"))
async def errors_killed(ctx: Context, req: Request) -> Any:
    effects.count(req["effect"])
    raise ValueError("last words")


@errors.handler("paused_after_two", invocation_retry_policy=policy(2, "pause"))
async def errors_paused(ctx: Context, req: Request) -> Any:
    number = effects.count(req["effect"])
    if not effects.raised(req["flag"]):
        raise ValueError("not yet")
    return number


# --- Payloads
payloads = Service(PREFIX + "Payloads", invocation_retry_policy=QUICK)


@payloads.handler(
    "bytes",
    accept="*/*",
    content_type="application/octet-stream",
    input_serde=BytesSerde(),
    output_serde=BytesSerde(),
)
async def payloads_bytes(ctx: Context, body: bytes) -> bytes:
    return body


@payloads.handler("bytes_through_a_call", accept="*/*", input_serde=BytesSerde(), output_serde=BytesSerde())
async def payloads_bytes_call(ctx: Context, body: bytes) -> bytes:
    return await ctx.service_call(payloads_bytes, body)


@payloads.handler("bytes_through_a_run", accept="*/*", input_serde=BytesSerde(), output_serde=BytesSerde())
async def payloads_bytes_run(ctx: Context, body: bytes) -> bytes:
    return await ctx.run_typed("keep", lambda: body, RunOptions(serde=BytesSerde()))


@payloads.handler("json")
async def payloads_json(ctx: Context, req: Any) -> Any:
    return req


@payloads.handler("headers")
async def payloads_headers(ctx: Context, req: Any) -> Any:
    return dict(ctx.request().headers)


@payloads.handler("invocation_id")
async def payloads_id(ctx: Context, req: Any) -> Any:
    return ctx.request().id


@payloads.handler("nothing")
async def payloads_nothing(ctx: Context) -> None:
    return None


@payloads.handler("random")
async def payloads_random(ctx: Context, req: Request) -> Any:
    """The same number before and after a suspension."""
    first = [ctx.random().random(), str(ctx.uuid())]
    await ctx.run_typed("note", effects.note, RunOptions(), req["note"], repr(first))
    return repr(first)


# --- Signals
signals = Service(PREFIX + "Signals", invocation_retry_policy=QUICK)


@signals.handler("wait")
async def signals_wait(ctx: Context, req: Request) -> Any:
    received = []
    for _ in range(req["times"]):
        try:
            received.append(await ctx.signal(req["name"]))
        except TerminalError as e:
            received.append(f"rejected: {e.message}")
    return received


@signals.handler("resolve")
async def signals_resolve(ctx: Context, req: Request) -> Any:
    ctx.resolve_signal(req["id"], req["name"], req["value"])
    return "sent"


@signals.handler("reject")
async def signals_reject(ctx: Context, req: Request) -> Any:
    ctx.reject_signal(req["id"], req["name"], req["reason"])
    return "sent"


# --- Drift: code that changes under a running invocation
drift = Service(PREFIX + "Drift", invocation_retry_policy=QUICK)


@drift.handler("act")
async def drift_act(ctx: Context, req: Request) -> Any:
    """While the flag is raised the first command is another one than before."""
    if effects.raised(req["flag"]):
        await ctx.sleep(milliseconds(1))
    else:
        await ctx.run_typed("first", effects.count, RunOptions(), req["effect"])
    ident, result = ctx.awakeable()
    await ctx.run_typed("note", effects.note, RunOptions(), req["note"], ident)
    return await result


# --- Hidden: a private service
hidden = Service(PREFIX + "Hidden", ingress_private=True)


@hidden.handler("secret")
async def hidden_secret(ctx: Context, req: Request) -> Any:
    return "secret"


app = restate.app(
    [
        runs,
        timers,
        calls,
        counter,
        lazy_counter,
        flow,
        awakeables,
        combine,
        cancels,
        errors,
        payloads,
        signals,
        drift,
        hidden,
    ],
    identity_keys=[key for key in [os.environ.get("CONFORMANCE_IDENTITY_KEY")] if key],
)
