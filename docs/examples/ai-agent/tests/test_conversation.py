"""Runs on the real engine in memory, in virtual time; each wait is replayed (pyproject.toml)."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest
from holdfast import TerminalError
from holdfast.testing import Crash, Invocation, TestRuntime

from ai_agent import conversation, models, shop
from ai_agent.conversation import Status, Verdict, conversations, decide, forget, history, say, status, stop
from ai_agent.models import ScriptedModel
from ai_agent.records import Message, Reply, ToolCall

REFUND = "Please refund o1"


scripted = ScriptedModel()


class Counting:
    """The scripted model, or a function in its place, and how often it was called, which is what a provider would bill."""

    def __init__(self, answer: Callable[[Sequence[Message]], Reply] = scripted.complete) -> None:
        self.answer = answer
        self.calls = 0

    def complete(self, messages: Sequence[Message]) -> Reply:
        self.calls += 1
        return self.answer(messages)


def use(monkeypatch: pytest.MonkeyPatch, model: Counting) -> Counting:
    monkeypatch.setattr(models, "MODEL", model)
    return model


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Counting:
    return use(monkeypatch, Counting())


@pytest.fixture
def refunds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the refunds that the shop was asked for."""
    found: list[str] = []

    def refund(order_id: str, cents: int, request_id: str) -> str:
        found.append(request_id)
        return f"Refunded {cents} for {order_id}."

    monkeypatch.setattr(shop, "refund", refund)
    return found


async def waiting(runtime: TestRuntime, turn: Invocation[str]) -> Status:
    """What stands there once the turn can only wait."""
    await runtime.settle()
    assert await turn.status() == "suspended"
    return await runtime.call(status, key="ann")


