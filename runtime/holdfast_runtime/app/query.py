"""SQL as the command line asks it (`POST /query`): rows as JSON, times as milliseconds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from holdfast_runtime.app.ages import instant_ms
from holdfast_runtime.app.errors import CliError
from holdfast_runtime.app.http import Answer, Api

Row = dict[str, Any]
_NO_FIELD: Final = re.compile(r"No field named \"?([\w.]+)\"?\.(?: Did you mean '?([\w.]+)'?\?)?(?: Valid fields are (.*))?", re.DOTALL)
_NO_TABLE: Final = re.compile(r"table '(?:restate\.public\.)?(\w+)' not found")
_PREFIXES: Final = ("Datafusion error: ", "Error during planning: ", "Schema error: ", "SQL error: ", "Execution error: ")


def rows(api: Api, statement: str) -> list[Row]:
    """Members that are NULL are left out. Raises CliError."""
    found: list[Row] = ask(api, statement, "application/json").json()["rows"]
    return found


def ask(api: Api, statement: str, accept: str) -> Answer:
    headers = {"content-type": "application/json", "accept": accept}
    answer = api.request("POST", "/query", body=json.dumps({"query": statement}).encode(), headers=headers)
    if answer.status >= 400:
        raise CliError(_refusal(answer.message()))
    return answer


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def any_of(texts: Iterable[str]) -> str:
    return f"({', '.join(map(literal, texts))})"


def with_times(row: Mapping[str, Any]) -> Row:
    """`created_at` as text becomes `created_at_ms`, the form of our own routes."""
    return {
        f"{name}_ms" if name.endswith("_at") else name: instant_ms(value) if name.endswith("_at") else value for name, value in row.items()
    }


def _refusal(message: str) -> str:
    """The engine's words without its layers, and the nearest name instead of all there are."""
    for prefix in _PREFIXES:
        message = message.removeprefix(prefix)
    if missing := _NO_FIELD.search(message):
        from holdfast_runtime.app.errors import nearest

        name, meant, valid = missing.groups()
        names = [field.strip(" .\"'").rpartition(".")[2] for field in (valid or "").split(",")]
        hint = f"; did you mean '{meant.rpartition('.')[2]}'?" if meant else nearest(name.rpartition(".")[2], names)
        return f"there is no column '{name}'{hint or '; `holdfast sql` without a statement lists them'}"
    if missing := _NO_TABLE.search(message):
        return f"there is no table '{missing[1]}'; `holdfast sql` without a statement lists them"
    return re.sub(r'^ParserError\("(.*)"\)$', r"\1", message, flags=re.DOTALL)
