"""Values <-> the bytes of a journal, by type annotation.

Rules: `bytes` travel as they are, everything else is JSON in UTF-8; what can be written can be read back by the
same annotation; a type without a JSON form is refused when the handler is registered, not when it runs.
pydantic models are recognised by their methods, so pydantic is never imported here.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections import abc
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final, Generic, Protocol, TypeVar

T = TypeVar("T")
JSON: Final = "application/json"
BINARY: Final = "application/octet-stream"
Decoder = Callable[[Any], Any]


class Serde(Protocol[T]):
    """How one type travels. `content_type` is what callers are told; None for nothing at all."""

    content_type: str | None

    def serialize(self, value: T) -> bytes: ...

    def deserialize(self, content: bytes) -> T: ...


class As(Generic[T]):
    """`As[int | None]`, `As[Literal["a", "b"]]`: a type that is not a class, where a type is asked for.

    A union works as it is, too, but type checkers then take its value for `Any`: they accept classes only.
    """


# What type checkers make of a union that is written as an argument.
AnyForm = types.UnionType | type[Any]


class BytesSerde:
    """Bytes as they are."""

    content_type: str | None = BINARY

    def serialize(self, value: bytes) -> bytes:
        if not isinstance(value, bytes | bytearray | memoryview):
            raise TypeError(f"expected bytes, found {type(value).__name__}")
        return bytes(value)

    def deserialize(self, content: bytes) -> bytes:
        return content


class VoidSerde:
    """No value: empty content."""

    content_type: str | None = None

    def serialize(self, value: None) -> bytes:
        if value is not None:
            raise TypeError(f"annotated to return None, found a {type(value).__name__}; fix the annotation")
        return b""

    def deserialize(self, content: bytes) -> None:
        return None


class JsonSerde(Generic[T]):
    """JSON, read back into the annotated type. `typed` is False when there was no annotation."""

    content_type: str | None = JSON

    def __init__(self, annotation: Any, *, typed: bool = True) -> None:
        self.annotation = annotation
        self._decode = _decoder(annotation, name_of(annotation))
        self._typed = typed

    def serialize(self, value: T) -> bytes:
        if not self._typed:
            _require_plain(value)
        return json.dumps(_to_json(value), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()

    def deserialize(self, content: bytes) -> T:
        value = json.loads(content) if content else None
        return typing.cast(T, self._decode(value))


def serde_for(annotation: Any) -> Serde[Any]:
    """The serde of a type; raises TypeError when it has no form in a journal. A Serde passes through."""
    if typing.get_origin(annotation) is As:
        return serde_for(typing.get_args(annotation)[0])
    if annotation is None or annotation is type(None):
        return VoidSerde()
    if annotation is bytes:
        return BytesSerde()
    if not isinstance(annotation, type) and hasattr(annotation, "serialize"):
        return typing.cast(Serde[Any], annotation)
    return JsonSerde(annotation)


def name_of(annotation: Any) -> str:
    """How an annotation is written, for messages."""
    return getattr(annotation, "__qualname__", None) or str(annotation).replace("typing.", "")


# ---- Writing


def _to_json(value: Any) -> Any:
    """A value as json.dumps takes it."""
    match value:
        case Enum():
            return _to_json(value.value)
        case None | bool() | int() | float() | str():
            return value
        case dict():
            return {_json_key(key): _to_json(item) for key, item in value.items()}
        case list() | tuple():
            return [_to_json(item) for item in value]
        case set() | frozenset():
            return sorted((_to_json(item) for item in value), key=json.dumps)  # one order in every attempt
        case datetime() | date():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Decimal():
            return str(value)
        case bytes():
            return _base64().b64encode(value).decode()
    if _is_uuid(type(value)):
        return str(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _to_json(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
    raise TypeError(
        f"a {type(value).__qualname__} has no JSON form: use JSON types, a dataclass, a TypedDict, a pydantic "
        "model or bytes, or pass serde="
    )


def _json_key(key: Any) -> str:
    if isinstance(key, str):
        return key
    raise TypeError(f"JSON objects have text keys, found the key {key!r}; convert keys to str")


def _require_plain(value: Any) -> None:
    """Without an annotation only values that JSON gives back as they were may be recorded."""
    match value:
        case Enum():
            pass
        case None | bool() | int() | float() | str():
            return
        case list():
            for item in value:
                _require_plain(item)
            return
        case dict():
            for item in value.values():
                _require_plain(item)
            return
    raise TypeError(
        f"the result is a {type(value).__qualname__}, and without an annotation it would be read back as "
        "something else; annotate the return type of the function, or pass serde=TheType"
    )


# ---- Reading


def _decoder(annotation: Any, where: str) -> Decoder:
    """The function that reads a JSON value into `annotation`; `where` names the place in messages."""
    if annotation in (Any, object, None, type(None)):
        return _same if annotation in (Any, object) else _expect(type(None), "null", where)
    if isinstance(annotation, TypeVar):
        return _same
    origin = typing.get_origin(annotation)
    if origin is not None:
        return _generic_decoder(origin, typing.get_args(annotation), annotation, where)
    if hasattr(annotation, "__supertype__"):  # NewType
        return _decoder(annotation.__supertype__, where)
    if isinstance(annotation, type):
        return _class_decoder(annotation, where)
    raise _refused(annotation, where)


def _class_decoder(cls: Any, where: str) -> Decoder:
    if cls in _SCALARS:
        return _SCALARS[cls](where)
    if _is_uuid(cls):
        return _text(cls)(where)
    if cls in (list, dict):
        return _expect(cls, "an array" if cls is list else "an object", where)
    if cls in (tuple, set, frozenset):
        return lambda value: cls(_list(value, where))
    if issubclass(cls, Enum):
        return _converting(cls, where)
    if hasattr(cls, "model_validate"):
        return _converting(cls.model_validate, where)
    if typing.is_typeddict(cls):
        return _typed_dict_decoder(cls, where)
    if dataclasses.is_dataclass(cls):
        return _dataclass_decoder(cls, where)
    raise _refused(cls, where)


def _generic_decoder(origin: Any, args: tuple[Any, ...], annotation: Any, where: str) -> Decoder:
    if origin is typing.Annotated:
        return _decoder(args[0], where)
    if origin is typing.Literal:
        return _one_of(args, where)
    if origin in (typing.Union, types.UnionType):
        return _union_decoder(args, where)
    if origin in (typing.Required, typing.NotRequired):
        return _decoder(args[0], where)
    if origin is tuple and not (len(args) == 2 and args[1] is Ellipsis):
        return _tuple_decoder(args, where)
    if origin in _CONTAINERS:
        build, item = _CONTAINERS[origin], _decoder(args[0], f"{where}[]")
        return lambda value: build(item(entry) for entry in _list(value, where))
    if origin in (dict, abc.Mapping, abc.MutableMapping):
        if args[0] not in (str, Any):
            raise TypeError(f"{where}: JSON objects have text keys, found {name_of(annotation)}; use str keys")
        entry, check = _decoder(args[1], f"{where}[]"), _expect(dict, "an object", where)
        return lambda value: {key: entry(found) for key, found in check(value).items()}
    if hasattr(annotation, "model_validate"):
        return _converting(annotation.model_validate, where)
    if dataclasses.is_dataclass(origin):
        return _dataclass_decoder(origin, where)
    raise _refused(annotation, where)


_CONTAINERS: Final[dict[Any, Callable[[Any], Any]]] = {
    list: list,
    set: set,
    frozenset: frozenset,
    tuple: tuple,
    abc.Sequence: list,
    abc.Iterable: list,
    abc.Collection: list,
}


def _typed_dict_decoder(cls: Any, where: str) -> Decoder:
    hints = typing.get_type_hints(cls, include_extras=True)
    decoders = {name: _decoder(hint, f"{where}.{name}") for name, hint in hints.items()}
    required = cls.__required_keys__
    check = _expect(dict, "an object", where)

    def decode(value: Any) -> Any:
        found = check(value)
        _require(required, found, where)
        return {name: decoders[name](item) if name in decoders else item for name, item in found.items()}

    return decode


def _dataclass_decoder(cls: Any, where: str) -> Decoder:
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = [field for field in dataclasses.fields(cls) if field.init]
    decoders = {field.name: _decoder(hints[field.name], f"{where}.{field.name}") for field in fields}
    required = frozenset(
        field.name for field in fields if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    )
    check = _expect(dict, "an object", where)

    def decode(value: Any) -> Any:
        found = check(value)
        _require(required, found, where)
        return cls(**{name: decoders[name](found[name]) for name in decoders if name in found})

    return decode


def _require(required: frozenset[str], found: dict[str, Any], where: str) -> None:
    missing = sorted(required - found.keys())
    if missing:
        raise ValueError(f"{where}: missing {', '.join(missing)}")


def _union_decoder(args: tuple[Any, ...], where: str) -> Decoder:
    optional = type(None) in args
    members = [_decoder(arg, where) for arg in args if arg is not type(None)]

    def decode(value: Any) -> Any:
        if value is None and optional:
            return None
        problems = []
        for member in members:
            try:
                return member(value)
            except (ValueError, TypeError) as error:
                problems.append(str(error))
        raise ValueError("; ".join(problems))

    return decode


def _tuple_decoder(args: tuple[Any, ...], where: str) -> Decoder:
    members = [_decoder(arg, f"{where}[{index}]") for index, arg in enumerate(args)]

    def decode(value: Any) -> Any:
        found = _list(value, where)
        if len(found) != len(members):
            raise ValueError(f"{where}: expected {len(members)} items, found {len(found)}")
        return tuple(member(item) for member, item in zip(members, found, strict=True))

    return decode


def _one_of(allowed: tuple[Any, ...], where: str) -> Decoder:
    def decode(value: Any) -> Any:
        for item in allowed:
            if value == item and type(value) is type(item):
                return item
        raise ValueError(f"{where}: expected one of {', '.join(map(repr, allowed))}, found {value!r:.60}")

    return decode


def _same(value: Any) -> Any:
    return value


def _expect(cls: type, words: str, where: str) -> Decoder:
    def decode(value: Any) -> Any:
        if isinstance(value, cls) and not (cls is int and isinstance(value, bool)):
            return value
        raise ValueError(f"{where}: expected {words}, found {value!r:.60}")

    return decode


def _converting(convert: Callable[[Any], Any], where: str) -> Decoder:
    def decode(value: Any) -> Any:
        try:
            return convert(value)
        except (ValueError, TypeError, ArithmeticError) as error:
            raise ValueError(f"{where}: {error}") from error

    return decode


def _list(value: Any, where: str) -> list[Any]:
    if isinstance(value, list):
        return value
    raise ValueError(f"{where}: expected an array, found {value!r:.60}")


def _float(where: str) -> Decoder:
    check = _expect(int | float, "a number", where)  # type: ignore[arg-type]
    return lambda value: value if isinstance(check(value), float) else float(value)


def _text(convert: Callable[[str], Any]) -> Callable[[str], Decoder]:
    def make(where: str) -> Decoder:
        check = _expect(str, "text", where)
        return _converting(lambda value: convert(check(value)), where)

    return make


def _is_uuid(cls: type) -> bool:
    """Without loading uuid, which most handlers do not use."""
    return cls.__name__ == "UUID" and cls.__module__ == "uuid"


def _base64() -> Any:
    import base64  # rarely needed, and a cold start should not pay for it

    return base64


_SCALARS: Final[dict[Any, Callable[[str], Decoder]]] = {
    bool: lambda where: _expect(bool, "true or false", where),
    int: lambda where: _expect(int, "an integer", where),
    float: _float,
    str: lambda where: _expect(str, "text", where),
    bytes: _text(lambda text: _base64().b64decode(text, validate=True)),
    datetime: _text(datetime.fromisoformat),
    date: _text(date.fromisoformat),
    timedelta: lambda where: _converting(lambda value: timedelta(seconds=value), where),
    Decimal: _text(Decimal),
}


def utc_from_ms(ms: int) -> datetime:
    """Milliseconds since the epoch as an aware datetime."""
    return datetime.fromtimestamp(ms / 1000, tz=UTC)


def _refused(annotation: Any, where: str) -> TypeError:
    return TypeError(
        f"{where}: {name_of(annotation)} has no form in a journal; use JSON types, a dataclass, a TypedDict, a pydantic model or bytes"
    )


# For results without an annotation.
UNTYPED: Final[Serde[Any]] = JsonSerde(Any, typed=False)
