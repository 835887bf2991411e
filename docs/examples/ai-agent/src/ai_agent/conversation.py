"""Conversations: a virtual object for each, so that one turn at a time runs, with what was said as its state.

Every call of the model and every tool is a `ctx.run`: recorded once, so a crash in the middle of a turn repeats neither what was said nor
what was done. What the turn has found out so far is in the handler's variables, which replay fills again from the journal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from holdfast import CancelledError, DurableFuture, ObjectContext, RetryPolicy, SharedObjectContext, TerminalError, VirtualObject
from holdfast.aws import lambda_handler

from ai_agent import models, shop, tools
from ai_agent.records import Message, ToolCall, ToolResult

MAX_ROUNDS = 8  # calls of the model in a turn; one that goes round in circles must not go on for ever
MAX_TOKENS = 200_000  # of a conversation, in and out
DECIDE_WITHIN = timedelta(hours=24)
# A provider that is throttled recovers within minutes; a customer does not wait longer.
PATIENT = RetryPolicy(initial_interval=timedelta(seconds=1), max_interval=timedelta(seconds=30), max_attempts=10)


@dataclass(frozen=True)
class Pending:
    """A tool call that waits for a person."""

    approval_id: str
    call: ToolCall


@dataclass(frozen=True)
class Verdict:
    """What a person decided."""

    approval_id: str
    approved: bool


@dataclass(frozen=True)
class Status:
    """What a user interface shows beside the messages. `turn`: id of the invocation that works on an answer, if any."""

    turn: str | None
    pending: list[Pending]
    tokens: int


conversations = VirtualObject("conversations", journal_retention=timedelta(days=7))


@conversations.handler(idempotency_retention=timedelta(days=1))
async def say(ctx: ObjectContext, text: str) -> str:
    """One turn: what the user says, and what the assistant answers in the end. A second one waits until the first is over."""
    messages = [*await ctx.get("messages", list[Message], default=[]), Message("user", text)]
    ctx.set("turn", ctx.request.invocation_id)
    try:
        await work(ctx, messages)
    except CancelledError:
        end(ctx, closed(messages, "(stopped by the user)"))
        raise
    except TerminalError as failed:
        end(ctx, closed(messages, f"(failed: {failed})"))
        raise
    end(ctx, messages)  # not in a `finally`, which a suspension would reach too, and that is no end
    return messages[-1].text


async def work(ctx: ObjectContext, messages: list[Message]) -> None:
    """Asks the model, does what it asks for, and so on until it only answers. Appends to `messages`."""
    tokens = await ctx.get("tokens", int, default=0)
    for _ in range(MAX_ROUNDS):
        if tokens >= MAX_TOKENS:
            raise TerminalError(f"this conversation has used up its {MAX_TOKENS} tokens", code=402)
        reply = await ctx.run(models.complete, tuple(messages), name="model", retry=PATIENT)
        tokens += reply.tokens
        ctx.set("tokens", tokens)  # at once: a turn that is stopped has cost what it has cost
        messages.append(reply.message)
        if not reply.message.calls:
            return
        messages.append(Message("user", results=await carry_out(ctx, reply.message.calls)))
    raise TerminalError(f"no answer after {MAX_ROUNDS} rounds", code=508)


async def carry_out(ctx: ObjectContext, calls: Sequence[ToolCall]) -> tuple[ToolResult, ...]:
    """All calls of a reply: the harmless ones at once, then the others as far as somebody says yes to them."""
    dangerous = [call for call in calls if tools.is_dangerous(call)]
    results = await executed(ctx, [call for call in calls if call not in dangerous])
    results |= await approvals(ctx, dangerous)
    results |= await executed(ctx, [call for call in dangerous if call.id not in results])
    return tuple(results[call.id] for call in calls)


async def executed(ctx: ObjectContext, calls: Sequence[ToolCall]) -> dict[str, ToolResult]:
    """All of them at the same time."""
    running = {
        call.id: ctx.run(tools.execute, call, f"{ctx.request.invocation_id}/{call.id}", name=call.name, retry=PATIENT) for call in calls
    }
    async for _ in ctx.as_completed(running.values()):
        pass  # what came of each is looked at below, so that one failure does not hide the others
    return {call.id: await outcome(call, running[call.id]) for call in calls}


async def outcome(call: ToolCall, running: DurableFuture[ToolResult]) -> ToolResult:
    """A tool whose retries are used up has failed for this turn, and the model is told so; the turn goes on."""
    try:
        return await running
    except CancelledError:
        raise
    except TerminalError as failed:
        return ToolResult(call.id, f"{call.name} does not work at the moment: {failed}", is_error=True)


async def approvals(ctx: ObjectContext, calls: Sequence[ToolCall]) -> dict[str, ToolResult]:
    """Asks for all of them at once, waits for a day at most, and gives the results of those that nobody approved."""
    if not calls:
        return {}
    waiting = {call.id: ctx.awakeable(bool) for call in calls}
    for call in calls:
        what = f"{call.name} {call.arguments} in conversation {ctx.key}"
        await ctx.run(shop.ask_for_approval, waiting[call.id].id, what, retry=PATIENT)
    ctx.set("pending", [Pending(waiting[call.id].id, call) for call in calls])
    try:
        async with ctx.timeout(DECIDE_WITHIN):
            async for _ in ctx.as_completed(waiting.values()):
                pass
    except TimeoutError:
        pass
    ctx.clear("pending")
    refused = {call.id: await refusal(call, waiting[call.id]) for call in calls}
    return {id: result for id, result in refused.items() if result is not None}


async def refusal(call: ToolCall, decision: DurableFuture[bool]) -> ToolResult | None:
    """None for a yes. A rejected awakeable is a no with a reason."""
    try:
        if not decision.done():
            reason = "Nobody has decided about this in time."
        elif await decision:
            return None
        else:
            reason = "A colleague has refused this."
    except CancelledError:
        raise
    except TerminalError as rejected:
        reason = f"A colleague has refused this: {rejected}"
    return ToolResult(call.id, reason, is_error=True)


def closed(messages: list[Message], why: str) -> list[Message]:
    """A turn without an answer, so ended that the next one can go on: providers want a result for each call, and then a reply."""
    unknown = tuple(ToolResult(call.id, f"{why} It may have happened or not.", is_error=True) for call in messages[-1].calls)
    return [*messages, *([Message("user", results=unknown)] if unknown else []), Message("assistant", why)]


def end(ctx: ObjectContext, messages: list[Message]) -> None:
    """What is left of a turn."""
    ctx.set("messages", messages)
    ctx.clear("turn")
    ctx.clear("pending")


@conversations.shared
async def history(ctx: SharedObjectContext) -> list[Message]:
    """What was said, until the end of the last turn."""
    return await ctx.get("messages", list[Message], default=[])


@conversations.shared
async def status(ctx: SharedObjectContext) -> Status:
    """Answers while a turn runs."""
    pending = await ctx.get("pending", list[Pending], default=[])
    return Status(await ctx.get("turn", str), pending, await ctx.get("tokens", int, default=0))


@conversations.shared
async def decide(ctx: SharedObjectContext, verdict: Verdict) -> None:
    """A person's yes or no. Your own front end says who may call this."""
    pending = await ctx.get("pending", list[Pending], default=[])
    if verdict.approval_id not in [waiting.approval_id for waiting in pending]:
        raise TerminalError("nothing waits for this decision (any more)", code=404)
    ctx.resolve_awakeable(verdict.approval_id, verdict.approved)


@conversations.shared
async def stop(ctx: SharedObjectContext) -> bool:
    """Stops the turn that is running; False if none is. Its caller gets an error with code 409."""
    turn = await ctx.get("turn", str)
    if turn is not None:
        ctx.invocation(turn).cancel()
    return turn is not None


@conversations.handler
async def forget(ctx: ObjectContext) -> None:
    """Deletes the conversation, once the turn before it has ended."""
    ctx.clear_all()


handler = lambda_handler(conversations)  # what template.yaml names
