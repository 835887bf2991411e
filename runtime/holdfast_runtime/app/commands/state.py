"""`holdfast state`: what virtual objects and workflows remember."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from holdfast_runtime.app.options import ADMIN_URL, AdminUrl, AsJson

app = typer.Typer(help="What virtual objects and workflows remember.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """What virtual objects and workflows remember."""


@app.command("get")
def get(
    service: Annotated[str, typer.Argument(help="Name of the virtual object or workflow.")],
    key: Annotated[str, typer.Argument(help="Its key.")],
    admin_url: AdminUrl = ADMIN_URL,
    as_json: AsJson = False,
) -> None:
    """Show the state of one key, as stored now."""
    from holdfast_runtime.app.http import admin_api
    from holdfast_runtime.app.output import print_json, say, table

    api = admin_api(admin_url)
    found = api.get(f"/holdfast/state/{quote(service, safe='')}/{quote(key, safe='')}")
    if not found["state"]:
        api.asked("GET", f"/services/{quote(service, safe='')}")  # an unknown service is an error, not an empty one
    if as_json:
        return print_json(found)
    if not found["state"]:
        from rich.markup import escape

        return say(escape(f"{service}/{key} has no state."))
    rows = [
        [name, value["text"] if value["text"] is not None else f"base64:{value['base64']}"]
        for name, value in sorted(found["state"].items())
    ]
    return table(["name", "value"], rows)
