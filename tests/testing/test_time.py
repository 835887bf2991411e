"""Virtual time: it stands still unless the test waits, and it jumps over what is idle."""

import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
import uvloop

from holdfast import Context, ObjectContext, Service, VirtualObject, sync
from holdfast.testing import Invocation, NotKept, OutOfPatience, Stuck, TestRuntime
from holdfast.testing.sync import TestRuntime as SyncTestRuntime
from tests.testing.shop import EFFECTS, approvals, nap, naps, request, sync_nap, wait_for_answer, wait_for_word

START = datetime(2030, 1, 1, tzinfo=UTC)


async def test_thirty_days_pass_at_once_and_handlers_see_them() -> None:
    async with TestRuntime(naps, start_at=START) as runtime:
        assert await runtime.call(nap, 30) == "2030-01-31T00:00:00+00:00"
        assert runtime.now() == START + timedelta(days=30)
        assert await runtime.call(sync_nap, 30) == "2030-03-02T00:00:00+00:00"


async def test_a_thirty_day_sleep_costs_less_than_50_ms_of_cpu() -> None:
    async with TestRuntime(naps) as runtime:
        await runtime.call(nap, 1)  # what is loaded once is loaded
        best = min([await _cpu_of_a_nap(runtime) for _ in range(5)])
    assert best < 0.050  # CPU time: a busy machine does not count


async def _cpu_of_a_nap(runtime: TestRuntime) -> float:
    began = time.process_time()
    await runtime.call(nap, 30)
    return time.process_time() - began


async def test_what_the_test_started_is_told_of_also_after_its_retention() -> None:
    async with TestRuntime(naps) as runtime:
        napped = await runtime.send(nap, 1)
        await runtime.advance(timedelta(days=90))
        assert await napped.status() == "completed"
        assert (await napped.journal()).names == ["sleep", "run now", "output"]
        with pytest.raises(NotKept, match="is its retention over"):
            await runtime.invocation(f"{napped.invocation_id[:-4]}0000").result()


async def test_many_timers_are_reached_one_by_one() -> None:
    async with TestRuntime(naps, start_at=START) as runtime:
        for hour in range(300):
            await runtime.send(nap, 1, delay=timedelta(hours=hour))
        await runtime.advance(timedelta(hours=299))
        assert len(await runtime.invocations(naps, status="suspended")) == 24
        assert len(await runtime.invocations(naps, status="scheduled")) == 0


def test_other_event_loops_will_do() -> None:
    async def test() -> str:
        async with TestRuntime(naps, start_at=START) as runtime:
            return await runtime.call(sync_nap, 30)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(test()) == "2030-01-31T00:00:00+00:00"


def test_a_handler_that_its_event_loop_has_left_behind_is_tried_again() -> None:
    service, started, attempts = Service("slow"), asyncio.Event(), 0

    @service.handler
    async def hang_once(ctx: Context) -> int:
        nonlocal attempts
        attempts += 1
        started.set()
        if attempts == 1:
            await asyncio.Event().wait()
        return attempts

    async def start() -> Invocation[int]:
        hanging = await runtime.send(hang_once)
        await started.wait()
        return hanging

    runtime = TestRuntime(service)  # of a fixture that lives longer than the loops of its tests
    hanging = asyncio.run(start())
    assert asyncio.run(hanging.result()) == 2
    runtime.close()


async def test_time_stands_still_while_nobody_waits() -> None:
    async with TestRuntime(approvals, start_at=START) as runtime:
        asked = await runtime.send(request, "a new desk", key="ann")
        await runtime.settle()
        assert EFFECTS == ["mail a new desk"]
        assert runtime.now() == START
        assert await asked.status() == "suspended"


async def test_what_is_due_on_the_way_happens_at_its_time() -> None:
    async with TestRuntime(approvals, start_at=START) as runtime:
        asked = await runtime.send(request, "a new desk", key="ann")
        await runtime.advance(timedelta(days=3) - timedelta(milliseconds=1))
        assert (await runtime.state(approvals, "ann")) == {"status": "asked"}
        await runtime.advance(timedelta(milliseconds=1))
        assert (await runtime.state(approvals, "ann")) == {"status": "expired"}
        assert await asked.result() == "expired"
        assert runtime.now() == START + timedelta(days=3)


async def test_a_delayed_send_starts_at_its_time() -> None:
    async with TestRuntime(naps, start_at=START) as runtime:
        later = await runtime.send(nap, 1, delay=timedelta(days=7))
        assert await later.status() == "scheduled"
        await runtime.advance(timedelta(days=7))
        assert await later.status() == "suspended"
        assert await later.result() == "2030-01-09T00:00:00+00:00"


async def test_time_stands_still_while_a_handler_does_real_io() -> None:
    service = Service("io")
    ended: list[str] = []

    @service.handler
    async def fetch(ctx: Context) -> str:
        return await ctx.run(over_a_socket)

    @service.handler
    def fetch_sync(ctx: sync.Context) -> str:
        return ctx.run(in_a_thread)

    async def over_a_socket() -> str:
        server = await asyncio.start_server(_echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        writer.write(b"hello\n")
        line = await reader.readline()
        writer.close()
        server.close()
        ended.append("socket")
        return line.decode()

    def in_a_thread() -> str:
        done = threading.Event()
        threading.Timer(0.0, done.set).start()
        assert done.wait(30)
        ended.append("thread")
        return "done"

    async with TestRuntime(service, naps, start_at=START) as runtime:
        long = await runtime.send(nap, 1)
        assert await runtime.call(fetch) == "hello\n"
        assert await runtime.call(fetch_sync) == "done"
        assert ended == ["socket", "thread"]
        assert runtime.now() == START  # although a timer was there to jump to
        await long.result()


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.readline())
    writer.close()


