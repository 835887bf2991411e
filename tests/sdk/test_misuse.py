"""Misuse is refused where it is written: at registration, else at the call that is wrong, with a clear text."""

import asyncio
import functools
import gc
import socket
import warnings
from datetime import timedelta
from typing import Any

import pytest

from holdfast import (
    Client,
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
from holdfast.aws import lambda_handler
from holdfast.endpoint import Endpoint
from holdfast.protocol.frames import split
from holdfast.protocol.messages import Error, MessageType, OutputCommand, parse
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

    async def undo(ctx: Context) -> None:
        ctx.compensate_call("stock/release")

    assert "ctx.compensate_call belongs inside" in await failure_of(undo)


# ---- What cannot be registered


def not_decorated(ctx: sync.Context) -> int:
    return 1


async def yields(ctx: Context) -> Any:
    yield 1


class Holder:
    async def method(self, ctx: Context, text: str) -> str:
        return text


class Callable:
    def __call__(self, ctx: sync.Context) -> int:
        return 1


registered = Service("registered")


@registered.handler
async def known(ctx: Context, number: int) -> int:
    return number


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda: Service("s").handler("h"), r"@s\.handler\(name='h'\), found @s\.handler\('h'\)"),
        (lambda: Service("s").handler(known), r"<handler registered/known> is a handler already"),
        (lambda: VirtualObject("o").shared(yields), "'yields' yields, but a handler returns one result"),
        (lambda: Service("s").handler(Holder.method), "'method' is a method; handlers are functions of a module"),
        (lambda: Service("s").handler(Holder), "expected a function of a module below @s.handler, found type"),
        (lambda: Service("s").handler(staticmethod(known.function)), "found staticmethod"),
        (lambda: Service("s").handler(Callable()), "expected a function of a module below @s.handler, found Callable"),
        (lambda: Service("s").handler(3), "expected a function of a module below @s.handler, found int 3"),
        (lambda: Service("s").handler(lambda ctx: 1), "'<lambda>' does not match .*; give it a name="),
        (lambda: Service("s")(known.function), "a service is no decorator; write @s.handler"),
        (lambda: Workflow("w")(known.function), "a workflow is no decorator; write @w.main or @w.handler"),
        (lambda: Service("s").shared, "a service has no @s.shared; it belongs to a VirtualObject"),
        (lambda: VirtualObject("o").main, "a virtual object has no @o.main; it belongs to a Workflow"),
        (lambda: Service("s").checkout, "service 's' has no handler 'checkout'"),
        (lambda: Service(3), "the name of a service is a text, found 3"),
        (lambda: Service("s", retry=3), r"retry is a RetryPolicy, found 3; write RetryPolicy\(max_attempts=...\)"),
        (lambda: Service("s", private="yes"), "private is True, False or None, found 'yes'"),
        (lambda: Service("s", lazy_state=1), "lazy_state is True, False or None, found 1"),
        (lambda: Service("s", documentation=3), "documentation is a text, found 3"),
        (lambda: Service("s", metadata={"a": 1}), "metadata maps texts to texts"),
        (lambda: Service("s", metadata="a"), "metadata maps texts to texts"),
        (lambda: Workflow("w", workflow_retention=timedelta(1)), r"option of the main handler of a workflow: @w\.main\(workflow_retention"),
        (lambda: Service("s", journal_retention=timedelta(-1)), "journal_retention: a duration cannot be negative"),
        (lambda: Service("s").handler(accept="json")(known.function), "accept is a media type such as 'application/json', found 'json'"),
        (lambda: RetryPolicy(initial_interval=3), r"initial_interval: expected a timedelta, found 3; write timedelta\(seconds"),
        (lambda: RetryPolicy(factor=0.5), "factor must be at least 1"),
        (lambda: RetryPolicy(on_max_attempts="stop"), "on_max_attempts is 'pause' or 'kill', found 'stop'"),
        (lambda: Service("s", retry=RetryPolicy(max_duration=timedelta(1))), "max_duration limits runs only"),
        (lambda_handler, "serves nothing; pass at least one Service"),
        (lambda: lambda_handler(known), "expected services, found <handler registered/known>; pass the Service"),
        (lambda: lambda_handler(registered, identity_keys="publickeyv1_x"), r"identity_keys is a list .*; write \['publickeyv1_x'\]"),
        (lambda: lambda_handler(registered, identity_keys=["x"]), "an identity key is publickeyv1_"),
        (lambda: Client("localhost:8080"), "base_url must be http:// or https://"),
        (lambda: Client("http://localhost", auth="sigv4"), "auth is 'iam' or None, found 'sigv4'"),
        (
            lambda: Client("http://localhost").call(not_decorated),
            "expected a handler object.*pass the decorated function",
        ),
        (lambda: Client("http://localhost").call("orders.checkout"), "has the form 'service/handler', found 'orders.checkout'"),
        (
            lambda: Client("http://localhost").call(known, 1, keys="k"),
            "a call has no option 'keys'; it takes key, idempotency_key",
        ),
        (lambda: Client("http://localhost").call(known, 1, key="k"), "belongs to a plain service, which has no keys"),
        (lambda: Client("http://localhost").call(known, 1, idempotency_key=""), "idempotency_key is empty"),
    ],
)
def test_refused_where_it_is_written(wrong: Any, text: str) -> None:
    with pytest.raises((TypeError, ValueError, AttributeError), match=text):
        wrong()


