"""Whatever a context offers, as it is, replayed at every await, and with a crash at every entry: the same results, the same journal."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdfast import Context, Service, TerminalError, sync
from holdfast.testing import Crash, TestRuntime, crashes

service = Service("combinators")
HOUR = timedelta(hours=1)


def double(number: int) -> int:
    return 2 * number


async def failing(number: int) -> int:
    raise TerminalError(f"no {number}")


@service.handler
async def child(ctx: Context, hours: int) -> int:
    await ctx.sleep(hours * HOUR)
    return hours


@service.handler
async def endless(ctx: Context) -> str:
    return await ctx.signal("never", str)


@service.handler
async def everything(ctx: Context) -> dict[str, Any]:
    found: dict[str, Any] = {}
    now, again = await ctx.now(), await ctx.now()
    found["time"] = (again - now) < HOUR
    found["random"] = ctx.random.random() != ctx.random.random()
    first = await ctx.select(slow=ctx.call(child, 5), quick=ctx.sleep(HOUR), late=ctx.signal("never", str))
    found["first"] = first.name
    found["map"] = await ctx.map(double, [1, 2, 3], concurrency=2)
    found["order"] = [await future async for future in ctx.as_completed([ctx.call(child, 3), ctx.call(child, 1), ctx.call(child, 2)])]
    try:
        await ctx.gather(ctx.run(double, 1), ctx.run(failing, 7))
    except TerminalError as error:
        found["failed"] = str(error)
    try:
        async with ctx.timeout(2 * HOUR):
            await ctx.call(endless)
    except TimeoutError:
        found["deadline"] = "passed"
    sent = ctx.send(child, 4, delay=HOUR)
    found["attached"] = await ctx.invocation(await sent.invocation_id).attach(int)
    other = ctx.send(endless)
    ctx.invocation(await other.invocation_id).cancel()
    awakeable = ctx.awakeable(str)
    ctx.resolve_awakeable(awakeable.id, "by myself")
    found["awakeable"] = await awakeable
    return found


@service.handler
def everything_sync(ctx: sync.Context) -> dict[str, Any]:
    found: dict[str, Any] = {}
    found["first"] = ctx.select(slow=ctx.start.call(child, 5), quick=ctx.start.sleep(HOUR)).name
    found["map"] = ctx.map(double, [1, 2, 3], concurrency=2)
    try:
        with ctx.timeout(2 * HOUR):
            ctx.call(endless)
    except TimeoutError:
        found["deadline"] = "passed"
    found["attached"] = ctx.invocation(ctx.send(child, 4).invocation_id).attach(int)
    return found


EXPECTED = {
    "time": True,
    "random": True,
    "first": "quick",
    "map": [2, 4, 6],
    "order": [1, 2, 3],
    "failed": "no 7",
    "deadline": "passed",
    "attached": 4,
    "awakeable": "by myself",
}
EXPECTED_SYNC = {"first": "quick", "map": [2, 4, 6], "deadline": "passed", "attached": 4}


async def played(handler: Any, **options: Any) -> tuple[Any, list[str]]:
    """Result, and the steps of the journal."""
    async with TestRuntime(service, start_at=datetime(2030, 1, 1, tzinfo=UTC), **options) as runtime:
        started = await runtime.send(handler)
        result = await started.result()
        return result, [
            name for name in (await started.journal()).names if not name.startswith(("attach", "signal", "cancel", "awakeable"))
        ]


@pytest.mark.parametrize(("handler", "expected"), [(everything, EXPECTED), (everything_sync, EXPECTED_SYNC)], ids=["async", "plain"])
@pytest.mark.parametrize("seed", range(3))
async def test_replaying_changes_nothing(handler: Any, expected: dict[str, Any], seed: int) -> None:
    as_it_is, steps = await played(handler, seed=seed)
    replayed, steps_replayed = await played(handler, seed=seed, always_replay=True)
    assert as_it_is == replayed == expected
    assert steps == steps_replayed


@pytest.mark.parametrize("crash", crashes(40)[::3], ids=str)
async def test_a_crash_changes_nothing(crash: Crash) -> None:
    result, _ = await played(everything, crash_at=crash, always_replay=crash.entry % 2 == 0)
    assert result == EXPECTED


@pytest.mark.parametrize("crash", crashes(16)[::3], ids=str)
async def test_a_crash_changes_nothing_for_plain_handlers(crash: Crash) -> None:
    result, _ = await played(everything_sync, crash_at=crash, always_replay=crash.entry % 2 == 0)
    assert result == EXPECTED_SYNC
