"""`holdfast dev`: coordinator, embedded store and handlers in one process, reloaded when the code changes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from holdfast_runtime.app.commands.serve import LogFormatOption, LogLevelOption
from holdfast_runtime.app.errors import CliError
from holdfast_runtime.app.logging import LogFormat, LogLevel
from holdfast_runtime.app.options import DEFAULT_ADMIN, DEFAULT_INGRESS, host_and_port

if TYPE_CHECKING:
    import socket

SUFFIXES: Final = ("", "-wal", "-shm", "-journal")  # what SQLite keeps beside a database


def dev(
    modules: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODULE[:SERVICES]]...", help="Where the services are, such as handlers.orders or app.py:services."),
    ] = None,
    store: Annotated[Path, typer.Option(envvar="HOLDFAST_STORE", help="File of the embedded store.")] = Path(".holdfast/dev.sqlite"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget everything stored before.")] = False,
    ingress: Annotated[
        str, typer.Option(envvar="HOLDFAST_INGRESS", help="HOST:PORT where calls enter; port 0 takes a free one.")
    ] = DEFAULT_INGRESS,
    admin: Annotated[str, typer.Option(envvar="HOLDFAST_ADMIN", help="HOST:PORT of the admin API.")] = DEFAULT_ADMIN,
    reload: Annotated[bool, typer.Option("--reload/--no-reload", help="Load the handlers again when their code changes.")] = True,
    watch: Annotated[list[Path] | None, typer.Option(help="A folder to watch for changes, instead of the modules' own.")] = None,
    log_format: LogFormatOption = LogFormat.HUMAN,
    log_level: LogLevelOption = LogLevel.INFO,
) -> None:
    """Develop: run everything in one process, with handlers from your modules.

    Prints how to call each handler. What was started survives restarts and reloads, because the store is a file.
    """
    specs = modules or []
    from holdfast_runtime.app.loading import folder_of
    from holdfast_runtime.app.supervisor import Supervisor

    found = [folder_of(spec) for spec in specs]
    folders = watch or sorted({folder for folder in found if folder is not None})
    for folder in folders:
        if not folder.is_dir():
            raise CliError(f"--watch expects a folder; {folder} is none")
    sockets = _bound([host_and_port(ingress, "--ingress"), host_and_port(admin, "--admin")])
    if fresh:
        _forget(store)
    config = {"specs": specs, "store": str(store), "log_format": log_format.value, "log_level": log_level.value}
    if not reload:
        from holdfast_runtime.app import dev_process

        dev_process.serve({**config, "supervised": False, "first": True, "sockets": [item.detach() for item in sockets]})
    # The child imports the user's modules from here, as this process would.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH")]))
    sys.exit(Supervisor(config, sockets).run(folders))


def _bound(addresses: list[tuple[str, int]]) -> list[socket.socket]:
    """Listening already, so that early callers wait instead of being refused."""
    from holdfast_runtime.surfaces.server import AddressUnavailable, Listener, bind

    sockets = []
    for host, port in addresses:
        try:
            sockets.append(bind(Listener(host, port)))
        except AddressUnavailable as error:
            raise CliError(str(error)) from error
        sockets[-1].listen()
    return sockets


def _forget(store: Path) -> None:
    """Delete the store's files, unless a process uses them."""
    from holdfast_runtime.adapters.sqlite_file import prepare_path
    from holdfast_runtime.ports.store import StoreBroken

    try:
        lock = prepare_path(store.absolute())
    except StoreBroken as error:
        raise CliError(str(error)) from error
    try:
        for suffix in SUFFIXES:
            store.with_name(store.name + suffix).unlink(missing_ok=True)
    except OSError as error:
        raise CliError(f"store {store}: cannot be deleted ({error.strerror})") from error
    finally:
        lock.release()
