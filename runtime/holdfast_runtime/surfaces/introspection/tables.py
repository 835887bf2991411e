"""The tables: their columns in order, and where each column comes from. Data only; `catalogue` lists them all.

A column reads columns of its table's source (`coordinator.scans`, or "deployments" and "services"); one that reads none is always NULL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

STATUSES: Final = ("pending", "scheduled", "ready", "running", "backing-off", "suspended", "paused", "completed")
RAW_STATUSES: Final = ("inboxed", "scheduled", "invoked", "suspended", "paused", "completed")
SERVICE_TYPES: Final = ("service", "virtual_object", "workflow")


@dataclass(frozen=True, slots=True)
class Derived:
    """A column computed from `reads`; `of` gets their values in that order."""

    reads: tuple[str, ...]
    of: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Column:
    """type: s, b, u32, u64, ts, dur, bin, [s] or [u32] as in http-api §4.3."""

    name: str
    type: str
    reads: tuple[str, ...]
    of: Callable[..., Any] | None = None
    nullable: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    """source: None when the table is always empty. filters: columns whose conditions the source takes.

    only: a condition on the source that always holds. identity: source columns that name a row. is_timed: the source knows when rows were
    created, takes bounds on that, and finds the newest and the oldest.
    """

    name: str
    columns: Mapping[str, Column]
    source: str | None = None
    filters: frozenset[str] = frozenset()
    identity: tuple[str, ...] = ()
    only: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    is_timed: bool = False


# Columns with few values: "not this one" is "one of the others".
DOMAINS: Final[Mapping[str, tuple[str, ...]]] = {
    "status": STATUSES,
    "raw_status": RAW_STATUSES,
    "target_service_ty": SERVICE_TYPES,
    "completion_result": ("success", "failure"),
}


def columns(text: str, derived: Mapping[str, Derived] | None = None) -> dict[str, Column]:
    """From `name:type` words: `name:type=other` reads another column, `name:type-` reads none, `name:type!` is never NULL.

    derived: how to compute the columns it names.
    """
    found: dict[str, Column] = {}
    for word in text.split():
        name, _, rest = word.partition(":")
        type_, _, source = rest.partition("=")
        bare = type_.rstrip("-!")
        how = (derived or {}).get(name)
        if how is not None:
            reads, of = how.reads, how.of
        else:
            reads, of = () if type_.endswith("-") else (source or name,), None
        found[name] = Column(name, bare, reads, of, nullable=not type_.endswith("!"))
    return found
