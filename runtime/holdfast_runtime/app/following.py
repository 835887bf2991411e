"""What changed between two looks: of one invocation, and of many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from holdfast_runtime.app import ages, listing, timeline
from holdfast_runtime.app.describing import Described
from holdfast_runtime.app.errors import CliError, Unreachable
from holdfast_runtime.app.filters import STATUSES, Filters
from holdfast_runtime.app.http import Api
from holdfast_runtime.app.output import STATUS_STYLES, count, one_line
from holdfast_runtime.app.query import rows

if TYPE_CHECKING:
    from rich.console import Group

_FOLLOWED: Final = 1_000  # of many, the newest


def _clock() -> str:
    return ages.moment(ages.now_ms())


class Told:
    """What was printed of one invocation."""

    def __init__(self) -> None:
        self._status: tuple[Any, ...] = ()
        self._steps: dict[int, tuple[str, str]] = {}

    def lines(self, found: Described) -> Iterator[str]:
        row = found.row
        for step in found.steps:
            now = (step.state, step.outcome)
            if self._steps.get(step.index) != now:
                self._steps[step.index] = now
                yield f"{_clock()}  #{step.index} {step.title}" + (f": {_outcome(step)}" if _outcome(step) else "")
        status = (row["status"], row.get("retry_count"), row.get("completion_result"))
        if status != self._status:
            self._status = status
            yield f"{_clock()}  {_status(found)}"


def _outcome(step: timeline.Step) -> str:
    if step.state == timeline.WAITING:
        return timeline.WAITING
    return f"failed with {step.outcome}" if step.failed else step.outcome


def _status(found: Described) -> str:
    row = found.row
    if found.over:
        return f"failed with {row.get('completion_failure')}" if found.failed else "completed"
    waits = timeline.awaited(row, found.steps) if row["status"] == "suspended" else None
    failure = one_line(row.get("last_failure") or "") if row.get("retry_count") else ""
    return (
        str(row["status"])
        + (f", waits for {waits}" if waits else "")
        + (f", after {count(row['retry_count'], 'failed attempt')}: {failure}" if failure else "")
    )


class Crowd:
    """Many invocations: counters by status and the newest ones, or a line for each that appears or changes."""

    def __init__(self, api: Api, where: Filters) -> None:
        self._api, self._where = api, where
        self._known: dict[str, tuple[str, Any]] = {}
        self._before: Counter[str] = Counter()

    def screen(self, height: int) -> Group:
        from rich.console import Group
        from rich.text import Text

        from holdfast_runtime.app.output import width

        now = ages.now_ms()
        conditions = self._where.conditions(now)
        numbers, countable = self._numbers(conditions)
        columns = width() or listing.WIDE
        each = 1 if columns >= listing.WIDE else 3
        listed = listing.select(self._api, conditions, limit=max(height // each, 1))
        head = Text(no_wrap=False)
        for status in [*STATUSES, "failed"]:
            if numbers[status] or self._before[status]:
                head.append(f"{numbers[status]:,}", f"bold {STATUS_STYLES[status]}")
                head.append(f" {status}   ", STATUS_STYLES[status])
        if not head.plain:
            head.append("nothing matches" if countable else "too many to be counted", "dim")
        self._before = self._before | numbers
        foot = Text(
            f"{_clock()}  {listing.footer(listed, oldest_first=False).removesuffix('; --limit shows more')}; Ctrl-C stops watching", "dim"
        )
        return Group(head, Text(), listing.shown(listed.rows, now), foot)

    def _numbers(self, conditions: list[str]) -> tuple[Counter[str], bool]:
        """By status, and whether there were few enough to be counted."""
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        statement = f"SELECT status, completion_result, COUNT(1) AS total FROM sys_invocation inv{where} GROUP BY status, completion_result"
        found: Counter[str] = Counter()
        try:
            counted = rows(self._api, statement)
        except Unreachable:
            raise
        except CliError:
            return found, False
        for row in counted:
            found["failed" if listing.failed(row) else row["status"]] += row["total"]
        return found, True

    def changes(self) -> list[str]:
        """What does not match any more was mostly completed; it is asked for by its id."""
        conditions = self._where.conditions(ages.now_ms())
        found = {row["id"]: row for row in listing.select(self._api, conditions, limit=_FOLLOWED).rows}
        gone = [invocation_id for invocation_id in self._known if invocation_id not in found]
        ended = {row["id"]: row for row in listing.named(self._api, gone)}
        lines = []
        for invocation_id in gone:
            del self._known[invocation_id]
            row = ended.get(invocation_id)
            lines.append(self._line(row) if row is not None else f"{_clock()}  {invocation_id}  gone")
        for invocation_id, row in reversed(found.items()):
            now = (row["status"], row.get("retry_count"))
            if self._known.get(invocation_id) != now:
                self._known[invocation_id] = now
                lines.append(self._line(row))
        return lines

    def _line(self, row: dict[str, Any]) -> str:
        detail = listing.detail(row, ages.now_ms())
        status = "failed" if listing.failed(row) else row["status"]
        return f"{_clock()}  {row['id']}  {row['target']}  {status}" + (f"  {detail}" if detail else "")
