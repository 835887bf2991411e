"""`holdfast config`: the effective settings, and where each comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from holdfast_runtime.app.config.options import with_settings
from holdfast_runtime.app.config.resolving import DEFAULT, Configuration, Resolved
from holdfast_runtime.app.errors import misuse
from holdfast_runtime.app.options import AsJson


def _config(
    configuration: Configuration,
    as_json: AsJson = False,
    as_toml: Annotated[bool, typer.Option("--toml", help="Print a configuration file that says the same.")] = False,
) -> None:
    """Print the effective settings and where each comes from; what is wrong with them is said instead.

    Takes the options of `serve`, and tells what it would run with. Lowest first: defaults, TOML file, environment, options.
    """
    if as_json and as_toml:
        raise misuse("--json and --toml are two answers; ask for one")
    if as_toml:
        print(configuration.toml(), end="")
    elif as_json:
        _print_json(configuration)
    else:
        _print_table(configuration)


config = with_settings(_config, clients=True)


def _print_json(configuration: Configuration) -> None:
    from holdfast_runtime.app.output import print_json

    file = None if configuration.file is None else str(configuration.file)
    settings = {name: _document(item) for name, item in configuration.resolved.items()}
    print_json({"file": file, "file_origin": configuration.file_origin, "settings": settings})


def _document(item: Resolved) -> Mapping[str, Any]:
    """Absent values are null, whatever the word for it."""
    written = None if item.value is None else "***" if item.setting.secret else item.setting.write(item.value)
    return {"value": written, "origin": item.origin}


def _print_table(configuration: Configuration) -> None:
    from holdfast_runtime.app.output import coloured, console, table

    rows = []
    for name, item in configuration.resolved.items():
        style = "dim" if item.origin == DEFAULT else "bold"
        rows.append([coloured(text, style) for text in (name, item.setting.shown(item.value), item.origin)])
    table(["setting", "value", "from"], rows)
    read = f"{configuration.file} ({configuration.file_origin})" if configuration.file is not None else configuration.file_origin
    console().print(f"\nConfiguration file: {read}", style="dim", markup=False)
