"""`sys_deployment` and `sys_service`: what is deployed, as rows (http-api §4.3)."""

from __future__ import annotations

from typing import Any, Final

from holdfast.protocol.manifest import ServiceType
from holdfast_runtime.engine.registry import Deployment, HttpAddress, InProcessAddress, LambdaAddress, RegistryView
from holdfast_runtime.surfaces.introspection.tables import Table, columns

_TYPES: Final = {
    ServiceType.SERVICE: "service",
    ServiceType.VIRTUAL_OBJECT: "virtual_object",
    ServiceType.WORKFLOW: "workflow",
}

SYS_DEPLOYMENT: Final = Table(
    "sys_deployment",
    columns(
        """
        id:s ty:s endpoint:s created_at:ts min_service_protocol_version:u32 max_service_protocol_version:u32 services:[s]
        """
    ),
    source="deployments",
    identity=("id",),
)

SYS_SERVICE: Final = Table(
    "sys_service",
    columns("name:s revision:u64 public:b ty:s deployment_id:s"),
    source="services",
    identity=("name",),
)


def rows(view: RegistryView, source: str, wanted: list[str]) -> list[list[Any]]:
    """The columns `wanted` of "deployments" or "services"."""
    if source == "deployments":
        found = [_deployment(deployment) for deployment in view.deployments.values()]
    else:
        found = [
            {
                "name": service.name,
                "revision": service.revision,
                "public": service.public,
                "ty": _TYPES[service.type],
                "deployment_id": service.deployment_id,
            }
            for service in view.services.values()
        ]
    return [[row[name] for name in wanted] for row in found]


def service_types(view: RegistryView) -> dict[str, str]:
    return {service.name: _TYPES[service.type] for service in view.services.values()}


def _deployment(deployment: Deployment) -> dict[str, Any]:
    match deployment.address:
        case HttpAddress(uri):
            ty, endpoint = "http", uri
        case LambdaAddress(arn):
            ty, endpoint = "lambda", arn
        case InProcessAddress(name):
            ty, endpoint = "http", f"in-process://{name}/"
    return {
        "id": deployment.id,
        "ty": ty,
        "endpoint": endpoint,
        "created_at": deployment.created_at_ms,
        "min_service_protocol_version": deployment.min_protocol_version,
        "max_service_protocol_version": deployment.max_protocol_version,
        "services": sorted(deployment.services),
    }
