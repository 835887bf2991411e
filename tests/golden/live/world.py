"""A running server, ours or the official one, looked at and set up through its HTTP surfaces only."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from holdfast.protocol.versions import MAX_VERSION, MIN_VERSION
from holdfast_runtime.app.runtime import Runtime, RuntimeConfig
from holdfast_runtime.surfaces.ingress import Ingress, IngressSettings
from holdfast_runtime.surfaces.server import Listener, serve
from tests.conformance.servers import AWS_DUMMIES, RestateServer
from tests.golden.live.endpoints import Endpoints, endpoints
from tests.surfaces.http import Answer, Http

PATIENCE_S: Final = 60.0  # bounds a hang; nothing waits that long when all is well
POLL_S: Final = 0.02
# What a server says of itself: the captured one speaks protocol versions 5 to 7.
OUR_FACTS: Final = {"this runtime are [5, 7]": f"this runtime are [{MIN_VERSION}, {MAX_VERSION}]"}
# The captured limits: one mebibyte, two calls at a time.
LIMITS: Final = IngressSettings(max_body_bytes=1 << 20, max_concurrent=2)


@dataclass(frozen=True)
class Registration:
    """What `POST /deployments` is asked for, at one of the captured ports; 0 for a function."""

    port: int
    more: tuple[tuple[str, Any], ...] = ()


class World:
    """`limited` is a second ingress to the same server with the limits of two captures; the official server has none here."""

    def __init__(self, kind: str, found: Endpoints, ingress_url: str, admin_url: str, limited_url: str | None) -> None:
        self.kind, self.endpoints = kind, found
        self.ingress, self.admin = Http(ingress_url), Http(admin_url)
        self.limited = Http(limited_url) if limited_url is not None else None
        self.authorities = {
            **found.authorities,
            "127.0.0.1:8080": ingress_url.partition("//")[2].rstrip("/"),
            "127.0.0.1:9070": admin_url.partition("//")[2].rstrip("/"),
        }
        self.facts: Mapping[str, str] = OUR_FACTS if kind == "holdfast" else {}
        self._registered: Sequence[Registration] | None = None
        self._deployments: dict[int, str] = {}

    async def ready(self) -> None:
        """The official server answers before its partitions can be read."""
        deadline = time.monotonic() + PATIENCE_S
        while (await self.admin.post("/query", {"query": "SELECT id FROM sys_invocation"})).status != 200:
            assert time.monotonic() < deadline, "the partitions cannot be read"
            await asyncio.sleep(POLL_S)

    # Looking

    async def rows(self, statement: str) -> list[dict[str, Any]]:
        answer = await self.admin.post("/query", {"query": statement}, {"accept": "application/json"})
        assert answer.status == 200, (statement, answer)
        body = answer.body
        return list(json.loads(_dechunked(body) if answer.headers.get("transfer-encoding") == "chunked" else body)["rows"])

    async def until(self, statement: str, holds: Callable[[list[dict[str, Any]]], bool], what: str) -> list[dict[str, Any]]:
        """Ask again until the rows are as they shall be."""
        deadline = time.monotonic() + PATIENCE_S
        while not holds(rows := await self.rows(statement)):
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {PATIENCE_S:.0f} s for {what}; last rows: {rows}")
            await asyncio.sleep(POLL_S)
        return rows

    async def becomes(self, invocation_id: str, *statuses: str) -> None:
        statement = f"SELECT status FROM sys_invocation WHERE id = '{invocation_id}'"
        await self.until(
            statement, lambda rows: [row["status"] for row in rows][:1] in ([s] for s in statuses), f"{invocation_id}: {statuses}"
        )

    # Setting up

    async def only(self, registrations: Sequence[Registration]) -> dict[int, str]:
        """Exactly these deployments, registered in this order. Returns captured port -> id."""
        if registrations != self._registered:
            await self._remove_all()
            self._deployments = {each.port: await self.register(each) for each in registrations}
            self._registered = registrations
        return self._deployments

    async def _remove_all(self) -> None:
        for deployment in (await self.admin.get("/deployments")).json()["deployments"]:
            removed = await self.admin.request("DELETE", f"/deployments/{deployment['id']}?force=true")
            assert removed.status == 202, removed

    async def register(self, wanted: Registration) -> str:
        more = dict(wanted.more)
        body = more if "arn" in more else {"uri": f"http://{self.authorities[f'127.0.0.1:{wanted.port}']}", **more}
        answer = await self.admin.post("/deployments", body)
        assert answer.status == 201, answer
        return str(answer.json()["id"])

    def deployments_changed(self) -> None:
        """What is registered is no longer what was asked for."""
        self._registered = None

    async def clean(self) -> None:
        """No invocation, no state: kill what is not completed, purge what is, clear every key."""
        everything = "SELECT id, status FROM sys_invocation_status"
        deadline = time.monotonic() + PATIENCE_S
        while rows := await self.rows(everything):
            assert time.monotonic() < deadline, rows
            for row in rows:
                operation = "purge" if row["status"] == "completed" else "kill"
                await self.admin.request("PATCH", f"/invocations/{row['id']}/{operation}")
        keys = "SELECT DISTINCT service_name, service_key FROM state"
        for row in await self.rows(keys):
            body = {"object_key": row["service_key"], "new_state": {}}
            await self.admin.post(f"/services/{row['service_name']}/state", body)
        await self.until(keys, lambda rows: not rows, "every state to be cleared")

    async def next_instant(self) -> None:
        """Until the clock shows another millisecond: rows ordered by their creation have one order then."""
        now = time.time_ns() // 1_000_000
        while time.time_ns() // 1_000_000 == now:  # noqa: ASYNC110 no event tells of it
            await asyncio.sleep(0)


def _dechunked(body: bytes) -> bytes:
    found = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        found, body = found + body[:length], body[length + 2 :]
    return found


def dechunked(answer: Answer) -> Answer:
    """The answer with its body in one piece."""
    if answer.headers.get("transfer-encoding") != "chunked":
        return answer
    return Answer(answer.status, answer.headers, _dechunked(answer.body))


@asynccontextmanager
async def world(kind: str, folder: Path) -> AsyncIterator[World]:
    """A server of that kind with everything it may call."""
    async with endpoints() as found:
        before = dict(os.environ)
        os.environ.update({**AWS_DUMMIES, **found.variables})
        try:
            async with _holdfast(found) if kind == "holdfast" else _restate(found, folder) as running:
                yield running
        finally:
            os.environ.clear()
            os.environ.update(before)


@asynccontextmanager
async def _holdfast(found: Endpoints) -> AsyncIterator[World]:
    listener = Listener(grace_s=1)
    runtime = Runtime(RuntimeConfig(store=None, ingress=listener, admin=listener, cluster_name="localcluster"))
    await runtime.start()
    limited = await serve(Ingress(runtime.coordinator, LIMITS), listener)
    try:
        yield World("holdfast", found, runtime.ingress_url, runtime.admin_url, limited.url)
    finally:
        await limited.close()
        await runtime.stop()


@asynccontextmanager
async def _restate(found: Endpoints, folder: Path) -> AsyncIterator[World]:
    server = _Restate(folder, found.variables)
    await asyncio.to_thread(server.start)
    try:
        running = World("restate", found, server.ingress_url, server.admin_url, None)
        await running.ready()
        yield running
    finally:
        await asyncio.to_thread(server.stop)


class _Restate(RestateServer):
    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        super().__init__(folder, variables["AWS_ENDPOINT_URL_LAMBDA"])
        self._aws = variables

    def variables(self) -> dict[str, str]:
        advertised = {"RESTATE_INGRESS__ADVERTISED_ADDRESS": self.ingress_url, "RESTATE_CLUSTER_NAME": "localcluster"}
        return {**super().variables(), **self._aws, **advertised}