@pytest.mark.holdfast(conversations)
async def test_tools_that_were_asked_for_together_are_executed_together(
    holdfast_runtime: TestRuntime, model: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = asyncio.Barrier(2)  # passed only by two at once; one alone would wait for ever
    loop = asyncio.get_running_loop()

    def meet(order_id: str) -> dict[str, object]:
        asyncio.run_coroutine_threadsafe(both.wait(), loop).result(timeout=30)
        return {"order_id": order_id}

    monkeypatch.setattr(shop, "find_order", meet)
    answer = await holdfast_runtime.call(say, "Where are o1 and o2?", key="ann")
    assert "The parcel of o1 was handed" in answer and "The parcel of o2 was handed" in answer
    assert model.calls == 2


@pytest.mark.holdfast(conversations)
async def test_a_conversation_goes_on(holdfast_runtime: TestRuntime, model: Counting) -> None:
    assert await holdfast_runtime.call(say, "Where is my cup?", key="ann") == "Which order is it about?"
    assert "neighbour" in await holdfast_runtime.call(say, "o2", key="ann")
    assert "there is no order o9" in await holdfast_runtime.call(say, "o9", key="ann")
    said = await holdfast_runtime.call(history, key="ann")
    assert [message.role for message in said] == ["user", "assistant"] * 5
    assert await holdfast_runtime.call(history, key="bob") == []
    await holdfast_runtime.call(forget, key="ann")
    assert await holdfast_runtime.call(history, key="ann") == []


@pytest.mark.holdfast(conversations)
async def test_one_turn_at_a_time(holdfast_runtime: TestRuntime, model: Counting, refunds: list[str]) -> None:
    first = await holdfast_runtime.send(say, REFUND, key="ann")
    second = await holdfast_runtime.send(say, "hello", key="ann")
    (pending,) = (await waiting(holdfast_runtime, first)).pending
    assert await second.status() == "pending"
    await holdfast_runtime.call(decide, Verdict(pending.approval_id, True), key="ann")
    await first.result()
    assert await second.result() == "Which order is it about?"


@pytest.mark.holdfast(conversations)
async def test_a_refund_waits_for_a_person(holdfast_runtime: TestRuntime, model: Counting, refunds: list[str]) -> None:
    turn = await holdfast_runtime.send(say, REFUND, key="ann")
    found = await waiting(holdfast_runtime, turn)
    assert found.turn == turn.invocation_id
    assert found.pending[0].call == ToolCall("call-3-0", "refund", {"order_id": "o1", "cents": 2_450})
    assert refunds == []

    await holdfast_runtime.advance(timedelta(hours=23))
    await holdfast_runtime.call(decide, Verdict(found.pending[0].approval_id, True), key="ann")
    assert "Refunded 2450 for o1." in await turn.result()
    assert refunds == [f"{turn.invocation_id}/call-3-0"]
    assert model.calls == 3
    assert await holdfast_runtime.call(status, key="ann") == Status(None, [], found.tokens + 24)
    with pytest.raises(TerminalError, match="nothing waits for this decision"):
        await holdfast_runtime.call(decide, Verdict(found.pending[0].approval_id, True), key="ann")


@pytest.mark.parametrize("answer", ["no", "late", "rejected"])
@pytest.mark.holdfast(conversations)
async def test_no_refund_without_a_yes(holdfast_runtime: TestRuntime, model: Counting, refunds: list[str], answer: str) -> None:
    turn = await holdfast_runtime.send(say, REFUND, key="ann")
    (pending,) = (await waiting(holdfast_runtime, turn)).pending
    if answer == "no":
        await holdfast_runtime.call(decide, Verdict(pending.approval_id, False), key="ann")
    elif answer == "rejected":
        await holdfast_runtime.reject_awakeable(pending.approval_id, "too much")
    told = {"no": "refused this.", "late": "Nobody has decided", "rejected": "refused this: too much"}
    assert told[answer] in await turn.result()
    assert refunds == []


@pytest.mark.holdfast(conversations)
async def test_of_two_refunds_one_is_approved(holdfast_runtime: TestRuntime, model: Counting, refunds: list[str]) -> None:
    turn = await holdfast_runtime.send(say, "Please refund o1 and o2", key="ann")
    first, second = (await waiting(holdfast_runtime, turn)).pending
    await holdfast_runtime.call(decide, Verdict(second.approval_id, False), key="ann")
    await holdfast_runtime.call(decide, Verdict(first.approval_id, True), key="ann")
    answer = await turn.result()
    assert "Refunded 2450 for o1." in answer and "A colleague has refused this." in answer
    assert len(refunds) == 1


@pytest.mark.holdfast(conversations)
async def test_what_is_harmless_does_not_wait_for_a_person(
    holdfast_runtime: TestRuntime, monkeypatch: pytest.MonkeyPatch, refunds: list[str]
) -> None:
    def both(messages: Sequence[Message]) -> Reply:
        if len(messages) > 1:
            return Reply(Message("assistant", " ".join(result.content for result in messages[-1].results)), 1)
        pay, look = ToolCall("a", "refund", {"order_id": "o1", "cents": 1}), ToolCall("b", "track_parcel", {"order_id": "o1"})
        return Reply(Message("assistant", calls=(pay, look)), 1)

    use(monkeypatch, Counting(both))
    turn = await holdfast_runtime.send(say, "hello", key="ann")
    (pending,) = (await waiting(holdfast_runtime, turn)).pending
    (await turn.journal()).assert_ran("track_parcel", times=1)
    await holdfast_runtime.call(decide, Verdict(pending.approval_id, True), key="ann")
    assert (await turn.result()).startswith('"Refunded')  # in the order in which the model asked
    assert len(refunds) == 1


@pytest.mark.holdfast(conversations)
async def test_a_turn_can_be_stopped(holdfast_runtime: TestRuntime, model: Counting, refunds: list[str]) -> None:
    assert not await holdfast_runtime.call(stop, key="ann")
    turn = await holdfast_runtime.send(say, REFUND, key="ann")
    await waiting(holdfast_runtime, turn)
    assert await holdfast_runtime.call(stop, key="ann")
    with pytest.raises(TerminalError) as stopped:
        await turn.result()
    assert stopped.value.code == 409
    assert refunds == []
    said = await holdfast_runtime.call(history, key="ann")
    assert said[-2].results[0].is_error  # each call has its result, or the provider would refuse the next turn
    assert said[-1] == Message("assistant", "(stopped by the user)")
    assert await holdfast_runtime.call(say, "hello", key="ann") == "Which order is it about?"


@pytest.mark.holdfast(conversations)
async def test_the_budget_of_a_conversation_ends(holdfast_runtime: TestRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    model = use(monkeypatch, Counting(lambda _: Reply(Message("assistant", "So be it."), conversation.MAX_TOKENS)))
    assert await holdfast_runtime.call(say, "Think hard", key="ann") == "So be it."
    with pytest.raises(TerminalError, match="used up"):
        await holdfast_runtime.call(say, "Harder", key="ann")
    assert model.calls == 1


@pytest.mark.holdfast(conversations)
async def test_a_model_that_goes_round_in_circles_is_stopped(holdfast_runtime: TestRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    def again(messages: Sequence[Message]) -> Reply:
        bad = ToolCall(f"c{len(messages)}", "find_order", {"order_id": 1, "colour": "red"})
        return Reply(Message("assistant", calls=(bad, ToolCall(f"d{len(messages)}", "fly", {}))), 1)

    model = use(monkeypatch, Counting(again))
    with pytest.raises(TerminalError, match="no answer after 8 rounds"):
        await holdfast_runtime.call(say, "hello", key="ann")
    assert model.calls == conversation.MAX_ROUNDS
    told = (await holdfast_runtime.call(history, key="ann"))[2].results
    assert told[0].content == "Expected order_id of type str, found 1."
    assert told[1].content == "There is no tool 'fly'; there are find_order, track_parcel, refund."


@pytest.mark.holdfast(conversations)
async def test_a_provider_with_a_bad_minute_costs_time_only(holdfast_runtime: TestRuntime, model: Counting) -> None:
    holdfast_runtime.fail_step("model", ConnectionError("throttled"), times=4)
    began = holdfast_runtime.now()
    assert await holdfast_runtime.call(say, "hello", key="ann") == "Which order is it about?"
    assert holdfast_runtime.now() - began == timedelta(seconds=1 + 2 + 4 + 8)
    assert model.calls == 1


@pytest.mark.holdfast(conversations)
async def test_a_tool_that_is_down_does_not_end_the_turn(holdfast_runtime: TestRuntime, model: Counting) -> None:
    holdfast_runtime.fail_step("track_parcel", ConnectionError("no answer"), times=20)
    answer = await holdfast_runtime.call(say, "Where is o1?", key="ann")
    assert "teapot" in answer and "track_parcel does not work at the moment: " in answer


DEATHS = [Crash(entry, stored=False) for entry in range(1, 28, 2)] + [Crash(entry, of="coordinator") for entry in range(4, 28, 8)]


@pytest.mark.parametrize("crash", DEATHS, ids=str)
async def test_whatever_dies_nothing_is_billed_or_refunded_again(crash: Crash, model: Counting, refunds: list[str]) -> None:
    async with TestRuntime(conversations, crash_at=crash) as runtime:
        turn = await runtime.send(say, REFUND, key="ann")
        await runtime.advance(timedelta(minutes=1))  # what was lost is tried again after a moment
        (pending,) = (await waiting(runtime, turn)).pending
        await runtime.crash_coordinator()
        await runtime.call(decide, Verdict(pending.approval_id, True), key="ann")
        assert "Refunded" in await turn.result()
    # What was executed, but not recorded when the attempt died, is executed again: once at most, and by the same id.
    unrecorded = 0 if crash.stored else 1
    assert model.calls <= 3 + unrecorded
    assert len(refunds) <= 1 + unrecorded and len(set(refunds)) == 1
