"""What is written by a type can be read back by it, and what cannot be read says where and why."""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, NotRequired, TypedDict
from uuid import UUID

import pytest
from pydantic import BaseModel, Field

from holdfast.schema import json_schema
from holdfast.serde import UNTYPED, serde_for


class Colour(Enum):
    RED = "red"


class Item(BaseModel):
    name: str
    price: Decimal = Field(gt=0)


class Options(TypedDict):
    size: int
    colour: NotRequired[Colour]


@dataclass(frozen=True)
class Address:
    street: str
    since: date | None = None


@dataclass
class Order:
    id: UUID
    items: list[Item]
    to: Address
    tags: set[str] = field(default_factory=set)
    extra: dict[str, float] = field(default_factory=dict)


VALUES: list[tuple[Any, Any]] = [
    (int, 3),
    (float, 2.5),
    (str, "ä"),
    (bool, True),
    (None, None),
    (bytes, b"\x00\xff"),
    (Any, {"a": [1, None, "x"]}),
    (list[int], [1, 2]),
    (dict[str, list[bool]], {"a": [True]}),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2, 3)),
    (int | None, None),
    (str | list[str], ["a"]),
    (Literal["a", 1], 1),
    (Annotated[int, "positive"], 3),
    (Colour, Colour.RED),
    (datetime, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
    (timedelta, timedelta(seconds=1.5)),
    (list[bytes], [b"\x00"]),
    (Item, Item(name="tea", price=Decimal("2.50"))),
    (list[Item], [Item(name="tea", price=Decimal("2.50"))]),
    (Options, {"size": 1, "colour": Colour.RED}),
    (Address | None, Address("Main St", date(2020, 1, 1))),
    (Order, Order(UUID(int=7), [Item(name="tea", price=Decimal(1))], Address("x"), {"b", "a"}, {"y": 1.0})),
]


@pytest.mark.parametrize(("annotation", "value"), VALUES, ids=[str(annotation) for annotation, _ in VALUES])
def test_round_trip(annotation: Any, value: Any) -> None:
    serde = serde_for(annotation)
    read = serde.deserialize(serde.serialize(value))
    assert read == value
    assert type(read) is type(value)


def test_sets_are_written_in_one_order() -> None:
    assert serde_for(set[str]).serialize({"c", "a", "b"}) == b'["a","b","c"]'


@pytest.mark.parametrize(
    ("annotation", "content", "problem"),
    [
        (int, b'"3"', "int: expected an integer, found '3'"),
        (int, b"true", "int: expected an integer"),
        (list[int], b'[1,"x"]', r"list\[\]: expected an integer"),
        (Address, b"{}", "Address: missing street"),
        (Address, b'{"street":1}', "Address.street: expected text, found 1"),
        (Options, b"[]", "Options: expected an object"),
        (Item, b'{"name":"a","price":-1}', "greater than 0"),
        (Colour, b'"blue"', "'blue' is not a valid Colour"),
        (tuple[int, str], b"[1]", "expected 2 items, found 1"),
        (Literal["a"], b'"b"', "expected one of 'a'"),
        (int, b"{", "Expecting"),
    ],
)
def test_content_of_another_type_is_refused_with_its_place(annotation: Any, content: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        serde_for(annotation).deserialize(content)


def test_without_an_annotation_only_plain_json_is_recorded() -> None:
    assert UNTYPED.serialize({"a": [1, "x", None]}) == b'{"a":[1,"x",null]}'
    for value in (Address("x"), b"bytes", (1, 2), Colour.RED):
        with pytest.raises(TypeError, match="annotate the return type"):
            UNTYPED.serialize(value)


def test_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        serde_for(float).serialize(float("nan"))


def test_schemas_say_what_is_certain() -> None:
    assert json_schema(Address) == {
        "type": "object",
        "properties": {
            "street": {"type": "string"},
            "since": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
        },
        "required": ["street"],
    }
    assert json_schema(list[int]) == {"type": "array", "items": {"type": "integer"}}
    assert json_schema(Any) is None
    item = json_schema(Item)
    assert item is not None
    assert item["required"] == ["name", "price"]
