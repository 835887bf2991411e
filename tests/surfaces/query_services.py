"""Services that leave invocations in every status, under the names of the captured statements; and a server that serves them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from holdfast import (
    Context,
    ObjectContext,
    RetryPolicy,
    Service,
    SharedWorkflowContext,
    TerminalError,
    VirtualObject,
    Workflow,
    WorkflowContext,
)
from holdfast.endpoint import Endpoint
from holdfast_runtime.app.runtime import Runtime, RuntimeConfig
from holdfast_runtime.surfaces.introspection.engine import QueryLimits
from holdfast_runtime.surfaces.server import Listener
from tests.surfaces.http import Answer, Http

greeter = Service("ApiGreeter")
counter = VirtualObject("ApiCounter")
flow = Workflow("ApiFlow")
SLOW = RetryPolicy(initial_interval=timedelta(hours=1), max_interval=timedelta(hours=1))


@greeter.handler
async def greet(ctx: Context, name: str) -> str:
    return f"hello {name}"


@greeter.handler
async def ask(ctx: Context, key: str) -> int:
    return await ctx.call(add, 1, key=key)


@greeter.handler
async def refuse(ctx: Context) -> str:
    raise TerminalError("not today", code=418)


@greeter.handler(retry=SLOW)
async def flaky(ctx: Context) -> str:
    await ctx.run(_nothing, name="first")
    raise ValueError("flaky!")


async def _nothing() -> None:
    pass


@counter.handler
async def add(ctx: ObjectContext, amount: int) -> int:
    total = await ctx.get("count", int, default=0) + amount
    ctx.set("count", total)
    return total


@counter.handler
async def keep(ctx: ObjectContext, values: dict[str, str]) -> None:
    for name, value in values.items():
        ctx.set(name, value)


@counter.handler
async def clear(ctx: ObjectContext) -> None:
    ctx.clear_all()


@counter.handler
async def wait(ctx: ObjectContext) -> str:
    return await ctx.awakeable(str)


@flow.main
async def run(ctx: WorkflowContext, name: str) -> str:
    ctx.set("name", name)
    return await ctx.promise("approval", str)


@flow.handler
async def approve(ctx: SharedWorkflowContext, text: str) -> None:
    await ctx.promise("approval", str).resolve(text)


@dataclass
class System:
    """A running server and what was started on it: invocation ids by a name."""

    runtime: Runtime
    ids: dict[str, str] = field(default_factory=dict)

    async def call(self, path: str, body: Any = None) -> Answer:
        answer = await Http(self.runtime.ingress_url).request("POST", f"/{path}", _headers(body), _body(body))
        self.ids[path] = answer.headers["x-restate-id"]
        return answer

    async def send(self, name: str, path: str, body: Any = None) -> None:
        answer = await Http(self.runtime.ingress_url).request("POST", f"/{path}", _headers(body), _body(body))
        assert answer.status == 202, answer
        self.ids[name] = answer.json()["invocationId"]

    async def ask(self, statement: str, accept: str | None = "application/json", prefix: str = "") -> Answer:
        headers = {"accept": accept} if accept is not None else {}
        answer = await Http(self.runtime.admin_url).post(f"{prefix}/query", {"query": statement}, headers)
        return Answer(answer.status, answer.headers, dechunked(answer))

    async def rows(self, statement: str) -> list[dict[str, Any]]:
        answer = await self.ask(statement)
        assert answer.status == 200, answer
        found: list[dict[str, Any]] = answer.json()["rows"]
        return found

    async def until(self, statement: str, expected: Callable[[list[dict[str, Any]]], bool]) -> None:
        async with asyncio.timeout(120):
            while not expected(await self.rows(statement)):  # noqa: ASYNC110 - what is waited for shows in answers alone
                await asyncio.sleep(0.05)


def _headers(body: Any) -> Mapping[str, str]:
    return {"content-type": "application/json"} if body is not None else {}


def _body(body: Any) -> bytes:
    return json.dumps(body).encode() if body is not None else b""


def dechunked(answer: Answer) -> bytes:
    """The body without the framing of HTTP/1.1 chunks."""
    if answer.headers.get("transfer-encoding") != "chunked":
        return answer.body
    found, rest = b"", answer.body
    while True:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            return found
        found, rest = found + rest[:length], rest[length + 2 :]


@asynccontextmanager
async def serving(store: Path | None = None, query_timeout_s: float = 60.0) -> AsyncIterator[System]:
    """query_timeout_s: generous, because the machine may be busy with other tests."""
    local = Listener(port=0)
    runtime = Runtime(RuntimeConfig(store, local, local, query_limits=QueryLimits(timeout_s=query_timeout_s)))
    await runtime.start({"api": Endpoint([greeter, counter, flow]).handle})
    try:
        yield System(runtime)
    finally:
        await runtime.stop()


async def populate(system: System) -> None:
    """At least one invocation in every status that lasts, state, promises, a queue."""
    assert (await system.call("ApiCounter/cart-1/add", 41)).body == b"41"
    assert (await system.call("ApiCounter/cart-1/keep", {"last": "né"})).status == 200
    assert (await system.call("ApiGreeter/refuse")).status == 418
    assert (await system.call("ApiGreeter/ask", "cart-2")).body == b"1"
    await system.send("holder", "ApiCounter/locked/wait/send")
    await system.send("waiting", "ApiCounter/locked/add/send", 1)
    await system.send("flaky", "ApiGreeter/flaky/send")
    await system.send("later", "ApiGreeter/greet/send?delay=1h", "x")
    await system.send("flow", "ApiFlow/wf-1/run/send", "n")
    await system.send("paused", "ApiFlow/wf-2/run/send", "n")
    ours = "', '".join(system.ids[name] for name in ("holder", "flow", "paused"))
    await system.until(f"SELECT id FROM sys_invocation WHERE status = 'suspended' AND id IN ('{ours}')", lambda rows: len(rows) == 3)
    assert (await Http(system.runtime.admin_url).request("PATCH", f"/invocations/{system.ids['paused']}/pause")).status in (200, 202)
    await system.until("SELECT id FROM sys_invocation WHERE status = 'paused'", lambda rows: len(rows) == 1)
    await system.until("SELECT id FROM sys_invocation WHERE status = 'backing-off'", lambda rows: len(rows) == 1)
