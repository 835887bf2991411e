"""The registry as the ingress needs it: bytes of a path segment -> what to check and how to answer.

Built once per registry version and thrown away with it, so that a request costs two dictionary lookups.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.protocol.versions import MIN_VERSION
from holdfast_runtime.engine.registry import HandlerKind, HandlerRevision, RegistryView, ServiceRevision
from holdfast_runtime.surfaces.input_rules import InputRules, result_content_type


@dataclass(frozen=True, slots=True)
class HandlerRoute:
    """One handler of an active revision. `deprecated`: why calls are refused, None normally."""

    service: str
    handler: str
    public: bool
    is_run: bool
    deprecated: str | None
    rules: InputRules
    content_type: tuple[bytes, bytes] | None
    content_type_if_empty: bool


@dataclass(frozen=True, slots=True)
class ServiceRoute:
    name: str
    keyed: bool
    handlers: dict[bytes, HandlerRoute]


Routes = dict[bytes, ServiceRoute]


def compile_routes(view: RegistryView) -> Routes:
    """All services of `view` by the bytes of their name."""
    return {name.encode(): _service(view, service) for name, service in view.services.items()}


def _service(view: RegistryView, service: ServiceRevision) -> ServiceRoute:
    deprecated = _deprecated(view, service)
    handlers = {name.encode(): _handler(service.name, handler, deprecated) for name, handler in service.handlers.items()}
    return ServiceRoute(service.name, service.keyed, handlers)


def _handler(service: str, handler: HandlerRevision, deprecated: str | None) -> HandlerRoute:
    content_type, if_empty = result_content_type(handler.manifest)
    return HandlerRoute(
        service=service,
        handler=handler.name,
        public=handler.public,
        is_run=handler.kind is HandlerKind.RUN,
        deprecated=deprecated,
        rules=InputRules(handler.manifest),
        content_type=None if content_type is None else (b"content-type", content_type.encode("latin-1")),
        content_type_if_empty=if_empty,
    )


def _deprecated(view: RegistryView, service: ServiceRevision) -> str | None:
    """Only deployments registered by an older version of this program can speak too old a protocol."""
    deployment = view.deployments.get(service.deployment_id)
    if deployment is None or deployment.max_protocol_version >= MIN_VERSION:
        return None
    return f"the service {service.name} is exposed by the deprecated deployment {deployment.id}. Upgrade the SDK used by {service.name}."
