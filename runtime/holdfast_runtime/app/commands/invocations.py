"""`holdfast invocations`: what runs, what ran, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from holdfast_runtime.app.errors import misuse
from holdfast_runtime.app.options import ADMIN_URL, AdminUrl, AsJson

if TYPE_CHECKING:
    from rich.text import Text

app = typer.Typer(help="What runs, what ran, and what to do about it.", no_args_is_help=True)

Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="Invocation ids, inv_…")]


class Status(StrEnum):
    SCHEDULED = "scheduled"
    PENDING = "pending"
    READY = "ready"
    RUNNING = "running"
    BACKING_OFF = "backing-off"
    SUSPENDED = "suspended"
    PAUSED = "paused"
    COMPLETED = "completed"


@app.command("list")
def list_invocations(
    service: Annotated[str | None, typer.Option(help="Only of this service.")] = None,
    handler: Annotated[str | None, typer.Option(help="Only of this handler.")] = None,
    key: Annotated[str | None, typer.Option(help="Only with this key.")] = None,
    status: Annotated[Status | None, typer.Option(help="Only in this status.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many, newest first.")] = 50,
    admin_url: AdminUrl = ADMIN_URL,
    as_json: AsJson = False,
) -> None:
    """List invocations, newest first."""
    from holdfast_runtime.app.http import admin_api
    from holdfast_runtime.app.output import moment, print_json, say, status_text, table

    wanted = {"service": service, "handler": handler, "key": key, "status": status.value if status else None, "limit": limit}
    found = admin_api(admin_url).get("/holdfast/invocations", **wanted)["invocations"]
    if as_json:
        return print_json(found)
    if not found:
        return say("No invocations match." if service or handler or key or status else "No invocations yet.")
    rows: list[list[str | Text]] = [
        [row["id"], row["target"], status_text(row["status"], failed=_failed(row)), moment(row["created_at_ms"]), _took(row)]
        for row in found
    ]
    table(["invocation", "target", "status", "created", "took"], rows)
    if len(found) == limit:
        say(f"[dim]The newest {limit}; --limit shows more.[/]")
    return None


def _failed(row: Mapping[str, Any]) -> bool:
    return row.get("completion_result") == "failure"


def _took(row: Mapping[str, Any]) -> str:
    if row.get("completed_at_ms") is None:
        return "-"
    return f"{(row['completed_at_ms'] - row['created_at_ms']) / 1000:.2f} s"


@app.command("describe")
def describe(
    invocation_id: Annotated[str, typer.Argument(metavar="ID", help="The invocation's id, inv_…")],
    admin_url: AdminUrl = ADMIN_URL,
    as_json: AsJson = False,
) -> None:
    """Show one invocation: status, attempts, last failure, and its journal as a timeline."""
    from holdfast_runtime.app.http import admin_api
    from holdfast_runtime.app.output import print_json

    _check_id(invocation_id)
    found = admin_api(admin_url).get(f"/holdfast/invocations/{invocation_id}")
    if as_json:
        return print_json(found)
    return _show(found)


def _show(found: Mapping[str, Any]) -> None:
    from holdfast_runtime.app import timeline
    from holdfast_runtime.app.output import coloured, console, status_text, table

    out = console()
    out.print(coloured(found["id"], "bold"))
    for name, value in _facts(found):
        out.print(coloured(f"  {name:<14}", "dim"), end="")
        out.print(status_text(found["status"], failed=_failed(found)) if name == "status" else coloured(value, _style(name)))
    steps = timeline.steps(found["journal"])
    if not steps:
        out.print(coloured("  the journal is not kept any more" if found["status"] == "completed" else "  no journal yet", "dim"))
        return
    out.print()
    rows: list[Sequence[str | Text]] = [
        [str(step.index), step.kind, step.subject, coloured(step.outcome, _outcome_style(step))] for step in steps
    ]
    table(["#", "journal", "what", "result"], rows, whole=(0, 1))


def _style(fact: str) -> str | None:
    return "red" if fact in ("last failure", "failed with") else None


def _outcome_style(step: Any) -> str | None:
    if step.failed:
        return "red"
    return "blue" if step.outcome == "waiting" else None


def _facts(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and value of each line that has something to say."""
    from holdfast_runtime.app.output import moment

    def at(name: str) -> str | None:
        return moment(found[name]) if found.get(name) is not None else None

    caller = found.get("invoked_by_id")
    facts: list[tuple[str, Any]] = [
        ("target", found["target"]),
        ("status", found["status"]),
        ("called by", caller if caller else "a client"),
        ("created", at("created_at_ms")),
        ("starts", at("scheduled_start_at_ms") if found["status"] == "scheduled" else None),
        ("started", at("running_at_ms")),
        ("ended", at("completed_at_ms")),
        ("kept until", at("expires_at_ms")),
        ("idempotency", found.get("idempotency_key")),
        ("deployment", found.get("pinned_deployment_id")),
        ("failed tries", found.get("retry_count") or None),
        ("next try", at("next_retry_at_ms")),
        ("last failure", found.get("last_failure")),
        ("while", _related(found)),
        ("failed with", found.get("completion_failure")),
    ]
    return [(name, str(value)) for name, value in facts if value is not None]


