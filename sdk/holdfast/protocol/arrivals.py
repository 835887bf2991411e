"""The notifications of an attempt, taken one at a time in journal order, and the leaves they resolve.

Rules: nothing is taken ahead of need, so what a handler has seen is a function of its journal; a result that
arrives before it is asked for is kept; signals of one name form a queue, from which a wait takes only what it
delivers: a signal that lost a race goes back and is there for the next wait.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.protocol import ids
from holdfast.protocol.awaiting import Key
from holdfast.protocol.outcomes import Leaf, Node, Outcome, Resolution, Text

CANCEL_KEY: Key = ("s", ids.CANCEL_SIGNAL)


class Arrivals:
    """What came back, so far as the handler has waited."""

    def __init__(self, notifications: Sequence[tuple[Key, Outcome]]) -> None:
        self._notifications = notifications
        self._position = 0  # next one to take
        self._sequence = 0  # resolutions so far
        self._leaves: dict[Key, Leaf] = {}
        self._early: dict[Key, Resolution] = {}  # arrived before the handler asked
        self._signals: dict[str, list[Resolution]] = {}  # named signals nobody took yet
        self.latest: Leaf | None = None  # what the last taken notification resolved
        self._recorded = {key for key, _ in notifications}
        self._texts = {key: outcome.text for key, outcome in notifications if isinstance(outcome, Text)}

    @property
    def exhausted(self) -> bool:
        """Whether the handler has seen everything that is there."""
        return self._position == len(self._notifications)

    @property
    def results_left(self) -> bool:
        """Whether a result is left that an earlier attempt may have seen. Ids of calls tell nothing: they come at once."""
        rest = self._notifications[self._position :]
        return any(key != CANCEL_KEY and not isinstance(outcome, Text) for key, outcome in rest)

    def recorded(self, key: Key) -> bool:
        """Whether the journal holds the result, seen or not."""
        return key in self._recorded

    def invocation_id(self, key: Key) -> str | None:
        """An invocation id of the journal, seen or not."""
        return self._texts.get(key)

    def seen(self, key: Key) -> bool:
        """Whether the handler could have seen the result by now."""
        leaf = self._leaves.get(key)
        return key in self._early if leaf is None else leaf.resolution is not None

    def expect(self, key: Key, *, name: str) -> Leaf:
        """The leaf for a result somebody just asked for."""
        leaf = Leaf(key, name=name)
        leaf.resolution = self._early.pop(key, None)
        self._leaves[key] = leaf
        return leaf

    def at_once(self, outcome: Outcome) -> Leaf:
        """A leaf whose result is known already."""
        leaf = Leaf(None)
        leaf.resolution = self._resolution(outcome)
        return leaf

    def take(self) -> bool:
        """Takes the next notification; True when it is a cancellation."""
        key, outcome = self._notifications[self._position]
        self._position += 1
        self.latest = None
        if key == CANCEL_KEY:
            return True
        resolution = self._resolution(outcome)
        if key[0] == "n":
            self._signals.setdefault(str(key[1]), []).append(resolution)
        elif key in self._leaves:
            self.latest = self._leaves[key]
            self.latest.resolution = resolution
        else:
            self._early[key] = resolution
        return False

    def bind_signals(self, node: Node) -> None:
        """Lends waiting signals to the leaves of an awaited node."""
        for leaf in node.leaves():
            queue = self._signals.get(leaf.name) if leaf.kind == "signal" else None
            if queue and leaf.resolution is None:
                leaf.resolution = queue.pop(0)

    def release_signals(self, node: Node, *, delivered: bool) -> None:
        """Ends a wait: delivered signals are taken for good, the others go back to their queues."""
        kept = {id(leaf) for leaf in node.delivered()} if delivered else set()
        for leaf in node.leaves():
            if leaf.kind != "signal" or leaf.resolution is None or leaf.key is None:
                continue
            if id(leaf) in kept:
                leaf.key = None
            else:
                queue = self._signals.setdefault(leaf.name, [])
                queue.append(leaf.resolution)
                queue.sort(key=_sequence)
                leaf.resolution = None

    def _resolution(self, outcome: Outcome) -> Resolution:
        self._sequence += 1
        return Resolution(self._sequence, outcome)


def _sequence(resolution: Resolution) -> int:
    return resolution.sequence