# ---- What is refused at the call that is wrong


async def _if_future(ctx: Context) -> None:
    if ctx.run(len, "abc"):
        pass


async def _gather_a_list(ctx: Context) -> None:
    await ctx.gather([ctx.run(len, "abc")])  # type: ignore[arg-type]


async def _select_a_dict(ctx: Context) -> None:
    await ctx.select(a={"b": ctx.run(len, "abc")})  # type: ignore[arg-type]


async def _plain_with(ctx: Context) -> None:
    with ctx.timeout(timedelta(1)):  # type: ignore[attr-defined]
        pass


async def _plain_saga(ctx: Context) -> None:
    with ctx.saga():  # type: ignore[attr-defined]
        pass


async def _state(ctx: Context) -> None:
    await ctx.get("x")  # type: ignore[attr-defined]


async def _promise(ctx: Context) -> None:
    await ctx.promise("x")  # type: ignore[attr-defined]


async def _misspelt(ctx: Context) -> None:
    await ctx.awakable(str)  # type: ignore[attr-defined]


async def _unknown(ctx: Context) -> None:
    await ctx.zzz()  # type: ignore[attr-defined]


async def _seconds(ctx: Context) -> None:
    await ctx.sleep(3)  # type: ignore[arg-type]


async def _past(ctx: Context) -> None:
    ctx.send("a/b", delay=timedelta(-1))


async def _retry_number(ctx: Context) -> None:
    await ctx.run(len, "abc", retry=3)  # type: ignore[call-overload]


async def _called_coroutine(ctx: Context) -> None:
    await ctx.run(asyncio.sleep(0))  # type: ignore[call-overload]


async def _no_concurrency(ctx: Context) -> None:
    await ctx.map(len, ["a"], concurrency=0)


async def _undecorated(ctx: Context) -> None:
    await ctx.call(not_decorated)  # type: ignore[call-overload]


async def _run_a_handler(ctx: Context) -> None:
    await ctx.run(known, 1)


async def _compensate_by_a_handler(ctx: Context) -> None:
    async with ctx.saga():
        ctx.compensate(known, 1)


async def _wrong_argument(ctx: Context) -> None:
    await ctx.call(known, object())  # type: ignore[misc]


async def _not_json(ctx: Context) -> None:
    ctx.resolve_awakeable(ctx.awakeable().id, object())


async def _no_name(ctx: Context) -> None:
    await ctx.signal("", int)