def _related(found: Mapping[str, Any]) -> str | None:
    """The command at which the last attempt failed."""
    type_ = found.get("last_failure_related_command_type")
    if type_ is None:
        return None
    name = found.get("last_failure_related_command_name") or ""
    return (
        f"{type_.removesuffix('_COMMAND').lower().replace('_', ' ')} {name}".strip()
        + f" (entry {found['last_failure_related_command_index']})"
    )


@app.command("cancel")
def cancel(ids: Ids, admin_url: AdminUrl = ADMIN_URL) -> None:
    """Ask invocations to stop: their handlers see a cancellation and can clean up."""
    _operate("cancel", "Cancellation requested", ids, admin_url)


@app.command("kill")
def kill(ids: Ids, admin_url: AdminUrl = ADMIN_URL) -> None:
    """End invocations at once, without cleaning up."""
    _operate("kill", "Killed", ids, admin_url)


@app.command("purge")
def purge(ids: Ids, admin_url: AdminUrl = ADMIN_URL) -> None:
    """Forget completed invocations: result, journal, and for workflows their state."""
    _operate("purge", "Purged", ids, admin_url)


@app.command("pause")
def pause(ids: Ids, admin_url: AdminUrl = ADMIN_URL) -> None:
    """Stop invocations from making attempts until they are resumed."""
    _operate("pause", "Paused", ids, admin_url)


@app.command("resume")
def resume(ids: Ids, admin_url: AdminUrl = ADMIN_URL) -> None:
    """Let paused invocations go on; one that backs off tries again at once."""
    _operate("resume", "Resumed", ids, admin_url)


_VERBS: Final = ("cancel", "kill", "purge", "pause", "resume")


def _operate(verb: str, done: str, ids: Sequence[str], admin_url: str) -> None:
    """Every id is tried; the exit code is 1 when one of them was refused."""
    from holdfast_runtime.app.http import admin_api
    from holdfast_runtime.app.output import error_line, say

    assert verb in _VERBS, verb
    for invocation_id in ids:
        _check_id(invocation_id)
    api, refused = admin_api(admin_url), 0
    for invocation_id in ids:
        answer = api.request("PATCH", f"/invocations/{invocation_id}/{verb}")
        if answer.status >= 400:
            refused += 1
            error_line(answer.message())
        else:
            say(f"[green]{done}[/] {invocation_id}")
    if refused:
        raise typer.Exit(1)


def _check_id(invocation_id: str) -> None:
    from holdfast.protocol.ids import IdError, InvocationId

    try:
        InvocationId.parse(invocation_id)
    except IdError as problem:
        hint = "`holdfast invocations list` shows ids"
        raise misuse(
            f"expected an invocation id such as inv_1fLfrb6R3Bf24DtcxPi1xLnIxQ7kzQpLk5, found '{invocation_id}' ({problem.reason}); {hint}"
        ) from problem
