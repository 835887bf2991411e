"""The admin API, port 9070: what operators, the official CLI and our own use (http-api §2). Open to
everybody who reaches it, unless there are tokens.

Rules: every route exists at the root and below /v2, /v3, /v4; errors of routes are JSON with `message` and
`restate_code`, errors found before a route runs are plain text, because the CLI tells them apart; an
unknown path answers 404 and a wrong method 405, both empty. Reading invocations happens through SQL or
below /holdfast.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from holdfast_runtime.coordinator.front import CoordinatorUnavailable, Front, RegistrationError
from holdfast_runtime.ports.store import StoreUnavailable
from holdfast_runtime.surfaces.admin_deployments import deployment_routes
from holdfast_runtime.surfaces.admin_invocations import invocation_routes
from holdfast_runtime.surfaces.admin_openapi import declared, openapi_document
from holdfast_runtime.surfaces.admin_replies import AdminError, error, json_reply, text
from holdfast_runtime.surfaces.admin_services import service_routes
from holdfast_runtime.surfaces.admin_shapes import ClusterHealth, Version
from holdfast_runtime.surfaces.admin_unserved import unserved_routes
from holdfast_runtime.surfaces.asgi import App, Receive, Scope, Send
from holdfast_runtime.surfaces.bearer import BearerTokens, guarded
from holdfast_runtime.surfaces.compression import compressed

log = logging.getLogger("holdfast.admin")

COMPATIBLE_VERSION: Final = "1.7.12"  # what official tools take us for; below 1.5 they use other SQL
HOLDFAST_VERSION: Final = "0.1.0"
MIN_API, MAX_API = 2, 4
HEALTH_PATHS: Final = ("/health", "/v2/health", "/v3/health", "/v4/health")

# A handler gets the request and the admin API version of its path.
Handler = Callable[[Request, int], Awaitable[Response]]
Paths = Mapping[str, Mapping[str, Handler]]


@dataclass(frozen=True, slots=True)
class AdminSettings:
    """`ingress_url`: where clients reach the ingress, shown to tools. `tokens`: who may ask; None = everybody."""

    ingress_url: str | None = None
    cluster_name: str = "holdfast"
    holdfast_version: str = HOLDFAST_VERSION
    tokens: BearerTokens | None = None


def admin_app(front: Front, settings: AdminSettings | None = None, extra: Sequence[Paths] = ()) -> App:
    """The ASGI application. `extra`: routes of other surfaces (path -> method -> handler), e.g. SQL."""
    settings = settings or AdminSettings()
    groups: list[Paths] = [
        _about(settings),
        deployment_routes(front),
        service_routes(front, settings.ingress_url),
        invocation_routes(front),
        unserved_routes(front),
        *extra,
    ]
    groups.append(_openapi(groups, settings))
    routes = [
        Route(f"{prefix}{path}", _Endpoint(handlers, version))
        for prefix, version in (("", MAX_API), ("/v2", 2), ("/v3", 3), ("/v4", 4))
        for group in groups
        for path, handlers in group.items()
    ]
    routes.append(Route("/v1/{rest:path}", _too_old, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]))
    app = Starlette(routes=routes, exception_handlers={404: _empty, 405: _empty})
    app.router.redirect_slashes = False
    return app if settings.tokens is None else guarded(app, settings.tokens, open_paths=HEALTH_PATHS)


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """One path as an ASGI application: picks the handler by method, turns exceptions into answers."""

    handlers: Mapping[str, Handler]
    version: int

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response = await _answer(self.handlers, self.version, request)
        await compressed(response, request.headers.get("accept-encoding"))(scope, receive, send)


async def _answer(handlers: Mapping[str, Handler], version: int, request: Request) -> Response:
    method = "GET" if request.method == "HEAD" else request.method
    handler = handlers.get(method)
    if handler is None:
        return Response(status_code=405, headers={"allow": ",".join(handlers)})
    try:
        return await handler(request, version)
    except AdminError as refused:
        return refused.response
    except RegistrationError as refused:
        return error(refused.status, str(refused), refused.restate_code)
    except CoordinatorUnavailable as unavailable:
        hint = "it is safe to try again" if unavailable.retry_safe else "look at the state before trying again"
        return error(503, f"the coordinator cannot be reached: {unavailable}; {hint}")
    except StoreUnavailable as unavailable:
        # Changes of deployments and services are conditional writes: the same request again finds its change, or makes it.
        return error(503, f"the store cannot be reached: {unavailable}; it is safe to try again")
    except ClientDisconnect:
        return Response(status_code=400)
    except Exception:
        log.exception("admin.failed", extra={"path": request.url.path, "method": request.method})
        return error(500, "internal error, the details are in the server's log")


async def _empty(request: Request, exception: Exception) -> Response:
    assert isinstance(exception, HTTPException)
    return Response(status_code=exception.status_code, headers=exception.headers)


async def _too_old(request: Request) -> Response:
    versions = f"This server supports versions between V{MIN_API} and V{MAX_API}."
    return compressed(text(400, f"Unsupported Admin API version V1. {versions}"), request.headers.get("accept-encoding"))


def _openapi(groups: Sequence[Paths], settings: AdminSettings) -> Paths:
    """`groups`: all routes; this one's own are added to it."""
    document: list[dict[str, Any]] = []  # made when it is asked for the first time

    @declared({200: dict[str, Any]})
    async def openapi(request: Request, api: int) -> Response:
        """This API as an OpenAPI 3.1 document."""
        if not document:
            document.append(openapi_document(groups, version=settings.holdfast_version))
        return json_reply(document[0])

    return {"/openapi": {"GET": openapi}}


def _about(settings: AdminSettings) -> Paths:
    @declared({200: Version})
    async def version(request: Request, api: int) -> Response:
        """What this server is and which versions of this API it speaks."""
        return json_reply(
            {
                "version": COMPATIBLE_VERSION,
                "holdfast_version": settings.holdfast_version,
                "min_admin_api_version": MIN_API,
                "max_admin_api_version": MAX_API,
                "ingress_endpoint": settings.ingress_url,
                "features": {"vqueues": False, "protocol_v7": False},
            }
        )

    async def health(request: Request, api: int) -> Response:
        """Whether this server answers."""
        return Response(status_code=200)

    @declared({200: ClusterHealth})
    async def cluster_health(request: Request, api: int) -> Response:
        """The cluster as far as there is one."""
        return json_reply({"cluster_name": settings.cluster_name, "metadata_cluster_health": None})

    return {
        "/version": {"GET": version},
        "/health": {"GET": health},
        "/cluster-health": {"GET": cluster_health},
    }
