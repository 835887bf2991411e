"""The ingress, port 8080: calls and sends enter here (http-api §1). Plain ASGI, because every request pays
for it.

Rules: the order of checks is that of §1.3, scripts depend on which error wins; the registry snapshot
decides, nothing is stored here; a caller that goes away stops the waiting, never the invocation; nothing of
an internal error but its existence reaches the caller. Routes below `/restate/` that are neither call nor
send are in `ingress_lookups.py`.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from holdfast_runtime.coordinator.front import (
    CoordinatorUnavailable,
    Front,
    NewInvocation,
    Target,
)
from holdfast_runtime.engine.registry import RegistryView
from holdfast_runtime.surfaces.asgi import CallerGone, Receive, Scope, Send, while_connected
from holdfast_runtime.surfaces.ingress_lookups import Lookups
from holdfast_runtime.surfaces.ingress_paths import (
    BAD_NEW_PATH,
    BAD_PATH,
    decode_key,
    delay_ms_of,
    forwarded_headers,
    idempotency_key_of,
)
from holdfast_runtime.surfaces.ingress_replies import (
    CORS,
    NO_BODY_STATUS,
    Refused,
    Reply,
    accepted,
    ingress_error,
    outcome_reply,
    preflight,
    too_large,
    unavailable,
)
from holdfast_runtime.surfaces.ingress_routes import HandlerRoute, Routes, ServiceRoute, compile_routes

log = logging.getLogger("holdfast.ingress")

RUN_WITH_IDEMPOTENCY_KEY: Final = (
    "cannot use the idempotency key with workflow handlers. The handler invocation will already be idempotent by the workflow key itself."
)
DELAY_ON_CALL: Final = "cannot use the delay query parameter with calls. The delay is supported only with sends"
SHUTTING_DOWN: Final = "the server is shutting down. What was accepted goes on: attach to it by its idempotency key or its id"
OVERLOADED: Final = "too many requests, the ingress is overloaded. Retry later."

_METHODS: Final = frozenset({"POST", "GET"})


@dataclass(frozen=True, slots=True)
class IngressSettings:
    """max_body_bytes: longer requests get 413. max_concurrent: more requests at a time get 429; None =
    unlimited.
    """

    max_body_bytes: int = 32 * 1024 * 1024
    max_concurrent: int | None = None


class Ingress:
    """The ASGI application."""

    def __init__(self, front: Front, settings: IngressSettings | None = None) -> None:
        self._front = front
        self._settings = settings or IngressSettings()
        self._view: RegistryView | None = None
        self._routes: Routes = {}
        self._in_flight = 0
        self._lookups = Lookups(front, self.routes)

    def routes(self) -> Routes:
        """The compiled registry, renewed when the snapshot changed."""
        view = self._front.registry
        if view is not self._view:
            self._routes = compile_routes(view)
            self._view = view
        return self._routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await _refuse_other(scope, receive, send)
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name not in headers:  # of repeated headers the first counts
                headers[name] = value
        self._in_flight += 1
        try:
            reply = await self._answer(scope, headers, receive)
        except CallerGone:
            return None
        except asyncio.CancelledError:
            reply = ingress_error(503, SHUTTING_DOWN, [(b"retry-after", b"1")])
        except Refused as refused:
            reply = refused.reply
        except CoordinatorUnavailable as error:
            reply = unavailable(error)
        except Exception:
            log.exception("ingress.failed", extra={"path": scope["path"], "method": scope["method"]})
            reply = ingress_error(500, "internal error, the details are in the server's log")
        finally:
            self._in_flight -= 1
        return await _send(reply, headers, send)

    async def _answer(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> Reply:
        method: str = scope["method"]
        if method == "OPTIONS":
            return preflight(headers)
        limit = self._settings.max_concurrent
        if limit is not None and self._in_flight > limit:
            return ingress_error(429, OVERLOADED)
        length = headers.get(b"content-length")
        if length is not None and int(length) > self._settings.max_body_bytes:
            if b"expect" not in headers:
                await self._discard(receive)
            return too_large()

        path: bytes = (scope.get("raw_path") or scope["path"].encode()).rstrip(b"/")
        parts = path.split(b"/")
        if not 3 <= len(parts) <= 8:
            return ingress_error(400, f"bad path: {path.decode('latin-1') or '/'}")
        first = parts[1]
        if first == b"restate":
            return await self._below_restate(parts, method, headers, scope, receive)
        if first == b"openapi":
            return ingress_error(404, "not found")
        service = self._service(first)
        keyed = service.keyed
        call_length = 4 if keyed else 3
        is_send = len(parts) == call_length + 1 and parts[call_length] == b"send"
        if len(parts) != call_length and not is_send:
            return ingress_error(400, BAD_PATH)
        key = decode_key(parts[2]) if keyed else None
        route = self._handler(service, parts[3] if keyed else parts[2])
        request = _Request(route, key, is_send, method, headers, scope, receive)
        return await self._accept(request)

    async def _below_restate(self, parts: list[bytes], method: str, headers: dict[bytes, bytes], scope: Scope, receive: Receive) -> Reply:
        verb = parts[2]
        if verb in (b"call", b"send"):
            if len(parts) < 5:
                return ingress_error(400, BAD_NEW_PATH)
            service = self._service(parts[3])
            if len(parts) != (6 if service.keyed else 5):
                return ingress_error(400, BAD_NEW_PATH)
            key = decode_key(parts[4]) if service.keyed else None
            route = self._handler(service, parts[-1])
            return await self._accept(_Request(route, key, verb == b"send", method, headers, scope, receive))
        if verb == b"scope":
            return ingress_error(400, "scoped invocations require vqueues to be enabled")

        async def body() -> bytes:
            return await self._body(receive)

        return await self._lookups.answer(parts[2:], method, body, receive)

    def _service(self, name: bytes) -> ServiceRoute:
        service = self.routes().get(name)
        if service is None:
            text = name.decode("utf-8", "replace")
            raise Refused(404, f"service '{text}' not found, make sure to register the service before calling it.")
        return service

    def _handler(self, service: ServiceRoute, name: bytes) -> HandlerRoute:
        route = service.handlers.get(name)
        if route is None:
            raise Refused(
                404,
                f"the service '{service.name}' exists, but the handler '{name.decode('utf-8', 'replace')}' "
                "was not found, check that the handler exists in the latest registered service version.",
            )
        if not route.public:
            raise Refused(400, "the invoked service is not public")
        if route.deprecated is not None:
            raise Refused(400, route.deprecated)
        return route

    async def _accept(self, request: _Request) -> Reply:
        route, headers = request.route, request.headers
        idempotency_key = None
        if b"idempotency-key" in headers:
            idempotency_key = idempotency_key_of(headers[b"idempotency-key"])
            if route.is_run:
                return ingress_error(400, RUN_WITH_IDEMPOTENCY_KEY)
        if request.method not in _METHODS:
            return ingress_error(405, "method not allowed")
        body = await self._body(request.receive)
        problem = route.rules.check(headers.get(b"content-type"), not body)
        if problem is not None:
            return ingress_error(400, problem)
        query: bytes = request.scope["query_string"]
        delay_ms = delay_ms_of(query) if query else None
        if b"x-restate-limit-key" in headers:
            return ingress_error(400, "limit-key requires a scope to be set")
        invocation = NewInvocation(
            Target(route.service, route.handler, request.key),
            body,
            forwarded_headers(request.scope, query, headers),
            idempotency_key,
            delay_ms,
        )
        if request.is_send:
            return await self._send(invocation)
        if delay_ms is not None:
            return ingress_error(400, DELAY_ON_CALL)
        return await self._call(route, invocation, request.receive)

    async def _call(self, route: HandlerRoute, invocation: NewInvocation, receive: Receive) -> Reply:
        invocation_id = self._front.mint(invocation)
        outcome = await while_connected(self._front.call(invocation_id, invocation), receive)
        return outcome_reply(str(invocation_id).encode(), outcome, route)

    async def _send(self, invocation: NewInvocation) -> Reply:
        invocation_id = self._front.mint(invocation)
        done = await self._front.send(invocation_id, invocation)
        return accepted(str(done.invocation_id), done.new, done.execution_time_ms)

    async def _discard(self, receive: Receive) -> None:
        """Read what is too large, within reason: closing on a client that still sends hides the answer from it."""
        size, more = 0, True
        while more and size <= 2 * self._settings.max_body_bytes:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)

    async def _body(self, receive: Receive) -> bytes:
        message = await receive()
        body: bytes = message.get("body", b"")
        if message.get("more_body"):
            limit = self._settings.max_body_bytes
            chunks, size = [body], len(body)
            while message.get("more_body"):
                message = await receive()
                chunk = message.get("body", b"")
                size += len(chunk)
                if size <= limit:
                    chunks.append(chunk)
                elif size > 2 * limit:
                    break  # whoever sends on and on is cut off; others are read to their end, to see the answer
            if size > limit:
                raise Refused(413, "cannot read body: length limit exceeded", [(b"connection", b"close")])
            body = b"".join(chunks)
        if message["type"] == "http.disconnect":
            raise CallerGone
        return body


@dataclass(frozen=True, slots=True)
class _Request:
    """A call or send that found its handler."""

    route: HandlerRoute
    key: str | None
    is_send: bool
    method: str
    headers: dict[bytes, bytes]
    scope: Scope
    receive: Receive


async def _send(reply: Reply, request: dict[bytes, bytes], send: Send) -> None:
    headers = reply.headers
    if reply.status != 413 or reply.body[:1] == b"{":
        headers = headers + CORS
        origin = request.get(b"origin")
        if origin is not None:
            headers.append((b"access-control-allow-origin", origin))
    body = reply.body
    if reply.status in NO_BODY_STATUS:
        body = b""
    else:
        headers = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _refuse_other(scope: Scope, receive: Receive, send: Send) -> None:
    """Not HTTP: lifespan events are acknowledged, WebSockets are refused."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1003, "reason": "only HTTP is served here"})
        return
    while scope["type"] == "lifespan":
        event = (await receive())["type"]
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            return
