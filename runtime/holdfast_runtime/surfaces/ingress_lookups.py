"""What the ingress serves below `/restate/` besides calls: results, awakeables, ids, health (http-api §1.1,
§1.6).

Ids that are a pure function of their coordinates are computed here; nothing is checked for existence before
the coordinator is asked.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from holdfast.protocol.ids import InvocationId, idempotent_id, workflow_run_id
from holdfast_runtime.coordinator.front import MAX_REASON_BYTES, Front, NotFound, NotReady, Outcome, Success
from holdfast_runtime.surfaces.ingress_paths import (
    BAD_AWAKEABLE_PATH,
    BAD_INVOCATION_PATH,
    BAD_WORKFLOW_PATH,
    awakeable_id_of,
    decode_key,
    invocation_id_of,
    only,
    operation_of,
)
from holdfast_runtime.surfaces.ingress_replies import (
    FROM_INVOCATION,
    JSON,
    Refused,
    Reply,
    compact,
    ingress_error,
    outcome_reply,
)
from holdfast_runtime.surfaces.ingress_request import Request
from holdfast_runtime.surfaces.ingress_routes import HandlerRoute, Routes

Body = Callable[[], Awaitable[bytes]]

NOT_READY: Final = "the invocation exists but has not completed yet"


@dataclass(frozen=True, slots=True)
class Wanted:
    """An invocation and, where the request named it, the handler whose result it is."""

    invocation_id: InvocationId
    route: HandlerRoute | None = None


class Lookups:
    """The routes; `routes` gives the compiled registry of the moment."""

    def __init__(self, front: Front, routes: Callable[[], Routes]) -> None:
        self._front = front
        self._routes = routes

    async def answer(self, parts: list[bytes], request: Request, body: Body) -> Reply:
        """`parts` are the raw path segments below `/restate/`. Raises Refused."""
        method = request.method
        match parts:
            case [b"health"]:
                only(method, "GET")
                return Reply(200, [JSON], compact({"services": list(self._front.registry.services)}))
            case [b"lookup"]:
                only(method, "POST")
                wanted = self._from_body(await body())
                return Reply(200, [JSON], compact({"invocationId": str(wanted.invocation_id)}))
            case [b"awakeables" | b"a", *rest]:
                return await self._awakeable(rest, method, body)
            case [b"attach" | b"output" as verb]:
                only(method, "POST")
                return await self._result(verb, self._from_body(await body()), request)
            case [b"attach" | b"output" as verb, invocation_id]:
                wanted = Wanted(invocation_id_of(invocation_id))
                only(method, "GET")
                return await self._result(verb, wanted, request)
            case [b"invocation", *rest]:
                wanted, operation = self._by_target(rest)
                only(method, "GET")
                return await self._result(operation, wanted, request)
            case [b"workflow", *rest]:
                wanted, operation = self._by_workflow(rest)
                only(method, "GET")
                return await self._result(operation, wanted, request)
        raise Refused(404, "not found")

    async def _result(self, operation: bytes, wanted: Wanted, request: Request) -> Reply:
        text = str(wanted.invocation_id).encode()
        outcome: Outcome | NotReady | NotFound
        if operation == b"attach":
            outcome = await request.waiting(self._front.attach(wanted.invocation_id))
        else:
            outcome = await self._front.output(wanted.invocation_id)
        match outcome:
            case NotFound() if operation == b"attach":
                body = compact({"code": 404, "message": "not found", "source": "invocation"})
                return Reply(404, [(b"x-restate-id", text), FROM_INVOCATION, JSON], body)
            case NotFound():
                return ingress_error(404, "invocation not found")
            case NotReady():
                return ingress_error(470, NOT_READY)
        return outcome_reply(text, outcome, wanted.route or self._route_of(outcome))

    def _route_of(self, outcome: Outcome) -> HandlerRoute | None:
        """The handler whose result it is, where the coordinator could tell."""
        target = outcome.target if isinstance(outcome, Success) else None
        service = self._routes().get(target.service.encode()) if target is not None else None
        return service.handlers.get(target.handler.encode()) if service is not None and target is not None else None

    async def _awakeable(self, rest: list[bytes], method: str, body: Body) -> Reply:
        if len(rest) != 2:
            raise Refused(400, BAD_AWAKEABLE_PATH)
        operation = rest[1]
        if operation not in (b"resolve", b"reject"):
            raise Refused(404, "not found")
        only(method, "POST")
        awakeable = awakeable_id_of(rest[0])
        value = await body()
        if not awakeable.legacy:
            if operation == b"resolve":
                await self._front.resolve_awakeable(awakeable.invocation, awakeable.index, value)
            else:
                reason = value.decode("utf-8", "replace")
                size = len(reason.encode())
                if size > MAX_REASON_BYTES:
                    raise Refused(413, f"the reason of a rejection may have {MAX_REASON_BYTES} bytes, found {size}")
                await self._front.reject_awakeable(awakeable.invocation, awakeable.index, reason)
        return Reply(202, [])

    def _by_target(self, rest: list[bytes]) -> tuple[Wanted, bytes]:
        """`{inv}/{op}`, `{svc}/{h}/{idem}/{op}` or `{svc}/{key}/{h}/{idem}/{op}`."""
        if len(rest) < 2:
            raise Refused(400, BAD_INVOCATION_PATH)
        if len(rest) == 2:
            return Wanted(invocation_id_of(rest[0])), operation_of(rest[1])
        service = self._routes().get(rest[0])
        name = rest[0].decode("utf-8", "replace")
        if service is None:
            raise Refused(404, f"service '{name}' not found, make sure to register the service before calling it.")
        if len(rest) != (5 if service.keyed else 4):
            raise Refused(400, BAD_INVOCATION_PATH)
        key = decode_key(rest[1]) if service.keyed else None
        handler, idempotency_key, operation = rest[-3:]
        invocation_id = idempotent_id(
            service.name,
            handler.decode("utf-8", "replace"),
            idempotency_key.decode("utf-8", "replace"),
            key,
        )
        return Wanted(invocation_id, service.handlers.get(handler)), operation_of(operation)

    def _by_workflow(self, rest: list[bytes]) -> tuple[Wanted, bytes]:
        if len(rest) != 3:
            raise Refused(400, BAD_WORKFLOW_PATH)
        name, key = rest[0].decode("utf-8", "replace"), decode_key(rest[1])
        return Wanted(workflow_run_id(name, key), self._run_route(rest[0])), operation_of(rest[2])

    def _run_route(self, workflow: bytes) -> HandlerRoute | None:
        service = self._routes().get(workflow)
        if service is None:
            return None
        return next((route for route in service.handlers.values() if route.is_run), None)

    def _from_body(self, body: bytes) -> Wanted:
        """The target as JSON. A body that is none gets 400 (the reference says 500), naming what was
        expected.
        """
        try:
            target = json.loads(body)
            if not isinstance(target, dict):
                raise ValueError(f"expected an object, found {target!r:.40}")
            if target.get("scope") is not None:
                raise Refused(400, "scoped invocations require vqueues to be enabled")
            return self._target(target)
        except (ValueError, UnicodeDecodeError, RecursionError) as error:
            raise Refused(400, f"cannot read body: {error}") from error

    def _target(self, target: dict[str, Any]) -> Wanted:
        match target.get("target"):
            case "invocation":
                return Wanted(invocation_id_of(_text(target, "invocationId").encode()))
            case "workflow":
                name, key = _text(target, "workflowName"), _text(target, "workflowKey")
                return Wanted(workflow_run_id(name, key), self._run_route(name.encode()))
            case "idempotentInvocation":
                service, handler = _text(target, "service"), _text(target, "handler")
                object_key = None if target.get("key") is None else _text(target, "key")
                invocation_id = idempotent_id(service, handler, _text(target, "idempotencyKey"), object_key)
                known = self._routes().get(service.encode())
                return Wanted(invocation_id, known.handlers.get(handler.encode()) if known else None)
        raise ValueError(f"expected target 'workflow', 'idempotentInvocation' or 'invocation', found {target.get('target')!r:.40}")


def _text(target: dict[str, Any], member: str) -> str:
    value = target.get(member)
    if not isinstance(value, str):
        raise ValueError(f"expected a text as '{member}', found {value!r:.40}")
    return value
