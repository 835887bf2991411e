"""Code that takes a client, tested on a runtime in memory: the same results and errors as from an ingress."""

from datetime import timedelta

import pytest

from holdfast import (
    AsyncClient,
    Client,
    Context,
    IngressError,
    ObjectContext,
    Service,
    SharedWorkflowContext,
    TerminalError,
    VirtualObject,
    Workflow,
    WorkflowContext,
)
from holdfast.testing import Stuck, TestRuntime, sync

A_DAY = timedelta(days=1)
mail, counters, signup = (
    Service("mail", idempotency_retention=A_DAY, journal_retention=A_DAY),
    VirtualObject("counters"),
    Workflow("signup"),
)


@mail.handler
async def post(ctx: Context, to: str) -> str:
    if not to:
        raise TerminalError("nobody", code=422, metadata={"why": "empty"})
    await ctx.sleep(timedelta(hours=3))
    return f"posted to {to}"


@mail.handler
async def ask(ctx: Context) -> bool:
    return await ctx.awakeable(bool)


@counters.handler
async def add(ctx: ObjectContext, number: int) -> int:
    total = await ctx.get("total", int, default=0) + number
    ctx.set("total", total)
    return total


@signup.main
async def run(ctx: WorkflowContext, name: str) -> str:
    return name + await ctx.promise("confirmed", str)


@signup.handler
async def confirm(ctx: SharedWorkflowContext, how: str) -> None:
    await ctx.promise("confirmed", str).resolve(how)


SERVICES = mail, counters, signup


async def sign_up(client: AsyncClient, name: str) -> str:
    """What is tested: it knows nothing of tests."""
    sent = await client.send(run, name, key=name)
    with pytest.raises(IngressError) as early:
        await client.output(run, key=name)
    assert early.value.status == 470
    await client.call(confirm, "!", key=name)
    done = await client.attach(run, key=name)
    assert await client.output(sent) == done
    return done


async def test_async_code_is_handed_a_client() -> None:
    async with TestRuntime(*SERVICES) as runtime:
        client = runtime.client()
        assert await sign_up(client, "ann/ä") == "ann/ä!"
        assert (await client.send(run, "bob", key="ann/ä")).accepted_before
        with pytest.raises(TerminalError, match="already invoked") as twice:
            await client.call(run, "bob", key="ann/ä")
        assert twice.value.code == 409
        assert await client.attach("signup/run", str, key="ann/ä") == "ann/ä!"
        assert await client.call(add, 3, key="k", idempotency_key="a b") == 3
        assert await client.call(add, 4, key="k", idempotency_key="a b") == 3
        assert await client.output(add, key="k", idempotency_key="a b") == 3
        assert await client.call("counters/add", 4, key="k", returns=int) == 7


def test_plain_code_is_handed_a_client_and_time_moves_while_it_waits() -> None:
    with sync.TestRuntime(*SERVICES) as runtime:
        client: Client = runtime.client()
        began = runtime.now()
        sent = client.send(post, "eva", idempotency_key="i", delay=timedelta(hours=1))
        with pytest.raises(IngressError, match="470: the invocation exists"):
            client.output(post, idempotency_key="i")
        assert runtime.now() == began
        assert client.attach(post, idempotency_key="i") == client.attach(sent) == "posted to eva"
        assert runtime.now() - began == timedelta(hours=4)
        assert client.output(sent.invocation_id, str) == "posted to eva"
        with pytest.raises(TerminalError, match="nobody") as refused:
            client.call(post, "")
        assert (refused.value.code, refused.value.metadata) == (422, {"why": "empty"})


def test_awakeables_are_answered() -> None:
    with sync.TestRuntime(*SERVICES) as runtime:
        client = runtime.client()
        asked = [client.send(ask) for _ in range(2)]
        links = [runtime.invocation(sent.invocation_id).awakeable_id() for sent in asked]
        with pytest.raises(Stuck, match="nothing can bring about"):
            client.attach(asked[0])
        client.resolve_awakeable(links[0], True)
        client.reject_awakeable(links[1], "no")
        assert client.attach(asked[0]) is True
        with pytest.raises(TerminalError, match="no"):
            client.output(asked[1])


def test_what_is_not_known_is_told_as_the_ingress_tells_it() -> None:
    with sync.TestRuntime(*SERVICES) as runtime:
        client = runtime.client()
        for ask_for, error in (
            (lambda: client.output(run, key="nobody"), (IngressError, "404: invocation not found")),
            (lambda: client.attach(run, key="nobody"), (TerminalError, "not found")),
            (lambda: client.output("inv_1"), (IngressError, "400: bad invocation id 'inv_1'")),
            (lambda: client.resolve_awakeable("sign_1"), (IngressError, "400: bad awakeable id 'sign_1'")),
            (lambda: client.reject_awakeable("sign_1", "no"), (IngressError, "400: bad awakeable id 'sign_1'")),
            (lambda: client.call("nobody/here"), (AssertionError, "no service 'nobody' in this runtime")),
        ):
            with pytest.raises(error[0], match=error[1]):
                ask_for()
        sent = client.send(post, "eva", idempotency_key="i")
        assert client.attach(sent) == "posted to eva"
        runtime.advance(A_DAY + timedelta(hours=1))
        with pytest.raises(IngressError, match="404"):
            client.output(sent)  # its retention is over
        with pytest.raises(TerminalError, match="not found"):
            client.attach(sent)
