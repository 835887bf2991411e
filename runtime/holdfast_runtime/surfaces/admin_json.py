"""Deployments, services and handlers as admin JSON (http-api §2.5, §2.6). Pure; what is empty is left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, assert_never

from holdfast.protocol.manifest import HandlerManifest, HandlerType, OnMaxAttempts, Options, ServiceType
from holdfast_runtime.coordinator.front import Registered
from holdfast_runtime.coordinator.registry_document import DiscoveredService
from holdfast_runtime.engine.registry import (
    Deployment,
    HandlerKind,
    HandlerRevision,
    HttpAddress,
    HttpVersion,
    InProcessAddress,
    LambdaAddress,
    RetryPolicy,
    ServiceRevision,
)
from holdfast_runtime.surfaces.durations import format_duration
from holdfast_runtime.surfaces.timestamps import admin_time

Json = dict[str, Any]

_SERVICE_TYPES: Final = {
    ServiceType.SERVICE: "Service",
    ServiceType.VIRTUAL_OBJECT: "VirtualObject",
    ServiceType.WORKFLOW: "Workflow",
}
_HANDLER_TYPES: Final = {
    HandlerType.EXCLUSIVE: "Exclusive",
    HandlerType.SHARED: "Shared",
    HandlerType.WORKFLOW: "Workflow",
}
_ON_MAX_ATTEMPTS: Final = {OnMaxAttempts.PAUSE: "Pause", OnMaxAttempts.KILL: "Kill"}
_SIMPLE_TYPES: Final = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})


# ---- Deployments


def registered_json(registered: Registered) -> Json:
    """The answer to a registration."""
    deployment = registered.deployment
    answer: Json = {
        "id": deployment.id,
        "services": [service_json(service, deployment) for service in registered.services],
        "min_protocol_version": deployment.min_protocol_version,
        "max_protocol_version": deployment.max_protocol_version,
    }
    if deployment.sdk_version is not None:
        answer["sdk_version"] = deployment.sdk_version
    return answer


def deployment_json(deployment: Deployment, *, full: bool) -> Json:
    """`full`: whole service objects, else name and revision of each."""
    answer: Json = {"id": deployment.id, **_address(deployment)}
    if deployment.metadata:
        answer["metadata"] = dict(deployment.metadata)
    answer["created_at"] = admin_time(deployment.created_at_ms)
    answer["min_protocol_version"] = deployment.min_protocol_version
    answer["max_protocol_version"] = deployment.max_protocol_version
    if deployment.sdk_version is not None:
        answer["sdk_version"] = deployment.sdk_version
    services = deployment.services.values()
    answer["services"] = (
        [service_json(service, deployment) for service in services]
        if full
        else [{"name": service.name, "revision": service.revision} for service in services]
    )
    return answer


def _address(deployment: Deployment) -> Json:
    address = deployment.address
    match address:
        case LambdaAddress():
            answer: Json = {"arn": address.arn}
            if address.assume_role_arn is not None:
                answer["assume_role_arn"] = address.assume_role_arn
            if address.compression is not None:
                answer["compression"] = address.compression.capitalize()
            headers: Mapping[str, str] = address.additional_headers
        case HttpAddress():
            answer = _http(address.uri, deployment.protocol_mode, address.http_version)
            headers = address.additional_headers
        case InProcessAddress():
            # Official clients know HTTP and Lambda only; a URI of our own scheme is shown as it is.
            answer = _http(f"in-process://{address.name}/", deployment.protocol_mode, HttpVersion.HTTP_2)
            headers = {}
        case _:
            assert_never(address)
    if headers:
        answer["additional_headers"] = dict(headers)
    return answer


def _http(uri: str, protocol_mode: str, version: HttpVersion) -> Json:
    return {"uri": uri, "protocol_type": protocol_mode, "http_version": version.value}


# ---- Services


def service_json(service: ServiceRevision, deployment: Deployment | None) -> Json:
    """`deployment`: the one that serves this revision; None when it vanished meanwhile."""
    one_way = is_one_way(deployment)
    answer: Json = {
        "name": service.name,
        "ty": _SERVICE_TYPES[service.type],
        "handlers": [handler_json(handler, one_way=one_way) for handler in service.handlers.values()],
    }
    if service.documentation:
        answer["documentation"] = service.documentation
    if service.metadata:
        answer["metadata"] = dict(service.metadata)
    answer |= {
        "deployment_id": service.deployment_id,
        "revision": service.revision,
        "public": service.public,
    }
    if isinstance(service, DiscoveredService):
        answer |= _settings(service, one_way=one_way)
    return answer


def is_one_way(deployment: Deployment | None) -> bool:
    """Whether it is called in request/response mode."""
    return deployment is not None and deployment.protocol_mode == "RequestResponse"


def _settings(service: DiscoveredService, *, one_way: bool) -> Json:
    settings = service.settings
    answer: Json = {"idempotency_retention": format_duration(settings.idempotency_retention_ms)}
    run = next((handler for handler in service.handlers.values() if handler.kind is HandlerKind.RUN), None)
    if run is not None:
        answer["workflow_completion_retention"] = format_duration(run.workflow_retention_ms)
    if settings.journal_retention_ms:
        answer["journal_retention"] = format_duration(settings.journal_retention_ms)
    answer |= {
        "inactivity_timeout": "0s" if one_way else format_duration(settings.inactivity_timeout_ms),
        "abort_timeout": format_duration(settings.abort_timeout_ms),
        "enable_lazy_state": settings.lazy_state,
        "retry_policy": _retry_policy(settings.retry),
    }
    info = _service_info(service, one_way=one_way)
    if info:
        answer["info"] = info
    return answer


def _service_info(service: DiscoveredService, *, one_way: bool) -> list[Json]:
    """What of a service's own settings, discovered or patched, does not apply as given."""
    settings, patch, manifest = service.settings, service.patch, service.manifest
    run = next((handler for handler in service.handlers.values() if handler.kind is HandlerKind.RUN), None)
    asked = (
        ("idempotency_retention", patch.idempotency_retention_ms, manifest.idempotency_retention_ms, settings.idempotency_retention_ms),
        ("journal_retention", patch.journal_retention_ms, manifest.journal_retention_ms, settings.journal_retention_ms),
        (
            "workflow_completion_retention",
            patch.workflow_completion_retention_ms,
            run.manifest.workflow_completion_retention_ms if run is not None else None,
            run.workflow_retention_ms if run is not None else 0,
        ),
    )
    info = [_clamped(name, discovered if patched is None else patched, effective) for name, patched, discovered, effective in asked]
    given = manifest.inactivity_timeout_ms if patch.inactivity_timeout_ms is None else patch.inactivity_timeout_ms
    return [*(_one_way(given) if one_way else []), *(item for item in info if item is not None)]


