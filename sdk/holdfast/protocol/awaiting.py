"""The tree of awaited results: what an attempt suspended on, and whether that is there yet.

Rules: v5 and v6 send a flat set, which is the one-node tree with combinator UNKNOWN; v7 sends the tree.
Outcomes only climb `PENDING < SUCCEEDED, FAILED < UNDETERMINED` as results arrive, so a suspension once ready
stays ready. Where the order of arrival would decide between success and failure the outcome is UNDETERMINED:
that wakes at the latest where the exact answer would, and waking early is harmless (service protocol §3.6).
Nothing here recurses.
"""

from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any, Final, TypeAlias

from holdfast.protocol.errors import ProtocolError
from holdfast.protocol.messages import Future, Notification, Suspension

# What the reference server allows. On the wire protobuf stops at 100 levels, a ProtocolError of `parse`.
MAX_DEPTH: Final = 1000

# ("c", completion id) | ("s", signal index) | ("n", signal name)
Key: TypeAlias = tuple[str, int | str]


class Combinator(IntEnum):
    """How a node resolves from its children; numbers of the wire (service protocol §2.1 Future)."""

    UNKNOWN = 0
    FIRST_COMPLETED = 1
    ALL_COMPLETED = 2
    FIRST_SUCCEEDED_OR_ALL_FAILED = 3
    ALL_SUCCEEDED_OR_FIRST_FAILED = 4


class Outcome(IntEnum):
    """Of a leaf or node. Everything but PENDING is resolved. The numbers are stored: do not renumber."""

    PENDING = 0
    SUCCEEDED = 1
    FAILED = 2
    UNDETERMINED = 3


class Awaiting:
    """One node: leaves (completion ids, signal indexes, signal names), nested nodes, and how they combine. Never changed."""

    __slots__ = ("children", "combinator", "completions", "names", "signals")

    def __init__(
        self,
        completions: tuple[int, ...] = (),
        signals: tuple[int, ...] = (),
        names: tuple[str, ...] = (),
        children: tuple["Awaiting", ...] = (),
        combinator: Combinator = Combinator.UNKNOWN,
    ) -> None:
        self.completions = completions
        self.signals = signals
        self.names = names
        self.children = children
        self.combinator = combinator

    def nodes(self) -> Iterator["Awaiting"]:
        """Every node, children before their parent, the root last."""
        stack = [self]
        reverse: list[Awaiting] = []
        while stack:
            node = stack.pop()
            reverse.append(node)
            stack.extend(node.children)
        return reversed(reverse)

    def keys(self) -> frozenset[Key]:
        """Every leaf of the tree."""
        found: set[Key] = set()
        for node in self.nodes():
            found.update(node.leaves())
        return frozenset(found)

    def leaves(self) -> Iterator[Key]:
        """The leaves of this node alone."""
        for completion_id in self.completions:
            yield "c", completion_id
        for index in self.signals:
            yield "s", index
        for name in self.names:
            yield "n", name

    def to_document(self) -> list[list[Any]]:
        """Plain lists, one per node, children before parents:
        `[combinator, completions, signals, names, number of children]`.

        Flat, because serialisers limit nesting far below MAX_DEPTH.
        """
        return [
            [
                int(node.combinator),
                list(node.completions),
                list(node.signals),
                list(node.names),
                len(node.children),
            ]
            for node in self.nodes()
        ]

    @classmethod
    def from_document(cls, document: Sequence[Sequence[Any]]) -> "Awaiting":
        """The inverse of `to_document`; raises ProtocolError when the lists are no such tree."""
        stack: list[Awaiting] = []
        try:
            for combinator, completions, signals, names, count in document:
                children = _pop(stack, count)
                stack.append(cls(tuple(completions), tuple(signals), tuple(names), children, Combinator(combinator)))
            (root,) = stack
        except (TypeError, ValueError) as error:
            raise ProtocolError(
                "stored awaited results are unreadable: expected one tree of [combinator, "
                "completions, signals, names, "
                f"children] rows, found {len(document)} rows that do not form one ({error})"
            ) from error
        return root

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Awaiting) and self.to_document() == other.to_document()

    def __hash__(self) -> int:
        return hash(self.keys())

    def __repr__(self) -> str:
        return f"Awaiting({self.to_document()})"


