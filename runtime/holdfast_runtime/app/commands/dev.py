"""`holdfast dev`: coordinator, embedded store and handlers in one process, reloaded when the code changes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from holdfast_runtime.app.config.options import with_settings
from holdfast_runtime.app.config.resolving import Configuration
from holdfast_runtime.app.errors import CliError, misuse

if TYPE_CHECKING:
    import socket

    from holdfast_runtime.adapters.dynamodb_table import DynamoDbTable

STORE: Final = Path(".holdfast/dev.sqlite")
SUFFIXES: Final = ("", "-wal", "-shm", "-journal")  # what SQLite keeps beside a database


def _dev(
    configuration: Configuration,
    modules: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODULE[:SERVICES]]...", help="Where the services are, such as handlers.orders or app.py:services."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget everything stored before.")] = False,
    reload: Annotated[bool, typer.Option("--reload/--no-reload", help="Load the handlers again when their code changes.")] = True,
    watch: Annotated[list[Path] | None, typer.Option(help="A folder to watch for changes, instead of the modules' own.")] = None,
) -> None:
    """Develop: run everything in one process, with handlers from your modules.

    Prints how to call each handler. What was started survives restarts and reloads, because the store is a file.

    Every option from --config on can also be set in a TOML file under its name, and as variable HOLDFAST_<NAME>; `holdfast config`
    shows what holds.
    """
    specs = modules or []
    from holdfast_runtime.app.loading import folder_of
    from holdfast_runtime.app.supervisor import Supervisor

    found = [folder_of(spec) for spec in specs]
    folders = watch or sorted({folder for folder in found if folder is not None})
    for folder in folders:
        if not folder.is_dir():
            raise CliError(f"--watch expects a folder; {folder} is none")
    sockets = _bound([configuration["ingress"], configuration["admin"]])
    if fresh:
        _forget(configuration["store"])
    file = [str(configuration.file), configuration.file_origin] if configuration.file is not None else None
    config = {"specs": specs, "settings": configuration.texts(), "file": file}
    if not reload:
        from holdfast_runtime.app import dev_process

        dev_process.serve({**config, "supervised": False, "first": True, "sockets": [item.detach() for item in sockets]})
    # The child imports the user's modules from here, as this process would.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH")]))
    sys.exit(Supervisor(config, sockets, grace_s=configuration.seconds("shutdown-grace")).run(folders))


dev = with_settings(_dev, defaults={"store": STORE})


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


def _forget(store: Path | DynamoDbTable) -> None:
    """Delete the store's files, unless a process uses them."""
    if not isinstance(store, Path):
        raise misuse(f"--fresh deletes files of the embedded store only; {store} is a table: set up another one, or leave --fresh out")
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
