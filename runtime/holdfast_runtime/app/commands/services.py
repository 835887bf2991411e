"""`holdfast services`: what can be called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from holdfast_runtime.app.options import ADMIN_URL, AdminUrl, AsJson

app = typer.Typer(help="What can be called.", no_args_is_help=True)


@app.command("list")
def list_services(admin_url: AdminUrl = ADMIN_URL, as_json: AsJson = False) -> None:
    """List services with their active revision and handlers."""
    from holdfast_runtime.app.http import admin_api
    from holdfast_runtime.app.output import print_json

    found = admin_api(admin_url).get("/services")["services"]
    if as_json:
        return print_json(found)
    return show_services(found)


def show_services(found: list[Mapping[str, Any]]) -> None:
    from holdfast_runtime.app.output import say, table

    if not found:
        return say(
            "No services yet. Add a deployment with [bold]holdfast deployments register URI[/], or run [bold]holdfast dev MODULE[/]."
        )
    rows = [
        [item["name"], item["ty"], str(item["revision"]), ", ".join(map(_handler, item["handlers"])), item["deployment_id"]]
        for item in found
    ]
    return table(["service", "type", "revision", "handlers", "deployment"], rows, whole=(0, 4))


def _handler(handler: Mapping[str, Any]) -> str:
    shown = str(handler["name"])
    return shown + (" (shared)" if handler.get("ty") == "Shared" else "")
