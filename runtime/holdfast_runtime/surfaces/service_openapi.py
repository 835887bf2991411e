"""A service's public handlers at the ingress, as an OpenAPI 3.1 document (http-api §2.6). Pure.

Rules: a handler is there to be called and to be sent to; services and objects also to attach by idempotency key, a workflow's main
handler by its key. JSON schemas come from discovery; what refers into them is pointed to where they stand in this document.
"""

from __future__ import annotations

from typing import Any, Final

from holdfast.protocol.manifest import HandlerManifest, ServiceType
from holdfast_runtime.engine.registry import HandlerKind, HandlerRevision, ServiceRevision
from holdfast_runtime.surfaces.schema_refs import embedded

Json = dict[str, Any]

_CALL, _SEND, _ATTACH, _OUTPUT = "Request Response", "Send", "Attach", "Get Output"
_TAGS: Final = (
    (_CALL, "Call a handler and wait for its result"),
    (_SEND, "Call a handler and do not wait"),
    (_ATTACH, "Wait for the result of an invocation"),
    (_OUTPUT, "Get the result of an invocation if it is there"),
)


def service_openapi(service: ServiceRevision, ingress_url: str | None) -> Json:
    """`ingress_url`: where clients reach the ingress; None leaves out the server."""
    document: Json = {"openapi": "3.1.0", "info": {"title": service.name, "version": str(service.revision)}}
    if service.documentation:
        document["info"]["description"] = service.documentation
    if ingress_url is not None:
        document["servers"] = [{"url": ingress_url, "description": "Ingress"}]
    paths: Json = {}
    schemas = dict(_SCHEMAS)
    for handler in service.handlers.values():
        if handler.public:
            paths |= _paths(service, handler)
            schemas |= _handler_schemas(handler)
    document |= {
        "paths": paths,
        "components": {"parameters": _PARAMETERS, "responses": _RESPONSES, "schemas": schemas},
        "tags": [{"name": name, "description": description} for name, description in _TAGS],
    }
    if service.metadata:
        document["x-restate-extensions"] = dict(service.metadata)
    return document


# ---- Paths


def _paths(service: ServiceRevision, handler: HandlerRevision) -> Json:
    keyed = service.keyed
    target = f"{service.name}{'/{key}' if keyed else ''}/{handler.name}"
    keys = [_parameter("key")] if keyed else []
    # A workflow runs once per key, which is its idempotency key.
    idempotent = [] if handler.kind is HandlerKind.RUN else [_parameter("idempotencyKeyHeader")]
    found: Json = {
        f"/restate/call/{target}": {"post": _call(handler, [*keys, *idempotent])},
        f"/restate/send/{target}": {"post": _send(handler, [*keys, _parameter("delay"), *idempotent])},
    }
    if handler.kind is HandlerKind.RUN:
        base, keys = f"/restate/workflow/{service.name}/{{key}}", [_parameter("key")]
    elif service.type is not ServiceType.WORKFLOW:
        base, keys = f"/restate/invocation/{target}/{{idempotencyKey}}", [*keys, _parameter("idempotencyKeyPath")]
    else:
        return found
    found[f"{base}/attach"] = {"get": _result(handler, _ATTACH, "Attach", keys)}
    found[f"{base}/output"] = {"get": _result(handler, _OUTPUT, "Output", keys)}
    return found


def _call(handler: HandlerRevision, parameters: list[Json]) -> Json:
    return _operation(handler, _CALL, "", parameters) | _request(handler) | {"responses": {"200": _response(handler), **_FAILURE}}


def _send(handler: HandlerRevision, parameters: list[Json]) -> Json:
    return _operation(handler, _SEND, "Send", parameters) | _request(handler) | {"responses": {"202": _shared("Send"), **_FAILURE}}


def _result(handler: HandlerRevision, tag: str, suffix: str, parameters: list[Json]) -> Json:
    responses: Json = {"200": _response(handler), "404": _shared("InvocationNotFoundError")}
    if tag == _OUTPUT:
        responses["470"] = _shared("InvocationNotReadyError")
    return _operation(handler, tag, suffix, parameters) | {"deprecated": True, "responses": {**responses, **_FAILURE}}