async def test_what_the_test_itself_has_ready_comes_before_a_jump() -> None:
    async with TestRuntime(approvals, start_at=START) as runtime:
        asked = await runtime.send(request, "a new desk", key="ann")

        async def approve() -> None:
            await runtime.settle()
            await runtime.promise(approvals, "ann", "decision").resolve(True)

        result, _ = await asyncio.gather(asked.result(), approve())
        assert result == "approved"
        assert runtime.now() == START


async def test_whoever_still_waits_goes_on_when_another_has_what_it_wanted() -> None:
    async with TestRuntime(naps, start_at=START, patience=timedelta(seconds=20)) as runtime:
        napped, done = await runtime.send(nap, 30), asyncio.Event()

        async def settle_and_wait() -> None:
            await runtime.settle()
            await done.wait()

        async def wait_for_the_result() -> None:
            assert await napped.result() == "2030-01-31T00:00:00+00:00"
            done.set()

        await asyncio.gather(settle_and_wait(), wait_for_the_result())


async def test_waiting_for_what_cannot_come_fails_at_once_and_says_what_is_missing() -> None:
    async with TestRuntime(naps) as runtime:
        asked = await runtime.send(wait_for_answer)
        with pytest.raises(Stuck, match=r"an awakeable or a signal; complete it with runtime\.resolve_awakeable") as stuck:
            await asked.result()
        assert "run ask" in str(stuck.value)
        await runtime.resolve_awakeable(asked.awakeable_id(), "yes")
        assert await asked.result() == "yes"


async def test_signals_and_rejected_awakeables_reach_the_handler() -> None:
    async with TestRuntime(naps) as runtime:
        told = await runtime.send(wait_for_word)
        await told.signal("word", "go")
        assert await told.result() == "go"
        asked = await runtime.send(wait_for_answer)
        await runtime.settle()
        await runtime.reject_awakeable(asked.awakeable_id(), "not today")
        with pytest.raises(Exception, match="not today"):
            await asked.result()


async def test_a_handler_that_hangs_is_named_when_patience_ends() -> None:
    service, started, release = Service("slow"), asyncio.Event(), asyncio.Event()

    @service.handler
    async def hang(ctx: Context) -> None:
        started.set()
        await release.wait()

    async with TestRuntime(service, patience=timedelta(seconds=3)) as runtime:
        hanging = await runtime.send(hang)
        await started.wait()  # handlers run also while the test does something else
        with pytest.raises(OutOfPatience, match="slow/hang"):
            await hanging.result()
        release.set()
        await hanging.result()


async def test_the_abort_timeout_counts_real_time_and_the_attempt_is_repeated() -> None:
    service, attempts = Service("slow"), 0

    @service.handler(abort_timeout=timedelta(milliseconds=200))
    async def slow_once(ctx: Context) -> int:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            await asyncio.Event().wait()
        return attempts

    async with TestRuntime(service) as runtime:
        assert await runtime.call(slow_once) >= 2


async def test_an_invocation_that_waits_for_its_key_says_so() -> None:
    things = VirtualObject("things")

    @things.handler
    async def hold(ctx: ObjectContext) -> str:
        return await ctx.awakeable(str)

    async with TestRuntime(things) as runtime:
        first = await runtime.send(hold, key="k")
        second = await runtime.send(hold, key="k")
        with pytest.raises(Stuck, match="It waits for its key: another invocation holds it") as stuck:
            await second.result()
        assert f"things/k/hold  {first.invocation_id}  suspended: waits for an awakeable or a signal" in str(stuck.value)
        await runtime.resolve_awakeable(first.awakeable_id(), "a")
        await runtime.resolve_awakeable(second.awakeable_id(), "b")
        assert (await first.result(), await second.result()) == ("a", "b")


def test_plain_tests_have_the_same_runtime() -> None:
    with SyncTestRuntime(naps, approvals, start_at=START) as runtime:
        assert runtime.call(nap, 30) == "2030-01-31T00:00:00+00:00"
        asked = runtime.send(request, "a desk", key="bob")
        runtime.advance(timedelta(days=1))
        runtime.promise(approvals, "bob", "decision").resolve(False)
        assert asked.result() == "refused"
        assert runtime.promise(approvals, "bob", "decision").peek() is False
        assert [inner.status() for inner in runtime.invocations(approvals)] == ["completed"]


async def test_the_plain_runtime_refuses_a_running_loop() -> None:
    with SyncTestRuntime(naps) as runtime, pytest.raises(RuntimeError, match=r"use holdfast\.testing\.TestRuntime and await"):
        runtime.call(nap, 1)


async def test_a_closed_runtime_says_so() -> None:
    async with TestRuntime(naps) as runtime:
        await runtime.call(nap, 1)
    with pytest.raises(RuntimeError, match="closed"):
        await runtime.call(nap, 1)
