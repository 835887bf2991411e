"""Services and their handlers over the admin API (http-api §2.6). Only the active revision of a service is
shown.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from holdfast.protocol.manifest import ServiceType
from holdfast_runtime.coordinator.front import Front, PatchService
from holdfast_runtime.engine.registry import ServiceRevision
from holdfast_runtime.surfaces.admin_json import Json, handler_json, is_one_way, service_json
from holdfast_runtime.surfaces.admin_openapi import declared
from holdfast_runtime.surfaces.admin_replies import AdminError, error, json_object, json_reply, wrong_shape
from holdfast_runtime.surfaces.admin_shapes import Handler as HandlerShape
from holdfast_runtime.surfaces.admin_shapes import Handlers, Problem, Service, ServicePatch, Services, StateEdit
from holdfast_runtime.surfaces.durations import parse_duration
from holdfast_runtime.surfaces.service_openapi import service_openapi

Handler = Callable[[Request, int], Awaitable[Response]]


def service_routes(front: Front, ingress_url: str | None = None) -> Mapping[str, Mapping[str, Handler]]:
    def wanted(request: Request) -> ServiceRevision:
        name = request.path_params["service"]
        service = front.registry.services.get(name)
        if service is None:
            raise AdminError(error(404, f"The requested service '{name}' does not exist"))
        return service

    def shown(service: ServiceRevision) -> Json:
        return service_json(service, front.registry.deployments.get(service.deployment_id))

    @declared({200: Services})
    async def listing(request: Request, api: int) -> Response:
        """List services."""
        return json_reply({"services": [shown(service) for service in front.registry.services.values()]})

    @declared({200: Service, 404: Problem})
    async def get(request: Request, api: int) -> Response:
        """One service with its handlers and effective settings."""
        return json_reply(shown(wanted(request)))

    @declared({200: Service, 400: Problem, 404: Problem}, takes=ServicePatch)
    async def patch(request: Request, api: int) -> Response:
        """Change settings of a service until its next revision."""
        name, wanted_changes = request.path_params["service"], parse_patch(await json_object(request))
        changed = await front.patch_service(name, wanted_changes)
        if changed is None:
            return error(404, f"not found in the schema registry: service with name '{name}'")
        return json_reply(shown(changed))

    @declared({200: Handlers, 404: Problem})
    async def handlers(request: Request, api: int) -> Response:
        """List the handlers of a service."""
        service = wanted(request)
        one_way = is_one_way(front.registry.deployments.get(service.deployment_id))
        return json_reply({"handlers": [handler_json(item, one_way=one_way) for item in service.handlers.values()]})

    @declared({200: HandlerShape, 404: Problem})
    async def handler(request: Request, api: int) -> Response:
        """One handler of a service."""
        service, name = wanted(request), request.path_params["handler"]
        found = service.handlers.get(name)
        if found is None:
            return error(404, f"The requested handler '{name}' on service '{service.name}' does not exist")
        return json_reply(handler_json(found, one_way=is_one_way(front.registry.deployments.get(service.deployment_id))))

    @declared({200: dict[str, Any], 404: Problem})
    async def openapi(request: Request, api: int) -> Response:
        """A service's public handlers at the ingress, as an OpenAPI 3.1 document."""
        return json_reply(service_openapi(wanted(request), ingress_url))

    @declared({202: None, 400: Problem, 404: Problem}, takes=StateEdit)
    async def edit_state(request: Request, api: int) -> Response:
        """Replace the state of a key, in its turn."""
        name, body = request.path_params["service"], await json_object(request)
        key, version = body.get("object_key"), body.get("version")
        if not isinstance(key, str) or not isinstance(version, str | None):
            raise wrong_shape("expected `object_key`, a string, and `version`, a string or nothing")
        state = _new_state(body.get("new_state"))
        service = front.registry.services.get(name)
        if service is None and state:
            return error(404, f"The requested service '{name}' does not exist")
        if service is not None and service.type is ServiceType.SERVICE:
            return error(400, "Cannot modify state for service type Service")
        await front.edit_state(name, key, state, version)
        return Response(status_code=202)

    return {
        "/services/{service}/state": {"POST": edit_state},
        "/services": {"GET": listing},
        "/services/{service}": {"GET": get, "PATCH": patch},
        "/services/{service}/openapi": {"GET": openapi},
        "/services/{service}/handlers": {"GET": handlers},
        "/services/{service}/handlers/{handler}": {"GET": handler},
    }


def parse_patch(document: Mapping[str, Any]) -> PatchService:
    """Unknown members are ignored, null counts as absent. Raises AdminError (422)."""
    public = document.get("public")
    if not isinstance(public, bool | None):
        raise wrong_shape(f"public: expected a boolean, found {public!r:.40}")
    return PatchService(
        public=public,
        idempotency_retention_ms=_duration(document, "idempotency_retention"),
        workflow_completion_retention_ms=_duration(document, "workflow_completion_retention"),
        journal_retention_ms=_duration(document, "journal_retention"),
        inactivity_timeout_ms=_duration(document, "inactivity_timeout"),
        abort_timeout_ms=_duration(document, "abort_timeout"),
    )


def _duration(document: Mapping[str, Any], member: str) -> int | None:
    value = document.get(member)
    if value is None:
        return None
    if not isinstance(value, str):
        raise wrong_shape(f"{member}: expected a duration such as '1h 30m' or 'PT10S', found {value!r:.40}")
    try:
        return parse_duration(value)
    except ValueError as problem:
        raise wrong_shape(f"{member}: {problem}") from problem


def _new_state(document: object) -> dict[str, bytes]:
    """{name: value}, a value being an array of byte numbers or a string."""
    if not isinstance(document, dict):
        raise wrong_shape("expected `new_state`, an object of state names and values")
    state: dict[str, bytes] = {}
    for name, value in document.items():
        try:
            state[name] = value.encode() if isinstance(value, str) else bytes(value)
        except (TypeError, ValueError):
            raise wrong_shape(f"expected the value of `{name}` to be a string or an array of numbers from 0 to 255") from None
    return state
