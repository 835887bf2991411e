"""Invocations under way when their deployment is pointed elsewhere or removed, on a running server (http-api §2.5, §3.3, §3.4)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from holdfast import Context, Service, asgi
from holdfast_runtime.app.runtime import Runtime, RuntimeConfig
from holdfast_runtime.surfaces.server import Listener, serve
from tests.surfaces.http import Answer, Http

LOCAL = Listener(port=0, grace_s=1)


def code(version: str) -> Any:
    """A service that waits for its `go`, as one version of its code; the version shows in its answer."""
    shop = Service("Shop")

    @shop.handler
    async def buy(ctx: Context, item: str) -> str:
        approval = ctx.awakeable(str)
        await ctx.run(lambda: TOLD.append(approval.id), name="tell")
        return f"{item} {await approval} by {version}"

    return asgi.app(shop)


TOLD: list[str] = []  # ids of awakeables, newest last


@dataclass
class System:
    """A coordinator in memory and two servers with the same service, of which the first is registered."""

    runtime: Runtime
    old_uri: str
    new_uri: str
    old_id: str = ""

    async def admin(self, method: str, path: str, body: Any = None) -> Answer:
        headers = {"content-type": "application/json"} if body is not None else {}
        return await Http(self.runtime.admin_url).request(method, path, headers, None if body is None else json.dumps(body).encode())

    async def register(self, uri: str) -> str:
        answer = await self.admin("POST", "/deployments", {"uri": uri})
        assert answer.status == 201, answer
        return str(answer.json()["id"])

    async def buy(self, item: str, idempotency_key: str | None = None) -> str:
        """Starts an invocation and waits until it waits."""
        TOLD.clear()
        keys = {"idempotency-key": idempotency_key} if idempotency_key else {}
        started = await Http(self.runtime.ingress_url).post("/Shop/buy/send", item, keys)
        invocation = str(started.json()["invocationId"])
        await self.until(invocation, lambda row: row["status"] == "suspended")
        return invocation

    async def approve(self, awakeable: str) -> None:
        done = await Http(self.runtime.ingress_url).post(f"/restate/awakeables/{awakeable}/resolve", "approved")
        assert done.status == 202, done

    async def row(self, invocation: str) -> Mapping[str, Any]:
        found = await self.admin("GET", f"/holdfast/invocations/{invocation}")
        document: Mapping[str, Any] = found.json()
        return document

    async def until(self, invocation: str, expected: Callable[[Mapping[str, Any]], bool]) -> Mapping[str, Any]:
        async with asyncio.timeout(60):
            while not expected(row := await self.row(invocation)):  # noqa: ASYNC110 - what is waited for shows in answers alone
                await asyncio.sleep(0.02)
        return row

    async def result(self, invocation: str) -> Any:
        answer = await Http(self.runtime.ingress_url).get(f"/restate/invocation/{invocation}/attach")
        assert answer.status == 200, answer
        return answer.json()


@pytest.fixture
async def system() -> AsyncIterator[System]:
    async with AsyncExitStack() as stack:
        servers = [await serve(code(version), LOCAL) for version in ("v1", "v2")]
        for server in servers:
            stack.push_async_callback(server.close)
        runtime = Runtime(RuntimeConfig(None, LOCAL, LOCAL))
        await runtime.start()
        stack.push_async_callback(runtime.stop)
        system = System(runtime, servers[0].url, servers[1].url)
        system.old_id = await system.register(system.old_uri)
        yield system


async def test_invocations_follow_the_id_of_their_deployment(system: System) -> None:
    invocation = await system.buy("pen")
    awakeable = TOLD[-1]
    moved = await system.admin("PATCH", f"/deployments/{system.old_id}", {"uri": system.new_uri})
    assert moved.status == 200, moved
    await system.approve(awakeable)
    assert await system.result(invocation) == "pen approved by v2"
    assert (await system.row(invocation))["pinned_deployment_id"] == system.old_id


async def test_a_removed_deployment_makes_its_invocations_wait_with_a_reason(system: System) -> None:
    invocation = await system.buy("pen")
    awakeable = TOLD[-1]
    new_id = await system.register(system.new_uri)
    assert (await system.admin("GET", "/services/Shop")).json()["deployment_id"] == new_id
    assert (await system.admin("DELETE", f"/deployments/{system.old_id}?force=true")).status == 202
    await system.approve(awakeable)
    row = await system.until(invocation, lambda row: row["status"] == "backing-off")
    assert row["last_failure_error_code"] == "RT0011"
    assert system.old_id in row["last_failure"]
    # What is not pinned goes to the newest that is left.
    other = await system.buy("ink")
    await system.approve(TOLD[-1])
    assert await system.result(other) == "ink approved by v2"
    # It goes on where the operator says; what is repeated by itself has to be held first.
    assert (await system.admin("PATCH", f"/invocations/{invocation}/pause")).status in (200, 202)
    await system.until(invocation, lambda row: row["status"] == "paused")
    resumed = await system.admin("PATCH", f"/invocations/{invocation}/resume?deployment={new_id}")
    assert resumed.status == 200, resumed
    assert await system.result(invocation) == "pen approved by v2"
    assert (await system.row(invocation))["pinned_deployment_id"] == new_id


async def test_after_removing_the_newest_the_older_one_takes_new_work(system: System) -> None:
    new_id = await system.register(system.new_uri)
    assert (await system.admin("GET", "/services/Shop")).json()["revision"] == 2
    await system.admin("DELETE", f"/deployments/{new_id}?force=true")
    shop = (await system.admin("GET", "/services/Shop")).json()
    assert (shop["revision"], shop["deployment_id"]) == (1, system.old_id)
    invocation = await system.buy("pen")
    await system.approve(TOLD[-1])
    assert await system.result(invocation) == "pen approved by v1"
    await system.admin("DELETE", f"/deployments/{system.old_id}?force=true")
    assert (await system.admin("GET", "/services/Shop")).status == 404
    gone = await Http(system.runtime.ingress_url).post("/Shop/buy", "pen")
    assert gone.status == 404


async def test_retentions_are_copied_when_an_invocation_is_created(system: System) -> None:
    before = await system.buy("pen", "key-1")
    changed = await system.admin("PATCH", "/services/Shop", {"idempotency_retention": "2h", "journal_retention": "1h"})
    assert changed.status == 200
    after = await system.buy("ink", "key-2")
    day, hour = 86_400_000, 3_600_000
    old, new = await system.row(before), await system.row(after)
    assert (old["completion_retention_ms"], old["journal_retention_ms"]) == (day, day)
    assert (new["completion_retention_ms"], new["journal_retention_ms"]) == (2 * hour, hour)


async def test_a_service_made_private_is_closed_at_the_ingress_and_goes_on_inside(system: System) -> None:
    invocation = await system.buy("pen")
    await system.admin("PATCH", "/services/Shop", {"public": False})
    refused = await Http(system.runtime.ingress_url).post("/Shop/buy", "ink")
    assert (refused.status, refused.json()["message"]) == (400, "the invoked service is not public")
    await system.approve(TOLD[-1])
    assert await system.result(invocation) == "pen approved by v1"
