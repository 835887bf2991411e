"""One operation on many invocations: what would be touched, the doing of it with bounded concurrency, and what came of it.

Rules: every request stands for itself, so that stopping in the middle leaves nothing half done; the server decides again for each one
whether the operation fits its status, because that may have changed since the list was made.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from holdfast_runtime.app import ages
from holdfast_runtime.app.errors import Unreachable
from holdfast_runtime.app.http import Answer, Api
from holdfast_runtime.app.output import count, grid, status_text
from holdfast_runtime.app.query import rows, with_times

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

MAX_SELECTED: Final = 10_000  # in one go; the same command again takes the next ones
CONCURRENCY: Final = 8  # requests under way; more would only wait in the server
FIRST_SHOWN: Final = 5
_COLUMNS: Final = "inv.id, inv.target, inv.target_service_name, inv.target_handler_name, inv.status, inv.completion_result, inv.created_at"


@dataclass(frozen=True, slots=True)
class Operation:
    """path: of the route. does and did: `cancel`, `Cancelled`. statuses: what it is meant for when no option says otherwise.
    repeats: what it has done matches still, so that the same command would do it again instead of going on."""

    path: str
    does: str
    did: str
    statuses: Sequence[str]
    repeats: bool = False
    query: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Selected:
    """more: there are others beyond these."""

    rows: list[dict[str, Any]]
    more: bool


@dataclass(slots=True)
class Outcome:
    """failed: (id, why). new: id -> the id of what was started instead. stopped: by the user, or why nothing more was tried."""

    done: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    new: dict[str, str] = field(default_factory=dict)
    not_tried: list[str] = field(default_factory=list)
    interrupted: bool = False
    stopped: str | None = None

    def as_json(self) -> dict[str, Any]:
        succeeded = [{"id": item, "new_invocation_id": self.new[item]} if item in self.new else {"id": item} for item in self.done]
        failed = [{"id": item, "error": why} for item, why in self.failed]
        return {"succeeded": succeeded, "failed": failed, "not_tried": self.not_tried}


def select(api: Api, conditions: Sequence[str], limit: int) -> Selected:
    """The oldest first: what has waited longest."""
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    found = rows(api, f"SELECT {_COLUMNS} FROM sys_invocation inv{where} ORDER BY inv.created_at ASC, inv.id LIMIT {limit + 1}")
    return Selected([with_times(row) for row in found[:limit]], len(found) > limit)


def preview(selected: Selected, now: int) -> list[RenderableType]:
    """How many of which service and status, and the first few."""
    from rich.text import Text

    numbers: Counter[tuple[str, str, str]] = Counter()
    oldest: dict[tuple[str, str, str], int] = {}
    for row in selected.rows:
        group = (row["target_service_name"], row["target_handler_name"], _status(row))
        numbers[group] += 1
        oldest[group] = min(oldest.get(group, row["created_at_ms"]), row["created_at_ms"])
    lines: list[Sequence[str | Text]] = [
        [f"{service}/{handler}", status_text(status), f"{number:,}", ages.short(now - oldest[service, handler, status])]
        for (service, handler, status), number in numbers.most_common()
    ]
    first = [
        Text.assemble("  ", row["id"], "  ", (row["target"], "dim"), no_wrap=True, overflow="ellipsis")
        for row in selected.rows[:FIRST_SHOWN]
    ]
    groups = grid(["handler", "status", "number", "oldest"], lines, whole=(1,), right=(2, 3), cut=(0,))
    shown: list[RenderableType] = [groups, Text(), *first]
    if len(selected.rows) > FIRST_SHOWN:
        shown.append(Text(f"  and {len(selected.rows) - FIRST_SHOWN:,} more", "dim"))
    return shown


def _status(row: Mapping[str, Any]) -> str:
    return "failed" if row.get("completion_result") == "failure" else str(row["status"])


def run(api: Api, operation: Operation, ids: Sequence[str], progress: Callable[[Outcome], None], stopping: Callable[[], None]) -> Outcome:
    """progress: told after each. Ctrl-C lets what is under way end, and leaves the rest alone; stopping: told when that begins."""
    outcome, waiting = Outcome(), dict.fromkeys(ids)
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        futures: dict[Future[Answer | None], str] = {}
        stop = _Stop()
        for invocation_id in waiting:
            futures[pool.submit(_one, api, operation, invocation_id, stop)] = invocation_id
        noted: set[Future[Answer | None]] = set()
        try:
            for future in as_completed(futures):
                noted.add(future)
                _note(outcome, futures[future], future, stop)
                progress(outcome)
        except KeyboardInterrupt:
            outcome.interrupted = stop.stopped = True
            stopping()
            pool.shutdown(wait=True, cancel_futures=True)
            for future in futures.keys() - noted:
                if not future.cancelled():
                    _note(outcome, futures[future], future, stop)
    touched = {*outcome.done, *(invocation_id for invocation_id, _ in outcome.failed)}
    outcome.not_tried = [invocation_id for invocation_id in waiting if invocation_id not in touched]
    return outcome


class _Stop:
    stopped = False


def _one(api: Api, operation: Operation, invocation_id: str, stop: _Stop) -> Answer | None:
    """None: not tried."""
    if stop.stopped:
        return None
    return api.request("PATCH", f"/invocations/{invocation_id}/{operation.path}", query=operation.query)


def _note(outcome: Outcome, invocation_id: str, future: Future[Answer | None], stop: _Stop) -> None:
    try:
        answer = future.result()
    except Unreachable as unreachable:  # nobody else would be reached either
        stop.stopped = True
        outcome.stopped = str(unreachable)
        outcome.failed.append((invocation_id, str(unreachable)))
        return
    if answer is None:
        return
    if answer.status >= 400:
        outcome.failed.append((invocation_id, answer.message()))
        return
    outcome.done.append(invocation_id)
    if operation_result := _new_id(answer):
        outcome.new[invocation_id] = operation_result


def _new_id(answer: Answer) -> str | None:
    if not answer.body:
        return None
    found = answer.json()
    return found.get("new_invocation_id") if isinstance(found, dict) else None


def reasons(outcome: Outcome) -> list[tuple[str, list[str]]]:
    """Why some failed, each with the ids; most frequent first."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for invocation_id, why in outcome.failed:
        found[why.replace(f"The invocation '{invocation_id}'", "it").replace(f"'{invocation_id}'", "it")].append(invocation_id)
    return sorted(found.items(), key=lambda item: -len(item[1]))


def summary(operation: Operation, outcome: Outcome, total: int) -> str:
    """`Cancelled 118 of 128 invocations.`"""
    number = len(outcome.done)
    of = count(total, "invocation") if number == total else f"{number:,} of {count(total, 'invocation')}"
    return f"{operation.did} {of}."
