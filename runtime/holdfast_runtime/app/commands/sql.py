"""`holdfast sql`: ask anything."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from holdfast_runtime.app.errors import misuse
from holdfast_runtime.app.options import ADMIN_URL, AdminUrl, AsJson

if TYPE_CHECKING:
    from holdfast_runtime.app.http import Api


_TABLES: Final = {
    "sys_invocation": "a row for each invocation: target, status, times, caller, deployment, retries, last failure, result",
    "sys_invocation_status": "its durable record",
    "sys_invocation_state": "what is running or will be retried",
    "sys_journal": "entries of journals; name the invocations: WHERE id = '…'",
    "state": "values of virtual objects and workflows",
    "sys_inbox": "what waits for its key",
    "sys_keyed_service_status": "keys that are held, and by whom",
    "sys_promise": "durable promises",
    "sys_deployment": "deployments",
    "sys_service": "active revisions of services",
}


def sql(
    statement: Annotated[
        str | None,
        typer.Argument(metavar="[STATEMENT]", help="One SELECT; @FILE reads a file, - standard input. None: what tables there are."),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    admin_url: AdminUrl = ADMIN_URL,
    as_json: AsJson = False,
) -> None:
    """Ask in SQL about invocations, journals, state, queues, promises and deployments. Reads, never writes.

    \b
    holdfast sql
    holdfast sql "SELECT status, COUNT(*) FROM sys_invocation GROUP BY status"
    holdfast sql "SELECT id, last_failure FROM sys_invocation WHERE retry_count > 3" --csv
    """
    from holdfast_runtime.app.http import admin_api

    if as_csv and as_json:
        raise misuse("expected one of --csv and --json, found both")
    api = admin_api(admin_url)
    if statement is None:
        return _tables(api, as_json=as_json, as_csv=as_csv)
    return _answer(api, _text(statement), as_json=as_json, as_csv=as_csv)


def _text(given: str) -> str:
    """Raises CliError."""
    if given == "-":
        text = sys.stdin.read()
    elif given.startswith("@"):
        try:
            text = Path(given[1:]).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise misuse(f"the file {given[1:]} cannot be read ({getattr(error, 'strerror', None) or error})") from error
    else:
        text = given
    if not text.strip():
        raise misuse("expected a statement such as SELECT id, status FROM sys_invocation, found nothing")
    return text


def _answer(api: Api, statement: str, *, as_json: bool, as_csv: bool) -> None:
    from holdfast_runtime.app import query
    from holdfast_runtime.app.output import count, print_json, remark, table, width

    if as_json:
        return print_json(query.rows(api, statement))
    from holdfast_runtime.app.tables import Result

    found = Result(query.ask(api, statement, "application/vnd.apache.arrow.stream").body)
    if as_csv:
        return print(found.csv(), end="")
    whole = [index for index, name in enumerate(found.names) if name == "id" or name.endswith("_id")]
    right = [index for index, numeric in enumerate(found.numeric) if numeric]
    table(found.names, found.lines(cut=width() is not None), whole=whole, right=right)
    return remark(f"[dim]{count(len(found.rows), 'row')}[/]")


def _tables(api: Api, *, as_json: bool, as_csv: bool) -> None:
    from holdfast_runtime.app import query
    from holdfast_runtime.app.output import coloured, console, print_json, width

    statement = "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'public'"
    if as_csv:
        return _answer(api, statement, as_json=False, as_csv=True)
    found: dict[str, dict[str, str]] = {}
    for row in query.rows(api, statement):
        found.setdefault(row["table_name"], {})[row["column_name"]] = row["data_type"]
    if as_json:
        return print_json(found)
    from rich.padding import Padding
    from rich.text import Text

    out = console()
    for name in [name for name in _TABLES if name in found]:
        out.print(Text.assemble((name, "bold"), f"  {_TABLES[name]}"))
        columns = Text(", ".join(found[name]), "dim")
        out.print(Padding(columns, (0, 0, 0, 2)) if width() is not None else Text.assemble("  ", columns))
    others = ", ".join(sorted(found.keys() - _TABLES.keys()))
    out.print(coloured(f"\nFurther, for tools that ask for them: {others}", "dim"))
    return out.print(coloured('\nholdfast sql "SELECT id, target, status FROM sys_invocation LIMIT 10"', "dim"))
