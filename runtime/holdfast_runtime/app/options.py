"""Options and arguments that several commands share, and how their texts are read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from holdfast_runtime.app.config.resolving import client_value
from holdfast_runtime.app.config.settings import BY_NAME
from holdfast_runtime.app.errors import CliError, misuse


def _from_file(context: typer.Context, parameter: typer.CallbackParam, value: str) -> str:
    """What the configuration file says, when neither the command line nor the environment do. Raises CliError."""
    assert parameter.name is not None
    source = context.get_parameter_source(parameter.name)
    if context.resilient_parsing or source is None or source.name != "DEFAULT":
        return value
    return str(client_value(parameter.name.replace("_", "-"), os.environ, Path.cwd()))


def _url(name: str, meaning: str) -> Any:
    setting = BY_NAME[name]
    return typer.Option(setting.option, envvar=list(setting.variables), help=meaning, rich_help_panel="Server", callback=_from_file)


AdminUrl = Annotated[str, _url("admin-url", "Where the admin API is.")]
IngressUrl = Annotated[str, _url("ingress-url", "Where calls enter.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

ADMIN_URL: Final[str] = BY_NAME["admin-url"].default
INGRESS_URL: Final[str] = BY_NAME["ingress-url"].default


def apply_colour() -> None:
    """Make the setting `colour` the environment's, which is what libraries and children look at.

    A broken configuration file is for the command to tell that needs it.
    """
    try:
        wanted = client_value("colour", os.environ, Path.cwd())
    except CliError:
        return
    if wanted == "never":
        os.environ["NO_COLOR"] = "1"
    elif wanted == "always":
        os.environ.pop("NO_COLOR", None)
        os.environ["FORCE_COLOR"] = "1"


def pairs(given: Sequence[str], option: str) -> dict[str, str]:
    """`name=value`, each. Raises CliError."""
    found = {}
    for item in given:
        name, separator, value = item.partition("=")
        if not separator or not name:
            raise misuse(f"{option} expects NAME=VALUE; found '{item}'")
        found[name] = value
    return found
