"""`holdfast store`: set a DynamoDB table up as a store, and look at one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from holdfast_runtime.app.errors import FAILED, CliError, misuse
from holdfast_runtime.app.options import AsJson

if TYPE_CHECKING:
    from holdfast_runtime.adapters.dynamodb_setup import Finding, Setup
    from holdfast_runtime.adapters.dynamodb_table import DynamoDbTable

app = typer.Typer(help="The DynamoDB table that several processes share as their store.", no_args_is_help=True)

Table = Annotated[
    str, typer.Argument(metavar="TABLE", help="Such as dynamodb://holdfast or dynamodb://holdfast?region=eu-central-1.", show_default=False)
]
T = TypeVar("T")
_STYLES: Final = {"ok": "green", "warning": "yellow", "error": "red"}


@app.command("init")
def init(
    table: Table,
    shards: Annotated[
        int | None,
        typer.Option(
            min=1, max=256, help="Into how many parts the work is cut, fixed from then on; at most so many processes. (default 8)"
        ),
    ] = None,
    bucket: Annotated[
        str | None, typer.Option(metavar="NAME", help="An existing S3 bucket for values above 32 KB; without one they go to the table.")
    ] = None,
    accept_lost_log: Annotated[
        bool, typer.Option("--accept-lost-log", help="Go on with a store that died so long ago that the end of its log may be gone.")
    ] = False,
) -> None:
    """Create the table, or complete one that exists: on demand, time to live, point-in-time recovery, shards.

    Safe to repeat; nothing that is there is changed, but the bucket when another one is given.

    \b
    holdfast store init dynamodb://holdfast --bucket my-values
    """
    for done in _attempted(_setup(table).init(shards, bucket, accept_lost_log=accept_lost_log)):
        print(done)
    print(f"ready: holdfast serve --store {table}")


@app.command("check")
def check(table: Table, as_json: AsJson = False) -> None:
    """Look at everything that a coordinator needs of the table: schema, expiry, backups, shards, permissions, speed, clock.

    Ends with 1 when something is wrong; warnings do not count. Leaves nothing behind.

    \b
    holdfast store check dynamodb://holdfast
    """
    findings = [_shown(found, as_json=as_json) for found in _attempted(_setup(table).check())]
    if as_json:
        from holdfast_runtime.app.output import print_json

        print_json([{"subject": found.subject, "level": found.level.value, "detail": found.detail} for found in findings])
    if any(found.level == "error" for found in findings):
        sys.exit(FAILED)


@app.command("sweep")
def sweep(
    table: Table,
    delete: Annotated[bool, typer.Option("--delete", help="Remove what is found; without it nothing is changed.")] = False,
    units: Annotated[float, typer.Option("--units", min=1, help="Read units a second to take of the table at most.")] = 500.0,
    as_json: AsJson = False,
) -> None:
    """Find large values that nothing refers to any more, and with --delete remove them.

    Reads the whole table, at a read unit for each 4 KB. Coordinators may run meanwhile; unless told otherwise they sweep once a week.
    What is removed can be read for 40 days more, and is kept when a later sweep finds it in use after all.

    \b
    holdfast store sweep dynamodb://holdfast
    """
    import asyncio

    from holdfast_runtime.app.sweeping import sweep_table

    report = _done(lambda: asyncio.run(sweep_table(_table(table), delete=delete, units_per_s=units)))
    if as_json:
        from dataclasses import asdict

        from holdfast_runtime.app.output import print_json

        print_json(asdict(report))
        return
    print(f"{report.candidates} large values were put more than 14 days ago; read {report.read} pages and log records")
    if not delete:
        print(f"{report.orphans} of them are referred to by nothing; --delete removes them")
        return
    print(
        f"{report.condemned} removed, to be gone in 40 days; {report.reprieved} of those removed before are kept, because they are in use"
    )


def _table(text: str) -> DynamoDbTable:
    from holdfast_runtime.adapters.dynamodb_table import DynamoDbTable

    try:
        return DynamoDbTable.parse(text)
    except ValueError as error:
        raise misuse(str(error)) from error


def _done(work: Callable[[], T]) -> T:
    from holdfast_runtime.coordinator.blob_sweep import SweepGivenUp
    from holdfast_runtime.ports.store import StoreBroken, StoreUnavailable

    try:
        return work()
    except (StoreBroken, StoreUnavailable, SweepGivenUp) as error:
        raise CliError(str(error)) from error


def _shown(found: Finding, *, as_json: bool) -> Finding:
    from holdfast_runtime.app.output import quoted, say

    if not as_json:
        say(f"[{_STYLES[found.level]}]{found.level.value:<8}[/] {quoted(found.subject):<24}{quoted(found.detail)}")
    return found


def _setup(table: str) -> Setup:
    from holdfast_runtime.adapters.dynamodb_setup import Setup
    from holdfast_runtime.adapters.dynamodb_table import DynamoDbTable
    from holdfast_runtime.adapters.system import SystemClock
    from holdfast_runtime.ports.store import StoreBroken

    try:
        return Setup(DynamoDbTable.parse(table), SystemClock())
    except ValueError as error:
        raise misuse(str(error)) from error
    except StoreBroken as error:
        raise CliError(str(error)) from error


def _attempted(steps: Iterator[T]) -> Iterator[T]:
    from holdfast_runtime.ports.store import StoreBroken

    try:
        yield from steps
    except StoreBroken as error:
        raise CliError(str(error)) from error
