"""Moving a JSON schema into another document: what refers to a place inside it must follow. Pure."""

from __future__ import annotations

from typing import Any, Final

MAX_DEPTH: Final = 100  # of nesting, well within the stack; what is deeper is passed on as it is

# Members that hold values, not schemas: a text that looks like a reference there is data.
_VALUES: Final = frozenset({"const", "default", "enum", "example", "examples"})
# Members that hold schemas by name: their keys are names, not keywords.
_NAMED: Final = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"})


def embedded(schema: Any, place: str) -> Any:
    """The schema as it must be at `place`, such as `#/components/schemas/addRequest`.

    Its own `$id` goes: it would make references resolve against itself, and be the same in two places.
    """
    if isinstance(schema, dict) and "$id" in schema:
        schema = {name: value for name, value in schema.items() if name != "$id"}
    return _schema(schema, place, 0)


def _schema(node: Any, place: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        return node
    if isinstance(node, list):
        return [_schema(item, place, depth + 1) for item in node]
    if not isinstance(node, dict) or "$id" in node:  # below an `$id` references mean that schema
        return node
    return {name: _member(name, value, place, depth + 1) for name, value in node.items()}


def _member(name: str, value: Any, place: str, depth: int) -> Any:
    if name in ("$ref", "$dynamicRef") and isinstance(value, str):
        return _moved(value, place)
    if name in _VALUES:
        return value
    if name in _NAMED and isinstance(value, dict):
        return {key: _schema(item, place, depth) for key, item in value.items()}
    if name == "discriminator" and isinstance(value, dict) and isinstance(value.get("mapping"), dict):
        mapping = {key: _moved(item, place) if isinstance(item, str) else item for key, item in value["mapping"].items()}
        return {**value, "mapping": mapping}
    return _schema(value, place, depth)


def _moved(reference: str, place: str) -> str:
    """`#` and `#/...` mean the schema itself; anchors and other documents mean the same from everywhere."""
    if reference == "#":
        return place
    return place + reference[1:] if reference.startswith("#/") else reference
