"""What a plan reads: per table the columns, the conditions the source can judge, and which and how many rows are enough.

A condition that is left out costs time; one that is wrong loses rows. So every condition here allows at least what the statement
allows, and the engine checks all of them again. How many rows are enough can be said only where the source judges all of the
conditions: a row that it counts and the engine then drops would be missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from holdfast.protocol.ids import IdError, InvocationId
from holdfast_runtime.coordinator.front import NEWEST, OLDEST
from holdfast_runtime.surfaces.introspection.catalogue import TABLES
from holdfast_runtime.surfaces.introspection.tables import DOMAINS, Column, Table

Allowed = dict[str, frozenset[str]]  # source column -> the values it may have; a column that is not named may have any

CREATED_AT: Final = "created_at"
MAX_ORDERED: Final = 10_000  # rows that a source is asked to pick out by their time; of more, all come

_SCANS: Final = re.compile(r"TableScan: (?:restate\.public\.)?(\w+)")
_LIMIT: Final = re.compile(r"Limit: skip=(\d+), fetch=(\d+)")
_INVOCATION_IDS: Final = frozenset({"id", "invocation_id"})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class TableRead:
    """limit: None when all rows that pass `where` are needed. since_ms, until_ms: of their creation, both included.

    order: NEWEST or OLDEST when the first `limit` in that order are needed, None when any are.
    """

    table: Table
    columns: frozenset[str]
    where: Mapping[str, frozenset[str]]
    limit: int | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    order: str | None = None
    either: tuple[Allowed, ...] = ()  # of each, one column must have one of its values

    @property
    def is_all(self) -> bool:
        return not self.where and not self.either and self.limit is None and self.since_ms is None and self.until_ms is None


@dataclass(frozen=True)
class First:
    """What a node above a table takes of its rows. order: None when any will do."""

    limit: int
    order: str | None = None


def reads_of(plan: Any) -> list[TableRead]:
    """Every read of one of our tables in an optimized logical plan, at most one of a table without conditions."""
    found = list(_walk(plan, None, None))
    shown = _SCANS.findall(plan.display_indent())
    for name in {name for name in shown if name in TABLES}:
        of_table = [read for read in found if read.table.name == name]
        hidden = len(of_table) < shown.count(name)  # inside an expression, where there is nothing to walk
        everything = any(read.is_all for read in of_table)
        if hidden or (everything and len(of_table) > 1):
            table = TABLES[name]
            columns = frozenset(table.columns) if hidden else frozenset().union(*(read.columns for read in of_table))
            found = [read for read in found if read.table.name != name]
            found.append(TableRead(table, columns, _always(table)))
    return found


def _always(table: Table) -> Allowed:
    return {name: frozenset(values) for name, values in table.only.items()}


def _walk(plan: Any, condition: Any, first: First | None) -> Iterator[TableRead]:
    """condition: the predicate of the filter directly above. first: what is taken of these rows, if it is not all."""
    node = _variant(plan)
    above = None
    match type(node).__name__:
        case "TableScan":
            if node.table_name() in TABLES:
                yield _read(node, condition, first)
            return
        case "Filter":
            above = node.predicate()
            if type(_variant(plan.inputs()[0])).__name__ != "TableScan":  # then nobody below knows of the condition
                first = None
        case "Sort":
            first = _of_sort(node)
        case "Limit":
            limit = _LIMIT.match(plan.display_indent())
            first = First(int(limit[1]) + int(limit[2])) if limit else None
        case "Projection":
            if first is not None and first.order is not None and not _keeps_order(node):
                first = None
        case "SubqueryAlias":
            pass
        case _:
            first = None
    for below in plan.inputs():
        yield from _walk(below, above, first)


def _read(node: Any, condition: Any, first: First | None) -> TableRead:
    table = TABLES[node.table_name()]
    understood = restrict(condition) if condition is not None else Understood(exact=True)
    where = _source(table, understood.values)
    timed = understood.since_ms is not None or understood.until_ms is not None
    read = TableRead(table, frozenset(name for _, name in node.projection()), _both(_always(table), where), node.fetch())
    if table.is_timed:
        either = tuple(group for group in (_source_group(table, group) for group in understood.either) if group is not None)
        read = replace(read, since_ms=understood.since_ms, until_ms=understood.until_ms, either=either)
    if first is None or read.limit is not None or first.limit > MAX_ORDERED:
        return read
    judged = understood.exact and all(_judged(table, name, wanted) for name, (wanted, _) in understood.values.items())
    judged = judged and len(read.either) == len(understood.either)
    if not judged or ((timed or first.order is not None) and not table.is_timed):
        return read
    return replace(read, limit=first.limit, order=first.order)


def _of_sort(node: Any) -> First | None:
    """By creation, and then by id if at all: the order a source knows."""
    limit = node.get_fetch_val()
    keys = [(_column(key.expr()), key.ascending()) for key in node.sort_exprs()]
    if limit is None or keys[0][0] != CREATED_AT or keys[1:] not in ([], [("id", True)]):
        return None
    return First(limit, OLDEST if keys[0][1] else NEWEST)


def _keeps_order(node: Any) -> bool:
    """Are these columns the table's own, by their own names?"""
    for expression in node.projections():
        if type(_variant(expression)).__name__ != "Column" and expression.schema_name() in (CREATED_AT, "id"):
            return False
    return True


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
        source = _filter(table, name)
        if source is None or not (wanted or source in DOMAINS):
            continue
        if not wanted:
            values = frozenset(DOMAINS[source]) - values
        found[source] = frozenset(filter(_is_invocation, values)) if source in _INVOCATION_IDS else values
    return found


