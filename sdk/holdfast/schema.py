"""JSON schemas of annotations, for display in discovery.

Rules: only what is cheap and certain is said; a type this file does not know gets no schema, never a wrong one.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections import abc
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

_SCALARS: dict[Any, dict[str, Any]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    dict: {"type": "object"},
    list: {"type": "array"},
    datetime: {"type": "string", "format": "date-time"},
    date: {"type": "string", "format": "date"},
    UUID: {"type": "string", "format": "uuid"},
    Decimal: {"type": "string"},
    type(None): {"type": "null"},
}
_MAX_DEPTH = 20  # beyond it a type is taken to be recursive


def json_schema(annotation: Any) -> dict[str, Any] | None:
    """The schema, or None when there is nothing certain to say."""
    return _schema(annotation, 0) or None


def _schema(annotation: Any, depth: int) -> dict[str, Any]:
    """An empty schema admits everything."""
    if depth > _MAX_DEPTH:
        return {}
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    if hasattr(annotation, "model_json_schema"):
        return typing.cast(dict[str, Any], annotation.model_json_schema())
    if typing.get_origin(annotation) is not None:
        return _generic(typing.get_origin(annotation), typing.get_args(annotation), depth)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return {"enum": [member.value for member in annotation]}
    if typing.is_typeddict(annotation):
        required = sorted(annotation.__required_keys__)
        return _object(typing.get_type_hints(annotation), required, depth)
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        fields = [field for field in dataclasses.fields(annotation) if field.init]
        hints = typing.get_type_hints(annotation)
        missing = dataclasses.MISSING
        required = [f.name for f in fields if f.default is missing and f.default_factory is missing]
        return _object({field.name: hints[field.name] for field in fields}, required, depth)
    return {}


def _generic(origin: Any, args: tuple[Any, ...], depth: int) -> dict[str, Any]:
    if origin in (list, set, frozenset, abc.Sequence) or (origin is tuple and args[1:] == (Ellipsis,)):
        return {"type": "array", "items": _schema(args[0], depth + 1)}
    if origin in (dict, abc.Mapping):
        return {"type": "object", "additionalProperties": _schema(args[1], depth + 1)}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_schema(arg, depth + 1) for arg in args]}
    if origin is typing.Literal:
        return {"enum": list(args)}
    if origin is typing.Annotated:
        return _schema(args[0], depth + 1)
    return {}


def _object(hints: dict[str, Any], required: list[str], depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {name: _schema(hint, depth + 1) for name, hint in hints.items()},
    }
    if required:
        schema["required"] = required
    return schema
