"""The Pydantic AI agent: each wait is replayed, and models are Pydantic AI's own for tests."""

import asyncio
from datetime import timedelta

import pytest

pytest.importorskip("pydantic_ai", reason="pydantic-ai-slim is not installed: pip install -e '.[pydantic-ai]'")

from holdfast import Context, Handler, Service, TerminalError
from holdfast.testing import Crash, TestRuntime
from pydantic_ai import Agent, ModelRetry
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models import Model
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel

from ai_agent import shop
from ai_agent.durable_pydantic import HoldfastDurability, run_agent
from ai_agent.support import LIMITS, agent, ask, support


@pytest.fixture
def refunds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []

    def refund(order_id: str, cents: int, request_id: str) -> str:
        found.append(request_id)
        return "done"

    monkeypatch.setattr(shop, "refund", refund)
    return found


@pytest.mark.holdfast(support)
async def test_requests_and_tools_are_recorded(holdfast_runtime: TestRuntime) -> None:
    turn = await holdfast_runtime.send(ask, "Where is o1?", key="ann")
    assert "neighbour" in await turn.result()
    tools = "run support__function_toolset__<agent>.call_tool:"
    (await turn.journal()).assert_in_order(
        "run support__model.request", f"{tools}find_order", f"{tools}track_parcel", "run support__model.request"
    )
    assert await holdfast_runtime.call(ask, "Where is my cup?", key="ann") == "Which order is it about?"


def find_order(order_id: str) -> dict[str, object]:
    try:
        return shop.find_order(order_id)
    except TerminalError as refused:
        raise ModelRetry(str(refused)) from refused


def talking(model: Model) -> tuple[Service, Handler[str, str]]:
    """A service with an agent of its own."""
    own = Agent(model, name="own", tools=[find_order, shop.track_parcel], capabilities=[HoldfastDurability()])
    service = Service("own")

    @service.handler
    async def talk(ctx: Context, text: str) -> str:
        return (await run_agent(ctx, lambda: own.run(text, usage_limits=LIMITS))).output

    return service, talk


async def test_each_request_is_made_once_though_every_wait_is_replayed() -> None:
    asked: list[int] = []

    async def think(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        asked.append(len(messages))
        if len(messages) > 1:
            return ModelResponse(parts=[TextPart(f"I was told: {messages[-1].parts[0]}")])
        return ModelResponse(parts=[ToolCallPart("find_order", {"order_id": "o9"})])

    service, talk = talking(FunctionModel(think))
    async with TestRuntime(service, always_replay=True) as runtime:
        assert "there is no order o9" in await runtime.call(talk, "Where is o9?")
    assert asked == [1, 3]


async def test_the_model_of_pydantic_ai_for_tests_works() -> None:
    service, talk = talking(TestModel(call_tools=["track_parcel"]))
    async with TestRuntime(service) as runtime:
        assert "neighbour" in await runtime.call(talk, "hello")


async def test_an_agent_that_goes_round_in_circles_is_stopped() -> None:
    def again(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        return ModelResponse(parts=[ToolCallPart("track_parcel", {"order_id": "o1"})])

    service, talk = talking(FunctionModel(again))
    async with TestRuntime(service, always_replay=False) as runtime:
        with pytest.raises(TerminalError, match="request_limit of 8"):
            await runtime.call(talk, "hello")


@pytest.mark.parametrize("approved", [True, False, None])
@pytest.mark.holdfast(support)
async def test_a_refund_waits_for_a_person(holdfast_runtime: TestRuntime, refunds: list[str], approved: bool | None) -> None:
    turn = await holdfast_runtime.send(ask, "Please refund o1", key="ann")
    await holdfast_runtime.settle()
    assert await turn.status() == "suspended"
    if approved is None:
        await holdfast_runtime.advance(timedelta(hours=24))
    else:
        await holdfast_runtime.resolve_awakeable(turn.awakeable_id(), approved)
    answer = await turn.result()
    assert answer.endswith('"done"') if approved else "denied" in answer
    assert len(refunds) == (1 if approved else 0)


@pytest.mark.holdfast(support)
async def test_a_turn_can_be_cancelled_and_leaves_nothing(holdfast_runtime: TestRuntime, refunds: list[str]) -> None:
    turn = await holdfast_runtime.send(ask, "Please refund o1", key="ann")
    await holdfast_runtime.settle()
    await turn.cancel()
    with pytest.raises(TerminalError) as cancelled:
        await turn.result()
    assert cancelled.value.code == 409
    assert refunds == [] and await holdfast_runtime.state(support, "ann") == {}


@pytest.mark.holdfast(support)
async def test_a_provider_with_a_bad_minute_costs_time_only(holdfast_runtime: TestRuntime) -> None:
    holdfast_runtime.fail_step("support__model.request", ConnectionError("throttled"), times=3)
    began = holdfast_runtime.now()
    assert await holdfast_runtime.call(ask, "hello", key="ann") == "Which order is it about?"
    assert holdfast_runtime.now() - began == timedelta(seconds=1 + 2 + 4)


@pytest.mark.parametrize("entry", [3, 7, 9, 15, 19])
async def test_whatever_dies_nothing_is_refunded_twice(entry: int, refunds: list[str]) -> None:
    async with TestRuntime(support, crash_at=Crash(entry, stored=False), always_replay=False) as runtime:
        turn = await runtime.send(ask, "Please refund o1", key="ann")
        await runtime.advance(timedelta(minutes=1))
        await runtime.resolve_awakeable(turn.awakeable_id(), True)
        await turn.result()
    assert len(set(refunds)) == 1  # by one id, which a payment provider recognises


async def test_outside_of_a_handler_the_agent_is_what_it_was() -> None:
    result, _ = await asyncio.gather(agent.run("hello"), agent.run("Where is o1?"))
    assert result.output == "Which order is it about?"
