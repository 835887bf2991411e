"""`holdfast state`: what virtual objects and workflows remember."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast_runtime.app.errors import FAILED, CliError, misuse, nearest_or_all
from holdfast_runtime.app.options import ADMIN_URL, AdminUrl, AsJson

if TYPE_CHECKING:
    from holdfast_runtime.app.http import Api
    from holdfast_runtime.app.state_text import State

app = typer.Typer(help="What virtual objects and workflows remember.", no_args_is_help=True, add_completion=False)

Service = Annotated[str, typer.Argument(metavar="SERVICE", help="Name of the virtual object or workflow.", show_default=False)]
Key = Annotated[str, typer.Argument(metavar="KEY", help="Its key.", show_default=False)]
Force = Annotated[bool, typer.Option("--force", help="Also when the state was changed meanwhile.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command("list")
def list_keys(
    service: Service,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many keys.")] = 50,
    admin_url: AdminUrl = ADMIN_URL,
    as_json: AsJson = False,
) -> None:
    """List the keys that have state.

    \b
    holdfast state list carts
    """
    from holdfast_runtime.app import naming
    from holdfast_runtime.app.http import admin_api
    from holdfast_runtime.app.output import count, print_json, quoted, remark, say, table
    from holdfast_runtime.app.query import literal, rows

    api = admin_api(admin_url)
    columns = "service_key AS key, COUNT(1) AS names, SUM(value_length) AS bytes"
    where = f"service_name = {literal(service)}"
    found = rows(api, f"SELECT {columns} FROM state WHERE {where} GROUP BY service_key ORDER BY service_key LIMIT {limit + 1}")
    if not found:
        naming.service(api, service)
    if as_json:
        return print_json(found[:limit])
    if not found:
        return say(quoted(f"No key of {service} has state."))
    table(["key", "values", "bytes"], [[row["key"], f"{row['names']:,}", f"{row['bytes']:,}"] for row in found[:limit]], right=(1, 2))
    return remark(f"[dim]{'the first ' if len(found) > limit else ''}{count(len(found[:limit]), 'key')}[/]")


@app.command("get")
def get(
    service: Service,
    key: Key,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only this value, as it is stored.")] = None,
    admin_url: AdminUrl = ADMIN_URL,
    as_json: AsJson = False,
) -> None:
    """Show the state of one key, as stored now.

    \b
    holdfast state get carts tea
    holdfast state get carts tea count
    """
    from holdfast_runtime.app import editing, state_text
    from holdfast_runtime.app.http import admin_api
    from holdfast_runtime.app.output import print_json, quoted, say, table

    state = editing.read(admin_api(admin_url), service, key)
    if name is not None:
        return _print_value(_value(state, service, key, name), as_json=as_json)
    if as_json:
        return print_json({"service": service, "key": key, "state": {item: _encoded(value) for item, value in state.items()}})
    if not state:
        return say(quoted(f"{service}/{key} has no state."))
    return table(["name", "value"], [[item, state_text.line(value)] for item, value in sorted(state.items())])


def _value(state: Mapping[str, bytes], service: str, key: str, name: str) -> bytes:
    if name not in state:
        raise CliError(f"{service}/{key} has no value '{name}'{nearest_or_all(name, state)}")
    return state[name]


def _print_value(value: bytes, *, as_json: bool) -> None:
    from holdfast_runtime.app.output import print_json

    if as_json:
        return print_json(_encoded(value))
    sys.stdout.buffer.write(value)
    if not value.endswith(b"\n"):
        sys.stdout.buffer.write(b"\n")
    return None


def _encoded(value: bytes) -> dict[str, str | None]:
    import base64

    try:
        text: str | None = value.decode()
    except UnicodeDecodeError:
        text = None
    return {"base64": base64.b64encode(value).decode(), "text": text}


@app.command("set")
def set_value(
    service: Service,
    key: Key,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the value.", show_default=False)],
    value: Annotated[str, typer.Argument(metavar="VALUE", help="As JSON; @FILE reads a file, - standard input.", show_default=False)],
    raw: Annotated[bool, typer.Option("--raw", help="Store the bytes as they are, JSON or not.")] = False,
    force: Force = False,
    admin_url: AdminUrl = ADMIN_URL,
) -> None:
    """Set one value. It takes its turn: a running exclusive handler of the key ends first.

    \b
    holdfast state set carts tea count 3
    holdfast state set carts tea items @items.json
    """
    from holdfast_runtime.app import editing
    from holdfast_runtime.app.http import admin_api

    content = _content(value)
    if not raw:
        _check_json(content)
    api = admin_api(admin_url)
    before = editing.read(api, service, key)
    _write(api, service, key, before, {**before, name: content}, force=force)


def _content(given: str) -> bytes:
    """Raises CliError."""
    if given == "-":
        return sys.stdin.buffer.read()
    if not given.startswith("@"):
        return given.encode()
    try:
        return Path(given[1:]).read_bytes()
    except OSError as error:
        raise misuse(f"the file {given[1:]} cannot be read ({error.strerror})") from error


def _check_json(content: bytes) -> None:
    import json

    try:
        json.loads(content)
    except ValueError as error:
        shown = content[:40].decode("utf-8", "replace")
        hint = "quote text for both the shell and JSON, as in '\"tea\"', or store it as it is with --raw"
        raise misuse(f"the value is not JSON ({error}): {shown}; {hint}") from error


@app.command("edit")
def edit(service: Service, key: Key, force: Force = False, admin_url: AdminUrl = ADMIN_URL) -> None:
    """Open the state in an editor, and store what comes back: HOLDFAST_EDITOR, VISUAL, EDITOR, or vi.

    A value that is not JSON is shown as {"$text": "..."} or {"$base64": "..."}. Names that are taken out are removed.

    \b
    holdfast state edit carts tea
    """
    from holdfast_runtime.app import editing
    from holdfast_runtime.app.http import admin_api

    api = admin_api(admin_url)
    before = editing.read(api, service, key)
    _write(api, service, key, before, editing.edited(before, f"{service}-{key}"), force=force)


@app.command("clear")
def clear(
    service: Service,
    key: Annotated[str | None, typer.Argument(metavar="[KEY]", help="Its key; without one, all keys of the service.")] = None,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only this value.")] = None,
    yes: Yes = False,
    force: Force = False,
    admin_url: AdminUrl = ADMIN_URL,
) -> None:
    """Remove a value, the state of a key, or that of all keys. Shows what would go, and asks.

    \b
    holdfast state clear carts tea count
    holdfast state clear carts tea
    """
    from holdfast_runtime.app import editing
    from holdfast_runtime.app.http import admin_api
    from holdfast_runtime.app.output import count, quoted, say

    api = admin_api(admin_url)
    if key is None:
        return _clear_all(api, service, yes=yes)
    before = editing.read(api, service, key)
    if name is not None:
        _value(before, service, key, name)
    after = {} if name is None else {item: value for item, value in before.items() if item != name}
    if not before:
        return say(quoted(f"{service}/{key} has no state."))
    names = ", ".join(sorted(before)) if name is None else name
    _agree(f"Remove {count(len(before) - len(after), 'value')} of {service}/{key} ({names})?", yes=yes)
    return _write(api, service, key, before, after, force=force)


def _clear_all(api: Api, service: str, *, yes: bool) -> None:
    from holdfast_runtime.app import editing, naming
    from holdfast_runtime.app.output import count, quoted, say
    from holdfast_runtime.app.query import literal, rows

    found = rows(api, f"SELECT DISTINCT service_key FROM state WHERE service_name = {literal(service)} ORDER BY service_key")
    keys = [row["service_key"] for row in found]
    if not keys:
        naming.service(api, service)
        return say(quoted(f"No key of {service} has state."))
    shown = ", ".join(keys[:5]) + (", …" if len(keys) > 5 else "")
    _agree(f"Remove all state of {count(len(keys), 'key')} of {service} ({shown})?", yes=yes)
    for key in keys:
        waits = editing.write(api, service, key, editing.read(api, service, key), {}, force=True)
        if waits:
            say(f"[yellow]Accepted[/] for {quoted(key)}: {quoted(waits)}.")
    return say(f"[green]Removed[/] the state of {count(len(keys), 'key')}.")


def _agree(question: str, *, yes: bool) -> None:
    from holdfast_runtime.app.asking import ask
    from holdfast_runtime.app.output import remark

    if yes:
        return
    if not sys.stdin.isatty():
        raise misuse("removing state cannot be undone; say --yes when that is wanted")
    if not ask(question):
        remark("Nothing is changed.")
        raise typer.Exit(FAILED)


def _write(api: Api, service: str, key: str, before: State, after: State, *, force: bool) -> None:
    from holdfast_runtime.app import editing, state_text
    from holdfast_runtime.app.output import quoted, say

    changes = state_text.differences(before, after)
    if not changes:
        return say("Nothing is changed.")
    waits = editing.write(api, service, key, before, after, force=force)
    told = ", ".join(f"{what} {name}" for what, name in changes)
    return say(f"[yellow]Accepted[/], {quoted(told)}: {quoted(waits)}." if waits else f"[green]Done:[/] {quoted(told)}.")
