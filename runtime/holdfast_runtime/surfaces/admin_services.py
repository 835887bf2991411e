"""Services and their handlers over the admin API (http-api §2.6). Only the active revision of a service is
shown.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response

from holdfast_runtime.coordinator.front import Front
from holdfast_runtime.engine.registry import ServiceRevision
from holdfast_runtime.surfaces.admin_json import Json, handler_json, service_json
from holdfast_runtime.surfaces.admin_replies import AdminError, error, json_reply

Handler = Callable[[Request, int], Awaitable[Response]]


def service_routes(front: Front) -> Mapping[str, Mapping[str, Handler]]:
    def wanted(request: Request) -> ServiceRevision:
        name = request.path_params["service"]
        service = front.registry.services.get(name)
        if service is None:
            raise AdminError(error(404, f"The requested service '{name}' does not exist"))
        return service

    def shown(service: ServiceRevision) -> Json:
        return service_json(service, front.registry.deployments.get(service.deployment_id))

    async def listing(request: Request, api: int) -> Response:
        return json_reply({"services": [shown(service) for service in front.registry.services.values()]})

    async def get(request: Request, api: int) -> Response:
        return json_reply(shown(wanted(request)))

    async def handlers(request: Request, api: int) -> Response:
        return json_reply({"handlers": [handler_json(item) for item in wanted(request).handlers.values()]})

    async def handler(request: Request, api: int) -> Response:
        service, name = wanted(request), request.path_params["handler"]
        found = service.handlers.get(name)
        if found is None:
            return error(404, f"The requested handler '{name}' on service '{service.name}' does not exist")
        return json_reply(handler_json(found))

    return {
        "/services": {"GET": listing},
        "/services/{service}": {"GET": get},
        "/services/{service}/handlers": {"GET": handlers},
        "/services/{service}/handlers/{handler}": {"GET": handler},
    }
