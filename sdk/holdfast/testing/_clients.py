"""`holdfast.Client` and `AsyncClient` on a test runtime, for code that is handed a client.

Rules: the same methods raise the same errors for the same reasons; only a service or handler that the runtime does not have fails the test
as it does with `runtime.call`. Nothing is sent over a network, and nothing is repeated.
"""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, Protocol, TypeVar

from holdfast import _calls
from holdfast.client import AsyncClient, Client, IngressError, Verb, Which
from holdfast.errors import TerminalError
from holdfast.protocol import ids
from holdfast.protocol.ids import IdError, InvocationId
from holdfast.testing._backend import Backend
from holdfast.testing.errors import NotKept

T = TypeVar("T")


class Run(Protocol):
    """Runs a coroutine to its end in the runtime's own loop."""

    def __call__(self, work: Coroutine[Any, Any, T], /) -> T: ...


class AsyncRuntimeClient(AsyncClient):
    """Asks a backend instead of an ingress."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def _called(self, call: _calls.Call, repeatable: bool) -> bytes:
        id, before = await self._sent(call, None, repeatable)
        if before and call.target.idempotency_key is None:
            raise TerminalError("the workflow method was already invoked", code=409)
        return await self._backend.result(id)

    async def _sent(self, call: _calls.Call, delay: timedelta | None, repeatable: bool) -> tuple[str, bool]:
        return await self._backend.send(call, delay)

    async def _result(self, which: Which, verb: Verb) -> bytes:
        id = _id(which)
        if verb == "output":
            return await self._backend.output(id)
        try:
            return await self._backend.result(id, kept=False)
        except NotKept as error:
            raise TerminalError("not found", code=404) from error

    async def _resolved(self, id: str, content: bytes) -> None:
        await self._backend.resolve_awakeable(_awakeable(id), content)

    async def _rejected(self, id: str, message: str) -> None:
        await self._backend.reject_awakeable(_awakeable(id), message)


class RuntimeClient(Client):
    """The same for plain functions."""

    def __init__(self, client: AsyncClient, run: Run) -> None:
        self._client = client
        self._run = run

    def _called(self, call: _calls.Call, repeatable: bool) -> bytes:
        return self._run(self._client._called(call, repeatable))

    def _sent(self, call: _calls.Call, delay: timedelta | None, repeatable: bool) -> tuple[str, bool]:
        return self._run(self._client._sent(call, delay, repeatable))

    def _result(self, which: Which, verb: Verb) -> bytes:
        return self._run(self._client._result(which, verb))

    def _resolved(self, id: str, content: bytes) -> None:
        self._run(self._client._resolved(id, content))

    def _rejected(self, id: str, message: str) -> None:
        self._run(self._client._rejected(id, message))


def _id(which: Which) -> str:
    """The ingress computes it in the same way (http-api §1.6)."""
    if isinstance(which, str):
        try:
            return str(InvocationId.parse(which))
        except IdError as error:
            raise IngressError(400, f"bad invocation id '{which}': {error.reason}") from error
    if which.idempotency_key is None:
        return str(ids.workflow_run_id(which.service, which.key))
    return str(ids.idempotent_id(which.service, which.handler, which.idempotency_key, which.key or None))


def _awakeable(id: str) -> str:
    try:
        ids.parse_awakeable_id(id)
    except IdError as error:
        raise IngressError(400, f"bad awakeable id '{id}': {error.reason}") from error
    return id
