"""The manifest of a set of services (service protocol §5.5).

Rules: inputs and outputs say their content type and, where it is cheap, the JSON schema of their type; a handler
without an argument accepts any body and ignores it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.protocol.manifest import (
    EndpointManifest,
    HandlerManifest,
    InputRule,
    OutputRule,
    ProtocolMode,
    ServiceManifest,
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


def _service(service: ServiceBase) -> ServiceManifest:
    return ServiceManifest(
        name=service.name,
        type=service.type,
        handlers=tuple(_handler(handler) for handler in service.handlers.values()),
        **service.options,
    )


def _handler(handler: Handler[Any, Any]) -> HandlerManifest:
    argument, result = handler.annotations
    return HandlerManifest(
        name=handler.name,
        type=handler.kind,
        input=_input(handler, argument),
        output=_output(handler, result),
        **{"documentation": _documentation(handler), **handler.options},
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
