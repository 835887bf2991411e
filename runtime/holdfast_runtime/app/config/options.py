"""The settings as options of a command: made from their declaration, read by `resolving.resolve`.

The texts are not looked at here, so that a mistake reads the same wherever it was made; typer never reads the environment.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from holdfast_runtime.app.config.resolving import resolve
from holdfast_runtime.app.config.settings import SETTINGS, Setting

CONFIG_OPTION: Final = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="The configuration file (default holdfast.toml, if there is one)."),
]


def with_settings(command: Callable[..., Any], *, clients: bool = False, defaults: Mapping[str, Any] | None = None) -> Callable[..., None]:
    """`command` with every setting as an option, and `--config`; it takes the outcome as its argument `configuration`.

    clients: those of commands that ask a server, too. defaults: where the command has its own.
    """
    settings = [setting for setting in SETTINGS if clients or not setting.client]
    signature = inspect.signature(command, eval_str=True)
    own = [parameter for parameter in signature.parameters.values() if parameter.name != "configuration"]

    def run(**given: Any) -> None:
        options = {setting.name: text for setting in settings if (text := given.pop(_argument(setting))) is not None}
        file = given.pop("config")
        found = resolve(options=options, environment=os.environ, folder=Path.cwd(), file=file, defaults=defaults)
        command(**given, configuration=found)

    parameters = [*own, _parameter("config", CONFIG_OPTION)]
    parameters += [_parameter(_argument(setting), _annotation(setting, defaults or {})) for setting in settings]
    vars(run)["__signature__"] = signature.replace(parameters=parameters)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


def _argument(setting: Setting) -> str:
    return setting.name.replace("-", "_")


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _annotation(setting: Setting, defaults: Mapping[str, Any]) -> Any:
    default = setting.shown(defaults.get(setting.name, setting.default))
    help_text = f"{setting.meaning[0].upper()}{setting.meaning[1:]} (default {default})."
    return Annotated[str | None, typer.Option(setting.option, metavar=setting.kind.metavar, help=help_text, rich_help_panel=setting.group)]