async def _no_text(ctx: ObjectContext) -> None:
    await ctx.signal(3, int)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("use", "text"),
    [
        (_if_future, "a durable future is neither true nor false; await it"),
        (_gather_a_list, "gather takes each future by itself, found a list; write ctx.gather(*futures)"),
        (_select_a_dict, "select takes each future by itself, found a dict; write ctx.select(**futures)"),
        (_plain_with, "this handler is async: write `async with ctx.timeout(...)`"),
        (_plain_saga, "this handler is async: write `async with ctx.saga(...)`"),
        (_state, "Context has no 'get'; only handlers of virtual objects and workflows have a key and state"),
        (_promise, "Context has no 'promise'; durable promises belong to workflows"),
        (_misspelt, "Context has no 'awakable'; did you mean 'awakeable'?"),
        (_unknown, "Context has no 'zzz'; it has as_completed, awakeable, "),
        (_seconds, "expected a timedelta, found 3; write timedelta(seconds=...)"),
        (_past, "a duration cannot be negative"),
        (_retry_number, "retry is a RetryPolicy, found 3"),
        (_called_coroutine, "write ctx.run(f, x), not ctx.run(f(x))"),
        (_no_concurrency, "concurrency must be at least 1, found 0"),
        (_undecorated, "pass the decorated function itself"),
        (_run_a_handler, "ctx.run executes a function, and registered/known is a handler; write ctx.call(handler, argument)"),
        (_compensate_by_a_handler, "registered/known is a handler; write ctx.compensate_call(handler, argument)"),
        (_wrong_argument, "argument of registered/known: "),
        (_not_json, "object"),
        (_no_name, "a signal needs a name that is a text, found ''"),
        (_no_text, "a signal needs a name that is a text, found 3"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_refused_at_the_call(use: Any, text: str) -> None:
    gc.collect()  # what other tests left behind is not ours
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # a coroutine that nobody awaits
        assert text in await failure_of(use)


@pytest.mark.parametrize(
    ("use", "text"),
    [
        (lambda ctx: ctx.invocation("orders/checkout").cancel(), "'orders/checkout' is not an invocation id; expected inv_1"),
        (lambda ctx: ctx.invocation("inv_1").signal("go"), "'inv_1' is not an invocation id"),
        (lambda ctx: ctx.invocation(3).attach(), "3 is not an invocation id"),
        (lambda ctx: ctx.resolve_awakeable("sign_1x", 1), "'sign_1x' is not an awakeable id; expected sign_1"),
        (lambda ctx: ctx.reject_awakeable("", "no"), "'' is not an awakeable id"),
    ],
)
async def test_an_id_that_is_none_is_a_result_because_no_retry_mends_it(use: Any, text: str) -> None:
    service = Service("s")

    @service.handler(name="h")
    def handler(ctx: sync.Context) -> None:
        use(ctx)

    messages = [parse(frame.type, frame.body) for frame in split(await Journal().attempt(Endpoint([service]), "/invoke/s/h"))]
    assert isinstance(messages[0], OutputCommand)
    assert messages[0].failure.code == 400
    assert messages[0].failure.message.startswith(text)


async def test_shared_handlers_are_told_where_state_is_written() -> None:
    carts = VirtualObject("carts")

    @carts.shared
    async def look(ctx: SharedObjectContext) -> None:
        ctx.set("x", 1)  # type: ignore[attr-defined]

    body = await Journal().attempt(Endpoint([carts]), "/invoke/carts/look")
    last = list(split(body))[-1]
    assert "a shared handler only reads state: write it in an exclusive handler" in str(parse(last.type, last.body))


async def test_plain_handlers_are_told_their_own_way() -> None:
    def started(ctx: sync.Context) -> None:
        if ctx.start.run(len, "abc"):
            pass

    assert "ask it for its result()" in await failure_of(started, plain=True)

    def listed(ctx: sync.Context) -> None:
        ctx.gather([ctx.start.run(len, "abc")])  # type: ignore[arg-type]

    assert "write ctx.gather(*futures)" in await failure_of(listed, plain=True)

    def finished(ctx: sync.Context) -> None:
        ctx.gather(len("abc"))  # type: ignore[arg-type]

    assert "begin the work with ctx.start" in await failure_of(finished, plain=True)


async def test_a_wrapped_handler_says_that_it_became_plain() -> None:
    service = Service("s")

    def logged(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(ctx: Any) -> Any:
            return function(ctx)

        del wrapper.__annotations__, wrapper.__wrapped__
        return wrapper

    async def inner(ctx: Context) -> None: ...

    service.handler(name="h")(logged(inner))
    last = list(split(await Journal().attempt(Endpoint([service]), "/invoke/s/h")))[-1]
    assert "handler s/h is a plain `def` that returned a coroutine; write `async def`" in str(parse(last.type, last.body))


async def test_a_context_cannot_be_kept() -> None:
    kept: list[Context] = []

    async def keeps(ctx: Context) -> None:
        kept.append(ctx)
        await ctx.sleep(timedelta(1))

    service = Service("s")
    service.handler(name="h")(keeps)
    await Journal().attempt(Endpoint([service]), "/invoke/s/h")
    with pytest.raises(RuntimeError, match="the context of an attempt of s/h was used after its end; do not keep a context"):
        kept[0].send("a/b")
