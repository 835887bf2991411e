"""always_replay: what is recorded is replayed at once, so that code which does something else the second time is found."""

import random
import time
from datetime import timedelta

import pytest

from holdfast import Context, ObjectContext, Service, VirtualObject, sync
from holdfast.testing import HandlerFailed, NotDeterministic, TestRuntime

service, things = Service("service"), VirtualObject("things")


def step(value: float = 0.0) -> float:
    return value


@things.handler
async def writes_chance(ctx: ObjectContext) -> None:
    """One attempt in production, unless something goes wrong just here: the mistake would show in the worst moment only."""
    await ctx.get("count", int)
    ctx.set("count", random.random())


@things.handler
def sync_writes_chance(ctx: sync.ObjectContext) -> None:
    ctx.get("count", int)
    ctx.set("count", random.random())


@service.handler
async def passes_the_clock(ctx: Context) -> None:
    ctx.send(other, time.perf_counter_ns())


@service.handler
async def other(ctx: Context, number: int) -> None:
    return None


@service.handler
async def uses_the_context(ctx: Context) -> tuple[str, float, float]:
    """The ways that are right."""
    now = await ctx.now()
    await ctx.sleep(timedelta(days=1))
    return now.isoformat(), ctx.random.random(), await ctx.run(step, random.random())


@pytest.mark.parametrize("handler", [writes_chance, sync_writes_chance], ids=lambda handler: handler.name)
async def test_state_written_by_chance_is_found(handler: object) -> None:
    async with TestRuntime(things) as runtime:
        await runtime.call(handler, key="k")  # type: ignore[call-overload]  # passes, as it would in production
    async with TestRuntime(things, always_replay=True) as runtime:
        with pytest.raises(NotDeterministic, match=r"entry 2 records set state 'count', .* with another value") as found:
            await runtime.call(handler, key="k")  # type: ignore[call-overload]
    assert "2  set state count" in str(found.value)  # the timeline, with the entry
    assert found.value.__cause__ is not None


async def test_arguments_from_the_clock_are_found() -> None:
    async with TestRuntime(service, always_replay=True) as runtime:
        with pytest.raises(NotDeterministic, match="entry 1 records send service/other"):
            await runtime.call(passes_the_clock)


async def test_handlers_that_ask_the_context_pass() -> None:
    async with TestRuntime(service, always_replay=True) as runtime:
        first = await runtime.call(uses_the_context)
        second = await runtime.call(uses_the_context)
    assert first[0] < second[0]


async def test_retries_can_be_disabled_for_the_first_error_to_show() -> None:
    @service.handler(name="fails")
    async def fails(ctx: Context) -> None:
        raise LookupError("nobody is there")

    async with TestRuntime(service, disable_retries=True) as runtime:
        with pytest.raises(HandlerFailed, match=r"service/fails .* LookupError: nobody is there") as failed:
            await runtime.call(fails)
    assert isinstance(failed.value.__cause__, LookupError)
