"""Results of SQL of any shape: read from Arrow, written as a table or CSV."""

from __future__ import annotations

import csv
import io
from typing import Any, Final

MAX_BINARY: Final = 32  # bytes of a value shown in a table


class Result:
    """names of the columns, and rows of Python values; None is NULL."""

    def __init__(self, content: bytes) -> None:
        from pyarrow import ipc

        table = ipc.open_stream(io.BytesIO(content)).read_all()
        self.names: list[str] = table.column_names
        self.numeric = [_is_number(field.type) for field in table.schema]
        columns = [column.to_pylist() for column in table.columns]
        self.rows: list[tuple[Any, ...]] = list(zip(*columns, strict=True)) if columns else []

    def csv(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.names)
        writer.writerows([_text(value) for value in row] for row in self.rows)
        return text.getvalue()

    def lines(self, *, cut: bool) -> list[list[str]]:
        return [[_shown(value, cut=cut) for value in row] for row in self.rows]


def _is_number(type_: Any) -> bool:
    from pyarrow import types

    return bool(types.is_integer(type_) or types.is_floating(type_) or types.is_decimal(type_))


def _shown(value: Any, *, cut: bool) -> str:
    if value is None:
        return "-"
    if isinstance(value, bytes) and cut and len(value) > MAX_BINARY:
        return f"{value[:MAX_BINARY].hex()}… ({len(value)} bytes)"
    return _text(value)


def _text(value: Any) -> str:
    """Binary as hex digits, times as RFC 3339, durations in words."""
    from datetime import datetime, timedelta

    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case bytes():
            return value.hex()
        case datetime():
            return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        case timedelta():
            from holdfast_runtime.surfaces.durations import format_duration

            return format_duration(round(value.total_seconds() * 1000))
        case list():
            return ", ".join(map(_text, value))
    return str(value)
