"""The backend for a deployed stack: the same test, over the ingress and the admin API, in real time.

Rules: what needs virtual time, injection or the coordinator's inside skips the test and says so; everything else is the same.
"""

from __future__ import annotations

import asyncio
import base64
import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn
from urllib.parse import quote, urlencode

from holdfast._calls import Call
from holdfast.client import Client, Sent
from holdfast.errors import TerminalError
from holdfast.testing._backend import Verb
from holdfast.testing.errors import NotKept
from holdfast.testing.faults import EndpointFault, StepFault
from holdfast.testing.mocks import Mock


@dataclass(frozen=True, slots=True)
class Stack:
    """Where a deployed stack is reached. admin: needed by tests that look at state and journals."""

    ingress: str
    admin: str | None = None


_targets: Final[list[Stack]] = []  # at most one


def use(stack: Stack | None) -> None:
    """From now on every TestRuntime talks to this stack; None: to one in memory. For the pytest plugin."""
    _targets[:] = [] if stack is None else [stack]


def target() -> Stack | None:
    return _targets[0] if _targets else None


def refuse(wanted: Mapping[str, bool]) -> None:
    """Skip a test whose runtime has options that only a runtime in memory has."""
    for name, given in wanted.items():
        if given:
            skip(f"{name} needs the runtime in memory; this run is against a deployed stack")


def skip(reason: str) -> NoReturn:
    import pytest

    pytest.skip(reason)


class Deployed:
    """`Backend` over HTTP."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._client = Client(stack.ingress)

    async def send(self, call: Call, delay: timedelta | None) -> tuple[str, bool]:
        return await asyncio.to_thread(self._client._sent, call, delay, call.target.idempotency_key is not None)

    async def result(self, invocation_id: str, *, kept: bool = True) -> bytes:
        sent: Sent[bytes] = Sent(invocation_id, False, _RAW)
        try:
            return await asyncio.to_thread(self._client.attach, sent)
        except TerminalError as error:
            # The ingress answers for an unknown id as an invocation would that failed so; the admin API can tell them apart.
            if (error.code, error.message) == (404, "not found") and self._stack.admin and await self.describe(invocation_id) is None:
                raise NotKept(f"{invocation_id} is not known to {self._stack.ingress}") from error
            raise

    async def output(self, invocation_id: str) -> bytes:
        return await asyncio.to_thread(self._client._result, invocation_id, "output")

    async def describe(self, invocation_id: str) -> Mapping[str, Any] | None:
        found: Mapping[str, Any] | None = await self._admin("GET", f"/holdfast/invocations/{quote(invocation_id)}")
        return found

    async def list(self, service: str | None, status: str | None) -> Sequence[Mapping[str, Any]]:
        asked = {"service": service, "status": status, "limit": "1000"}
        query = urlencode({name: value for name, value in asked.items() if value is not None})
        found = await self._admin("GET", f"/holdfast/invocations?{query}")
        rows: Sequence[Mapping[str, Any]] = found["invocations"]
        return rows

    async def operate(self, verb: Verb, invocation_id: str) -> None:
        await self._admin("PATCH", f"/invocations/{quote(invocation_id)}/{verb}")

    async def state(self, service: str, key: str) -> Mapping[str, bytes]:
        found = await self._admin("GET", f"/holdfast/state/{quote(service)}/{quote(key, safe='')}")
        return {name: base64.b64decode(value["base64"]) for name, value in (found or {"state": {}})["state"].items()}

    async def set_state(self, service: str, key: str, state: Mapping[str, bytes]) -> None:
        body = {"object_key": key, "new_state": {name: list(value) for name, value in state.items()}}
        await self._admin("POST", f"/services/{quote(service)}/state", body)

    async def resolve_awakeable(self, id: str, value: bytes) -> None:
        await asyncio.to_thread(self._client.resolve_awakeable, id, value)

    async def reject_awakeable(self, id: str, message: str) -> None:
        await asyncio.to_thread(self._client.reject_awakeable, id, message)

    async def signal(self, invocation_id: str, name: str, value: bytes) -> None:
        skip("a signal from the test needs the runtime in memory; on a deployed stack send it from a handler")

    async def promise(self, workflow: str, key: str, wish: Mapping[str, Any]) -> Any:
        skip("reaching a durable promise from the test needs the runtime in memory; on a deployed stack call a handler of the workflow")

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def advance(self, by: timedelta) -> None:
        if by > timedelta(0):
            skip(f"advancing time by {by} needs virtual time; this run is against a deployed stack")

    async def crash_coordinator(self) -> None:
        skip("crashing the coordinator needs the runtime in memory; this run is against a deployed stack")

    async def story(self) -> str:
        return ""

    def mock(self, mock: Mock[Any, Any]) -> None:
        skip(f"mocking {mock.handler.full_name} needs the runtime in memory; this run is against a deployed stack")

    def add_fault(self, fault: EndpointFault | StepFault) -> None:
        skip("injecting failures needs the runtime in memory; this run is against a deployed stack")

    def close(self) -> None:
        return

    async def _admin(self, method: str, path: str, body: Any = None) -> Any:
        if self._stack.admin is None:
            skip("looking at state, journals and statuses needs the admin API; pass --holdfast-admin URL")
        url = self._stack.admin.rstrip("/") + path
        return await asyncio.to_thread(_exchange, method, url, body)


def _exchange(method: str, url: str, body: Any) -> Any:
    content = json.dumps(body).encode() if body is not None else None
    headers = {"content-type": "application/json", "accept": "application/json"}
    request = urllib.request.Request(url, content, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = response.read()
    except urllib.error.HTTPError as error:
        if error.code == 404 and method == "GET":
            return None
        raise AssertionError(f"{method} {url} answered {error.code}: {error.read()[:500].decode(errors='replace')}") from error
    except OSError as error:
        raise AssertionError(f"cannot reach the admin API at {url}: {error}") from error
    return json.loads(answer) if answer else None


class _Raw:
    """The exact bytes of a result."""

    content_type: str | None = None

    def serialize(self, value: bytes) -> bytes:
        return value

    def deserialize(self, content: bytes) -> bytes:
        return content


_RAW = _Raw()
