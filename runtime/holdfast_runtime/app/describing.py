"""One invocation on a screen: its facts, what it waits for, and its journal as a timeline."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from holdfast_runtime.app import ages, timeline
from holdfast_runtime.app.http import Api
from holdfast_runtime.app.listing import failed
from holdfast_runtime.app.output import coloured, count, one_line, status_text, width
from holdfast_runtime.app.query import any_of, literal, rows, with_times
from holdfast_runtime.app.timeline import Step

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.text import Text

MAX_CHILDREN: Final = 1_000  # of one invocation whose status is looked up
_MARKS: Final = {timeline.DONE: ("✓", "green"), timeline.FAILED: ("✗", "red"), timeline.WAITING: ("…", "blue")}
_NAME_WIDTH: Final = 14


class Described:
    """row: as `GET /holdfast/invocations/ID` says. children: id -> status of those it called. holder: who has the key it waits for."""

    def __init__(self, row: Mapping[str, Any], children: Mapping[str, Mapping[str, Any]], holder: str | None = None) -> None:
        self.row, self.children, self.holder = row, children, holder
        self.steps = [self._with_child(step) for step in timeline.steps(row["journal"])]

    def _with_child(self, step: Step) -> Step:
        child = self.children.get(step.child or "")
        if child is None or child.get("completed_at_ms") is None:
            return step
        return replace(step, took_ms=child["completed_at_ms"] - child["created_at_ms"])

    @property
    def over(self) -> bool:
        return bool(self.row["status"] == "completed")

    @property
    def failed(self) -> bool:
        return failed(self.row)

    @property
    def current(self) -> Step | None:
        """The command at which the last attempt failed."""
        number = self.row.get("last_failure_related_command_index")
        if number is None or self.over:
            return None
        return next((step for step in self.steps if step.command == number), None)

    def as_json(self) -> dict[str, Any]:
        return {**self.row, "timeline": [step.as_json() for step in self.steps], "children": list(self.children.values())}


def look(api: Api, invocation_id: str, *, related: bool = True, stack: bool = False) -> Described:
    """related: also ask for the children, and for who holds the key. stack: the last failure with its stack trace. Raises CliError."""
    row = api.get(f"/holdfast/invocations/{invocation_id}")
    if stack and row.get("last_failure"):
        failure = rows(api, f"SELECT last_failure FROM sys_invocation WHERE id = {literal(invocation_id)}")
        row["last_failure"] = next((found["last_failure"] for found in failure if found.get("last_failure")), row["last_failure"])
    if not related:
        return Described(row, {})
    called = [step.child for step in timeline.steps(row["journal"]) if step.child is not None]
    children = _children(api, called[-MAX_CHILDREN:])
    return Described(row, children, _holder(api, row) if row["status"] == "pending" else None)


def _children(api: Api, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    if not ids:
        return {}
    columns = "id, target, status, created_at, completed_at, completion_result"
    found = rows(api, f"SELECT {columns} FROM sys_invocation WHERE id IN {any_of(ids)}")
    by_id = {row["id"]: with_times(row) for row in found}
    return {child: by_id[child] for child in ids if child in by_id}


def _holder(api: Api, row: Mapping[str, Any]) -> str | None:
    service, key = row["target_service_name"], row["target_service_key"]
    if key is None:
        return None
    where = f"service_name = {literal(service)} AND service_key = {literal(key)}"
    found = rows(api, f"SELECT invocation_id FROM sys_keyed_service_status WHERE {where} LIMIT 1")
    return found[0]["invocation_id"] if found else None


# ---- On a screen


def screen(found: Described, *, full: bool = False, tail: int | None = None) -> Group:
    """tail: at most so many of the last steps, for a live view that must fit."""
    from rich.console import Group
    from rich.text import Text

    now = ages.now_ms()
    parts: list[RenderableType] = [coloured(found.row["id"], "bold")]
    parts += [_fact(name, value) for name, value in facts(found, now)]
    parts.append(Text())
    if not found.steps:
        parts.append(coloured("  the journal is not kept any more" if found.over else "  no journal yet", "dim"))
        return Group(*parts)
    shown = found.steps if tail is None else found.steps[-tail:]
    if len(shown) < len(found.steps):
        parts.append(coloured(f"  {count(len(found.steps) - len(shown), 'step')} before these", "dim"))
    for step in shown:
        parts += _step_lines(found, step, now, full=full)
    return Group(*parts)


def _fact(name: str, value: Text | str) -> RenderableType:
    """Long values are wrapped below themselves."""
    from rich.table import Table
    from rich.text import Text

    room = width()
    if room is None:
        return Text.assemble("  ", (name.ljust(_NAME_WIDTH), "dim"), value)
    text = value if isinstance(value, Text) else Text(value)
    if " " not in text.plain and room - _NAME_WIDTH - 2 < text.cell_len <= room - 2:  # an id stays in one piece, to be copied
        return Text.assemble((f"  {name}\n", "dim"), "  ", text)
    line = Table.grid(padding=(0, 0))
    line.add_column(width=_NAME_WIDTH + 2, no_wrap=True)
    line.add_column(overflow="fold")
    line.add_row(Text(f"  {name}", "dim"), text)
    return line


def facts(found: Described, now: int) -> Iterator[tuple[str, Text | str]]:
    """Name and value of each line that has something to say."""
    row = found.row

    def at(name: str) -> str | None:
        return f"{ages.moment(row[name])}  ({ages.since(row[name], now)})" if row.get(name) is not None else None

    caller = row.get("invoked_by_id")
    pairs: list[tuple[str, Any]] = [
        ("target", row["target"]),
        ("status", _status(found, now)),
        ("waits for", _waits_for(found)),
        ("called by", caller if caller else "a client" if row.get("restarted_from") is None else None),
        ("restart of", row.get("restarted_from")),
        ("created", at("created_at_ms")),
        ("starts", _future(row, "scheduled_start_at_ms", now) if row["status"] == "scheduled" else None),
        ("started", at("running_at_ms")),
        ("ended", at("completed_at_ms")),
        ("took", ages.span(row["completed_at_ms"] - row["created_at_ms"]) if row.get("completed_at_ms") is not None else None),
        ("kept until", _future(row, "expires_at_ms", now)),
        ("idempotency", row.get("idempotency_key")),
        ("deployment", row.get("pinned_deployment_id")),
        ("failed tries", str(row["retry_count"]) if row.get("retry_count") else None),
        ("next try", _future(row, "next_retry_at_ms", now) if row["status"] == "backing-off" else None),
        ("last failure", coloured(row["last_failure"].strip(), "red") if row.get("last_failure") else None),
        ("while", _related(found)),
        ("failed with", coloured(row["completion_failure"], "red") if row.get("completion_failure") else None),
    ]
    return ((name, value) for name, value in pairs if value is not None)


def _status(found: Described, now: int) -> Text:
    row = found.row
    text = status_text(row["status"], failed=found.failed)
    since = row.get("modified_at_ms")
    if not found.over and row["status"] in ("suspended", "paused", "pending") and since is not None:
        text.append(f" for {ages.span(now - since)}", "dim")
    return text


def _waits_for(found: Described) -> str | None:
    if found.row["status"] == "pending":
        key = f"its key, {found.row['target_service_name']}/{found.row['target_service_key']}"
        return f"{key}, which {found.holder} holds" if found.holder else key
    if found.row["status"] == "paused":
        return f"you: holdfast invocations resume {found.row['id']}"
    return timeline.awaited(found.row, found.steps) if found.row["status"] == "suspended" else None


def _future(row: Mapping[str, Any], name: str, now: int) -> str | None:
    return f"{ages.moment(row[name])}  ({ages.until(row[name], now)})" if row.get(name) is not None else None


def _related(found: Described) -> str | None:
    """The command at which the last attempt failed."""
    row = found.row
    type_ = row.get("last_failure_related_command_type")
    if type_ is None:
        return None
    name = row.get("last_failure_related_command_name") or ""
    word = type_.removesuffix("_COMMAND").lower().replace("_", " ")
    step = found.current
    return f"{word} {name}".strip() + (f" (entry {step.index})" if step is not None else "")


def _step_lines(found: Described, step: Step, now: int, *, full: bool) -> Iterator[RenderableType]:
    from rich.text import Text

    yield _line(found, step, now)
    child = found.children.get(step.child or "")
    if child is not None:
        yield from _child_lines(status_text(child["status"], failed=failed(child)), child["id"])
    elif step.child is not None:
        yield from _child_lines(None, step.child)
    if step is found.current:
        yield _cut(Text.assemble("         ", (f"└ {_retries(found, now)}", "yellow")))
    if full:
        for arrow, content in (("→", step.given), ("←", step.content)):
            if content:
                yield from _payload(arrow if step.given is not None else " ", content)


def _child_lines(state: Text | None, child: str) -> Iterator[Text]:
    from rich.text import Text

    line = Text.assemble("         ", ("└ ", "dim"))
    if state is not None:
        line.append_text(state).append(" ")
    line.append(child, "dim")
    room = width()
    if room is None or line.cell_len <= room or state is None:
        yield _cut(line)
    else:
        yield Text.assemble("         ", ("└ ", "dim"), state)
        yield Text.assemble(" " * max(room - len(child), 0), (child, "dim"))


def _payload(arrow: str, content: bytes) -> Iterator[RenderableType]:
    from rich.padding import Padding
    from rich.text import Text

    text = f"{arrow} {pretty(content)}".replace("\n", "\n  ")
    if width() is None:
        yield Text("\n".join(f"         {line}" for line in text.splitlines()))
    else:
        yield Padding(Text(text, overflow="fold"), (0, 0, 0, 9))


def _retries(found: Described, now: int) -> str:
    row = found.row
    failure = one_line(row.get("last_failure") or "")
    due = row.get("next_retry_at_ms") if row["status"] == "backing-off" else None
    return f"failed {row.get('retry_count') or 1}×{f', next {ages.until(due, now)}' if due is not None else ''}: {failure}"


def _line(found: Described, step: Step, now: int) -> Text:
    from rich.text import Text

    mark, style = _MARKS.get(step.state, (" ", ""))
    line = Text.assemble((f"{step.index:>5} ", "dim"), (mark, style), " ", (step.kind, "bold"))
    if step.subject:
        line.append(f" {step.subject}")
    if step.state == timeline.WAITING:
        line.append(f"  {_waiting(found, step, now)}", "blue")
    elif step.outcome:
        line.append("  ")
        line.append(step.outcome, "red" if step.failed else "dim")
    if step.took_ms is not None:
        line.append(f"  {ages.span(step.took_ms)}", "cyan")
    return _cut(line)


def _waiting(found: Described, step: Step, now: int) -> str:
    if found.over:
        return "not waited for any more"
    if step.at_ms is not None:
        return f"waiting, due {ages.until(step.at_ms, now)}"
    return "waiting"


def _cut(line: Text) -> Text:
    """One line each, whole in a pipe."""
    if width() is not None:
        line.no_wrap, line.overflow = True, "ellipsis"
    return line


def pretty(content: bytes) -> str:
    """JSON indented, other text as it is, everything else as base64."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        import base64

        return f"base64:{base64.b64encode(content).decode()}"
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text
