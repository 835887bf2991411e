"""What a handler raises and catches.

Rules: a `TerminalError` is a result: it ends the invocation and reaches the caller. Every other exception fails
the attempt, and the invocation is retried by its policy. Misuse of this package raises TypeError or ValueError.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from holdfast.protocol.machine import CANCELLED
from holdfast.protocol.outcomes import Failed
from holdfast.protocol.replay import JournalMismatchError

__all__ = [
    "CancelledError",
    "DeadlineExceededError",
    "JournalMismatchError",
    "RetryableError",
    "TerminalError",
]


class TerminalError(Exception):
    """Ends the invocation with this failure; never retried.

    `code`: HTTP-style status the caller gets. `metadata`: extra text pairs (dropped under service protocol 5).
    """

    def __init__(self, message: str, code: int = 500, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        if not 100 <= code <= 999:
            raise ValueError(f"code must be an HTTP-style status from 100 to 999, found {code}")
        self.message = message
        self.code = code
        self.metadata = dict(metadata or {})

    def __str__(self) -> str:
        return self.message


class CancelledError(TerminalError):
    """The invocation was cancelled. Raised at the wait the cancellation reached; catch it to clean up."""

    def __init__(self, message: str = CANCELLED.message) -> None:
        super().__init__(message, CANCELLED.code)


class DeadlineExceededError(TerminalError, TimeoutError):
    """The deadline of a `ctx.timeout` block passed (code 408). Also a built-in TimeoutError."""

    def __init__(self, message: str) -> None:
        super().__init__(message, 408)


class RetryableError(Exception):
    """Fails the attempt and chooses when the next one starts.

    `retry_after`: exact delay of the next retry; None leaves it to the retry policy.
    """

    def __init__(self, message: str, *, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def to_failed(error: TerminalError) -> Failed:
    """A terminal error as it is recorded."""
    return Failed(error.code, error.message, tuple(error.metadata.items()))


def from_failed(failed: Failed) -> TerminalError:
    """A recorded failure as it is raised."""
    error = TerminalError(failed.message, metadata=dict(failed.metadata))
    error.code = failed.code  # whatever the peer sent
    return error
