"""The `holdfast` command: its parts, and what becomes of errors.

Rules: commands import what they need when they run, so that `--help` and the small ones start quickly; an error is one
sentence on standard error and exit code 1 (refused, impossible) or 2 (misused), never a stack trace.
"""

from __future__ import annotations

import os
import sys

import typer

from holdfast_runtime.app.commands import call, config, demo, deployments, dev, invocations, serve, services, state, version
from holdfast_runtime.app.errors import FAILED, CliError
from holdfast_runtime.app.options import apply_colour

app = typer.Typer(
    name="holdfast",
    help="Durable execution: ordinary handlers that always run to their end.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("dev", rich_help_panel="Run")(dev.dev)
app.command("serve", rich_help_panel="Run")(serve.serve)
app.command("demo", rich_help_panel="Run")(demo.demo)
app.command("call", rich_help_panel="Use")(call.call)
app.add_typer(invocations.app, name="invocations", rich_help_panel="Look and operate")
app.add_typer(state.app, name="state", rich_help_panel="Look and operate")
app.add_typer(services.app, name="services", rich_help_panel="Look and operate")
app.add_typer(deployments.app, name="deployments", rich_help_panel="Look and operate")
app.command("config", rich_help_panel="Look and operate")(config.config)
app.command("version", rich_help_panel="Look and operate")(version.version)


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
