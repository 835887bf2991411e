"""Results as bytes: JSON rows, or an Arrow IPC stream (http-api §4.2). In the engine's process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pyarrow as pa

MAX_RESULT_BYTES: Final = 64 * 1024 * 1024
_PER_SECOND: Final = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_DIGITS: Final = {"s": 0, "ms": 3, "us": 6, "ns": 9}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class ResultTooLarge(Exception):
    """More than MAX_RESULT_BYTES."""

    def __init__(self) -> None:
        super().__init__(f"the result is larger than {MAX_RESULT_BYTES >> 20} MB; select fewer columns or rows")


def encode_arrow(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> bytes:
    """Schema message, a batch each, end marker."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            if batch.num_rows:
                writer.write_batch(batch)
            if sink.tell() > MAX_RESULT_BYTES:
                raise ResultTooLarge
    content: bytes = sink.getvalue().to_pybytes()
    return content


def encode_json(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> bytes:
    """`{"rows":[...]}`; members that are NULL are left out."""
    parts: list[bytes] = []
    size = 0
    names = [json.dumps(name, ensure_ascii=False) for name in schema.names]
    for batch in batches:
        columns = [_texts(column) for column in batch.columns]
        for number in range(batch.num_rows):
            members = [f"{name}:{text}" for name, column in zip(names, columns, strict=True) if (text := column[number]) is not None]
            part = ("{" + ",".join(members) + "}").encode("utf-8", "replace")
            size += len(part) + 1
            if size > MAX_RESULT_BYTES:
                raise ResultTooLarge
            parts.append(part)
    return b'{"rows":[' + b",".join(parts) + b"]}"


def _texts(array: pa.Array) -> list[str | None]:
    """JSON text per value, None for NULL."""
    to_json = _converter(array.type)
    return [None if value is None else _dump(to_json(value)) for value in _plain(array)]


def _dump(value: Any) -> str:
    if (isinstance(value, float) and value not in (value, float("inf"), float("-inf"))) or value != value:
        return "null"  # JSON has no words for infinity and what is no number
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _plain(array: pa.Array) -> list[Any]:
    """Values as Python has them; instants and durations as integers, because Python's lose nanoseconds."""
    type_ = array.type
    if pa.types.is_dictionary(type_):
        return _plain(array.dictionary_decode())
    if pa.types.is_timestamp(type_) or pa.types.is_duration(type_) or pa.types.is_time64(type_):
        array = array.cast(pa.int64())
    elif pa.types.is_time32(type_):
        array = array.cast(pa.int32())
    values: list[Any] = array.to_pylist()
    return values


def _converter(type_: pa.DataType) -> Callable[[Any], Any]:
    """What a value of `_plain` is in JSON."""
    if pa.types.is_dictionary(type_):
        return _converter(type_.value_type)
    if pa.types.is_timestamp(type_):
        zone = "Z" if type_.tz is not None else ""
        return lambda ticks: instant(ticks, type_.unit) + zone
    if pa.types.is_duration(type_):
        return lambda ticks: iso_duration(ticks, type_.unit)
    if pa.types.is_interval(type_):
        return interval
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        return lambda items: [_nested(item) for item in items]
    if any(check(type_) for check in (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, _is_text)):
        return lambda value: value
    return _nested


def _is_text(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))


def _nested(value: Any) -> Any:
    """Rare values, by what Python makes of them."""
    match value:
        case bytes():
            return value.hex()
        case None | bool() | int() | float() | str():
            return value
        case list() | tuple():
            return [_nested(item) for item in value]
        case dict():
            return {str(key): _nested(item) for key, item in value.items()}
    return str(value)


def instant(ticks: int, unit: str) -> str:
    """`2026-11-21T20:04:45.399`: as many digits as the unit has, none for a whole second."""
    seconds, fraction = divmod(ticks, _PER_SECOND[unit])
    try:
        text = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    except OverflowError:
        return f"{ticks} {unit} since 1970"
    return f"{text}.{_trimmed(fraction, _DIGITS[unit])}" if fraction else text


def _trimmed(fraction: int, digits: int) -> str:
    """In groups of three digits, as the reference prints them."""
    text = f"{fraction:0{digits}d}"
    while len(text) > 3 and text.endswith("000"):
        text = text[:-3]
    return text


def iso_duration(ticks: int, unit: str) -> str:
    """`PT86400S`, `PT0.005S`; nothing at all is `P0D`."""
    if ticks == 0:
        return "P0D"
    seconds, fraction = divmod(abs(ticks), _PER_SECOND[unit])
    decimals = f"{fraction:0{_DIGITS[unit]}d}".rstrip("0") if fraction else ""
    return f"{'-' if ticks < 0 else ''}PT{seconds}{'.' + decimals if decimals else ''}S"


def interval(value: Any) -> str:
    """`1 mons 2 days 3 hours 4 mins 5.000000000 secs`, without what is zero."""
    months, days, nanoseconds = value
    seconds, nanoseconds = divmod(nanoseconds, 1_000_000_000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{number} {name}" for number, name in ((months, "mons"), (days, "days"), (hours, "hours"), (minutes, "mins")) if number]
    if seconds or nanoseconds or not parts:
        parts.append(f"{seconds}.{nanoseconds:09d} secs")
    return " ".join(parts)
