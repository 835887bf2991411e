"""Results that may not be there yet, and how recorded bytes become values.

Rules: a `Pending` is a node of the state machine and a way to read its outcome; combinators combine both; what a
function returns is read back by its annotation.
"""

from __future__ import annotations

import typing
from collections import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar
from weakref import WeakKeyDictionary

from holdfast.errors import from_failed
from holdfast.protocol.outcomes import All, Empty, Ended, Failed, First, Leaf, Node, Success, Text
from holdfast.serde import UNTYPED, Serde, name_of, serde_for

T = TypeVar("T")


class Pending(Generic[T]):
    """A result that may not be there yet: the node to wait for, and how its outcome becomes a value."""

    __slots__ = ("_decode", "_node")

    def __init__(self, node: Node | Callable[[], Node], decode: Callable[[], T]) -> None:
        self._node = node
        self._decode = decode

    @property
    def node(self) -> Node:
        """What to wait for; a promise asks for its value only now."""
        if callable(self._node):
            self._node = self._node()
        return self._node

    def done(self) -> bool:
        """Whether the handler has seen the result arrive already. The same in every attempt."""
        return not callable(self._node) and self._node.resolved() is not None

    def value(self) -> T:
        """The value, once the node is resolved; raises TerminalError when it failed."""
        resolution = self.node.resolved()
        assert resolution is not None
        if isinstance(resolution.outcome, Failed):
            raise from_failed(resolution.outcome)
        return self._decode()


class Selected(typing.NamedTuple):
    """Which of the futures given to `select` resolved first, and its value."""

    name: str
    value: Any


def gather(pendings: Sequence[Pending[Any]], build: Callable[[list[Any]], T]) -> Pending[T]:
    """All results in order; the first failure fails the whole."""
    return Pending(All([item.node for item in pendings]), lambda: build([item.value() for item in pendings]))


def select(pendings: Mapping[str, Pending[Any]]) -> Pending[Selected]:
    """The one that resolved first."""
    if not pendings:
        raise ValueError("select needs at least one future, found none")
    names = list(pendings)
    first = First([pendings[name].node for name in names])

    def decode() -> Selected:
        index = first.winner()
        assert index is not None
        return Selected(names[index], pendings[names[index]].value())

    return Pending(first, decode)


def select_name(pendings: Mapping[str, Pending[Any]]) -> Pending[str]:
    """The name of the one that resolved first; its failure is not raised."""
    names = list(pendings)
    first = First([pendings[name].node for name in names])
    return Pending(Ended(first), lambda: names[first.winner() or 0])


_SERDES: Final[WeakKeyDictionary[Any, Serde[Any]]] = WeakKeyDictionary()


def result_serde(function: Callable[..., Any]) -> Serde[Any]:
    """By the annotated return type; plain JSON when there is none."""
    target = getattr(function, "func", function)  # functools.partial
    target = getattr(target, "__wrapped__", target)
    target = getattr(target, "__func__", target)
    if not getattr(target, "__annotations__", None):
        return UNTYPED
    if target not in _SERDES:
        try:
            hints = typing.get_type_hints(target, include_extras=True)
        except (TypeError, NameError, AttributeError):
            hints = {}
        _SERDES[target] = _serde_of_result(hints.get("return", UNTYPED))
    return _SERDES[target]


def _serde_of_result(annotation: Any) -> Serde[Any]:
    if typing.get_origin(annotation) in (abc.Awaitable, abc.Coroutine):
        annotation = typing.get_args(annotation)[-1]
    if annotation in (typing.NoReturn, typing.Never):
        return UNTYPED
    return serde_for(annotation)


def loose_serde(type: Any) -> Serde[Any]:
    """For values that are only written: whoever reads them knows the type."""
    if type is not None:
        return serde_for(type)
    return ANY_SERDE


class _AnySerde:
    """Writes bytes as they are and everything else as JSON."""

    content_type: str | None = None

    def serialize(self, value: Any) -> bytes:
        return value if isinstance(value, bytes) else _ANY_JSON.serialize(value)

    def deserialize(self, content: bytes) -> Any:
        return _ANY_JSON.deserialize(content)


_ANY_JSON: Final[Serde[Any]] = serde_for(Any)
ANY_SERDE: Final[Serde[Any]] = _AnySerde()


def write_any(value: Any) -> bytes:
    """The bytes of a value whose reader knows the type; nothing for None."""
    return b"" if value is None else ANY_SERDE.serialize(value)


def outcome_of(leaf: Leaf) -> Any:
    assert leaf.resolution is not None
    return leaf.resolution.outcome


def is_empty(leaf: Leaf) -> bool:
    return isinstance(outcome_of(leaf), Empty)


def decode_leaf(node: Node, serde: Serde[Any]) -> Any:
    """The value of a resolved leaf; recorded content of another type is the deployment's fault, not the caller's."""
    assert isinstance(node, Leaf)
    outcome = outcome_of(node)
    if isinstance(outcome, Empty):
        return None
    assert isinstance(outcome, Success)
    try:
        return serde.deserialize(outcome.content)
    except (ValueError, TypeError) as error:
        wanted = name_of(getattr(serde, "annotation", type(serde)))
        raise TypeError(f"the recorded result of '{node.name}' cannot be read as {wanted}: {error}") from error


def valued(leaf: Leaf, serde: Serde[Any]) -> Pending[Any]:
    return Pending(leaf, lambda: decode_leaf(leaf, serde))


def texted(leaf: Leaf) -> Pending[str]:
    def decode() -> str:
        outcome = outcome_of(leaf)
        assert isinstance(outcome, Text)
        return outcome.text

    return Pending(leaf, decode)
