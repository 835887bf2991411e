"""JSON schemas of the shapes that the admin API reads and writes, made from their declarations (`admin_shapes`).

A shape is a TypedDict; `Annotated[..., "text"]` describes a member, its docstring the whole. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, NotRequired, TypedDict, Union, get_args, get_origin, get_type_hints, is_typeddict

Json = dict[str, Any]

_SIMPLE: Final[Mapping[Any, Json]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    NoneType: {"type": "null"},
    Any: {},
}


class Schemas:
    """Collects `components/schemas` while references to them are handed out."""

    def __init__(self) -> None:
        self.components: dict[str, Json] = {}

    def of(self, declared: Any) -> Json:
        """The schema of a type; of a TypedDict a reference. Raises TypeError for what no shape may use."""
        if declared in _SIMPLE:
            return dict(_SIMPLE[declared])
        if is_typeddict(declared):
            return self._reference(declared)
        origin, arguments = get_origin(declared), get_args(declared)
        if origin is Annotated:
            return {**self.of(arguments[0]), "description": arguments[1]}
        if origin is Literal:
            return {"enum": list(arguments)}
        if origin in (Union, UnionType):
            return self._any_of(arguments)
        if origin in (list, Sequence):
            return {"type": "array", "items": self.of(arguments[0])}
        if origin in (dict, Mapping):
            return {"type": "object", "additionalProperties": self.of(arguments[1])}
        raise TypeError(f"a shape may be made of JSON types and TypedDicts, found {declared!r}")

    def _any_of(self, arguments: Sequence[Any]) -> Json:
        members = [self.of(argument) for argument in arguments]
        if all(set(member) == {"type"} for member in members):
            return {"type": [member["type"] for member in members]}
        return {"anyOf": members}

    def _reference(self, shape: Any) -> Json:
        name = shape.__name__
        if name not in self.components:
            self.components[name] = {}  # so that a shape may contain itself
            self.components[name] = self._object(shape)
        return {"$ref": f"#/components/schemas/{name}"}

    def _object(self, shape: type[TypedDict]) -> Json:  # type: ignore[valid-type]
        properties: dict[str, Json] = {}
        required = []
        for name, declared in get_type_hints(shape, include_extras=True).items():
            optional = get_origin(declared) is NotRequired
            properties[name] = self.of(get_args(declared)[0] if optional else declared)
            if not optional:
                required.append(name)
        document: Json = {"type": "object", "properties": properties}
        if required:
            document["required"] = required
        if shape.__doc__:
            document["description"] = " ".join(shape.__doc__.split())
        return document
