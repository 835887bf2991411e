"""The same assistant written with Pydantic AI: the agent is Pydantic AI's, the conversation and its durability are Holdfast's.

Serve it with `holdfast dev ai_agent.support:support`, or name `ai_agent.support.handler` in template.yaml and add pydantic-ai-slim to
src/requirements.txt.
"""

import json
import os
from collections.abc import Sequence
from datetime import timedelta
from functools import partial

from holdfast import Context, ObjectContext, RetryPolicy, TerminalError, VirtualObject
from holdfast.aws import lambda_handler
from pydantic_ai import Agent, DeferredToolRequests, DeferredToolResults, ModelRetry, RunContext, UsageLimits
from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel

from ai_agent import shop
from ai_agent.durable_pydantic import HoldfastDurability, run_agent
from ai_agent.models import INSTRUCTIONS, ScriptedModel
from ai_agent.records import Message, ToolCall, ToolResult

DECIDE_WITHIN = timedelta(hours=24)
LIMITS = UsageLimits(request_limit=8, total_tokens_limit=50_000)  # of a turn
PATIENT = RetryPolicy(initial_interval=timedelta(seconds=1), max_interval=timedelta(seconds=30), max_attempts=10)


def scripted(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """The model that needs no key, as Pydantic AI calls one."""
    message = ScriptedModel().complete([converted(message) for message in messages]).message
    calls = [ToolCallPart(call.name, call.arguments, call.id) for call in message.calls]
    return ModelResponse(parts=[*calls] if calls else [TextPart(message.text)])


def converted(message: ModelMessage) -> Message:
    text = " ".join(str(part.content) for part in message.parts if isinstance(part, UserPromptPart | TextPart))
    if isinstance(message, ModelResponse):
        asked = [part for part in message.parts if isinstance(part, ToolCallPart)]
        return Message("assistant", text, tuple(ToolCall(part.tool_call_id, part.tool_name, part.args_as_dict()) for part in asked))
    returned = [part for part in message.parts if isinstance(part, ToolReturnPart)]
    results = [ToolResult(part.tool_call_id, json.dumps(part.content), part.outcome != "success") for part in returned]
    return Message("user", text, results=tuple(results))


MODEL = os.environ.get("AGENT_MODEL", "scripted")  # or a model as Pydantic AI names it, such as bedrock:us.amazon.nova-pro-v1:0
agent = Agent(
    FunctionModel(scripted) if MODEL == "scripted" else MODEL,
    name="support",
    instructions=INSTRUCTIONS,
    output_type=[str, DeferredToolRequests],  # the second: tools that need approval
    capabilities=[HoldfastDurability(PATIENT)],
)


@agent.tool_plain
def find_order(order_id: str) -> dict[str, object]:
    """Looks an order up: what was bought, and for how many cents."""
    try:
        return shop.find_order(order_id)
    except TerminalError as refused:
        raise ModelRetry(str(refused)) from refused  # told to the model; a TerminalError would end the turn


@agent.tool_plain
def track_parcel(order_id: str) -> str:
    """Tells where the parcel of an order is."""
    return shop.track_parcel(order_id)


@agent.tool(requires_approval=True)
def refund(run: RunContext[object], order_id: str, cents: int) -> str:
    """Pays an order's price back. A colleague has to approve it."""
    return shop.refund(order_id, cents, f"{run.run_id}/{run.tool_call_id}")


support = VirtualObject("support", journal_retention=timedelta(days=7))


@support.handler
async def ask(ctx: ObjectContext, text: str) -> str:
    """One turn. Agents that stop for an approval go on when it is there, in another run of the same agent."""
    messages = ModelMessagesTypeAdapter.validate_json(await ctx.get("messages", str, default="[]"))
    result = await run_agent(ctx, lambda: agent.run(text, message_history=messages, usage_limits=LIMITS))
    while isinstance(result.output, DeferredToolRequests):
        decided = await approvals(ctx, result.output.approvals)
        go_on = partial(agent.run, message_history=result.all_messages(), deferred_tool_results=decided, usage_limits=LIMITS)
        result = await run_agent(ctx, go_on)
    # Recorded, because messages carry the time at which they were made, which is another one in every attempt.
    text_of_messages = result.all_messages_json().decode()
    ctx.set("messages", await ctx.run(lambda: text_of_messages, name="messages", serde=str))
    return result.output


async def approvals(ctx: Context, calls: Sequence[ToolCallPart]) -> DeferredToolResults:
    """Asks for each, in turn; the answer completes the awakeable: `POST /restate/awakeables/{id}/resolve`, with true or false."""
    decided = DeferredToolResults()
    for call in calls:
        approval = ctx.awakeable(bool)
        await ctx.run(shop.ask_for_approval, approval.id, f"{call.tool_name} {call.args_as_json_str()}")
        try:
            async with ctx.timeout(DECIDE_WITHIN):
                decided.approvals[call.tool_call_id] = await approval
        except TimeoutError:
            decided.approvals[call.tool_call_id] = False
    return decided


handler = lambda_handler(support)
