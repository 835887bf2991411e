"""What futures and handles have in common in both kinds of handlers."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from holdfast._attempt import Attempt
from holdfast._pending import Pending

T = TypeVar("T")


class Recorded(Generic[T]):
    """A result in the journal, there or yet to come."""

    __slots__ = ("_attempt", "_pending")

    def __init__(self, attempt: Attempt, pending: Pending[T]) -> None:
        self._attempt = attempt
        self._pending = pending

    def done(self) -> bool:
        """Whether the result has arrived, as far as this handler has waited. The same on replay."""
        return self._pending.done()


class Addressed:
    """Another invocation, by id."""

    __slots__ = ("_attempt", "id")

    def __init__(self, attempt: Attempt, id: str) -> None:
        self._attempt = attempt
        self.id = id

    def signal(self, name: str, value: Any = None, *, serde: Any = None) -> None:
        """Sends a named signal."""
        if not name:
            raise ValueError("a signal needs a name")
        self._attempt.send_signal(self.id, name, value, serde)

    def cancel(self) -> None:
        """Asks it to stop: its handler sees CancelledError and may clean up."""
        self._attempt.send_signal(self.id, 1, None, None)
