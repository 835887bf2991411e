"""`holdfast serve`: the coordinator alone; handlers live elsewhere and are registered."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from holdfast_runtime.app.logging import LogFormat, LogLevel, configure_logging
from holdfast_runtime.app.options import DEFAULT_ADMIN, DEFAULT_INGRESS, host_and_port

if TYPE_CHECKING:
    from holdfast_runtime.app.runtime import Runtime

MAX_SHARDS: Final = 256  # storage design §12

LogFormatOption = Annotated[
    LogFormat, typer.Option("--log-format", envvar="HOLDFAST_LOG_FORMAT", help="How logs are written to standard error.")
]
LogLevelOption = Annotated[
    LogLevel, typer.Option("--log-level", envvar="HOLDFAST_LOG_LEVEL", help="The least important log lines to write.")
]


def serve(
    store: Annotated[
        Path, typer.Option(envvar="HOLDFAST_STORE", help="File of the embedded store; created when it does not exist.")
    ] = Path(".holdfast/store.sqlite"),
    ingress: Annotated[
        str, typer.Option(envvar="HOLDFAST_INGRESS", help="HOST:PORT where calls enter; port 0 takes a free one.")
    ] = DEFAULT_INGRESS,
    admin: Annotated[
        str, typer.Option(envvar="HOLDFAST_ADMIN", help="HOST:PORT of the admin API; it has no authentication.")
    ] = DEFAULT_ADMIN,
    shards: Annotated[
        int, typer.Option(min=1, max=MAX_SHARDS, help="Shards of a store that is created now; an existing one keeps its number.")
    ] = 4,
    log_format: LogFormatOption = LogFormat.HUMAN,
    log_level: LogLevelOption = LogLevel.INFO,
) -> None:
    """Run the coordinator. Handlers run elsewhere: on AWS Lambda or any HTTP server; add them with `deployments register`.

    Functions are invoked where AWS_ENDPOINT_URL_LAMBDA says, or in the region of the environment. Stop with Ctrl-C or
    SIGTERM: work goes on where it was at the next start.
    """
    configure_logging(log_format, log_level, colour=sys.stderr.isatty())
    addresses = host_and_port(ingress, "--ingress"), host_and_port(admin, "--admin")

    from holdfast_runtime.app import process
    from holdfast_runtime.app.runtime import RuntimeConfig
    from holdfast_runtime.surfaces.server import Listener

    listeners = [Listener(host, port) for host, port in addresses]
    config = RuntimeConfig(store, listeners[0], listeners[1], shards=shards)

    def announce(runtime: Runtime) -> None:
        print(ready_line(runtime, store, as_json=log_format is LogFormat.JSON), flush=True)

    process.run(config, announce)


def ready_line(runtime: Runtime, store: Path, *, as_json: bool) -> str:
    """Printed once everything is served, and not before: scripts wait for it."""
    facts: dict[str, Any] = {"ingress": runtime.ingress_url, "admin": runtime.admin_url, "store": str(store)}
    if runtime.public_key is not None:
        facts["identity_key"] = runtime.public_key
    if as_json:
        return json.dumps({"event": "ready", **facts})
    return "holdfast is ready  " + "  ".join(f"{name} {value}" for name, value in facts.items())
