"""The manifest of a set of services (service protocol §5.5).

Rules: inputs and outputs say their content type and, where it is cheap, the JSON schema of their type; a handler
without an argument accepts any body and ignores it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.protocol.manifest import (
    EndpointManifest,
    HandlerManifest,
    HandlerType,
    InputRule,
    ManifestError,
    OnMaxAttempts,
    OutputRule,
    ProtocolMode,
    ServiceManifest,
    ServiceType,
    dump_manifest,
    manifest_content_type,
    negotiate_manifest,
)
from holdfast.protocol.versions import MAX_VERSION, MIN_VERSION
from holdfast.schema import json_schema
from holdfast.serde import JSON
from holdfast.service import Handler, ServiceBase


def manifest(services: Sequence[ServiceBase], compression: str | None = None) -> EndpointManifest:
    """What the endpoint answers to discovery."""
    return EndpointManifest(
        protocol_mode=ProtocolMode.REQUEST_RESPONSE,
        min_protocol_version=MIN_VERSION,
        max_protocol_version=MAX_VERSION,
        lambda_compression=compression,
        services=tuple(_service(service) for service in services),
    )


def answer(services: Sequence[ServiceBase], accept: str | None, compression: str | None) -> tuple[int, str, bytes]:
    """Status, content type and body for an accept header."""
    version = negotiate_manifest(accept)
    if version is None:
        expected = f"accept must name {manifest_content_type(2)} to v4, found '{accept or ''}'; offer v4"
        return 415, "text/plain; charset=utf-8", expected.encode()
    try:
        document = dump_manifest(manifest(services, compression), version)
    except ManifestError as error:
        return 500, "text/plain; charset=utf-8", str(error).encode()
    return 200, manifest_content_type(version), json.dumps(document, separators=(",", ":")).encode()


def _service(service: ServiceBase) -> ServiceManifest:
    return ServiceManifest(
        name=service.name,
        type=ServiceType(service.type),
        handlers=tuple(_handler(handler) for handler in service.handlers.values()),
        **_options(service.options),
    )


def _handler(handler: Handler[Any, Any]) -> HandlerManifest:
    argument, result = handler.annotations
    return HandlerManifest(
        name=handler.name,
        type=None if handler.kind is None else HandlerType(handler.kind),
        input=_input(handler, argument),
        output=_output(handler, result),
        **_options({"documentation": _documentation(handler), **handler.options}),
    )


def _input(handler: Handler[Any, Any], annotation: Any) -> InputRule:
    kind = handler.accept or handler.input.content_type
    if not handler.takes_argument or kind is None:
        return InputRule(required=False, content_type="*/*")
    schema = json_schema(annotation) if kind == JSON else None
    return InputRule(required=False, content_type=kind, json_schema=schema)


def _output(handler: Handler[Any, Any], annotation: Any) -> OutputRule:
    kind = handler.content_type or handler.output.content_type
    schema = json_schema(annotation) if kind == JSON else None
    return OutputRule(content_type=kind, set_content_type_if_empty=False, json_schema=schema)


def _documentation(handler: Handler[Any, Any]) -> str | None:
    return getattr(handler.function, "__doc__", None)


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(options)
    if "retry_on_max_attempts" in found:
        found["retry_on_max_attempts"] = OnMaxAttempts(found["retry_on_max_attempts"])
    return found
