"""`holdfast invocations`: what runs, what ran, and what to do about it."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast_runtime.app.commands import operate, watch
from holdfast_runtime.app.commands.ids import InvocationArgument, check_id
from holdfast_runtime.app.errors import CliError
from holdfast_runtime.app.filters import Filters, filtered
from holdfast_runtime.app.options import ADMIN_URL, AdminUrl, AsJson

app = typer.Typer(help="What runs, what ran, and what to do about it.", no_args_is_help=True, add_completion=False)


@app.command("list")
@filtered
def list_invocations(
    where: Filters,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="Instead of the newest first.")] = False,
    admin_url: AdminUrl = ADMIN_URL,
    as_json: AsJson = False,
) -> None:
    """List invocations, newest first; without what is completed unless an option asks for it.

    \b
    holdfast invocations list
    holdfast invocations list --status backing-off,paused --older-than 1h
    holdfast invocations list --service orders --key o-17 --all
    holdfast invocations list --failed --newer-than 1d --json
    """
    from holdfast_runtime.app import ages, listing
    from holdfast_runtime.app.http import admin_api
    from holdfast_runtime.app.output import console, print_json, quoted, remark

    api, now = admin_api(admin_url), ages.now_ms()
    listed = listing.select(api, where.conditions(now), limit=limit, oldest_first=oldest_first)
    if as_json:
        return print_json(listed.rows)
    if not listed.rows:
        return _none(where, admin_url)
    console().print(listing.shown(listed.rows, now))
    return remark(f"[dim]{quoted(listing.footer(listed, oldest_first=oldest_first))}[/]")


def _none(where: Filters, admin_url: str) -> None:
    """Why there may be nothing to see."""
    from holdfast_runtime.app import naming
    from holdfast_runtime.app.http import admin_api
    from holdfast_runtime.app.output import quoted, remark, say

    say(
        "No invocations match."
        if where.given
        else "No invocations yet."
        if where.all
        else "Nothing is in flight; --all shows what is completed."
    )
    for text in naming.remarks(admin_api(admin_url), where.services, where.handlers):
        remark(f"[dim]{quoted(text)}[/]")


@app.command("describe")
def describe(
    invocation_id: InvocationArgument,
    full: Annotated[
        bool, typer.Option("--full", help="Also what went in and came out at each step, and the stack of the last failure.")
    ] = False,
    admin_url: AdminUrl = ADMIN_URL,
    as_json: AsJson = False,
) -> None:
    """Show one invocation: status, attempts, last failure, what it waits for, and its journal as a timeline.

    \b
    holdfast invocations describe inv_1fLfrb6R3Bf24DtcxPi1xLnIxQ7kzQpLk5
    holdfast invocations describe inv_1fLfrb6R3Bf24DtcxPi1xLnIxQ7kzQpLk5 --full
    """
    from holdfast_runtime.app import describing
    from holdfast_runtime.app.http import admin_api
    from holdfast_runtime.app.output import console, print_json

    check_id(invocation_id)
    found = describing.look(admin_api(admin_url), invocation_id, stack=full)
    if as_json:
        return print_json(found.as_json())
    return console().print(describing.screen(found, full=full))


@app.command("export")
def export(
    invocation_id: InvocationArgument,
    output: Annotated[str | None, typer.Option("--output", "-o", metavar="FILE", help="Write it to this file instead.")] = None,
    admin_url: AdminUrl = ADMIN_URL,
) -> None:
    """Write the journal as JSON with its exact bytes, to be replayed later against changed code.

    \b
    holdfast invocations export inv_1fLfrb6R3Bf24DtcxPi1xLnIxQ7kzQpLk5 > tests/journals/order.json
    """
    import json
    from pathlib import Path

    from holdfast_runtime.app import exporting
    from holdfast_runtime.app.http import admin_api
    from holdfast_runtime.app.output import quoted, remark

    check_id(invocation_id)
    text = json.dumps(exporting.exported(admin_api(admin_url), invocation_id), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        return print(text, end="")
    try:
        Path(output).write_text(text)
    except OSError as error:
        raise CliError(f"{output} cannot be written ({error.strerror})") from error
    return remark(f"[green]Written[/] to {quoted(output)}.")


watch.add_to(app)
operate.add_to(app)
