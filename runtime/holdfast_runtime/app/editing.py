"""Changing the state of a key: what was read is named, so that what another changed meanwhile is not overwritten; and the editor."""

from __future__ import annotations

import base64
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote

from holdfast_runtime.app import state_text
from holdfast_runtime.app.errors import CliError
from holdfast_runtime.app.http import Api
from holdfast_runtime.app.query import literal, rows
from holdfast_runtime.app.state_text import NotState, State

LOOKS: Final = 10  # at the state, until a change shows
BETWEEN_S: Final = 0.2
_EDITORS: Final = ("HOLDFAST_EDITOR", "VISUAL", "EDITOR")


def read(api: Api, service: str, key: str) -> State:
    """The state as stored now. Raises CliError, also for a service that does not exist."""
    found = api.get(f"/holdfast/state/{quote(service, safe='')}/{quote(key, safe='')}")["state"]
    if not found:
        from holdfast_runtime.app import naming

        naming.service(api, service)
    return {name: base64.b64decode(value["base64"]) for name, value in found.items()}


def write(api: Api, service: str, key: str, before: Mapping[str, bytes], after: Mapping[str, bytes], *, force: bool) -> str | None:
    """None: it is done. Else what it waits for. Raises CliError when the state is not `before` any more, unless `force`."""
    if not force and read(api, service, key) != before:
        raise _changed(service, key)
    document: dict[str, object] = {"object_key": key, "new_state": {name: list(value) for name, value in after.items()}}
    if not force:
        document["version"] = state_text.version_of(before)
    api.asked("POST", f"/services/{quote(service, safe='')}/state", document=document)
    for look in range(LOOKS):
        found = read(api, service, key)
        if found == after:
            return None
        if found != before and not force:
            raise _changed(service, key)
        if look < LOOKS - 1:
            time.sleep(BETWEEN_S)
    holder = _holder(api, service, key)
    return f"{holder} holds the key; the change is made when it is its turn" if holder else "the change is made when it is its turn"


def _changed(service: str, key: str) -> CliError:
    return CliError(f"the state of {service}/{key} was changed by another meanwhile; look at it again, or overwrite it with --force")


def _holder(api: Api, service: str, key: str) -> str | None:
    where = f"service_name = {literal(service)} AND service_key = {literal(key)}"
    found = rows(api, f"SELECT invocation_id FROM sys_keyed_service_status WHERE {where} LIMIT 1")
    return str(found[0]["invocation_id"]) if found else None


def edited(state: Mapping[str, bytes], name: str) -> State:
    """What the editor made of it; it is opened again while that cannot be read. Raises CliError, and keeps the text then."""
    from holdfast_runtime.app.asking import ask
    from holdfast_runtime.app.output import error_line

    folder = Path(tempfile.mkdtemp(prefix="holdfast-"))
    path = folder / f"{''.join(letter if letter.isalnum() else '-' for letter in name)[:60]}.json"
    path.write_text(state_text.to_text(state))
    while True:
        _open(path)
        try:
            found = state_text.from_text(path.read_text(), state)
            break
        except (NotState, UnicodeDecodeError) as problem:
            error_line(f"this is not a state: {problem}")
            if not (sys.stdin.isatty() and ask("Open the editor again?", default=True)):
                raise CliError(f"nothing is changed; your text is kept in {path}") from problem
    path.unlink()
    folder.rmdir()
    return found


def _open(path: Path) -> None:
    command = next((os.environ[name] for name in _EDITORS if os.environ.get(name)), "vi")
    try:
        done = subprocess.run([*shlex.split(command), str(path)], check=False)
    except (OSError, ValueError) as error:
        raise CliError(f"the editor '{command}' cannot be started ({error}); set EDITOR to one that can") from error
    if done.returncode != 0:
        raise CliError(f"the editor '{command}' ended with code {done.returncode}: nothing is changed; your text is kept in {path}")
