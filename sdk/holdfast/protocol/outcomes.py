"""What an awaited result turned out to be, and the tree of results an attempt waits for.

Rules: every resolution carries the sequence number of the notification that caused it, and who wins is
decided by that number alone, so a replay takes the branch the first execution took. A node once resolved
never changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

from holdfast.protocol.awaiting import Key
from holdfast.protocol.messages import Failure, FailureMetadata, Notification
from holdfast.protocol.records import Record


class Success(Record):
    """A value, as the bytes that were recorded."""

    content: bytes


class Empty(Record):
    """Void: done, without a value (a timer fired, a state key is missing, a promise is not completed)."""


class Keys(Record):
    """Names of state entries, UTF-8."""

    keys: tuple[bytes, ...]


class Text(Record):
    """An invocation id in its text form."""

    text: str


class Failed(Record):
    """A terminal failure. `code` is HTTP-style."""

    code: int
    message: str
    metadata: tuple[tuple[str, str], ...] = ()

    def to_message(self, *, version: int) -> Failure:
        """On the wire. Version 5 has no metadata, so it is left out there (service protocol §1.1)."""
        pairs = self.metadata if version >= 6 else ()
        metadata = [FailureMetadata(key=key, value=value) for key, value in pairs]
        return Failure(code=self.code, message=self.message, metadata=metadata)

    @classmethod
    def from_message(cls, failure: Failure) -> Failed:
        """From the wire."""
        return cls(failure.code, failure.message, tuple((pair.key, pair.value) for pair in failure.metadata))


Outcome: TypeAlias = Success | Empty | Keys | Text | Failed
EMPTY = Empty()


def outcome_of(message: Notification) -> Outcome:
    """The result a notification carries."""
    match message.WhichOneof("result"):
        case "value":
            return Success(message.value.content)
        case "failure":
            return Failed.from_message(message.failure)
        case "invocation_id":
            return Text(message.invocation_id)
        case "state_keys":
            return Keys(tuple(message.state_keys.keys))
        case _:
            return EMPTY


class Resolution(Record):
    """An outcome and when it came: `sequence` counts resolutions in the order the attempt saw them."""

    sequence: int
    outcome: Outcome


class Leaf:
    """One result: a completion, a signal by index, or a value that is known already.

    `kind` decides what the machine does while it is unresolved: a "run" is executed when awaited.
    """

    __slots__ = ("awaited", "command_index", "key", "kind", "name", "resolution")

    def __init__(
        self,
        key: Key | None,
        kind: Literal["run", "timer", "signal", "other"] = "other",
        name: str = "",
        command_index: int = 0,
    ) -> None:
        self.key = key  # None: resolved from the start
        self.kind = kind
        self.name = name
        self.command_index = command_index
        self.resolution: Resolution | None = None
        self.awaited = False

    def resolved(self) -> Resolution | None:
        return self.resolution

    def leaves(self) -> Iterator[Leaf]:
        """Every leaf below, itself included."""
        yield self

    def waiting(self) -> Iterator[Leaf]:
        """The leaves that can still change the outcome."""
        if self.resolution is None:
            yield self

    def delivered(self) -> Iterator[Leaf]:
        """The leaves whose results reach the handler when this node is delivered."""
        yield self


class All:
    """Resolves when every child succeeded, or when the first of them failed."""

    __slots__ = ("children",)

    def __init__(self, children: Sequence[Node]) -> None:
        self.children = tuple(children)

    def resolved(self) -> Resolution | None:
        found = [child.resolved() for child in self.children]
        failures = [item for item in found if item is not None and isinstance(item.outcome, Failed)]
        if failures:
            return min(failures, key=_sequence)
        last = 0
        for item in found:
            if item is None:
                return None
            last = max(last, item.sequence)
        return Resolution(last, EMPTY)

    def leaves(self) -> Iterator[Leaf]:
        for child in self.children:
            yield from child.leaves()

    def waiting(self) -> Iterator[Leaf]:
        if self.resolved() is None:
            for child in self.children:
                yield from child.waiting()

    def delivered(self) -> Iterator[Leaf]:
        for child in self.children:
            yield from child.delivered()


class First:
    """Resolves with the child that resolved first, whether it succeeded or failed."""

    __slots__ = ("children",)

    def __init__(self, children: Sequence[Node]) -> None:
        self.children = tuple(children)

    def winner(self) -> int | None:
        """Index of the child that resolved first."""
        found = [(index, child.resolved()) for index, child in enumerate(self.children)]
        arrived = [(item.sequence, index) for index, item in found if item is not None]
        return min(arrived)[1] if arrived else None

    def resolved(self) -> Resolution | None:
        index = self.winner()
        return None if index is None else self.children[index].resolved()

    def leaves(self) -> Iterator[Leaf]:
        for child in self.children:
            yield from child.leaves()

    def waiting(self) -> Iterator[Leaf]:
        if self.winner() is None:
            for child in self.children:
                yield from child.waiting()

    def delivered(self) -> Iterator[Leaf]:
        index = self.winner()
        if index is not None:
            yield from self.children[index].delivered()


class Ended:
    """Resolves with its child, but without its failure: for asking who won before asking for the value."""

    __slots__ = ("child",)

    def __init__(self, child: Node) -> None:
        self.child = child

    def resolved(self) -> Resolution | None:
        found = self.child.resolved()
        return None if found is None else Resolution(found.sequence, EMPTY)

    def leaves(self) -> Iterator[Leaf]:
        return self.child.leaves()

    def waiting(self) -> Iterator[Leaf]:
        return self.child.waiting()

    def delivered(self) -> Iterator[Leaf]:
        return self.child.delivered()


Node: TypeAlias = Leaf | All | First | Ended


def _sequence(resolution: Resolution) -> int:
    return resolution.sequence


class Watch:
    """Tells when it is worth asking whether a wait is over, so that waiting for n results costs n steps and not n times n.

    signals: a named signal is among the leaves; those come and go, so that everything has to be asked each time.
    """

    __slots__ = ("_asked", "_leaves", "_plain", "_unresolved", "signals")

    def __init__(self, node: Node, deadlines: Sequence[Leaf]) -> None:
        below = {id(leaf): leaf for leaf in node.leaves()}  # one may stand in several places
        self.signals = False
        for leaf in below.values():
            leaf.awaited = True
            self.signals = self.signals or leaf.kind == "signal"
        self._leaves = {*below, *map(id, deadlines)}
        # All of plain leaves: not over before the last one came or one failed.
        self._plain = isinstance(node, All) and not deadlines and all(isinstance(child, Leaf) for child in node.children)
        self._unresolved = sum(leaf.resolution is None for leaf in below.values())
        self._asked = False

    def may_be_over(self, latest: Leaf | None) -> bool:
        """`latest`: the leaf that was resolved since the last call, if any."""
        if self.signals or not self._asked:
            self._asked = True
            return True
        if latest is None or id(latest) not in self._leaves:
            return False
        if not self._plain:
            return True
        self._unresolved -= 1
        assert latest.resolution is not None
        return self._unresolved <= 0 or isinstance(latest.resolution.outcome, Failed)