def _one_way(inactivity_timeout_ms: int | None) -> list[Json]:
    """Without a stream there is no inactivity: an answer comes at once and whole."""
    if inactivity_timeout_ms is None:
        return []
    return [
        {
            "code": "RT0021",
            "message": f"The configured inactivity_timeout {format_duration(inactivity_timeout_ms)} will not be applied because "
            "the service is exposed in Request/Response mode.",
        }
    ]


def _clamped(name: str, asked_ms: int | None, effective_ms: int) -> Json | None:
    if asked_ms is None or asked_ms <= effective_ms:
        return None
    return {
        "code": "RT0022",
        "message": f"The configured {name} {format_duration(asked_ms)} is above the maximum of this server and was clamped to "
        f"{format_duration(effective_ms)}.",
    }


def _retry_policy(policy: RetryPolicy) -> Json:
    return {
        "initial_interval": format_duration(policy.initial_interval_ms),
        "exponentiation_factor": policy.factor,
        "max_attempts": policy.max_attempts,
        "max_interval": format_duration(policy.max_interval_ms),
        "on_max_attempts": policy.on_max_attempts.value,
    }


# ---- Handlers


def handler_json(handler: HandlerRevision, *, one_way: bool = False) -> Json:
    """`one_way`: its deployment is called in request/response mode."""
    manifest = handler.manifest
    answer: Json = {"name": handler.name}
    if manifest.type is not None:
        answer["ty"] = _HANDLER_TYPES[manifest.type]
    if manifest.documentation:
        answer["documentation"] = manifest.documentation
    if manifest.metadata:
        answer["metadata"] = dict(manifest.metadata)
    for name, value in (
        ("idempotency_retention", manifest.idempotency_retention_ms),
        ("journal_retention", manifest.journal_retention_ms),
        ("inactivity_timeout", manifest.inactivity_timeout_ms),
        ("abort_timeout", manifest.abort_timeout_ms),
    ):
        if value is not None:
            answer[name] = format_duration(value)
    if manifest.enable_lazy_state is not None:
        answer["enable_lazy_state"] = manifest.enable_lazy_state
    answer["public"] = handler.public
    answer["input_description"] = input_description(manifest)
    answer["output_description"] = output_description(manifest)
    if manifest.input is not None and manifest.input.json_schema is not None:
        answer["input_json_schema"] = manifest.input.json_schema
    if manifest.output is not None and manifest.output.json_schema is not None:
        answer["output_json_schema"] = manifest.output.json_schema
    answer["retry_policy"] = _own_retry_policy(manifest)
    clamped = (
        _clamped("idempotency_retention", manifest.idempotency_retention_ms, handler.idempotency_retention_ms),
        _clamped("journal_retention", manifest.journal_retention_ms, handler.journal_retention_ms),
    )
    info = [*(_one_way(manifest.inactivity_timeout_ms) if one_way else []), *(item for item in clamped if item is not None)]
    if info:
        answer["info"] = info
    return answer


def input_description(manifest: HandlerManifest) -> str:
    """`none`, the content-type, or `JSON <title or type>`; what the CLI shows."""
    given = manifest.input
    if given is None:
        return "*/*"
    if given.content_type is None:
        return "none"
    return _json_name(given.json_schema) or given.content_type


def output_description(manifest: HandlerManifest) -> str:
    given = manifest.output
    if given is None:
        return "application/json"
    if given.content_type is None:
        return "none"
    name = _json_name(given.json_schema)
    if name is not None:
        return name
    return f"optional {given.content_type}" if given.set_content_type_if_empty else given.content_type


def _json_name(schema: object) -> str | None:
    if not isinstance(schema, dict):
        return None
    if isinstance(schema.get("title"), str):
        return f"JSON '{schema['title']}'"
    return f"JSON {schema['type']}" if schema.get("type") in _SIMPLE_TYPES else None


def _own_retry_policy(options: Options) -> Json:
    """Only what the handler overrides, but always `max_attempts`."""
    answer: Json = {}
    if options.retry_initial_interval_ms is not None:
        answer["initial_interval"] = format_duration(options.retry_initial_interval_ms)
    if options.retry_exponentiation_factor is not None:
        answer["exponentiation_factor"] = options.retry_exponentiation_factor
    answer["max_attempts"] = options.retry_max_attempts
    if options.retry_max_interval_ms is not None:
        answer["max_interval"] = format_duration(options.retry_max_interval_ms)
    if options.retry_on_max_attempts is not None:
        answer["on_max_attempts"] = _ON_MAX_ATTEMPTS[options.retry_on_max_attempts]
    return answer
