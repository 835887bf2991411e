"""Is this a JSON schema? Only what every draft refuses that knows the member; values are never validated against schemas. Pure."""

from collections.abc import Mapping
from typing import Any, Final

MAX_DEPTH: Final = 100  # of nesting; what is deeper is not looked at

_TYPES: Final = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
# Members that hold one schema, or a list of them.
_SCHEMAS: Final = ("additionalProperties", "allOf", "anyOf", "contains", "items", "not", "oneOf", "propertyNames")
# Members that hold schemas by name.
_NAMED: Final = ("$defs", "definitions", "patternProperties", "properties")


def schema_problem(schema: Any, where: str = "$", depth: int = 0) -> str | None:
    """What is wrong, with the place, or None."""
    if isinstance(schema, bool) or depth > MAX_DEPTH:
        return None
    if not isinstance(schema, Mapping):
        return f"{where}: expected an object or a boolean, found {_shown(schema)}"
    return _keywords(schema, where) or _members(schema, where, depth + 1)


def _keywords(schema: Mapping[str, Any], where: str) -> str | None:
    declared = schema.get("type")
    for name in declared if isinstance(declared, list) else [declared] if "type" in schema else []:
        if not isinstance(name, str) or name not in _TYPES:
            return f"{where}.type: expected one of {', '.join(sorted(_TYPES))}, found {_shown(name)}"
    if not isinstance(schema.get("$ref", ""), str):
        return f"{where}.$ref: expected a string, found {_shown(schema['$ref'])}"
    if not isinstance(schema.get("enum", []), list):
        return f"{where}.enum: expected an array, found {_shown(schema['enum'])}"
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        return f"{where}.required: expected an array of names, found {_shown(required)}"
    return None


def _members(schema: Mapping[str, Any], where: str, depth: int) -> str | None:
    inside: list[tuple[str, Any]] = []
    for name in _SCHEMAS:
        value = schema.get(name, True)
        inside += (
            ((f"{where}.{name}[{index}]", item) for index, item in enumerate(value))
            if isinstance(value, list)
            else [(f"{where}.{name}", value)]
        )
    for name in _NAMED:
        value = schema.get(name, {})
        if not isinstance(value, Mapping):
            return f"{where}.{name}: expected an object of schemas, found {_shown(value)}"
        inside += ((f"{where}.{name}.{key}", item) for key, item in value.items())
    return next((problem for place, item in inside if (problem := schema_problem(item, place, depth)) is not None), None)


def _shown(value: Any) -> str:
    return f"{value!r:.60}"
