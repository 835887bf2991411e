"""`holdfast deployments`: where handlers run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

import typer

from holdfast_runtime.app.errors import misuse
from holdfast_runtime.app.options import ADMIN_URL, AdminUrl, AsJson, pairs

app = typer.Typer(help="Where handlers run.", no_args_is_help=True)


@app.command("register")
def register(
    address: Annotated[str, typer.Argument(metavar="URI_OR_ARN", help="http(s)://… of an endpoint, or the qualified ARN of a function.")],
    http11: Annotated[bool, typer.Option("--use-http1.1", help="Speak HTTP/1.1 to the endpoint instead of HTTP/2.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace what is registered under this address, even incompatibly.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask the endpoint and show what would change; change nothing.")] = False,
    header: Annotated[
        list[str] | None, typer.Option("--header", metavar="NAME=VALUE", help="Send this header with every request to it.")
    ] = None,
    assume_role: Annotated[str | None, typer.Option("--assume-role-arn", help="Role to assume before invoking the function.")] = None,
    admin_url: AdminUrl = ADMIN_URL,
    as_json: AsJson = False,
) -> None:
    """Ask an endpoint what it serves, and add it: new calls go to it from then on."""
    from holdfast_runtime.app.http import admin_api
    from holdfast_runtime.app.output import print_json

    document: dict[str, Any] = {"force": force, "dry_run": dry_run, "additional_headers": pairs(header or [], "--header")}
    if address.startswith("arn:"):
        document |= {"arn": address, "assume_role_arn": assume_role}
    elif address.startswith(("http://", "https://")):
        document |= {"uri": address, "use_http_11": http11}
    else:
        raise misuse(f"expected a URI starting with http:// or https://, or an ARN starting with arn:; found '{address}'")
    answer = admin_api(admin_url).asked("POST", "/deployments", document=document)
    found = answer.json()
    if as_json:
        return print_json(found)
    return _show_registered(found, dry_run=dry_run, created=answer.status == 201, force=force)


def _show_registered(found: Mapping[str, Any], *, dry_run: bool, created: bool, force: bool) -> None:
    from holdfast_runtime.app.commands.services import show_services
    from holdfast_runtime.app.output import say

    if dry_run:
        say("Nothing is changed; this is what would be registered:")
    elif created:
        say(f"[green]Registered[/] as [bold]{found['id']}[/].")
    elif force:
        say(f"[green]Replaced[/] [bold]{found['id']}[/].")
    else:
        say(f"This address is registered already, as [bold]{found['id']}[/]: nothing is changed. Changed code under it needs --force.")
    show_services(found["services"])


@app.command("list")
def list_deployments(admin_url: AdminUrl = ADMIN_URL, as_json: AsJson = False) -> None:
    """List deployments with the service revisions they brought."""
    from holdfast_runtime.app.http import admin_api
    from holdfast_runtime.app.output import print_json, say, table

    found = admin_api(admin_url).get("/deployments")["deployments"]
    if as_json:
        return print_json(found)
    if not found:
        return say("No deployments yet. Add one with [bold]holdfast deployments register URI[/].")
    rows = [
        [item["id"], item.get("arn") or item["uri"], _revisions(item), item["created_at"][:19] + "Z", item.get("sdk_version") or "-"]
        for item in found
    ]
    return table(["deployment", "address", "services (revision)", "registered", "sdk"], rows, whole=(0, 1))


def _revisions(deployment: Mapping[str, Any]) -> str:
    return ", ".join(f"{service['name']} ({service['revision']})" for service in deployment["services"])


@app.command("remove")
def remove(
    deployment_id: Annotated[str, typer.Argument(metavar="ID", help="The deployment's id, dp_…")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    admin_url: AdminUrl = ADMIN_URL,
) -> None:
    """Remove a deployment. Invocations pinned to it cannot go on; older revisions of its services become active again."""
    from holdfast_runtime.app.http import admin_api
    from holdfast_runtime.app.output import say

    api = admin_api(admin_url)
    found = api.get(f"/deployments/{quote(deployment_id, safe='')}")
    if not yes:
        if not sys.stdin.isatty():
            raise misuse("removing a deployment stops the invocations pinned to it; say --yes when that is wanted")
        address = found.get("arn") or found["uri"]
        typer.confirm(f"Remove {deployment_id} ({address})? Invocations pinned to it cannot go on", abort=True)
    api.asked("DELETE", f"/deployments/{quote(deployment_id, safe='')}", query={"force": "true"})
    say(f"[green]Removed[/] [bold]{deployment_id}[/].")
