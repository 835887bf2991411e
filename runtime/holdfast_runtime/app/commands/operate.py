"""The operations of `holdfast invocations`: on ids that are named, and on all that match.

Rules: an id that is named is done without asking; what matches a target or a filter is shown first, and done after a yes, or with --yes.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from holdfast_runtime.app.commands.ids import check_id
from holdfast_runtime.app.errors import FAILED, INTERRUPTED, misuse
from holdfast_runtime.app.filters import STATUSES, Filters, filtered, is_id, of_target
from holdfast_runtime.app.options import ADMIN_URL, AdminUrl, AsJson

if TYPE_CHECKING:
    from holdfast_runtime.app.batch import Operation, Outcome, Selected
    from holdfast_runtime.app.http import Api

_MAX_NAMED_EACH: Final = 20  # ids whose outcome is told one by one
_LIVE: Final = STATUSES[:-1]
_TARGETS: Final = "Ids, inv_…; or SERVICE, SERVICE/HANDLER, SERVICE/KEY, SERVICE/KEY/HANDLER for all of these."

Targets = Annotated[list[str] | None, typer.Argument(metavar="ID|TARGET", help=_TARGETS, show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be touched; touch nothing.")]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="Touch at most so many, the oldest first.")]
OnDeployment = Annotated[
    str | None, typer.Option("--deployment", metavar="ID", help="Go on there instead: the id of a deployment, latest, or keep.")
]
LIMIT: Final = 10_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the options of every operation say."""

    targets: Sequence[str]
    where: Filters
    yes: bool
    dry_run: bool
    limit: int
    admin_url: str
    as_json: bool


def add_to(app: typer.Typer) -> None:
    for name, command in (
        ("cancel", cancel),
        ("kill", kill),
        ("pause", pause),
        ("resume", resume),
        ("restart", restart),
        ("purge", purge),
        ("purge-journal", purge_journal),
    ):
        app.command(name)(command)
    app.command("restart-as-new", hidden=True)(restart)  # as the official tool calls it


