"""Who may go, as a pure function of the queue and the time: no context, no clock, so it is tested without a runtime.

Rules: in any stretch of `t` seconds at most `burst + t * per_second` begin; at most `at_once` are inside; first come, first served.
The rate is kept by the generic cell rate algorithm: one number, the instant until which all that was let in so far would be spread evenly.
"""

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Limits:
    """What the provider allows."""

    per_second: float
    burst: int
    at_once: int
    lease_ms: int  # a place is taken back after this long, because whoever has it may have been killed
    queue: int  # so many may wait; they are all in the state, which travels with every request


@dataclass(frozen=True)
class Gate:
    """Who is inside (id -> until when, in milliseconds since 1970) and who waits, in order."""

    spread_ms: float = 0
    inside: dict[str, int] = field(default_factory=dict[str, int])
    waiting: list[str] = field(default_factory=list[str])
    alarm_ms: int | None = None  # when somebody is going to look again


@dataclass(frozen=True)
class Admission:
    """The gate afterwards, whom to let in, and when to look again, if nothing happens before."""

    gate: Gate
    admitted: list[str]
    look_again_ms: int | None


def without(gate: Gate, id: str) -> Gate:
    """Gone, wherever it was."""
    inside = {other: until for other, until in gate.inside.items() if other != id}
    return replace(gate, inside=inside, waiting=[other for other in gate.waiting if other != id])


def admit(gate: Gate, limits: Limits, now_ms: int) -> Admission:
    """Lets in whoever may go now."""
    interval_ms = 1000 / limits.per_second
    ahead_ms = interval_ms * (limits.burst - 1)  # so far may the spread run ahead of the clock
    inside = {id: until for id, until in gate.inside.items() if until > now_ms}
    waiting, spread_ms, admitted = list(gate.waiting), gate.spread_ms, list[str]()
    while waiting and len(inside) < limits.at_once and spread_ms - now_ms <= ahead_ms:
        admitted.append(waiting.pop(0))
        inside[admitted[-1]] = now_ms + limits.lease_ms
        spread_ms = max(spread_ms, now_ms) + interval_ms
    look_again_ms = None
    if waiting:
        full = len(inside) >= limits.at_once
        look_again_ms = min(inside.values()) if full else now_ms + -int(-(spread_ms - ahead_ms - now_ms) // 1)  # rounded up
    return Admission(replace(gate, spread_ms=spread_ms, inside=inside, waiting=waiting), admitted, look_again_ms)