def from_suspension(message: Suspension, *, version: int) -> Awaiting:
    """What a suspension waits for.

    Nested nodes without any leaf are left out: nothing from outside can resolve them. Raises ProtocolError
    when nothing at all is awaited, or the tree is deeper than MAX_DEPTH.
    """
    if version >= 7:
        tree = _from_future(message.awaiting_on)
    else:
        tree = Awaiting(
            tuple(message.waiting_completions),
            tuple(message.waiting_signals),
            tuple(message.waiting_named_signals),
        )
    if not (tree.completions or tree.signals or tree.names or tree.children):
        raise ProtocolError(
            "the suspension awaits nothing: expected at least one completion id, signal index or "
            "signal name; "
            "an attempt that waits for nothing must end or fail instead"
        )
    return tree


def outcome(tree: Awaiting, resolved: Mapping[Key, Outcome]) -> Outcome:
    """The outcome of the root, given the leaves resolved since parking; all but PENDING mean wake."""
    stack: list[Outcome] = []
    for node in tree.nodes():
        children = _pop(stack, len(node.children))
        leaves = [resolved.get(key, Outcome.PENDING) for key in node.leaves()]
        stack.append(_combine(node.combinator, [*leaves, *children]))
    return stack[0]


def key_of(message: Notification) -> Key:
    """The key a notification resolves."""
    match message.WhichOneof("id"):
        case "completion_id":
            return "c", message.completion_id
        case "idx":
            return "s", message.idx
        case "name":
            return "n", message.name
        case _:
            raise ProtocolError("a notification must carry a completion id, a signal index or a signal name, found none")


def outcome_of(message: Notification) -> Outcome:
    """FAILED for a failure, SUCCEEDED for every other result."""
    return Outcome.FAILED if message.WhichOneof("result") == "failure" else Outcome.SUCCEEDED


def _combine(combinator: Combinator, children: list[Outcome]) -> Outcome:
    """The table of service protocol §3.6. A node without children stays pending."""
    resolved = [child for child in children if child is not Outcome.PENDING]
    if not resolved:
        return Outcome.PENDING
    complete = len(resolved) == len(children)
    match combinator:
        case Combinator.UNKNOWN:
            return Outcome.UNDETERMINED
        case Combinator.FIRST_COMPLETED:
            return resolved[0] if len(set(resolved)) == 1 else Outcome.UNDETERMINED
        case Combinator.ALL_COMPLETED:
            return Outcome.SUCCEEDED if complete else Outcome.PENDING
        case Combinator.FIRST_SUCCEEDED_OR_ALL_FAILED:
            return _decided(resolved, complete, by=Outcome.SUCCEEDED, otherwise=Outcome.FAILED)
        case Combinator.ALL_SUCCEEDED_OR_FIRST_FAILED:
            return _decided(resolved, complete, by=Outcome.FAILED, otherwise=Outcome.SUCCEEDED)


def _decided(resolved: Sequence[Outcome], complete: bool, *, by: Outcome, otherwise: Outcome) -> Outcome:
    """One child with outcome `by` decides; else all must be there."""
    if Outcome.UNDETERMINED in resolved:  # first, or a late decisive child would make a ready parent wait again
        return Outcome.UNDETERMINED
    if by in resolved:
        return by
    return otherwise if complete else Outcome.PENDING


def _from_future(root: Future) -> Awaiting:
    """Post-order over an explicit stack; `built` receives the finished children."""
    built: list[Awaiting | None] = []
    stack: list[tuple[Future, int, bool]] = [(root, 1, False)]
    while stack:
        future, depth, expanded = stack.pop()
        if depth > MAX_DEPTH:
            raise ProtocolError(f"the suspension nests more than {MAX_DEPTH} combinators; await results in smaller groups")
        if not expanded:
            stack.append((future, depth, True))
            stack.extend((child, depth + 1, False) for child in reversed(future.nested_futures))
            continue
        built.append(_node(future, _pop(built, len(future.nested_futures))))
    return built[0] or Awaiting()


def _node(future: Future, children: tuple[Awaiting | None, ...]) -> Awaiting | None:
    """None when nothing in this subtree can be resolved from outside."""
    kept = tuple(child for child in children if child is not None)
    leaves = (future.waiting_completions, future.waiting_signals, future.waiting_named_signals)
    if not kept and not any(leaves):
        return None
    try:
        combinator = Combinator(future.combinator_type)
    except ValueError:
        combinator = Combinator.UNKNOWN  # a newer combinator: any child wakes, the SDK sorts it out
    return Awaiting(tuple(leaves[0]), tuple(leaves[1]), tuple(leaves[2]), kept, combinator)


def _pop(stack: list[Any], count: int) -> tuple[Any, ...]:
    """The last `count` items, taken off in order."""
    if not 0 <= count <= len(stack):
        raise ValueError(f"{count} children announced, {len(stack)} there")
    if count == 0:
        return ()
    taken = tuple(stack[-count:])
    del stack[-count:]
    return taken
