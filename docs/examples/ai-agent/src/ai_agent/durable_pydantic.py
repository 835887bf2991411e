"""Pydantic AI agents on Holdfast: each request of the model and each tool call of a run becomes a `ctx.run`.

Give the agent a name and the capability `HoldfastDurability()`, and run it by `run_agent(ctx, lambda: agent.run(...))`. It works by
Pydantic AI's public interface for durable execution, which its own integrations use as well.

Pydantic AI works in tasks of its own, where durable operations are refused, because their order could not be repeated. So the agent's
tasks ask, and the handler's own task does, one after the other; it is the only thing that runs while the agent waits for it. Tools that
a model asks for together are therefore called in sequence. For tools at once, see `conversation.py`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from holdfast import Context, RetryPolicy, TerminalError
from pydantic_ai.durable_exec import (
    JSON_CODEC,
    BaseDurabilityCapability,
    DurabilityEngineSpec,
    DurableOperationBackend,
    DurableOperationId,
    JournalCallableOperationBackend,
    RoleBasedOperationConfig,
    conversation_id_from_run_id,
)
from pydantic_ai.exceptions import AgentRunError, ModelRequestRejectedError, UserError
from pydantic_ai.tools import AgentDepsT

T = TypeVar("T")


@dataclass(frozen=True)
class Ask:
    """A step that an agent's task wants done."""

    name: str
    step: Callable[[], Awaitable[object]]
    retry: RetryPolicy
    answer: asyncio.Future[object]


@dataclass(frozen=True)
class Handler:
    """Where an agent's tasks leave what they want done. None: the agent has ended."""

    ctx: Context
    asked: asyncio.Queue[Ask | None]


_handler: ContextVar[Handler | None] = ContextVar("handler", default=None)


async def run_agent(ctx: Context, run: Callable[[], Awaitable[T]]) -> T:
    """What `run` gives, which calls `agent.run` once. A failure of the agent itself (its limits are used up) is a TerminalError."""
    handler = Handler(ctx, asyncio.Queue())
    agent = asyncio.create_task(_run(handler, run))  # holdfast: ok it and the handler's task take turns, so their order repeats itself
    agent.add_done_callback(lambda _: handler.asked.put_nowait(None))
    try:
        while (ask := await handler.asked.get()) is not None:
            try:
                answer = await ctx.run(ask.step, name=ask.name, retry=ask.retry)
            except TerminalError as failed:  # cancellations too: the agent gives up, and its error comes out of it below
                answered(ask, error=failed)
            else:
                answered(ask, answer)
        return await agent
    except (AgentRunError, UserError) as failed:
        raise TerminalError(f"the agent failed: {failed}") from failed
    finally:
        # A suspension passes here too: this agent is given up, and the next attempt's is fed from the journal.
        agent.cancel()
        await asyncio.wait({agent})  # holdfast: ok for the end of what was cancelled
        if not agent.cancelled():
            agent.exception()  # seen, so that nothing complains about it


def answered(ask: Ask, answer: object = None, error: TerminalError | None = None) -> None:
    if ask.answer.done():
        return  # the agent has given up waiting for it
    if error is not None:
        ask.answer.set_exception(error)
    else:
        ask.answer.set_result(answer)


async def _run(handler: Handler, run: Callable[[], Awaitable[T]]) -> T:
    _handler.set(handler)
    return await run()


@dataclass(init=False)
class HoldfastDurability(BaseDurabilityCapability[AgentDepsT]):
    """What makes an agent durable inside `run_agent`; outside of it the agent is what it was."""

    engine_spec = DurabilityEngineSpec(
        engine_name="Holdfast",
        durable_unit_noun="run",
        durable_container_noun="handler",
        codec=JSON_CODEC,
        serialization_failure=lambda error: TerminalError(f"the result cannot be recorded: {error}"),
        journal_discovery=False,
        sequential_tools_in_durable_context=True,
        cancellation_error_types=(TerminalError,),
    )

    def __init__(self, retry: RetryPolicy | None = None) -> None:
        super().__init__()
        self._retry = retry or RetryPolicy(max_attempts=10)

    @property
    def in_durable_context(self) -> bool:
        return _handler.get() is not None

    def get_default_run_id(self) -> str | None:
        """The same in every attempt."""
        handler = _handler.get()
        return None if handler is None else str(handler.ctx.uuid4())

    def get_default_conversation_id(self, run_id: str) -> str | None:
        return conversation_id_from_run_id(run_id) if self.in_durable_context else None

    async def get_run_start_time(self, run_id: str) -> datetime | None:
        """Not kept: limit a run by `ctx.timeout` around `run_agent`, which is durable, and not by its `timeout=`."""
        return None

    def get_durable_operation_backend(self) -> DurableOperationBackend[RetryPolicy]:
        retry = RoleBasedOperationConfig(model=self._retry, event=self._retry, capability=self._retry, tool=self._retry)
        return _Backend(agent_name=self.name or "agent", config=retry)


class _Backend(JournalCallableOperationBackend[RetryPolicy]):
    async def execute(
        self,
        *,
        operation_id: DurableOperationId,
        name: str,
        body: Callable[[], Awaitable[object]],
        cache_key: tuple[object, ...],
        config: RetryPolicy,
    ) -> object:
        async def step() -> Any:
            try:
                return await body()
            except (ModelRequestRejectedError, UserError) as refused:  # the same request would be refused again
                raise TerminalError(str(refused), code=502) from refused

        handler = _handler.get()
        assert handler is not None, "asked by Pydantic AI in a durable context only"
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        handler.asked.put_nowait(Ask(name, step, config, answer))
        return await answer
