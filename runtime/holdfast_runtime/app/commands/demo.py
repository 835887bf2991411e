"""`holdfast demo`: see durable execution survive a kill."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast_runtime.app.options import AsJson

if TYPE_CHECKING:
    from rich.text import Text

    from holdfast_runtime.app.demo.story import Findings


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Keep the store, the ledger and the log, and say where they are.")] = False,
    as_json: AsJson = False,
) -> None:
    """Watch workflows survive: start a server, start orders, kill the server, start it again, check every side effect.

    Takes some ten seconds. The exit code is 0 only when everything happened as claimed.
    """
    from holdfast_runtime.app.demo.server import DemoServer
    from holdfast_runtime.app.demo.story import Story, checks
    from holdfast_runtime.app.output import console, print_json

    folder = Path(tempfile.mkdtemp(prefix="holdfast-demo-"))
    server = DemoServer(folder)
    out, began = console(), time.monotonic()
    held = False

    def tell(text: str) -> None:
        if not as_json:
            out.print(f"[dim]{time.monotonic() - began:6.1f} s[/]  {text}")

    try:
        found = Story(server, tell).play()
        results = checks(found)
        held = all(holds for _, holds in results)
        if as_json:
            print_json({"ok": held, "checks": dict(results), "seconds": round(time.monotonic() - began, 1), "repeated": found.repeated})
        else:
            _report(found, results)
    finally:
        server.stop()
        if held and not keep:
            shutil.rmtree(folder)
        elif not as_json:
            out.print(f"The store, the ledger and the server's log are kept in {folder}")
    if not held:
        raise typer.Exit(1)


def _report(found: Findings, results: list[tuple[str, bool]]) -> None:
    from holdfast_runtime.app.demo.story import PLANS
    from holdfast_runtime.app.output import coloured, console, table

    out = console()
    out.print()
    rows: list[list[str | Text]] = []
    for plan in PLANS:
        ended = found.ends.get(plan.key, "-")
        done = sorted({key.partition("/")[2] for key in found.executed if key.startswith(f"{plan.key}/")}, key=_order_of)
        twice = [key.partition("/")[2] for key in found.repeated if key.startswith(f"{plan.key}/")]
        rows.append(
            [
                plan.key,
                plan.what,
                ", ".join(done),
                ", ".join(twice) or "-",
                coloured(ended, "green" if ended == "shipped" else "yellow"),
            ]
        )
    table(["order", "which", "side effects, in order", "asked for twice", "ended with"], rows)
    out.print()
    if found.repeated:
        out.print(
            f"[bold]{len(found.repeated)}[/] side effects were done, but not yet recorded, when the process died. Such a step runs again;\n"
            "the gateway recognises its key and does nothing. Recorded steps never run again."
        )
        out.print()
    for claim, holds in results:
        out.print(f"  [green]✓[/] {claim}" if holds else f"  [bold red]✗ NOT SO:[/] {claim}")


def _order_of(step: str) -> int:
    return ("charge", "pack", "ship", "unpack", "refund").index(step)
