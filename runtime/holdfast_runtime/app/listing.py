"""Lists of invocations: what is asked for, and how they look in a wide terminal, a narrow one, and a pipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from holdfast_runtime.app import ages
from holdfast_runtime.app.errors import CliError, Unreachable
from holdfast_runtime.app.http import Api
from holdfast_runtime.app.output import coloured, count, grid, one_line, status_text, width
from holdfast_runtime.app.query import any_of, rows, with_times

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

WIDE: Final = 100  # columns of a terminal from which on an invocation fits into one line
_DETAILS: Final = (
    "id, target, target_service_name, target_service_key, target_handler_name, target_service_ty, status, idempotency_key, created_at, "
    "scheduled_start_at, completed_at, completion_result, completion_failure, invoked_by, invoked_by_id, invoked_by_target, "
    "pinned_deployment_id, last_attempt_deployment_id, retry_count, last_start_at, next_retry_at, last_failure, last_failure_error_code"
)
_CHUNK: Final = 500  # ids in one statement


@dataclass(frozen=True, slots=True)
class Listed:
    """total: how many there are, of which `rows` are shown; None: more than the server counts in one go."""

    rows: list[dict[str, Any]]
    total: int | None


def select(api: Api, conditions: Sequence[str], *, limit: int, oldest_first: bool = False) -> Listed:
    """First the ids, which the packed indexes know, then the details of those that are shown."""
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    order = f"ORDER BY inv.created_at {'ASC' if oldest_first else 'DESC'}, inv.id"
    ids = [row["id"] for row in rows(api, f"SELECT inv.id, inv.created_at FROM sys_invocation inv{where} {order} LIMIT {limit}")]
    return Listed(named(api, ids), len(ids) if len(ids) < limit else _total(api, conditions))


def named(api: Api, ids: Sequence[str]) -> list[dict[str, Any]]:
    """In the order of `ids`; without those that are not known any more."""
    found: dict[str, dict[str, Any]] = {}
    for start in range(0, len(ids), _CHUNK):
        chunk = any_of(ids[start : start + _CHUNK])
        for row in rows(api, f"SELECT {_DETAILS} FROM sys_invocation inv WHERE inv.id IN {chunk}"):
            found[row["id"]] = with_times(row)
    return [found[invocation_id] for invocation_id in ids if invocation_id in found]


def _total(api: Api, conditions: Sequence[str]) -> int | None:
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    try:
        number: int = rows(api, f"SELECT COUNT(1) AS total FROM sys_invocation inv{where}")[0]["total"]
    except Unreachable:
        raise
    except CliError:  # too many rows: the list is worth having without their number
        return None
    return number


def failed(row: Mapping[str, Any]) -> bool:
    return row.get("completion_result") == "failure"


def shown(listed: Sequence[Mapping[str, Any]], now: int) -> RenderableType:
    columns = width()
    if columns is not None and columns < WIDE:
        return _cards(listed, now, columns)
    lines: list[Sequence[str | Text]] = [
        [
            row["id"],
            row["target"],
            status_text(row["status"], failed=failed(row)),
            ages.short(now - row["created_at_ms"]),
            _detail_text(row, now),
        ]
        for row in listed
    ]
    return grid(["invocation", "target", "status", "age", "what"], lines, whole=(0, 2, 3), right=(3,), cut=(1, 4))


def _cards(listed: Sequence[Mapping[str, Any]], now: int, columns: int) -> RenderableType:
    """Two or three lines each: an id alone takes 38 columns."""
    from rich.console import Group
    from rich.text import Text

    lines: list[Text] = []
    for row in listed:
        status, age = "failed" if failed(row) else row["status"], ages.short(now - row["created_at_ms"])
        room = columns - len(status) - len(age) - 3
        target = row["target"] if len(row["target"]) <= room else f"{row['target'][: room - 1]}…"
        head = Text.assemble(status_text(status), " ", (target, "bold"), no_wrap=True)
        head.append(age.rjust(columns - head.cell_len - 1), "dim")
        lines.append(head)
        detail = _detail_text(row, now)
        detail.no_wrap, detail.overflow = True, "ellipsis"
        line = Text.assemble("  ", (row["id"], "dim"), no_wrap=True, overflow="ellipsis")
        if detail.plain and line.cell_len + 2 + detail.cell_len <= columns:
            lines.append(Text.assemble(line, "  ", detail, no_wrap=True))
        else:
            lines.append(line)
            if detail.plain:
                lines.append(Text.assemble("  ", detail, no_wrap=True, overflow="ellipsis"))
    return Group(*lines)


def _detail_text(row: Mapping[str, Any], now: int) -> Text:
    text = detail(row, now)
    return coloured(text, "red" if failed(row) else "dim")


def detail(row: Mapping[str, Any], now: int) -> str:
    """What to know of one in its status."""
    failure = one_line(row.get("last_failure") or "").replace("[500 Internal] ", "")
    match row["status"]:
        case "completed":
            took = f"took {ages.span(row['completed_at_ms'] - row['created_at_ms'])}" if row.get("completed_at_ms") is not None else ""
            return one_line(row.get("completion_failure") or "") if failed(row) else took
        case "backing-off":
            due = f", next {ages.until(row['next_retry_at_ms'], now)}" if row.get("next_retry_at_ms") is not None else ""
            return f"failed {row.get('retry_count') or 1}×{due}: {failure}"
        case "paused":
            return f"after {failure}" if failure else ""
        case "scheduled" if row.get("scheduled_start_at_ms") is not None:
            return f"starts {ages.until(row['scheduled_start_at_ms'], now)}"
        case "running" if (row.get("retry_count") or 1) > 1:
            return f"attempt {row['retry_count']}" + (f", after {failure}" if failure else "")
    return ""


def footer(listed: Listed, *, oldest_first: bool) -> str:
    """How much of all is shown; empty when it is all."""
    number = len(listed.rows)
    if listed.total is not None and number >= listed.total:
        return count(number, "invocation")
    of = f"{listed.total:,}" if listed.total is not None else "very many"
    return f"showing the {'oldest' if oldest_first else 'newest'} {number:,} of {of}; --limit shows more"
