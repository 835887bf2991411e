"""How services do: what each handler has in flight, and which keys are busy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from holdfast_runtime.app import ages
from holdfast_runtime.app.filters import STATUSES
from holdfast_runtime.app.http import Api
from holdfast_runtime.app.output import STATUS_STYLES, coloured, grid, width
from holdfast_runtime.app.query import any_of, rows, with_times

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

KEYS_SHOWN: Final = 10
_LIVE: Final = STATUSES[:-1]
_NARROW: Final = 80  # columns below which statuses that nothing has are left out of the table


@dataclass(frozen=True, slots=True)
class Standing:
    """handlers: rows of handler, status, number, oldest. keys: those with the longest queues, and who holds them."""

    handlers: list[dict[str, Any]]
    keys: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        return {"handlers": self.handlers, "keys": self.keys}


def look(api: Api, services: Mapping[str, Any]) -> Standing:
    if not services:
        return Standing([], [])
    where = f"target_service_name IN {any_of(services)} AND status != 'completed'"
    columns = "target_service_name, target_handler_name, status"
    statement = f"SELECT {columns}, COUNT(1) AS number, MIN(created_at) AS oldest_at FROM sys_invocation WHERE {where} GROUP BY {columns}"
    handlers = sorted(
        (with_times(row) for row in rows(api, statement)), key=lambda row: (row["target_service_name"], row["target_handler_name"])
    )
    keyed = [name for name, service in services.items() if service["ty"] != "Service"]
    return Standing(handlers, _keys(api, keyed) if keyed else [])


def _keys(api: Api, services: Sequence[str]) -> list[dict[str, Any]]:
    queues = rows(
        api,
        f"SELECT service_name, service_key, COUNT(1) AS waiting, MIN(created_at) AS oldest_at FROM sys_inbox "
        f"WHERE service_name IN {any_of(services)} GROUP BY service_name, service_key ORDER BY waiting DESC LIMIT {KEYS_SHOWN}",
    )
    if not queues:
        return []
    names, keys = {row["service_name"] for row in queues}, {row["service_key"] for row in queues}
    holders = rows(
        api,
        "SELECT service_name, service_key, invocation_id FROM sys_keyed_service_status "
        f"WHERE service_name IN {any_of(names)} AND service_key IN {any_of(keys)}",
    )
    by_key = {(row["service_name"], row["service_key"]): row["invocation_id"] for row in holders}
    found = []
    for row in queues:
        known = with_times(row)
        found.append(known | {"held_by": by_key.get((row["service_name"], row["service_key"]))})
    return found


def shown(found: Standing, now: int) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    numbers: defaultdict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    oldest: dict[tuple[str, str], int] = {}
    for row in found.handlers:
        handler = (row["target_service_name"], row["target_handler_name"])
        numbers[handler][row["status"]] = row["number"]
        oldest[handler] = min(oldest.get(handler, now), row["oldest_at_ms"])
    present = {status for counted in numbers.values() for status in counted}
    statuses = [status for status in _LIVE if status in present or (width() or _NARROW) > _NARROW + 20]
    lines: list[Sequence[str | Text]] = [
        [f"{service}/{handler}", *(_number(counted.get(status), status) for status in statuses), ages.short(now - oldest[service, handler])]
        for (service, handler), counted in numbers.items()
    ]
    right = range(1, len(statuses) + 2)
    parts: list[RenderableType] = [grid(["handler", *statuses, "oldest"], lines, right=list(right), whole=list(right), cut=(0,))]
    if found.keys:
        waiting = [
            [
                f"{row['service_name']}/{row['service_key']}",
                f"{row['waiting']:,}",
                ages.short(now - row["oldest_at_ms"]),
                row["held_by"] or "-",
            ]
            for row in found.keys
        ]
        parts += [Text(), grid(["key", "waiting", "oldest", "held by"], waiting, whole=(1, 2, 3), right=(1, 2), cut=(0,))]
    return Group(*parts)


def _number(number: int | None, status: str) -> Text:
    return coloured(f"{number:,}", STATUS_STYLES.get(status)) if number else coloured("·", "dim")