def _operation(handler: HandlerRevision, tag: str, suffix: str, parameters: list[Json]) -> Json:
    operation: Json = {"operationId": f"{handler.name}{suffix}", "tags": [tag], "summary": f"{tag}: {handler.name}"}
    if handler.manifest.documentation:
        operation["description"] = handler.manifest.documentation
    if parameters:
        operation["parameters"] = parameters
    if handler.manifest.metadata:
        operation["x-restate-extensions"] = dict(handler.manifest.metadata)
    return operation


def _request(handler: HandlerRevision) -> Json:
    given = handler.manifest.input
    if given is not None and given.content_type is None:
        return {}
    kind = "*/*" if given is None or given.content_type is None else given.content_type
    required = given is not None and bool(given.required)
    return {"requestBody": {"required": required, "content": {kind: _content(_request_schema(handler.manifest), f"{handler.name}Request")}}}


def _response(handler: HandlerRevision) -> Json:
    given = handler.manifest.output
    if given is not None and given.content_type is None:
        return {"description": "Empty"}
    kind = "application/json" if given is None or given.content_type is None else given.content_type
    return {"description": "The result", "content": {kind: _content(_response_schema(handler.manifest), f"{handler.name}Response")}}


def _content(schema: object, name: str) -> Json:
    return {} if schema is None else {"schema": {"$ref": f"#/components/schemas/{name}"}}


# ---- Schemas


def _handler_schemas(handler: HandlerRevision) -> Json:
    found = {}
    for name, schema in (
        (f"{handler.name}Request", _request_schema(handler.manifest)),
        (f"{handler.name}Response", _response_schema(handler.manifest)),
    ):
        if schema is not None:
            found[name] = embedded(schema, f"#/components/schemas/{name}")
    return found


def _request_schema(manifest: HandlerManifest) -> Any:
    return manifest.input.json_schema if manifest.input is not None and manifest.input.content_type is not None else None


def _response_schema(manifest: HandlerManifest) -> Any:
    return manifest.output.json_schema if manifest.output is not None and manifest.output.content_type is not None else None


# ---- What all handlers share


def _parameter(name: str) -> Json:
    return {"$ref": f"#/components/parameters/{name}"}


def _shared(name: str) -> Json:
    return {"$ref": f"#/components/responses/{name}"}


def _json_answer(description: str, schema: Json) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


_FAILURE: Final[Json] = {"default": _shared("GenericError")}
_ERROR: Final[Json] = {"$ref": "#/components/schemas/RestateError"}
_TEXT: Final[Json] = {"type": "string"}

_PARAMETERS: Final[Json] = {
    "delay": {
        "name": "delay",
        "in": "query",
        "required": False,
        "description": "How long to wait before the handler is called: ISO-8601 or as in `1h 30m`",
        "schema": _TEXT,
    },
    "key": {
        "name": "key",
        "in": "path",
        "required": True,
        "description": "Key of the virtual object or workflow",
        "schema": _TEXT,
    },
    "idempotencyKeyHeader": {
        "name": "idempotency-key",
        "in": "header",
        "required": False,
        "description": "Requests with the same key are one invocation",
        "schema": _TEXT,
    },
    "idempotencyKeyPath": {
        "name": "idempotencyKey",
        "in": "path",
        "required": True,
        "description": "Idempotency key of the invocation",
        "schema": _TEXT,
    },
}
_RESPONSES: Final[Json] = {
    "GenericError": _json_answer("The request was refused, or the invocation failed", _ERROR),
    "InvocationNotFoundError": _json_answer("There is no such invocation", _ERROR),
    "InvocationNotReadyError": _json_answer("The invocation has no result yet", _ERROR),
    "Send": _json_answer(
        "The invocation was accepted",
        {
            "type": "object",
            "properties": {
                "invocationId": _TEXT,
                "status": {"enum": ["Accepted", "PreviouslyAccepted"]},
                "executionTime": {"type": "string", "format": "date-time"},
            },
            "required": ["invocationId", "status"],
        },
    ),
}
_SCHEMAS: Final[Json] = {
    "RestateError": {
        "type": "object",
        "title": "RestateError",
        "properties": {
            "code": {"type": "integer", "description": "HTTP-like status"},
            "message": _TEXT,
            "source": {"enum": ["ingress", "invocation"]},
            "metadata": {"type": "object", "additionalProperties": _TEXT},
        },
        "required": ["message"],
    }
}