def _operation(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with the options that every operation has; it gets them as `wanted`."""

    def run(
        where: Filters,
        targets: Targets = None,
        yes: Yes = False,
        dry_run: DryRun = False,
        limit: Limit = LIMIT,
        admin_url: AdminUrl = ADMIN_URL,
        as_json: AsJson = False,
        **own: Any,
    ) -> None:
        command(Wanted(targets or [], where, yes, dry_run, limit, admin_url, as_json), **own)

    where, targets, *others = list(inspect.signature(run, eval_str=True).parameters.values())[:-1]
    _, *own = inspect.signature(command, eval_str=True).parameters.values()
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    vars(run)["__signature__"] = inspect.Signature([where, targets, *own, *others])
    return filtered(run)


@_operation
def cancel(wanted: Wanted) -> None:
    """Ask invocations to stop: their handlers see a cancellation and can clean up.

    \b
    holdfast invocations cancel inv_1fLfrb6R3Bf24DtcxPi1xLnIxQ7kzQpLk5
    holdfast invocations cancel orders/o-17
    holdfast invocations cancel --service orders --status backing-off --older-than 1h --dry-run
    """
    _operate("cancel", wanted)


@_operation
def kill(wanted: Wanted) -> None:
    """End invocations at once, without cleaning up, and everything they started.

    \b
    holdfast invocations kill inv_1fLfrb6R3Bf24DtcxPi1xLnIxQ7kzQpLk5
    holdfast invocations kill --service orders --handler run --status paused --yes
    """
    _operate("kill", wanted)


@_operation
def pause(wanted: Wanted) -> None:
    """Stop invocations from making attempts until they are resumed.

    \b
    holdfast invocations pause inv_1fLfrb6R3Bf24DtcxPi1xLnIxQ7kzQpLk5
    holdfast invocations pause payments/charge --status backing-off
    """
    _operate("pause", wanted)


@_operation
def resume(wanted: Wanted, deployment: OnDeployment = None) -> None:
    """Let paused invocations go on; one that backs off tries again at once. With another deployment suspended ones go on there, too.

    \b
    holdfast invocations resume inv_1fLfrb6R3Bf24DtcxPi1xLnIxQ7kzQpLk5 --deployment latest
    holdfast invocations resume --service orders --status paused
    """
    query = {} if deployment is None else {"deployment": _deployment(deployment)}
    operation = "resume" if query.get("deployment") in (None, "keep") else "move"
    _operate(operation, wanted, query)


@_operation
def restart(
    wanted: Wanted,
    start: Annotated[
        int | None, typer.Option("--from", min=0, metavar="N", help="Keep the journal up to and including entry N; else only the input.")
    ] = None,
    deployment: OnDeployment = None,
) -> None:
    """Start completed invocations once more, as new ones with the same input.

    \b
    holdfast invocations restart inv_1fLfrb6R3Bf24DtcxPi1xLnIxQ7kzQpLk5
    holdfast invocations restart inv_1fLfrb6R3Bf24DtcxPi1xLnIxQ7kzQpLk5 --from 4
    holdfast invocations restart --service orders --failed --newer-than 2h
    """
    query: dict[str, Any] = {} if start is None else {"from": start}
    if deployment is not None:
        query["deployment"] = _deployment(deployment)
    _operate("restart", wanted, query)


@_operation
def purge(wanted: Wanted) -> None:
    """Forget completed invocations: result, journal, and for workflows their state.

    \b
    holdfast invocations purge inv_1fLfrb6R3Bf24DtcxPi1xLnIxQ7kzQpLk5
    holdfast invocations purge --service orders --older-than 7d
    """
    _operate("purge", wanted)


@_operation
def purge_journal(wanted: Wanted) -> None:
    """Forget the journals of completed invocations, and keep their results.

    \b
    holdfast invocations purge-journal inv_1fLfrb6R3Bf24DtcxPi1xLnIxQ7kzQpLk5
    holdfast invocations purge-journal --service orders --older-than 1d --yes
    """
    _operate("purge-journal", wanted)


def _operations() -> dict[str, Operation]:
    from holdfast_runtime.app.batch import Operation

    done = ("completed",)
    return {
        "cancel": Operation("cancel", "cancel", "Cancellation requested for", _LIVE),
        "kill": Operation("kill", "kill", "Killed", _LIVE),
        "pause": Operation("pause", "pause", "Paused", ("ready", "running", "backing-off", "suspended")),
        "resume": Operation("resume", "resume", "Resumed", ("paused", "backing-off")),
        "move": Operation("resume", "resume", "Resumed", ("paused", "backing-off", "suspended")),
        "restart": Operation("restart-as-new", "restart", "Restarted", done, repeats=True),
        "purge": Operation("purge", "purge", "Purged", done),
        "purge-journal": Operation("purge-journal", "purge the journals of", "Purged the journal of", done, repeats=True),
    }


def _deployment(given: str) -> str:
    from holdfast.protocol.ids import IdError, parse_deployment_id

    if given.lower() in ("keep", "latest"):
        return given.lower()
    try:
        parse_deployment_id(given)
    except IdError as problem:
        raise misuse(f"--deployment expects the id of a deployment, latest or keep; found '{given}' ({problem.reason})") from problem
    return given


def _operate(name: str, wanted: Wanted, query: dict[str, Any] | None = None) -> None:
    from holdfast_runtime.app.http import admin_api

    operation = replace(_operations()[name], query=query or {})
    ids = [check_id(target) for target in wanted.targets if is_id(target)]
    places = [target for target in wanted.targets if not is_id(target)]
    api = admin_api(wanted.admin_url)
    if ids and not places and not wanted.where.given and not wanted.where.all:
        if wanted.dry_run:
            _show(operation, _named(api, ids), wanted)
            return
        _do(api, operation, ids, wanted)
        return
    selected = _select(api, operation, ids, places, wanted)
    if not selected.rows:
        _nothing(operation, wanted)
        return
    if wanted.dry_run:
        _show(operation, selected, wanted)
    elif wanted.yes or _confirmed(operation, selected):
        _do(api, operation, [row["id"] for row in selected.rows], wanted)
    else:
        from holdfast_runtime.app.output import remark

        remark("Nothing is changed.")
        raise typer.Exit(FAILED)


def _select(api: Api, operation: Operation, ids: Sequence[str], places: Sequence[str], wanted: Wanted) -> Selected:
    from holdfast_runtime.app import ages, batch
    from holdfast_runtime.app.query import any_of

    if not (ids or places or wanted.where.given or wanted.where.all):
        raise misuse(f"say what to {operation.does}: ids, targets such as orders/o-17, or options such as --service; --all for every one")
    named = [*([f"inv.id IN {any_of(ids)}"] if ids else []), *map(of_target, places)]
    conditions = wanted.where.conditions(ages.now_ms(), unless_said=operation.statuses)
    return batch.select(api, [*([f"({' OR '.join(named)})"] if named else []), *conditions], wanted.limit)


def _named(api: Api, ids: Sequence[str]) -> Selected:
    from holdfast_runtime.app import batch
    from holdfast_runtime.app.query import any_of

    return batch.select(api, [f"inv.id IN {any_of(ids)}"], len(ids))


def _nothing(operation: Operation, wanted: Wanted) -> None:
    from holdfast_runtime.app.output import print_json, say

    if wanted.as_json:
        return print_json({"selected": []} if wanted.dry_run else {"succeeded": [], "failed": [], "not_tried": []})
    statuses = "" if wanted.where.status or wanted.where.failed else f" among what is {_or(operation.statuses)}"
    return say(f"No invocations match{statuses}; there is nothing to {operation.does}.")


def _or(statuses: Sequence[str]) -> str:
    if tuple(statuses) == tuple(_LIVE):
        return "not completed"
    return statuses[0] if len(statuses) == 1 else f"{', '.join(statuses[:-1])} or {statuses[-1]}"


def _show(operation: Operation, selected: Selected, wanted: Wanted) -> None:
    from holdfast_runtime.app import ages, batch
    from holdfast_runtime.app.output import console, count, print_json, say

    if wanted.as_json:
        return print_json({"selected": selected.rows, "more": selected.more})
    say(f"This would {operation.does} {count(len(selected.rows), 'invocation')}:\n")
    console().print(*batch.preview(selected, ages.now_ms()), sep="\n")
    return None


def _confirmed(operation: Operation, selected: Selected) -> bool:
    from holdfast_runtime.app import ages, batch
    from holdfast_runtime.app.asking import ask
    from holdfast_runtime.app.output import console, count

    number = count(len(selected.rows), "invocation")
    if not sys.stdin.isatty():
        raise misuse(f"this would {operation.does} {number}; say --yes when that is wanted, or --dry-run to see which")
    out = console(stderr=True)
    out.print(*batch.preview(selected, ages.now_ms()), sep="\n")
    if selected.more:
        further = "--newer-than chooses others" if operation.repeats else "the same command again takes the next"
        out.print(f"\nMore than {len(selected.rows):,} match; these are the oldest, {further}.")
    out.print()
    return ask(f"{operation.does.capitalize()} {number}?")


def _do(api: Api, operation: Operation, ids: Sequence[str], wanted: Wanted) -> None:
    """The exit code is 1 when one was refused, 130 when it was stopped by Ctrl-C."""
    from holdfast_runtime.app import batch
    from holdfast_runtime.app.output import print_json
    from holdfast_runtime.app.progress import Progress

    unique = list(dict.fromkeys(ids))
    with Progress(len(unique), operation.does) as progress:
        outcome = batch.run(
            api,
            operation,
            unique,
            lambda so_far: progress.at(len(so_far.done), len(so_far.failed)),
            lambda: progress.say("Stopping; what is under way is finished first."),
        )
    if wanted.as_json:
        print_json(outcome.as_json())
    elif len(unique) <= _MAX_NAMED_EACH and not outcome.interrupted:
        _tell_each(operation, unique, outcome)
    else:
        _tell(operation, outcome, len(unique))
    if outcome.interrupted:
        raise typer.Exit(INTERRUPTED)
    if outcome.failed or outcome.not_tried:
        raise typer.Exit(FAILED)


def _tell_each(operation: Operation, ids: Sequence[str], outcome: Outcome) -> None:
    from holdfast_runtime.app.output import error_line, say

    done, failed = set(outcome.done), dict(outcome.failed)
    for invocation_id in ids:
        if invocation_id in done:
            new = f" as [bold]{outcome.new[invocation_id]}[/]" if invocation_id in outcome.new else ""
            say(f"[green]{operation.did}[/] {invocation_id}{new}")
        elif invocation_id in failed:
            error_line(failed[invocation_id])


def _tell(operation: Operation, outcome: Outcome, total: int) -> None:
    from holdfast_runtime.app import batch
    from holdfast_runtime.app.output import count, error_line, quoted, remark, say

    say(f"[{'yellow' if outcome.not_tried or outcome.failed else 'green'}]{batch.summary(operation, outcome, total)}[/]")
    for why, ids in batch.reasons(outcome):
        error_line(f"{count(len(ids), 'invocation')} refused: {why} ({', '.join(ids[:3])}{', …' if len(ids) > 3 else ''})")
    if outcome.not_tried:
        reason = "Ctrl-C" if outcome.interrupted else "the server cannot be reached"
        further = _left(operation, outcome.not_tried) if operation.repeats else "the same command again goes on"
        remark(f"{count(len(outcome.not_tried), 'invocation')} not touched ({reason}); {quoted(further)}.")


def _left(operation: Operation, ids: Sequence[str]) -> str:
    """How to go on without doing the others again."""
    import tempfile

    with tempfile.NamedTemporaryFile("w", prefix="holdfast-", suffix=".ids", delete=False) as file:
        file.write("\n".join(ids) + "\n")
    name = operation.path.removesuffix("-as-new")
    return f"go on with `xargs holdfast invocations {name} < {file.name}` and the same options"
