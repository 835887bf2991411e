"""What a plan reads: per table the columns, the conditions the source can judge, and how many rows are enough.

A condition that is left out costs time; one that is wrong loses rows. So every condition here allows at least what the statement
allows, and the engine checks all of them again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from holdfast.protocol.ids import IdError, InvocationId
from holdfast_runtime.surfaces.introspection.catalogue import TABLES
from holdfast_runtime.surfaces.introspection.tables import DOMAINS, Column, Table

Allowed = dict[str, frozenset[str]]  # source column -> the values it may have; a column that is not named may have any

_SCANS: Final = re.compile(r"TableScan: (?:restate\.public\.)?(\w+)")
_INVOCATION_IDS: Final = frozenset({"id", "invocation_id"})


@dataclass(frozen=True)
class TableRead:
    """limit: None when all rows that pass `where` are needed."""

    table: Table
    columns: frozenset[str]
    where: Mapping[str, frozenset[str]]
    limit: int | None


def reads_of(plan: Any) -> list[TableRead]:
    """Every read of one of our tables in an optimized logical plan, at most one of a table without conditions."""
    found = list(_walk(plan, None))
    shown = _SCANS.findall(plan.display_indent())
    for name in {name for name in shown if name in TABLES}:
        of_table = [read for read in found if read.table.name == name]
        hidden = len(of_table) < shown.count(name)  # inside an expression, where there is nothing to walk
        everything = any(not read.where and read.limit is None for read in of_table)
        if hidden or (everything and len(of_table) > 1):
            table = TABLES[name]
            columns = frozenset(table.columns) if hidden else frozenset().union(*(read.columns for read in of_table))
            found = [read for read in found if read.table.name != name]
            found.append(TableRead(table, columns, _always(table), None))
    return found


def _always(table: Table) -> Allowed:
    return {name: frozenset(values) for name, values in table.only.items()}


def _walk(plan: Any, condition: Any) -> Iterator[TableRead]:
    """condition: the predicate of the filter directly above."""
    node = _variant(plan)
    kind = type(node).__name__
    if kind == "TableScan":
        table = TABLES.get(node.table_name())
        if table is not None:
            columns = frozenset(name for _, name in node.projection())
            where = _both(_always(table), _source(table, restrict(condition))) if condition is not None else _always(table)
            yield TableRead(table, columns, where, node.fetch())
        return
    above = node.predicate() if kind == "Filter" else None
    for below in plan.inputs():
        yield from _walk(below, above)


def _variant(node: Any) -> Any:
    """A plan's or an expression's own class; None for the kinds that the bindings cannot show, such as function calls."""
    try:
        return node.to_variant()
    except Exception:  # of several types, depending on the kind
        return None


def _source(table: Table, allowed: Mapping[str, tuple[bool, frozenset[str]]]) -> Allowed:
    """Conditions on the table's columns as conditions on those of its source, as far as that takes them."""
    found: Allowed = {}
    for name, (wanted, values) in allowed.items():
        column: Column | None = table.columns.get(name)
        if column is None or column.of is not None or len(column.reads) != 1 or column.reads[0] not in table.filters:
            continue
        source = column.reads[0]
        if not wanted:
            if source not in DOMAINS:
                continue
            values = frozenset(DOMAINS[source]) - values
        found[source] = frozenset(filter(_is_invocation, values)) if source in _INVOCATION_IDS else values
    return found


def _is_invocation(text: str) -> bool:
    """Nothing else is the id of anything: no row can have it."""
    try:
        InvocationId.parse(text)
    except IdError:
        return False
    return True


def _both(one: Allowed, other: Allowed) -> Allowed:
    common = {name: one[name] & other[name] for name in one.keys() & other.keys()}
    return {**one, **other, **common}


# ---- Conditions: column -> (True, the values it may have) or (False, the values it may not have)

Conditions = dict[str, tuple[bool, frozenset[str]]]


def restrict(expression: Any) -> Conditions:
    """What an expression, when it is true, says of single columns; {} when it says nothing that is understood."""
    node = _variant(expression)
    match type(node).__name__:
        case "BinaryExpr":
            return _binary(node)
        case "InList":
            column = _column(node.expr())
            values = [_literal(item) for item in node.list()]
            if column is None or None in values:
                return {}
            return {column: (not node.negated(), frozenset(value for value in values if value is not None))}
    return {}


def _binary(node: Any) -> Conditions:
    match node.op():
        case "AND":
            left, right = restrict(node.left()), restrict(node.right())
            common = {name: _and(left[name], right[name]) for name in left.keys() & right.keys()}
            return {**left, **right, **common}
        case "OR":
            left, right = restrict(node.left()), restrict(node.right())
            pairs = {name: _or(left[name], right[name]) for name in left.keys() & right.keys()}
            return {name: found for name, found in pairs.items() if found is not None}
        case "=" | "!=" as operator:
            column, value = _column(node.left()), _literal(node.right())
            if column is None or value is None:
                column, value = _column(node.right()), _literal(node.left())
            if column is not None and value is not None:
                return {column: (operator == "=", frozenset({value}))}
    return {}


def _and(one: tuple[bool, frozenset[str]], other: tuple[bool, frozenset[str]]) -> tuple[bool, frozenset[str]]:
    match one[0], other[0]:
        case True, True:
            return True, one[1] & other[1]
        case True, False:
            return True, one[1] - other[1]
        case False, True:
            return True, other[1] - one[1]
    return False, one[1] | other[1]


def _or(one: tuple[bool, frozenset[str]], other: tuple[bool, frozenset[str]]) -> tuple[bool, frozenset[str]] | None:
    match one[0], other[0]:
        case True, True:
            return True, one[1] | other[1]
        case False, False:
            return False, one[1] & other[1]
    return None


def _column(expression: Any) -> str | None:
    node = _variant(expression)
    name: str | None = node.name() if type(node).__name__ == "Column" else None
    return name


def _literal(expression: Any) -> str | None:
    """Its text; None for everything that is not the text of a literal."""
    node = _variant(expression)
    if type(node).__name__ != "Literal" or "Utf8" not in str(node.data_type()):
        return None
    value = expression.python_value()
    text = value.as_py() if hasattr(value, "as_py") else value
    return text if isinstance(text, str) else None
