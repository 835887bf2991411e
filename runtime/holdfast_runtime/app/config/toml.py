"""TOML with lines: what a file says, and where. The standard library reads TOML but forgets the lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Entry:
    """key: dotted when it stands in a table. line: counted from 1."""

    key: str
    value: object
    line: int


def read_toml(text: str) -> list[Entry]:
    """Every value that is no table, in order. Raises ValueError with the place of the error."""
    import tomllib  # most commands have no file

    values = list(_leaves(tomllib.loads(text)))
    lines = _lines(text)
    return [Entry(key, value, lines.get(key, 1)) for key, value in values]


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _lines(text: str) -> dict[str, int]:
    """Key -> the line where it is given. A statement is the fewest lines, from its first one on, that are TOML by themselves."""
    import tomllib

    found: dict[str, int] = {}
    header, statement, began = "", "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if not statement and line.lstrip().startswith("["):
            header = line + "\n"
            for key, _ in _leaves(tomllib.loads(header)):
                found.setdefault(key, number)
            continue
        began = began if statement else number
        statement += line + "\n"
        try:
            parsed = tomllib.loads(header + statement)
        except tomllib.TOMLDecodeError:  # a value of several lines goes on
            continue
        for key, _ in _leaves(parsed):
            found.setdefault(key, began)
        statement = ""
    return found


def toml_value(value: str | int | float) -> str:
    """As it stands behind the `=`. What JSON escapes, TOML escapes alike, but for DEL, which both forms may not hold raw."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def found(value: object) -> str:
    """How an error names what stands there."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f"'{value}'"
        case int() | float():
            return f"the number {value}"
        case list():
            return "a list"
        case dict():
            return "a table"
    return str(value)
