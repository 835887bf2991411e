"""What the outside must do next, as data. An effect happens only after the transition that ordered it is durable (invariant 2),
and each can be derived again from the pages after a crash: that is why none of them needs to be stored.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast_runtime.engine.payload import Result


@dataclass(slots=True)
class StartAttempt:
    """The invocation is running and has no attempt: start one. Derived again from the active pages."""

    invocation: str


@dataclass(slots=True)
class RetryAt:
    """Start the next attempt at `at_ms`. Derived again from the invocation page."""

    invocation: str
    at_ms: int


@dataclass(slots=True)
class Answer:
    """The invocation ended: tell whoever waits for it in this process. A lost waiter attaches again."""

    invocation: str
    result: Result


@dataclass(slots=True)
class SendMessages:
    """The outbox to `destination` may be sent up to `sequence`. Derived again from the outbox."""

    destination: int
    sequence: int


@dataclass(slots=True)
class ArmTimer:
    """Entry `key` of a timer page falls due at `at_ms`. Derived again from the timer pages."""

    at_ms: int
    hour: int
    number: int
    key: str


Effect = StartAttempt | RetryAt | Answer | SendMessages | ArmTimer
