"""Schemas of handlers: what the drafts of JSON schema agree to refuse is found with its place, everything else passes."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft4Validator, Draft7Validator, Draft202012Validator
from jsonschema.exceptions import SchemaError

from holdfast.protocol.json_schema import schema_problem

WRONG: list[tuple[Any, str]] = [
    (7, "$: expected an object or a boolean, found 7"),
    ({"type": "strin"}, "$.type: expected one of array, boolean, integer, null, number, object, string, found 'strin'"),
    ({"type": ["string", None]}, "$.type: expected one of array, boolean, integer, null, number, object, string, found None"),
    ({"type": None}, "$.type: expected one of"),
    ({"$ref": {"a": 1}}, "$.$ref: expected a string"),
    ({"enum": "red"}, "$.enum: expected an array"),
    ({"required": True}, "$.required: expected an array of names"),
    ({"properties": []}, "$.properties: expected an object of schemas, found []"),
    ({"properties": {"a": {"items": 1}}}, "$.properties.a.items: expected an object or a boolean, found 1"),
    ({"$defs": {"x": {"anyOf": [{}, {"type": "x"}]}}}, "$.$defs.x.anyOf[1].type: expected one of"),
]


@pytest.mark.parametrize(("schema", "problem"), WRONG)
def test_what_drafts_refuse_is_found(schema: Any, problem: str) -> None:
    found = schema_problem(schema)
    assert found is not None
    assert found.startswith(problem)
    newer_member = isinstance(schema, dict) and not {"$ref", "$defs"}.isdisjoint(schema)
    for draft in (Draft202012Validator,) if newer_member else (Draft4Validator, Draft7Validator, Draft202012Validator):
        with pytest.raises((SchemaError, TypeError)):  # the old ones stumble over a schema that is no object
            draft.check_schema(schema)


RIGHT: list[Any] = [
    True,
    {},
    {"type": ["string", "null"], "title": "a"},
    {"type": "object", "properties": {"type": {"type": "string"}, "enum": True}, "required": ["type"]},
    {"items": [{"type": "string"}, {"type": "integer"}], "additionalItems": False},  # draft 7
    {"definitions": {"a": {"$ref": "#"}}, "additionalProperties": {"$ref": "#/definitions/a"}},
    {"unknown": {"type": "anything"}, "const": {"type": 1}, "default": {"$ref": 1}, "examples": [{"enum": 1}]},
    {"exclusiveMinimum": True, "minimum": 1},  # draft 4
]


@pytest.mark.parametrize("schema", RIGHT, ids=str)
def test_schemas_of_any_draft_pass(schema: Any) -> None:
    assert schema_problem(schema) is None


def test_depth_is_bounded() -> None:
    schema: Any = 7
    for _ in range(900):
        schema = {"not": schema}
    assert schema_problem(schema) is None