def _source_group(table: Table, group: Allowed) -> Allowed | None:
    """None when the source cannot judge it."""
    if any(_filter(table, name) is None for name in group):
        return None
    return _source(table, {name: (True, values) for name, values in group.items()})


def _filter(table: Table, name: str) -> str | None:
    """The column of the source that a condition on this one is a condition on; None when the source takes none."""
    column: Column | None = table.columns.get(name)
    if column is None or column.of is not None or len(column.reads) != 1 or column.reads[0] not in table.filters:
        return None
    return column.reads[0]


def _judged(table: Table, name: str, wanted: bool) -> bool:
    source = _filter(table, name)
    return source is not None and (wanted or source in DOMAINS)


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


# ---- Conditions

Values = tuple[bool, frozenset[str]]  # (True, the values it may have) or (False, the values it may not have)


@dataclass(frozen=True)
class Understood:
    """What an expression, when it is true, says of single columns, and of which of several one must hold. exact: and nothing more."""

    values: Mapping[str, Values] = field(default_factory=dict)
    since_ms: int | None = None
    until_ms: int | None = None
    exact: bool = False
    either: tuple[Allowed, ...] = ()

    @property
    def group(self) -> Allowed | None:
        """When it is no more than that one of some columns has one of some values: those."""
        if not self.exact or self.since_ms is not None or self.until_ms is not None:
            return None
        if not self.values and len(self.either) == 1:
            return self.either[0]
        if self.either or len(self.values) != 1 or not all(wanted for wanted, _ in self.values.values()):
            return None
        return {name: values for name, (_, values) in self.values.items()}


def restrict(expression: Any) -> Understood:
    node = _variant(expression)
    match type(node).__name__:
        case "BinaryExpr":
            return _binary(node)
        case "InList":
            column = _column(node.expr())
            values = [_literal(item) for item in node.list()]
            if column is not None and None not in values:
                return _one(column, not node.negated(), *(value for value in values if value is not None))
        case "Like":
            return _like(node)
    return Understood()


def _one(column: str, wanted: bool, *values: str) -> Understood:
    found: dict[str, Values] = {column: (wanted, frozenset(values))}
    if column == "target" and wanted:  # it begins with the service
        found["target_service_name"] = (True, frozenset(value.partition("/")[0] for value in values))
    return Understood(found, exact=True)


def _binary(node: Any) -> Understood:
    match node.op():
        case "AND":
            return _all(restrict(node.left()), restrict(node.right()))
        case "OR":
            return _either(restrict(node.left()), restrict(node.right()))
        case "=" | "!=" as operator:
            column, value = _column(node.left()), _literal(node.right())
            if column is None or value is None:
                column, value = _column(node.right()), _literal(node.left())
            if column is not None and value is not None:
                return _one(column, operator == "=", value)
    return _time(node)


def _all(left: Understood, right: Understood) -> Understood:
    common = {name: _and(left.values[name], right.values[name]) for name in left.values.keys() & right.values.keys()}
    since = [side.since_ms for side in (left, right) if side.since_ms is not None]
    until = [side.until_ms for side in (left, right) if side.until_ms is not None]
    return Understood(
        {**left.values, **right.values, **common},
        max(since) if since else None,
        min(until) if until else None,
        left.exact and right.exact,
        left.either + right.either,
    )


def _either(left: Understood, right: Understood) -> Understood:
    """Of columns that both sides speak of, either may hold; nothing is said of what only one side speaks of, unless that is all it says."""
    pairs = {name: _or(left.values[name], right.values[name]) for name in left.values.keys() & right.values.keys()}
    values = {name: found for name, found in pairs.items() if found is not None}
    if len(left.values) == len(right.values) == len(values) == 1 and left.group is not None and right.group is not None:
        return Understood(values, exact=True)
    one, other = left.group, right.group
    if one is not None and other is not None:
        both = {name: one.get(name, frozenset()) | other.get(name, frozenset()) for name in one.keys() | other.keys()}
        return Understood(either=(both,), exact=True)
    return Understood(values)


_MIRRORED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "="}


def _time(node: Any) -> Understood:
    operator = node.op()
    column, instant = _column(node.left()), _instant(node.right())
    if column is None:
        column, instant, operator = _column(node.right()), _instant(node.left()), _MIRRORED.get(operator, "")
    if column != CREATED_AT or instant is None:
        return Understood()
    match operator:
        case ">=":
            return Understood(since_ms=instant, exact=True)
        case ">":
            return Understood(since_ms=instant + 1, exact=True)
        case "<=":
            return Understood(until_ms=instant, exact=True)
        case "<":
            return Understood(until_ms=instant - 1, exact=True)
        case "=":
            return Understood(since_ms=instant, until_ms=instant, exact=True)
    return Understood()


def _instant(expression: Any) -> int | None:
    """Milliseconds of a literal in the column's own unit; others are left alone."""
    node = _variant(expression)
    if type(node).__name__ != "Literal" or not str(node.data_type()).startswith("Timestamp(ms"):
        return None
    value = expression.python_value()
    moment: Any = value.as_py() if hasattr(value, "as_py") else value
    return (moment - _EPOCH) // timedelta(milliseconds=1) if isinstance(moment, datetime) and moment.tzinfo is not None else None


def _like(node: Any) -> Understood:
    """`target LIKE 'Svc/..'` names a service; what follows is left to the engine."""
    pattern = _literal(node.pattern())
    if _column(node.expr()) != "target" or pattern is None or node.negated() or node.escape_char() is not None:
        return Understood()
    service, slash, _ = pattern.partition("/")
    if not slash or not service or set(service) & set("%_\\"):
        return Understood()
    return Understood({"target_service_name": (True, frozenset({service}))})


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
