"""The ingress, port 8080: calls and sends enter here (http-api §1). No framework, because every request pays
for it: our own server calls `handle`, any other can mount it as an ASGI application.

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

from holdfast_runtime.adapters.system import SystemClock
from holdfast_runtime.coordinator.front import (
    CoordinatorUnavailable,
    Front,
    NewInvocation,
    Target,
)
from holdfast_runtime.engine.registry import RegistryView
from holdfast_runtime.ports.metrics import Metrics
from holdfast_runtime.surfaces.asgi import CallerGone, Receive, Scope, Send
from holdfast_runtime.surfaces.bearer import CHALLENGE, REFUSAL, BearerTokens
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
    FROM_INVOCATION,
    Refused,
    Reply,
    accepted,
    complete,
    ingress_error,
    outcome_reply,
    preflight,
    too_large,
    unavailable,
)
from holdfast_runtime.surfaces.ingress_request import AsgiRequest, Request
from holdfast_runtime.surfaces.ingress_routes import HandlerRoute, Routes, ServiceRoute, compile_routes

log = logging.getLogger("holdfast.ingress")

RUN_WITH_IDEMPOTENCY_KEY: Final = (
    "cannot use the idempotency key with workflow handlers. The handler invocation will already be idempotent by the workflow key itself."
)
DELAY_ON_CALL: Final = "cannot use the delay query parameter with calls. The delay is supported only with sends"
SHUTTING_DOWN: Final = "the server is shutting down. What was accepted goes on: attach to it by its idempotency key or its id"
OVERLOADED: Final = "too many requests, the ingress is overloaded. Retry later."

HEALTH_PATH: Final = b"/restate/health"
_METHODS: Final = frozenset({"POST", "GET"})


@dataclass(frozen=True, slots=True)
class IngressSettings:
    """max_body_bytes: longer requests get 413. max_concurrent: more requests at a time get 429; None =
    unlimited. tokens: who may call; None = everybody.
    """

    max_body_bytes: int = 32 * 1024 * 1024
    max_concurrent: int | None = None
    tokens: BearerTokens | None = None


class Ingress:
    """`handle` is the whole of it; called, it is an ASGI application over the same."""

    def __init__(self, front: Front, settings: IngressSettings | None = None, metrics: Metrics | None = None) -> None:
        self._front = front
        self._metrics = metrics or Metrics()
        self._now = SystemClock().monotonic  # the loop's own time stands still within a turn
        self._settings = settings or IngressSettings()
        self._view: RegistryView | None = None
        self._routes: Routes = {}
        self._unkeyed: dict[bytes, _Found] = {}  # by path, as many as there are handlers and spellings
        self._in_flight = 0
        self._lookups = Lookups(front, self.routes)

    def routes(self) -> Routes:
        """The compiled registry, renewed when the snapshot changed."""
        view = self._front.registry
        if view is not self._view:
            self._routes = compile_routes(view)
            self._unkeyed = {}
            self._view = view
        return self._routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await _refuse_other(scope, receive, send)
        try:
            reply = await self.handle(AsgiRequest(scope, receive))
        except CallerGone:
            return None
        await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
        return await send({"type": "http.response.body", "body": reply.body})

    async def handle(self, request: Request) -> Reply:
        """The whole answer, ready to be sent. Raises CallerGone, nothing else.

        Cancelled, it answers that the server is shutting down: only a server that ends does that to a caller who is still there.
        """
        self._in_flight += 1
        began, status = self._now(), "gone"
        try:
            reply = await self._answer(request)
            status = _status_of(reply)
        except asyncio.CancelledError:
            reply, status = ingress_error(503, SHUTTING_DOWN, [(b"retry-after", b"1")]), "ingress_error"
        except Refused as refused:
            reply, status = refused.reply, "request_error"
        except CoordinatorUnavailable as error:
            reply, status = unavailable(error), "ingress_error"
        except CallerGone:
            raise
        except Exception:
            log.exception("ingress.failed", extra={"path": request.path.decode("latin-1"), "method": request.method})
            reply, status = ingress_error(500, "internal error, the details are in the server's log"), "ingress_error"
        finally:
            self._in_flight -= 1
            self._metrics.ingress[status] += 1
            self._metrics.ingress_seconds.observe(self._now() - began)
        return complete(reply, request.headers)

    async def _answer(self, request: Request) -> Reply:
        if request.method == "OPTIONS":
            return preflight(request.headers)
        tokens = self._settings.tokens
        # The token is taken out, because what is left is forwarded to handlers.
        if tokens is not None and request.path != HEALTH_PATH and not tokens.admits(request.headers.pop(b"authorization", None)):
            return ingress_error(401, REFUSAL, [CHALLENGE])
        limit = self._settings.max_concurrent
        if limit is not None and self._in_flight > limit:
            return ingress_error(429, OVERLOADED)
        length = request.headers.get(b"content-length")
        if length is not None and int(length) > self._settings.max_body_bytes:
            if b"expect" not in request.headers:
                await self._discard(request)
            return too_large()

        routes = self.routes()
        path = request.path.rstrip(b"/")
        found = self._unkeyed.get(path)
        if found is None:
            parts = path.split(b"/")
            if not 3 <= len(parts) <= 8:
                return ingress_error(400, f"bad path: {path.decode('latin-1') or '/'}")
            first = parts[1]
            if first == b"openapi":
                return ingress_error(404, "not found")
            if first == b"restate" and parts[2] not in (b"call", b"send"):
                return await self._below_restate(parts[2:], request)
            found = self._find_new(routes, parts) if first == b"restate" else self._find(routes, parts)
            if found.key is None:
                self._unkeyed[path] = found
        return await self._accept(found, request)

    async def _below_restate(self, parts: list[bytes], request: Request) -> Reply:
        if parts[0] == b"scope":
            return ingress_error(400, "scoped invocations require vqueues to be enabled")
        return await self._lookups.answer(parts, request, lambda: self._body(request))

    def _find(self, routes: Routes, parts: list[bytes]) -> _Found:
        """`/{svc}[/{key}]/{h}[/send]`."""
        service = _service(routes, parts[1])
        keyed = service.keyed
        call_length = 4 if keyed else 3
        is_send = len(parts) == call_length + 1 and parts[call_length] == b"send"
        if len(parts) != call_length and not is_send:
            raise Refused(400, BAD_PATH)
        key = decode_key(parts[2]) if keyed else None
        return _Found(_handler(service, parts[3] if keyed else parts[2]), key, is_send)

    def _find_new(self, routes: Routes, parts: list[bytes]) -> _Found:
        """`/restate/{call|send}/{svc}[/{key}]/{h}`."""
        if len(parts) < 5:
            raise Refused(400, BAD_NEW_PATH)
        service = _service(routes, parts[3])
        if len(parts) != (6 if service.keyed else 5):
            raise Refused(400, BAD_NEW_PATH)
        key = decode_key(parts[4]) if service.keyed else None
        return _Found(_handler(service, parts[-1]), key, parts[2] == b"send")

    async def _accept(self, found: _Found, request: Request) -> Reply:
        route, headers = found.route, request.headers
        idempotency_key = None
        if b"idempotency-key" in headers:
            idempotency_key = idempotency_key_of(headers[b"idempotency-key"])
            if route.is_run:
                return ingress_error(400, RUN_WITH_IDEMPOTENCY_KEY)
        if request.method not in _METHODS:
            return ingress_error(405, "method not allowed")
        body = await self._body(request)
        problem = route.rules.check(headers.get(b"content-type"), not body)
        if problem is not None:
            return ingress_error(400, problem)
        delay_ms = delay_ms_of(request.query) if request.query else None
        if b"x-restate-limit-key" in headers:
            return ingress_error(400, "limit-key requires a scope to be set")
        forwarded = forwarded_headers(request.path, request.query, headers)
        invocation = NewInvocation(Target(route.service, route.handler, found.key), body, forwarded, idempotency_key, delay_ms)
        if delay_ms is not None and not found.is_send:
            return ingress_error(400, DELAY_ON_CALL)
        invocation_id = self._front.mint(invocation)
        if found.is_send:
            done = await self._front.send(invocation_id, invocation)
            return accepted(str(done.invocation_id), done.new, done.execution_time_ms)
        outcome = await request.waiting(self._front.call(invocation_id, invocation))
        return outcome_reply(str(invocation_id).encode(), outcome, route)

    async def _discard(self, request: Request) -> None:
        """Read what is too large, within reason: closing on a client that still sends hides the answer from it."""
        size, more = len(request.body), not request.complete
        while more and size <= 2 * self._settings.max_body_bytes:
            piece, more = await request.more()
            size += len(piece)

    async def _body(self, request: Request) -> bytes:
        body, limit = request.body, self._settings.max_body_bytes
        if request.complete and len(body) <= limit:
            return body
        pieces, size, more = [body], len(body), not request.complete
        while more:
            piece, more = await request.more()
            size += len(piece)
            if size <= limit:
                pieces.append(piece)
            elif size > 2 * limit:
                break  # whoever sends on and on is cut off; others are read to their end, to see the answer
        if size > limit:
            raise Refused(413, "cannot read body: length limit exceeded", [(b"connection", b"close")])
        return b"".join(pieces)


@dataclass(frozen=True, slots=True)
class _Found:
    """What a path means. key: None exactly for plain services."""

    route: HandlerRoute
    key: str | None
    is_send: bool


def _service(routes: Routes, name: bytes) -> ServiceRoute:
    service = routes.get(name)
    if service is None:
        text = name.decode("utf-8", "replace")
        raise Refused(404, f"service '{text}' not found, make sure to register the service before calling it.")
    return service


def _handler(service: ServiceRoute, name: bytes) -> HandlerRoute:
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


def _status_of(reply: Reply) -> str:
    """The label of `Metrics.ingress`."""
    if reply.status < 400:
        return "completed"
    if FROM_INVOCATION in reply.headers:
        return "invocation_error"
    if reply.status == 429:
        return "rate-limited"
    return "request_error" if reply.status < 500 else "ingress_error"


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
