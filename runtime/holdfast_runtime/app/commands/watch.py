"""`holdfast invocations watch`: what happens, while it happens."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from holdfast_runtime.app.commands.ids import check_id
from holdfast_runtime.app.errors import FAILED, INTERRUPTED, Unreachable
from holdfast_runtime.app.filters import Filters, filtered
from holdfast_runtime.app.options import ADMIN_URL, AdminUrl

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType

    from holdfast_runtime.app.http import Api

T = TypeVar("T")

_MIN_INTERVAL_S: Final = 0.1
_BELOW_HEAD: Final = 6  # lines of a terminal that a list leaves to its counters


def add_to(app: typer.Typer) -> None:
    app.command("watch")(watch)


@filtered
def watch(
    where: Filters,
    invocation_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="One invocation, inv_…; else all that match.")] = None,
    interval: Annotated[float, typer.Option(min=_MIN_INTERVAL_S, metavar="SECONDS", help="How often to look.")] = 1.0,
    admin_url: AdminUrl = ADMIN_URL,
) -> None:
    """Follow one invocation to its end, or all that match; in a pipe, a line for everything that changes.

    Of one invocation the exit code is 0 when it succeeds and 1 when it fails. Ctrl-C stops watching and nothing else.

    \b
    holdfast invocations watch inv_1fLfrb6R3Bf24DtcxPi1xLnIxQ7kzQpLk5
    holdfast invocations watch --service orders
    holdfast invocations watch --status backing-off,paused > changes.log
    """
    from holdfast_runtime.app.http import admin_api

    api = admin_api(admin_url)
    try:
        if invocation_id is not None:
            succeeded = _one(api, check_id(invocation_id), interval)
            raise typer.Exit(0 if succeeded else FAILED)
        _many(api, where, interval)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _one(api: Api, invocation_id: str, interval: float) -> bool:
    """Whether it succeeded."""
    from holdfast_runtime.app import following
    from holdfast_runtime.app.describing import look, screen
    from holdfast_runtime.app.output import console

    found = look(api, invocation_id)
    if not sys.stdout.isatty():
        told = following.Told()
        while True:
            for line in told.lines(found):
                print(line, flush=True)
            if found.over:
                return not found.failed
            time.sleep(interval)
            found = _insist(lambda: look(api, invocation_id, related=False), interval)
    out = console()

    def draw() -> RenderableType:
        nonlocal found
        found = _insist(lambda: look(api, invocation_id), interval)
        return screen(found, tail=max(out.height - 22, 3))

    if not found.over:
        _live(draw, lambda: found.over, interval)
    out.print(screen(found))
    return not found.failed


def _many(api: Api, where: Filters, interval: float) -> None:
    from holdfast_runtime.app import following
    from holdfast_runtime.app.output import console

    crowd = following.Crowd(api, where)
    if sys.stdout.isatty():
        out = console()
        first = crowd.screen(max(out.height - _BELOW_HEAD, 3))  # a server that is not there at all is an error
        _live(lambda: _insist(lambda: crowd.screen(max(out.height - _BELOW_HEAD, 3)), interval), lambda: False, interval, first)
        return
    lines = crowd.changes()
    while True:
        for line in lines:
            print(line, flush=True)
        time.sleep(interval)
        lines = _insist(crowd.changes, interval)


def _insist(ask: Callable[[], T], interval: float) -> T:
    """A server that is restarted comes back."""
    from holdfast_runtime.app.output import error_line

    told = False
    while True:
        try:
            return ask()
        except Unreachable as away:
            if not told:
                error_line(f"{away}; trying again")
            told = True
            time.sleep(interval)


def _live(draw: Callable[[], RenderableType], over: Callable[[], bool], interval: float, first: RenderableType | None = None) -> None:
    """Redraws in place; the view is gone afterwards."""
    from rich.live import Live

    from holdfast_runtime.app.output import console

    with Live(console=console(), auto_refresh=False, transient=True, vertical_overflow="crop") as live:
        if first is not None:
            live.update(first, refresh=True)
        while True:
            live.update(draw(), refresh=True)
            if over():
                return
            time.sleep(interval)
