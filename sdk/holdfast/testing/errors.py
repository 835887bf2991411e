"""What a test is told when it cannot go on. All are AssertionErrors: the test fails, and the message says why."""

from __future__ import annotations


class Stuck(AssertionError):
    """The test waits for a result that nothing can bring about any more: no timer, no running handler."""


class HandlerFailed(AssertionError):
    """A handler failed with an error that would be retried, and retries are disabled. The error is the `__cause__`."""


class NotDeterministic(AssertionError):
    """A handler did not do again what its journal records. The JournalMismatchError is the `__cause__`."""

    def __init__(self, message: str, *, invocation_id: str) -> None:
        super().__init__(message)
        self.invocation_id = invocation_id


class OutOfPatience(AssertionError):
    """A handler has been busy for longer, in real time, than the runtime's `patience`."""


class NotKept(AssertionError):
    """What was asked for is unknown, or its retention is over."""


class ReplayMismatch(AssertionError):
    """Today's code does not do again what a journal records.

    entry_index: position in the journal, the input being 0; None when the code failed without a disagreement.
    """

    def __init__(self, message: str, *, entry_index: int | None = None) -> None:
        super().__init__(message)
        self.entry_index = entry_index
