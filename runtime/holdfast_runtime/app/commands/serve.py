"""`holdfast serve`: the coordinator alone; handlers live elsewhere and are registered."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast_runtime.app.config.options import with_settings
from holdfast_runtime.app.config.resolving import Configuration
from holdfast_runtime.app.logging import LogFormat, LogLevel, configure_logging, log_colour

if TYPE_CHECKING:
    from holdfast_runtime.app.runtime import Runtime

log = logging.getLogger("holdfast.configuration")


def _serve(configuration: Configuration) -> None:
    """Run the coordinator. Handlers run elsewhere: on AWS Lambda or any HTTP server; add them with `deployments register`.

    Functions are invoked where AWS_ENDPOINT_URL_LAMBDA says, or in the region of the environment. Stop with Ctrl-C or
    SIGTERM: work goes on where it was at the next start.

    Every option can also be set in a TOML file under its name, and as variable HOLDFAST_<NAME>; `holdfast config` shows what holds.
    """
    start_logging(configuration)

    from holdfast_runtime.app import process
    from holdfast_runtime.app.config.wiring import runtime_config

    def announce(runtime: Runtime) -> None:
        print(ready_line(runtime, configuration["store"], as_json=configuration["log-format"] == LogFormat.JSON), flush=True)

    process.run(runtime_config(configuration), announce)


serve = with_settings(_serve)


def start_logging(configuration: Configuration, *, first: bool = True) -> None:
    """Logs as configured; the first line of a process that was not just reloaded says with which file."""
    configure_logging(LogFormat(configuration["log-format"]), LogLevel(configuration["log-level"]), colour=log_colour())
    if first and configuration.file is not None:
        log.info("configuration.read", extra={"file": str(configuration.file), "named_by": configuration.file_origin})


def ready_line(runtime: Runtime, store: Path, *, as_json: bool) -> str:
    """Printed once everything is served, and not before: scripts wait for it."""
    facts: dict[str, Any] = {"ingress": runtime.ingress_url, "admin": runtime.admin_url, "store": str(store)}
    if runtime.public_key is not None:
        facts["identity_key"] = runtime.public_key
    if as_json:
        return json.dumps({"event": "ready", **facts})
    return "holdfast is ready  " + "  ".join(f"{name} {value}" for name, value in facts.items())
