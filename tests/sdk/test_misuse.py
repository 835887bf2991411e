"""Misuse is refused where it is written: at registration, else at the call that is wrong, with a clear text."""

import asyncio
import socket
import warnings
from datetime import timedelta
from typing import Any

import pytest

from holdfast import (
    Context,
    ObjectContext,
    RetryPolicy,
    Service,
    SharedObjectContext,
    VirtualObject,
    Workflow,
    WorkflowContext,
    sync,
)
from holdfast.endpoint import Endpoint
from holdfast.protocol.frames import split
from holdfast.protocol.messages import Error, MessageType, parse
from tests.sdk.tiny_runtime import Journal


def test_a_handler_needs_a_context() -> None:
    service = Service("s")
    with pytest.raises(TypeError, match="takes no context"):

        @service.handler  # type: ignore[arg-type]
        async def nothing() -> None: ...


def test_a_handler_takes_one_argument() -> None:
    service = Service("s")
    with pytest.raises(TypeError, match="at most one argument"):

        @service.handler  # type: ignore[arg-type]
        async def two(ctx: Context, a: int, b: int) -> None: ...


def test_names_are_unique() -> None:
    service = Service("s")

    @service.handler
    async def same(ctx: Context) -> None: ...

    with pytest.raises(ValueError, match="already has a handler 'same'"):

        @service.handler(name="same")
        async def other(ctx: Context) -> None: ...

    with pytest.raises(ValueError, match="two services are named 's'"):
        Endpoint([service, service])


@pytest.mark.parametrize("annotation", [socket.socket, list[socket.socket], dict[int, str], type])
def test_types_without_a_journal_form_are_refused(annotation: Any) -> None:
    service = Service("s")

    async def handler(ctx: Context, value: Any) -> None: ...

    handler.__annotations__["value"] = annotation
    with pytest.raises(TypeError, match=r"s/handler: .*(journal|text keys)"):
        service.handler(handler)


def test_shared_handlers_cannot_get_a_writing_context() -> None:
    carts = VirtualObject("carts")
    assert not hasattr(SharedObjectContext, "set")
    with pytest.raises(TypeError, match=r"this shared `async def` handler of a virtual object gets a holdfast\.Shared"):

        @carts.shared  # type: ignore[arg-type]
        async def writes(ctx: ObjectContext) -> None: ...


def test_the_context_must_fit_the_flavour() -> None:
    service = Service("s")
    with pytest.raises(TypeError, match=r"`def` handler of a service gets a holdfast.sync.Context"):

        @service.handler  # type: ignore[arg-type]
        def plain(ctx: Context) -> int:
            return 1

    with pytest.raises(TypeError, match=r"`async def` handler of a service gets a holdfast.Context"):

        @service.handler
        async def asynchronous(ctx: sync.Context) -> int:
            return 1


def test_a_workflow_has_exactly_one_main_handler() -> None:
    signup = Workflow("signup")
    with pytest.raises(ValueError, match="no handlers"):
        Endpoint([signup])

    @signup.main
    async def run(ctx: WorkflowContext) -> None: ...

    with pytest.raises(ValueError, match="already has the main handler 'run'"):

        @signup.main
        async def again(ctx: WorkflowContext) -> None: ...


def test_options_belong_to_their_kind() -> None:
    service, signup = Service("s", private=True), Workflow("signup")
    with pytest.raises(ValueError, match="main handler of a workflow"):

        @service.handler(workflow_retention=timedelta(days=1))
        async def keeps(ctx: Context) -> None: ...

    with pytest.raises(ValueError, match="workflow_retention instead"):

        @signup.main(idempotency_retention=timedelta(days=1))
        async def run(ctx: WorkflowContext) -> None: ...

    with pytest.raises(ValueError, match="cannot be public"):

        @service.handler(private=False)
        async def public(ctx: Context) -> None: ...

    with pytest.raises(TypeError, match="expected a timedelta"):
        Service("t", abort_timeout=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unknown option 'retries'"):
        Service("t", retries=3)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="reserved"):
        Service("RestateThings")
    with pytest.raises(ValueError, match="does not match"):
        Service("no spaces")
    with pytest.raises(ValueError, match="max_attempts counts"):
        RetryPolicy(max_attempts=0)


async def failure_of(use: Any, *, plain: bool = False) -> str:
    """Runs a handler whose body is `use` and gives the error its attempt failed with."""
    service = Service("s")
    if plain:

        @service.handler(name="h")
        def handler(ctx: sync.Context) -> None:
            use(ctx)
    else:

        @service.handler(name="h")
        async def handler_async(ctx: Context) -> None:
            await use(ctx)

    body = await Journal().attempt(Endpoint([service]), "/invoke/s/h")
    last = list(split(body))[-1]
    assert last.type == MessageType.ERROR, last
    error = parse(last.type, last.body)
    assert isinstance(error, Error)
    return error.message


async def test_select_takes_durable_futures_only() -> None:
    async def use(ctx: Context) -> None:
        await ctx.select(a=asyncio.sleep(1))  # type: ignore[arg-type]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "select combines durable futures, found coroutine" in await failure_of(use)


async def test_other_tasks_are_refused() -> None:
    async def use(ctx: Context) -> None:
        await asyncio.gather(ctx.sleep(timedelta(1)), ctx.sleep(timedelta(2)))

    assert "use ctx.gather" in await failure_of(use)


async def test_threads_are_refused() -> None:
    async def use(ctx: Context) -> None:
        await asyncio.to_thread(ctx.sleep, timedelta(1))

    assert "from another thread" in await failure_of(use)


async def test_the_context_inside_a_run_is_refused() -> None:
    async def use(ctx: Context) -> None:
        async def inner() -> float:
            return ctx.random.random()

        await ctx.run(inner)

    assert "inside a function given to ctx.run" in await failure_of(use)

    def use_plain(ctx: sync.Context) -> None:
        ctx.run(lambda: str(ctx.random))

    assert "inside a function given to ctx.run" in await failure_of(use_plain, plain=True)


async def test_run_takes_a_function() -> None:
    async def use(ctx: Context) -> None:
        await ctx.run(len("abc"))  # type: ignore[call-overload]

    assert "write ctx.run(f, x), not ctx.run(f(x))" in await failure_of(use)


async def test_a_plain_handler_cannot_run_a_coroutine_function() -> None:
    async def coroutine() -> int:
        return 1

    def use(ctx: sync.Context) -> None:
        ctx.run(coroutine)  # type: ignore[unused-coroutine]

    assert "is an async function, and this handler is a plain def" in await failure_of(use, plain=True)


async def test_keys_are_checked_before_anything_is_sent() -> None:
    carts = VirtualObject("carts")

    @carts.handler
    async def add(ctx: ObjectContext) -> None: ...

    async def keyless(ctx: Context) -> None:
        await ctx.call(add)

    assert "carts/add needs key=" in await failure_of(keyless)

    async def textual(ctx: Context) -> None:
        ctx.send("carts.add")

    assert "has the form 'service/handler'" in await failure_of(textual)


async def test_compensate_belongs_in_a_saga() -> None:
    async def use(ctx: Context) -> None:
        ctx.compensate(print)

    assert "ctx.saga()" in await failure_of(use)
