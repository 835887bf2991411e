"""Records behave as frozen dataclasses do, where we use them."""

import pytest

from holdfast.protocol.records import Record


class Point(Record):
    x: int
    y: int = 0


class Other(Record):
    x: int
    y: int = 0


class Nothing(Record): ...


def test_records_are_values() -> None:
    assert Point(1) == Point(1, 0) == Point(x=1) == Point(2).but(x=1)
    assert Point(1) != Other(1)
    assert Nothing() == Nothing()
    assert bool(Nothing())
    assert len({Point(1), Point(1, 0), Point(2), Other(1)}) == 3
    assert repr(Point(1)) == "Point(x=1, y=0)"
    match Point(3, 4):
        case Point(x, y):
            assert (x, y) == (3, 4)
    with pytest.raises(AttributeError, match="Point is frozen"):
        Point(1).x = 2  # type: ignore[misc]


@pytest.mark.parametrize(("values", "named"), [((), {}), ((1, 2, 3), {}), ((1,), {"z": 1}), ((1,), {"x": 1}), ((), {"y": 1})])
def test_arguments_are_the_fields(values: tuple[int, ...], named: dict[str, int]) -> None:
    with pytest.raises(TypeError, match="Point takes x, y; found"):
        Point(*values, **named)
