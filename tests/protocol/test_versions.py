"""Versions and content types."""

import pytest

from holdfast.protocol.versions import content_type, parse_content_type, select_version


@pytest.mark.parametrize(
    ("minimum", "maximum", "expected"),
    [(5, 5, 5), (5, 7, 6), (6, 6, 6), (1, 5, 5), (1, 4, None), (7, 8, None), (5, 1000, 6)],
)
def test_the_newest_common_version_is_chosen(minimum: int, maximum: int, expected: int | None) -> None:
    assert select_version(minimum, maximum) == expected


def test_our_range_may_be_widened() -> None:
    assert select_version(5, 8, ours=(5, 7)) == 7


@pytest.mark.parametrize("version", [5, 6, 7, 12])
def test_content_types_round_trip(version: int) -> None:
    assert parse_content_type(content_type(version)) == version
    assert parse_content_type(content_type(version).upper() + " ; charset=utf-8") == version


@pytest.mark.parametrize(
    "text",
    [
        "",
        "application/json",
        "application/vnd.restate.invocation.v",
        "application/vnd.restate.invocation.v06",
        "v6",
    ],
)
def test_other_content_types_are_none(text: str) -> None:
    assert parse_content_type(text) is None
