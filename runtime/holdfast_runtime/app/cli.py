"""The `holdfast` command: its parts, and what becomes of errors.

Rules: a command is imported when it is used or explained, and imports what it needs when it runs, so that everything starts quickly; an
error is one sentence on standard error and exit code 1 (refused, impossible) or 2 (misused), never a stack trace.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Final

import typer
from typer.core import TyperGroup

from holdfast_runtime.app.errors import FAILED, INTERRUPTED, CliError
from holdfast_runtime.app.options import apply_colour

_RUN, _USE, _LOOK = "Run", "Use", "Look and operate"
# name -> (its part of the help, module in `commands`, what it is there)
_COMMANDS: Final = {
    "dev": (_RUN, "dev", "dev"),
    "serve": (_RUN, "serve", "serve"),
    "demo": (_RUN, "demo", "demo"),
    "new": (_USE, "new", "new"),
    "lint": (_USE, "lint", "lint"),
    "cost": (_USE, "cost", "cost"),
    "call": (_USE, "call", "call"),
    "invocations": (_LOOK, "invocations", "app"),
    "state": (_LOOK, "state", "app"),
    "services": (_LOOK, "services", "app"),
    "deployments": (_LOOK, "deployments", "app"),
    "store": (_LOOK, "store", "app"),
    "sql": (_LOOK, "sql", "sql"),
    "whoami": (_LOOK, "whoami", "whoami"),
    "config": (_LOOK, "config", "config"),
    "version": (_LOOK, "version", "version"),
}


class _Commands(TyperGroup):
    """Knows all names; makes a command when it is asked for."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: dict[str, Any] = dict.fromkeys(_COMMANDS)  # the names first: suggestions are made of them

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print(file=sys.stderr)  # behind the ^C of the terminal
            raise typer.Exit(INTERRUPTED) from None

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in _COMMANDS and self.commands[cmd_name] is None:
            self.commands[cmd_name] = _made(cmd_name)
        return self.commands.get(cmd_name)


def _made(name: str) -> Any:
    from importlib import import_module

    panel, module, attribute = _COMMANDS[name]
    found = getattr(import_module(f"holdfast_runtime.app.commands.{module}"), attribute)
    if not isinstance(found, typer.Typer):
        alone = typer.Typer(add_completion=False)
        alone.command(name, rich_help_panel=panel)(found)
        found = alone
    made = typer.main.get_command(found)
    made.name, made.rich_help_panel = name, panel  # type: ignore[attr-defined]
    return made


app = typer.Typer(
    name="holdfast",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _holdfast() -> None:
    """Durable execution: ordinary handlers that always run to their end."""


def main() -> None:
    apply_colour()
    try:
        app(prog_name="holdfast")
    except CliError as error:
        _fail(str(error), error.exit_code)
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except Exception as error:
        if os.environ.get("HOLDFAST_DEBUG"):
            raise
        _fail(f"{type(error).__name__}: {error}. This is a fault of Holdfast; HOLDFAST_DEBUG=1 shows where it comes from", FAILED)


def _fail(message: str, exit_code: int) -> None:
    from holdfast_runtime.app.output import error_line

    error_line(message)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
