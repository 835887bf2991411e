"""Rows of a table as Arrow, in the engine's process. Columns that nobody reads share one buffer of zeros: wide tables cost nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa

from holdfast_runtime.surfaces.introspection.tables import Column, Table

_TYPES: Final[dict[str, pa.DataType]] = {
    "s": pa.large_string(),
    "b": pa.bool_(),
    "u32": pa.uint32(),
    "u64": pa.uint64(),
    "ts": pa.timestamp("ms", tz="+00:00"),
    "dur": pa.duration("ms"),
    "bin": pa.large_binary(),
    "[s]": pa.list_(pa.field("item", pa.large_string())),
    "[u32]": pa.list_(pa.field("item", pa.uint32())),
}


def schema(table: Table) -> pa.Schema:
    return pa.schema([pa.field(column.name, _TYPES[column.type], nullable=column.nullable) for column in table.columns.values()])


def source_columns(table: Table, columns: frozenset[str]) -> list[str]:
    """What has to be read for them."""
    return sorted({name for column in columns for name in table.columns[column].reads})


def batch(table: Table, columns: frozenset[str], reads: Sequence[str], rows: Sequence[Sequence[Any]]) -> pa.RecordBatch:
    """`rows` hold `reads` in order; `columns` get their values, all others are NULL."""
    place = {name: position for position, name in enumerate(reads)}
    zeros = pa.py_buffer(bytes(8 * (len(rows) + 1)))
    arrays = [
        _values(column, place, rows) if column.name in columns and column.reads else _absent(column, len(rows), zeros)
        for column in table.columns.values()
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema(table))


def _values(column: Column, place: dict[str, int], rows: Sequence[Sequence[Any]]) -> pa.Array:
    positions = [place[name] for name in column.reads]
    if column.of is None:
        (position,) = positions
        values = [row[position] for row in rows]
    else:
        of = column.of
        values = [of(*(row[position] for position in positions)) for row in rows]
    return pa.array(values, type=_TYPES[column.type])


def _absent(column: Column, length: int, zeros: pa.Buffer) -> pa.Array:
    """`length` NULLs, or empty texts where NULL is not allowed."""
    type_ = _TYPES[column.type]
    validity = zeros if column.nullable else None
    if pa.types.is_list(type_):
        return pa.Array.from_buffers(type_, length, [validity, zeros], children=[pa.array([], type=type_.value_type)])
    if pa.types.is_large_string(type_) or pa.types.is_large_binary(type_):
        return pa.Array.from_buffers(type_, length, [validity, zeros, pa.py_buffer(b"")])
    return pa.Array.from_buffers(type_, length, [validity, zeros])
