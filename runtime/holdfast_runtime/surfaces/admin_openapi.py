"""The admin API described by itself: an OpenAPI 3.1 document made from the routes that are served and what they declare.

Rules: every route is in it, also one that declares nothing; a route says what it takes and gives with `declared`, its summary is the
first line of its docstring; nothing is written here that the code does not say elsewhere. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from holdfast_runtime.surfaces.admin_shapes import Problem
from holdfast_runtime.surfaces.openapi_schemas import Json, Schemas

Handler = Callable[[Request, int], Awaitable[Response]]
Paths = Mapping[str, Mapping[str, Handler]]
H = TypeVar("H", bound=Handler)

_PARAMETER: Final = re.compile(r"\{(\w+)(?::\w+)?\}")


@dataclass(frozen=True, slots=True)
class Declared:
    """answers: status -> shape of the JSON body, None for an empty one. takes: shape of the JSON body. query: name -> type."""

    answers: Mapping[int, Any]
    takes: Any = None
    query: Mapping[str, Any] = field(default_factory=dict)


def declared(answers: Mapping[int, Any], *, takes: Any = None, query: Mapping[str, Any] | None = None) -> Callable[[H], H]:
    """Says of a handler what `GET /openapi` tells about it."""

    def mark(handler: H) -> H:
        handler.declared = Declared(answers, takes, query or {})  # type: ignore[attr-defined]
        return handler

    return mark


def openapi_document(groups: Sequence[Paths], *, version: str) -> Json:
    """The document; paths without version prefix, which all exist below /v2 to /v4 too."""
    schemas = Schemas()
    schemas.of(Problem)
    paths: dict[str, Json] = {}
    for group in groups:
        for path, handlers in group.items():
            shown = _PARAMETER.sub(r"{\1}", path)
            for method, handler in handlers.items():
                paths.setdefault(shown, {})[method.lower()] = _operation(shown, method, handler, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Holdfast admin API",
            "version": version,
            "description": "Every path exists below /v2, /v3 and /v4, too.",
        },
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(schemas.components.items())),
            "responses": {
                "Problem": {
                    "description": "The request was refused.",
                    "content": {
                        "application/json": {"schema": schemas.of(Problem)},
                        "text/plain": {"schema": {"type": "string", "description": "The request could not be read."}},
                    },
                }
            },
        },
    }


def _operation(path: str, method: str, handler: Handler, schemas: Schemas) -> Json:
    says: Declared = getattr(handler, "declared", None) or Declared({200: None})
    summary = (handler.__doc__ or "").strip().partition("\n")[0]
    parameters: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in _PARAMETER.findall(path)
    ]
    parameters += [{"name": name, "in": "query", "required": False, "schema": schemas.of(kind)} for name, kind in says.query.items()]
    operation: Json = {"operationId": _operation_id(path, method), "tags": [_tag(path)]}
    if summary:
        operation["summary"] = summary
    if parameters:
        operation["parameters"] = parameters
    if says.takes is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schemas.of(says.takes)}}}
    answers: Json = {}
    for status, shape in says.answers.items():
        answers[str(status)] = {"description": "Done." if status < 300 else "Refused."}
        if shape is not None:
            answers[str(status)]["content"] = {"application/json": {"schema": schemas.of(shape)}}
    operation["responses"] = {**answers, "default": {"$ref": "#/components/responses/Problem"}}
    return operation


def _operation_id(path: str, method: str) -> str:
    """`GET /services/{service}/state` -> get_services_by_service_state: unique as the route is."""
    words = [f"by_{part[1:-1]}" if part.startswith("{") else part.replace("-", "_") for part in path.split("/") if part]
    return "_".join([method.lower(), *words])


def _tag(path: str) -> str:
    first, _, rest = path.removeprefix("/").partition("/")
    return rest.partition("/")[0] if first in ("holdfast", "internal") else first
