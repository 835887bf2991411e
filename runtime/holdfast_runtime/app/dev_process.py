"""The serving half of `holdfast dev`: coordinator, embedded store and handlers in one process, started by the supervisor.

`python -m holdfast_runtime.app.dev_process CONFIG`, with the configuration as JSON (see `commands/dev.py`).
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

from holdfast_runtime.app.commands.serve import ready_line, start_logging
from holdfast_runtime.app.config.resolving import from_texts
from holdfast_runtime.app.errors import CliError
from holdfast_runtime.app.logging import LogFormat
from holdfast_runtime.app.output import console, error_line
from holdfast_runtime.app.supervisor import BROKEN_CODE

if TYPE_CHECKING:
    from holdfast.service import ServiceBase
    from holdfast_runtime.app.runtime import Runtime

DEPLOYMENT: Final = "dev"  # one name for whatever is served, so that work started under other modules still finds its services


def main() -> NoReturn:
    config = json.loads(sys.argv[1])
    try:
        serve(config)
    except CliError as error:
        error_line(str(error))
        sys.exit(error.exit_code)


def serve(config: Mapping[str, Any]) -> NoReturn:
    """config: specs, settings (texts), file ([path, who named it]), sockets (descriptors of ingress and admin), supervised, first (start,
    not reload).
    """
    found = from_texts(config["settings"], config["file"])
    start_logging(found, first=config["first"])
    began = time.monotonic()
    try:
        services, handlers = _load(config["specs"])
    except CliError as error:
        raise CliError(str(error), BROKEN_CODE if config["supervised"] else error.exit_code) from error

    from holdfast_runtime.app import process
    from holdfast_runtime.app.config.wiring import runtime_config

    ingress, admin = (socket.socket(fileno=descriptor) for descriptor in config["sockets"])

    def announce(runtime: Runtime) -> None:
        if found["log-format"] == LogFormat.JSON:
            print(ready_line(runtime, found["store"], as_json=True))
        elif config["first"]:
            _announce(runtime, services, str(found["store"]), supervised=config["supervised"])
        else:
            console().print(f"[green]reloaded[/] in {time.monotonic() - began:.1f} s", highlight=False)
        sys.stdout.flush()

    stop_at_eof = sys.stdin.fileno() if config["supervised"] else None
    process.run(runtime_config(found, (ingress, admin)), announce, handlers, stop_at_eof=stop_at_eof)


def _load(specs: Sequence[str]) -> tuple[list[ServiceBase], dict[str, Any]]:
    """Services, and the endpoint that serves them. Raises CliError when the user's code does not load."""
    if not specs:
        return [], {}
    from holdfast.endpoint import Endpoint
    from holdfast_runtime.app.loading import load_services

    services = load_services(specs)
    try:
        endpoint = Endpoint(services)
    except (TypeError, ValueError) as error:
        raise CliError(f"these services cannot be served: {error}") from error
    return services, {DEPLOYMENT: endpoint.handle}


def _announce(runtime: Runtime, services: Sequence[ServiceBase], store: str, *, supervised: bool) -> None:
    from rich.markup import escape

    from holdfast_runtime.app.curl import call_lines

    out = console()
    out.print("[bold green]holdfast dev is ready[/]")
    out.print(f"  ingress  {runtime.ingress_url}\n  admin    {runtime.admin_url}\n  store    {escape(store)}")
    if runtime.public_key is not None:
        out.print(f"  identity {runtime.public_key}", soft_wrap=True)
    shown = ""
    for line in call_lines(services, runtime.ingress_url):
        if line.service != shown:
            shown = line.service
            out.print(f"\n[bold]{escape(shown)}[/] [dim]({line.kind})[/]")
        # Not wrapped, whatever the width: it is there to be copied.
        out.print(f"  [cyan]{escape(line.handler)}[/]\n    {escape(line.command)}", soft_wrap=True)
    out.print("\n[dim]Code is reloaded when it changes; Ctrl-C stops.[/]" if supervised else "\n[dim]Ctrl-C stops.[/]")


if __name__ == "__main__":
    main()
