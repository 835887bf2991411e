"""What one attempt does, case by case: cancellation, deadlines, sagas, retries, signals, mismatches, awkward handlers."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from holdfast import (
    CancelledError,
    Context,
    DeadlineExceededError,
    ObjectContext,
    RetryableError,
    RetryPolicy,
    Service,
    TerminalError,
    VirtualObject,
    _drive,
    sync,
)
from holdfast.endpoint import Endpoint
from holdfast.protocol.frames import Frame, split
from holdfast.protocol.messages import (
    CallCommand,
    Error,
    Message,
    MessageType,
    Notification,
    OutputCommand,
    ProposeRunCompletion,
    RunCommand,
    SendSignalCommand,
    SleepCommand,
    Suspension,
    Value,
    Void,
    parse,
)
from tests.sdk.tiny_runtime import CHILD, Journal

HOUR = timedelta(hours=1)
Body = Callable[[Any], Awaitable[Any]]


def endpoint_of(body: Body) -> Endpoint:
    """A service `s` with a handler `h` of this body."""
    service = Service("s")

    @service.handler(name="h")
    async def handler(ctx: Context) -> Any:
        return await body(ctx)

    return Endpoint([service])


async def attempt(body: Body, journal: Journal) -> list[Message]:
    """One attempt, whose response is taken into the journal; the messages it sent."""
    response = await journal.attempt(endpoint_of(body), "/invoke/s/h")
    journal.take(response)
    return [parse(frame.type, frame.body, version=journal.version) for frame in split(response)]


def shape(messages: list[Message]) -> list[str]:
    """The kinds of messages."""
    return [type(message).__name__ for message in messages]


async def test_a_cancellation_waits_for_the_ids_of_children() -> None:
    async def body(ctx: Context) -> None:
        await ctx.gather(ctx.call("a/b"), ctx.call("a/c"))

    journal = Journal()
    await attempt(body, journal)
    # The coordinator answers ids late: take them out, and cancel.
    ids = [frame for frame in journal.entries if frame.type == MessageType.CALL_INVOCATION_ID_COMPLETION]
    journal.entries = [frame for frame in journal.entries if frame not in ids]
    journal.cancel()
    [suspension] = await attempt(body, journal)
    assert isinstance(suspension, Suspension)
    assert (list(suspension.waiting_completions), list(suspension.waiting_signals)) == ([1, 3], [])
    journal.entries += ids
    messages = await attempt(body, journal)
    assert shape(messages) == ["SendSignalCommand", "SendSignalCommand", "OutputCommand", "End"]
    assert all(m.target_invocation_id == CHILD and m.idx == 1 for m in messages if isinstance(m, SendSignalCommand))


async def test_sent_and_finished_invocations_are_not_cancelled() -> None:
    async def body(ctx: Context) -> None:
        ctx.send("a/b")
        await ctx.call("a/finished")
        await ctx.call("a/running")

    journal = Journal()
    await attempt(body, journal)
    journal.happen("call 3")
    await attempt(body, journal)
    journal.cancel()
    assert shape(await attempt(body, journal)) == ["SendSignalCommand", "OutputCommand", "End"]


async def test_a_second_cancellation_reaches_the_next_wait() -> None:
    seen: list[str] = []

    async def body(ctx: Context) -> str:
        for name in ("first", "second"):
            try:
                await ctx.sleep(HOUR)
            except CancelledError:
                seen.append(name)
        return "done"

    journal = Journal()
    await attempt(body, journal)
    journal.cancel()
    journal.cancel()
    messages = await attempt(body, journal)
    assert shape(messages) == ["SleepCommand", "OutputCommand", "End"]
    assert seen == ["first", "second"]


async def test_a_cancellation_behind_the_awaited_result_comes_later() -> None:
    async def body(ctx: Context) -> str:
        await ctx.sleep(HOUR)
        return "slept"

    journal = Journal()
    await attempt(body, journal)
    journal.happen("sleep 1")
    journal.cancel()
    output, _ = await attempt(body, journal)
    assert isinstance(output, OutputCommand)
    assert output.value.content == b'"slept"'


async def test_compensations_are_not_interrupted_and_all_tried() -> None:
    undone: list[int] = []

    def undo(number: int) -> None:
        undone.append(number)
        if number == 2:
            raise TerminalError("stuck")

    async def body(ctx: Context) -> None:
        async with ctx.timeout(HOUR), ctx.saga():
            for number in (1, 2, 3):
                ctx.compensate(undo, number)
            await ctx.sleep(2 * HOUR)

    journal = Journal()
    await attempt(body, journal)
    journal.cancel()
    for _ in range(3):
        proposed = await attempt(body, journal)
        assert shape(proposed) == ["RunCommand", "ProposeRunCompletion", "Suspension"]
        journal.cancel()
    output, _ = await attempt(body, journal)
    assert isinstance(output, OutputCommand)
    assert (output.failure.code, output.failure.message) == (409, "cancelled")
    assert undone == [3, 2, 1]


def undone_by_a_call() -> Service:
    service = Service("s")

    @service.handler
    async def in_async(ctx: Context) -> None:
        async with ctx.saga():
            ctx.compensate_call("stock/release", "o1", key="cup", name="undo")
            await ctx.call("stock/reserve", "o1", key="cup")

    @service.handler
    def in_plain(ctx: sync.Context) -> None:
        with ctx.saga():
            ctx.compensate_call("stock/release", "o1", key="cup", name="undo")
            ctx.call("stock/reserve", "o1", key="cup")

    return service


@pytest.mark.parametrize("handler", ["in_async", "in_plain"])
async def test_a_call_undoes_what_another_service_did(handler: str) -> None:
    endpoint, journal = Endpoint([undone_by_a_call()]), Journal()

    async def attempt() -> list[Message]:
        response = await journal.attempt(endpoint, f"/invoke/s/{handler}")
        journal.take(response)
        return [parse(frame.type, frame.body, version=journal.version) for frame in split(response)]

    (reserved, *_) = await attempt()
    assert isinstance(reserved, CallCommand)
    journal.happen(f"failed call {reserved.result_completion_id}")
    (released, waits) = await attempt()
    assert isinstance(released, CallCommand)
    assert (released.service_name, released.handler_name, released.key, released.parameter) == ("stock", "release", "cup", b'"o1"')
    assert isinstance(waits, Suspension)
    journal.happen(f"call {released.result_completion_id}")
    (output, *_) = await attempt()
    assert isinstance(output, OutputCommand)
    assert (output.failure.code, output.failure.message) == (418, "no")


async def test_a_retryable_error_leaves_a_saga_as_it_is() -> None:
    async def body(ctx: Context) -> None:
        async with ctx.saga():
            ctx.compensate(print)
            raise ValueError("try again")

    assert shape(await attempt(body, Journal())) == ["Error"]


async def test_the_outer_deadline_strikes_inside_the_inner_block() -> None:
    async def body(ctx: Context) -> str:
        try:
            async with ctx.timeout(HOUR), ctx.timeout(2 * HOUR):
                await ctx.awakeable(str)
        except DeadlineExceededError as error:
            return str(error)
        return ""

    journal = Journal()
    await attempt(body, journal)
    journal.happen("sleep 1")
    output, _ = await attempt(body, journal)
    assert isinstance(output, OutputCommand)
    assert b"1:00:00" in output.value.content


async def test_a_deadline_that_leaves_the_handler_is_terminal() -> None:
    async def body(ctx: Context) -> None:
        async with ctx.timeout(HOUR):
            await ctx.awakeable(str)

    journal = Journal()
    await attempt(body, journal)
    journal.happen("sleep 1")
    output, _ = await attempt(body, journal)
    assert isinstance(output, OutputCommand)
    assert output.failure.code == 408


async def test_runs_of_a_gather_execute_concurrently_and_finished_ones_count() -> None:
    meeting = asyncio.Barrier(2)

    async def meet(name: str) -> str:
        await asyncio.wait_for(meeting.wait(), 60)
        if name == "b":
            raise ValueError("b failed")
        return name

    async def body(ctx: Context) -> list[str]:
        return list(await ctx.gather(ctx.run(meet, "a"), ctx.run(meet, "b", retry=RetryPolicy())))

    messages = await attempt(body, Journal())
    assert shape(messages) == ["RunCommand", "RunCommand", "ProposeRunCompletion", "Error"]
    error = messages[-1]
    assert isinstance(error, Error)
    assert (error.related_command_index, error.related_command_type) == (2, MessageType.RUN_COMMAND)
    assert error.next_retry_delay == 100


async def test_map_executes_so_many_at_once() -> None:
    running = 0
    most = 0

    async def work(item: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return item * 2

    async def body(ctx: Context) -> list[int]:
        return await ctx.map(work, range(10), concurrency=3)

    journal = Journal()
    messages = await attempt(body, journal)
    assert shape(messages) == ["RunCommand"] * 10 + ["ProposeRunCompletion"] * 10 + ["Suspension"]
    assert most == 3
    output, _ = await attempt(body, journal)
    assert isinstance(output, OutputCommand)
    assert output.value.content == b"[0,2,4,6,8,10,12,14,16,18]"


async def test_a_long_wave_is_cut_so_that_finished_runs_become_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_drive, "LONGEST_WAVE_S", -1.0)

    async def body(ctx: Context) -> Any:
        return await ctx.gather(ctx.run(lambda: 0, name="free"), ctx.map(lambda item: item, [1, 2]))

    journal = Journal()
    messages = await attempt(body, journal)
    assert shape(messages) == ["RunCommand"] * 3 + ["ProposeRunCompletion", "Suspension"]
    monkeypatch.undo()
    assert shape(await attempt(body, journal)) == ["ProposeRunCompletion"] * 2 + ["Suspension"]
    assert shape(await attempt(body, journal)) == ["OutputCommand", "End"]


async def test_run_retries_count_over_attempts_and_end_by_duration() -> None:
    def fail() -> None:
        raise ValueError("no")

    policy = RetryPolicy(initial_interval=timedelta(seconds=1), factor=3, max_interval=timedelta(seconds=5), max_attempts=4)

    async def body(ctx: Context) -> None:
        await ctx.run(fail, retry=policy)

    journal, delays = Journal(), []
    for _ in range(3):
        error = (await attempt(body, journal))[-1]
        assert isinstance(error, Error)
        delays.append(error.next_retry_delay)
    assert delays == [1000, 3000, 5000]
    proposal, _ = await attempt(body, journal)
    assert isinstance(proposal, ProposeRunCompletion)
    assert proposal.failure.message == "ValueError: no"
    assert policy.exhausted(1, 0) is False
    assert RetryPolicy(max_duration=HOUR).exhausted(1, 3_600_000) is True
    assert RetryPolicy(factor=2.0).delay_ms(100_000) == 60_000


async def test_retryable_errors_choose_their_delay() -> None:
    async def body(ctx: Context) -> None:
        raise RetryableError("busy", retry_after=timedelta(seconds=7))

    async def in_a_run(ctx: Context) -> None:
        def busy() -> None:
            raise RetryableError("busy", retry_after=timedelta(seconds=7))

        await ctx.run(busy, retry=RetryPolicy())

    for handler in (body, in_a_run):
        error = (await attempt(handler, Journal()))[-1]
        assert isinstance(error, Error)
        assert error.next_retry_delay == 7000


async def test_a_result_that_cannot_be_recorded_does_not_repeat_the_side_effect() -> None:
    async def body(ctx: Context) -> None:
        await ctx.run(object, name="odd")

    _, proposal, _ = await attempt(body, Journal())
    assert isinstance(proposal, ProposeRunCompletion)
    assert "was executed, but its result cannot be recorded" in proposal.failure.message


async def test_a_signal_that_lost_a_race_is_there_for_the_next_wait() -> None:
    async def body(ctx: Context) -> list[Any]:
        winner, _ = await ctx.select(timer=ctx.sleep(HOUR), signal=ctx.signal("go", int))
        return [winner, await ctx.signal("go", int), await ctx.signal("go", int)]

    journal = Journal()
    await attempt(body, journal)
    journal.happen("sleep 1")
    journal.signal("go", b"1")
    journal.signal("go", b"2")
    output, _ = await attempt(body, journal)
    assert isinstance(output, OutputCommand)
    assert output.value.content == b'["timer",1,2]'


async def test_abandoned_waits_do_not_eat_signals() -> None:
    async def body(ctx: Context) -> int:
        ctx.signal("go", int)
        return await ctx.signal("go", int)

    journal = Journal()
    journal.signal("go", b"5")
    output, _ = await attempt(body, journal)
    assert isinstance(output, OutputCommand)
    assert output.value.content == b"5"


async def test_a_mismatch_names_entry_record_and_request() -> None:
    async def first(ctx: Context) -> None:
        await ctx.run(lambda: 1, name="charge")

    async def other_type(ctx: Context) -> None:
        await ctx.sleep(HOUR)

    async def other_name(ctx: Context) -> None:
        await ctx.run(lambda: 1, name="refund")

    async def nothing(ctx: Context) -> None:
        return None

    async def swallowed(ctx: Context) -> str:
        try:
            await ctx.sleep(HOUR)
        except Exception:
            await ctx.call("a/compensation")
        return "went on"

    async def blocked(ctx: Context) -> None:
        await ctx.awakeable(str)

    expected = {
        other_type: "entry 1 records run 'charge', the handler issued sleep.",
        other_name: "entry 1 records run 'charge', the handler issued run 'refund' with another name.",
        nothing: "entry 1 records run 'charge', the handler issued output.",
        swallowed: "entry 1 records run 'charge', the handler issued sleep.",
        blocked: "entry 1 records run 'charge', the handler issued a wait for awakeable",
    }
    asked = {
        other_type: "in other_type: await ctx.sleep(HOUR)",
        other_name: 'in other_name: await ctx.run(lambda: 1, name="refund")',
        swallowed: "in swallowed: await ctx.sleep(HOUR)",
        blocked: "in blocked: await ctx.awakeable(str)",
    }
    for body, text in expected.items():
        journal = Journal()
        await attempt(first, journal)
        [error] = await attempt(body, journal)
        assert isinstance(error, Error)
        assert error.code == 570
        assert text in error.message
        assert "Usual causes" in error.message
        assert error.related_command_index == 1
        assert "Traceback" in error.stacktrace

        place = error.message.splitlines()[1]
        assert "test_attempts.py line " in place
        assert place.endswith(asked.get(body, "begins: it ended here"))


async def test_clean_up_code_cannot_add_to_a_finished_attempt() -> None:
    async def body(ctx: Context) -> None:
        try:
            await ctx.sleep(HOUR)
        finally:
            ctx.send("a/b")

    assert shape(await attempt(body, Journal())) == ["SleepCommand", "Suspension"]

    async def greedy(ctx: Context) -> str:
        with contextlib.suppress(BaseException):
            await ctx.sleep(HOUR)
        return "swallowed"

    assert shape(await attempt(greedy, Journal())) == ["SleepCommand", "Suspension"]


async def test_task_groups_do_not_hide_the_suspension() -> None:
    async def body(ctx: Context) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
            await ctx.sleep(HOUR)

    assert shape(await attempt(body, Journal())) == ["SleepCommand", "Suspension"]


async def test_plain_asyncio_works_between_durable_waits() -> None:
    async def body(ctx: Context) -> str:
        await asyncio.sleep(0)
        first = await ctx.run(lambda: "a", name="a")
        return first + await asyncio.to_thread(str.upper, first)

    journal = Journal()
    await attempt(body, journal)
    output, _ = await attempt(body, journal)
    assert isinstance(output, OutputCommand)
    assert output.value.content == b'"aA"'


async def test_randomness_is_the_seed_of_the_invocation() -> None:
    async def body(ctx: Context) -> list[Any]:
        return [ctx.random.random(), str(ctx.uuid4())]

    outputs = [(await attempt(body, Journal()))[0] for _ in range(2)]
    assert outputs[0] == outputs[1]
    output = outputs[0]
    assert isinstance(output, OutputCommand)
    assert str(random.Random(7).random()).encode() in output.value.content
    assert (await attempt(body, Journal(version=5)))[0] != output


async def test_version_5_has_no_failure_metadata() -> None:
    async def body(ctx: Context) -> None:
        raise TerminalError("no", metadata={"why": "because"})

    for version, pairs in ((5, 0), (6, 1)):
        output, _ = await attempt(body, Journal(version=version))
        assert isinstance(output, OutputCommand)
        assert len(output.failure.metadata) == pairs


async def test_futures_may_be_awaited_again_and_asked() -> None:
    async def body(ctx: Context) -> list[Any]:
        call = ctx.call("a/b", returns=str)
        before = call.done()
        return [before, await call, await call, call.done(), await call.invocation_id]

    journal = Journal()
    await attempt(body, journal)
    journal.happen("call 2")
    output, _ = await attempt(body, journal)
    assert isinstance(output, OutputCommand)
    assert output.value.content == f'[false,"answer","answer",true,"{CHILD}"]'.encode()


async def test_the_first_failure_in_the_journal_fails_a_gather() -> None:
    async def body(ctx: Context) -> None:
        await ctx.gather(ctx.call("a/b"), ctx.call("a/c"))

    journal = Journal()
    await attempt(body, journal)
    journal.happen("failed call 4")
    output, _ = await attempt(body, journal)
    assert isinstance(output, OutputCommand)
    assert (output.failure.code, output.failure.message) == (418, "no")


async def test_what_lost_a_race_is_neither_executed_nor_awaited() -> None:
    executed: list[str] = []

    async def body(ctx: Context) -> None:
        race = ctx.select(call=ctx.call("a/b"), timer=ctx.sleep(HOUR), run=ctx.run(executed.append, "run"))
        await ctx.gather(race, ctx.awakeable(str))

    journal = Journal()
    service = endpoint_of(body)
    journal.take(await journal.attempt(service, "/invoke/s/h"))
    assert executed == ["run"]
    # As if the proposal had never arrived, and the call ended first.
    journal.entries = [frame for frame in journal.entries if frame.type != MessageType.RUN_COMPLETION]
    journal.happen("call 2")
    [suspension] = await attempt(body, journal)
    assert isinstance(suspension, Suspension)
    assert (list(suspension.waiting_completions), list(suspension.waiting_signals)) == ([], [17, 1])
    assert executed == ["run"]


async def test_an_unawaited_run_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    async def body(ctx: Context) -> None:
        ctx.run(lambda: 1, name="forgotten")

    await attempt(body, Journal())
    assert "run 'forgotten' was never awaited, so it was never executed" in caplog.text


async def test_state_written_before_a_failure_is_not_written_again() -> None:
    carts = VirtualObject("s")
    attempts: list[int] = []

    @carts.handler(name="h")
    async def handler(ctx: ObjectContext) -> int:
        ctx.set("n", await ctx.get("n", int, default=0) + 1)
        attempts.append(1)
        if len(attempts) == 1:
            raise ValueError("once")
        return await ctx.get("n", int, default=0)

    journal = Journal()
    for _ in range(2):
        journal.take(await journal.attempt(Endpoint([carts]), "/invoke/s/h"))
    assert isinstance(journal.output, OutputCommand)
    assert journal.output.value.content == b"1"


async def test_torn_and_foreign_requests_are_refused() -> None:
    async def body(ctx: Context) -> None: ...

    endpoint = endpoint_of(body)
    whole = Journal().request()
    sleep = Frame(MessageType.SLEEP_COMPLETION, Notification(completion_id=9, void=Void()).SerializeToString())
    journal = Journal()
    journal.entries.append(sleep)
    headers = {"content-type": "application/vnd.restate.invocation.v6"}
    for content, status in (
        (whole[:-1], 400),
        (whole[8 + 60 :], 400),
        (journal.request()[: len(whole)], 400),
        (journal.request(), 200),  # nobody waits for it: kept for later
    ):
        assert (await endpoint.handle("POST", "/invoke/s/h", headers, content))[0] == status


def test_commands_are_described_in_words() -> None:
    from holdfast.protocol.replay import describe

    call = CallCommand(service_name="a", handler_name="b", key="k", name="label")
    assert describe(MessageType.CALL_COMMAND, call) == "call a/b of key 'k' 'label'"
    assert describe(MessageType.RUN_COMMAND, RunCommand(name="x")) == "run 'x'"
    assert describe(MessageType.SLEEP_COMMAND, SleepCommand()) == "sleep"
    assert describe(MessageType.OUTPUT_COMMAND, OutputCommand(value=Value())) == "output"
