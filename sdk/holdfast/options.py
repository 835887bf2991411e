"""Settings of services, handlers and runs.

Rules: every duration is a timedelta; None means unset and leaves the next layer to decide, zero is a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypedDict

from holdfast._misuse import check_options


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When and how often to retry. The delay of retry n is `initial_interval * factor ** (n - 1)`.

    `max_attempts` counts the first attempt. On a service or handler `on_max_attempts` says what then happens to
    the invocation. On a run, exhaustion becomes a TerminalError in the handler, also after `max_duration`.
    """

    initial_interval: timedelta | None = None
    factor: float | None = None
    max_interval: timedelta | None = None
    max_attempts: int | None = None
    max_duration: timedelta | None = None
    on_max_attempts: Literal["pause", "kill"] | None = None

    def __post_init__(self) -> None:
        for name in ("initial_interval", "max_interval", "max_duration"):
            _checked(name, getattr(self, name))
        if self.max_attempts is not None and self.max_attempts < 1:
            raise ValueError(f"max_attempts counts the first attempt: expected 1 or more, found {self.max_attempts}")
        if self.on_max_attempts not in (None, "pause", "kill"):
            raise ValueError(f"on_max_attempts is 'pause' or 'kill', found {self.on_max_attempts!r}")
        if self.factor is not None and self.factor < 1:
            raise ValueError(f"factor must be at least 1, found {self.factor}")

    def delay_ms(self, failures: int) -> int:
        """The delay after this many failures (1 or more), in milliseconds."""
        initial = 100.0 if self.initial_interval is None else milliseconds(self.initial_interval)
        limit = 60_000.0 if self.max_interval is None else milliseconds(self.max_interval)
        factor = 2.0 if self.factor is None else self.factor
        try:
            return int(min(initial * factor ** (failures - 1), limit))
        except OverflowError:
            return int(limit)

    def exhausted(self, failures: int, elapsed_ms: float) -> bool:
        """Whether a run that failed this often, over this time, is given up."""
        if self.max_attempts is not None and failures >= self.max_attempts:
            return True
        return self.max_duration is not None and elapsed_ms >= milliseconds(self.max_duration)


class OptionArguments(TypedDict, total=False):
    """Keyword arguments of services and of handler decorators."""

    retry: RetryPolicy | None
    inactivity_timeout: timedelta | None
    abort_timeout: timedelta | None
    journal_retention: timedelta | None
    idempotency_retention: timedelta | None
    lazy_state: bool | None
    private: bool | None
    documentation: str | None
    metadata: Mapping[str, str] | None


class HandlerArguments(OptionArguments, total=False):
    """What handlers take beyond that. `workflow_retention`: main handler of a workflow only."""

    name: str
    workflow_retention: timedelta | None
    accept: str
    content_type: str


def milliseconds(duration: timedelta) -> int:
    """Whole milliseconds; raises ValueError for negative durations."""
    if not isinstance(duration, timedelta):
        raise TypeError(f"expected a timedelta, found {duration!r}; write timedelta(seconds=...)")
    if duration < timedelta(0):
        raise ValueError(f"a duration cannot be negative, found {duration}")
    return duration // timedelta(milliseconds=1)


def _checked(name: str, duration: timedelta | None) -> int | None:
    """In milliseconds; the error of a bad one names the option."""
    try:
        return _optional_ms(duration)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None


def manifest_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The members of the manifest records for these arguments; raises on unknown names and bad values."""
    found: dict[str, Any] = {}
    check_options(arguments)
    for name, value in arguments.items():
        if value is None:
            continue
        if name == "retry":
            found.update(_retry_options(value))
        elif name in _DURATIONS:
            found[_DURATIONS[name]] = _checked(name, value)
        elif name in _PLAIN:
            found[_PLAIN[name]] = value
        else:
            raise TypeError(f"unknown option '{name}'; known are {', '.join(sorted(_KNOWN))}")
    return found


def _retry_options(policy: RetryPolicy) -> dict[str, Any]:
    if not isinstance(policy, RetryPolicy):
        raise TypeError(f"retry is a RetryPolicy, found {policy!r}; write RetryPolicy(max_attempts=...)")
    if policy.max_duration is not None:
        raise ValueError("max_duration limits runs only; give services and handlers max_attempts instead")
    members = {
        "retry_initial_interval_ms": _optional_ms(policy.initial_interval),
        "retry_max_interval_ms": _optional_ms(policy.max_interval),
        "retry_max_attempts": policy.max_attempts,
        "retry_exponentiation_factor": policy.factor,
        "retry_on_max_attempts": policy.on_max_attempts and policy.on_max_attempts.upper(),
    }
    return {name: value for name, value in members.items() if value is not None}


def _optional_ms(duration: timedelta | None) -> int | None:
    return None if duration is None else milliseconds(duration)


_DURATIONS = {
    "inactivity_timeout": "inactivity_timeout_ms",
    "abort_timeout": "abort_timeout_ms",
    "journal_retention": "journal_retention_ms",
    "idempotency_retention": "idempotency_retention_ms",
    "workflow_retention": "workflow_completion_retention_ms",
}
_PLAIN = {
    "lazy_state": "enable_lazy_state",
    "private": "ingress_private",
    "documentation": "documentation",
    "metadata": "metadata",
}
_KNOWN = {"retry", *_DURATIONS, *_PLAIN}
