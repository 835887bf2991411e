"""What a test may make go wrong, as data; `_handlers.py` and `_engine.py` make it happen.

Rules: a fault counts down and is then over; an entry is named by its index in the journal, the input being 0, as the timeline prints it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from holdfast.service import Handler


@dataclass(frozen=True, slots=True)
class Crash:
    """Something dies when a handler adds entry `entry` to its journal.

    of="attempt": the process that runs the handler is lost, as a Lambda function that is shut down. `stored` says whether the entry still
    arrived: False for the result of a `ctx.run` is the crash after the side effect and before its result was stored. Once per invocation.
    of="coordinator": the coordinator dies and another one takes over from its store; `stored` says whether it still wrote the response
    that carries the entry. Once in all.
    handler: only in invocations of this one.
    """

    entry: int
    of: Literal["attempt", "coordinator"] = "attempt"
    stored: bool = True
    handler: Handler[Any, Any] | None = None

    def __post_init__(self) -> None:
        if self.entry < 1:
            raise ValueError(f"entry counts from 1 (the input, entry 0, is not the handler's), found {self.entry}")
        if self.of not in ("attempt", "coordinator"):
            raise ValueError(f"of is 'attempt' or 'coordinator', found {self.of!r}")

    def __str__(self) -> str:
        where = "after" if self.stored else "before"
        return f"{self.of} lost {where} entry {self.entry} was stored"


def crashes(entries: int) -> list[Crash]:
    """Every crash up to journal entry `entries`, for `pytest.mark.parametrize("crash", crashes(8), ids=str)`."""
    kinds: list[Literal["attempt", "coordinator"]] = ["attempt", "coordinator"]
    return [Crash(entry, of=of, stored=stored) for entry in range(1, entries + 1) for stored in (False, True) for of in kinds]


@dataclass(eq=False, slots=True)
class EndpointFault:
    """The next `times` attempts fail before the handler starts."""

    handler: str | None  # "service/handler", None for any
    times: int
    status: int
    message: str


@dataclass(eq=False, slots=True)
class StepFault:
    """The next `times` executions of the `ctx.run` named `name` raise `error`: instead of the function, or `after` it has run."""

    name: str
    times: int
    error: BaseException
    after: bool
    handler: str | None


@dataclass(eq=False)
class Faults:
    """Every fault of one runtime that is not over yet."""

    crashes: tuple[Crash, ...] = ()
    endpoint: list[EndpointFault] = field(default_factory=list)
    steps: list[StepFault] = field(default_factory=list)
    crashed: set[tuple[int, str]] = field(default_factory=set)  # index of the crash, and the invocation (empty for a coordinator's)

    def crash_at(self, handler: str, invocation: str, entry: int) -> Crash | None:
        """The crash that happens at this entry; it is over then."""
        for index, crash in enumerate(self.crashes):
            if crash.entry != entry or (crash.handler is not None and crash.handler.full_name != handler):
                continue
            place = (index, invocation if crash.of == "attempt" else "")
            if place not in self.crashed:
                self.crashed.add(place)
                return crash
        return None

    def endpoint_fault(self, handler: str) -> EndpointFault | None:
        """The fault that hits an attempt at this handler; one of its times is used up."""
        for fault in self.endpoint:
            if fault.times > 0 and fault.handler in (None, handler):
                fault.times -= 1
                return fault
        return None

    def step_fault(self, handler: str, name: str) -> StepFault | None:
        """The fault that hits an execution of this step; one of its times is used up."""
        for fault in self.steps:
            if fault.times > 0 and fault.name == name and fault.handler in (None, handler):
                fault.times -= 1
                return fault
        return None
