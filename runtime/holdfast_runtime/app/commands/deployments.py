"""`holdfast deployments`: where handlers run."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from holdfast_runtime.app.errors import FAILED, CliError, misuse
from holdfast_runtime.app.options import ADMIN_URL, AdminUrl, AsJson, pairs

if TYPE_CHECKING:
    from holdfast_runtime.app.http import Api
    from holdfast_runtime.app.registering import Change

app = typer.Typer(help="Where handlers run.", no_args_is_help=True, add_completion=False)

_GITHUB: Final = ("GITHUB_REPOSITORY", "GITHUB_RUN_ID", "GITHUB_SHA")  # kept with a deployment that is registered there

Which = Annotated[str, typer.Argument(metavar="ID", help="The deployment's id, dp_…, or its address.", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Http11 = Annotated[bool | None, typer.Option("--use-http1.1", help="Speak HTTP/1.1 to the endpoint instead of HTTP/2.")]
Headers = Annotated[list[str] | None, typer.Option("--header", metavar="NAME=VALUE", help="Send this header with every request to it.")]
Role = Annotated[str | None, typer.Option("--assume-role-arn", metavar="ARN", help="Role to assume before invoking the function.")]


@app.command("register")
def register(
    address: Annotated[
        str,
        typer.Argument(metavar="URI_OR_ARN", help="http(s)://… of an endpoint, or the qualified ARN of a function.", show_default=False),
    ],
    http11: Http11 = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is registered under this address, even incompatibly.")] = False,
    breaking: Annotated[bool, typer.Option("--breaking", help="Allow a service to become another type of service.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask the endpoint and show what would change; change nothing.")] = False,
    header: Headers = None,
    metadata: Annotated[
        list[str] | None, typer.Option("--metadata", metavar="NAME=VALUE", help="Keep this with the deployment, such as a commit.")
    ] = None,
    assume_role: Role = None,
    yes: Yes = False,
    admin_url: AdminUrl = ADMIN_URL,
    as_json: AsJson = False,
) -> None:
    """Ask an endpoint what it serves, and add it: new calls go to it from then on.

    Asks for a yes when something that can be called now could not be called any more.

    \b
    holdfast deployments register http://localhost:9080
    holdfast deployments register arn:aws:lambda:eu-central-1:123456789012:function:orders:7 --metadata commit=$(git rev-parse HEAD)
    holdfast deployments register http://localhost:9080 --force --dry-run
    """
    from holdfast_runtime.app.http import admin_api
    from holdfast_runtime.app.output import print_json

    kept = {name.lower().replace("_", "."): os.environ[name] for name in _GITHUB if os.environ.get(name)}
    document: dict[str, Any] = {
        "force": force,
        "breaking": breaking,
        "additional_headers": pairs(header or [], "--header"),
        "metadata": kept | pairs(metadata or [], "--metadata"),
        **_address(address, http11=bool(http11), role=assume_role),
    }
    api = admin_api(admin_url)
    planned, created, changes = _plan(api, document)
    if not created and not force:
        if as_json:
            return print_json({**planned, "changes": []})
        return _known(planned)
    if not dry_run:
        _agree(changes, yes=yes or force, quiet=as_json)
        answer = api.asked("POST", "/deployments", document=document)
        planned, created = answer.json(), answer.status == 201
    if as_json:
        return print_json({**planned, "changes": [change.as_json() for change in changes]})
    return _tell(planned, changes, dry_run=dry_run, created=created)


def _address(address: str, *, http11: bool, role: str | None) -> dict[str, Any]:
    """Raises CliError."""
    if address.startswith("arn:"):
        if http11:
            raise misuse("--use-http1.1 is for endpoints with a URI; functions are invoked")
        return {"arn": address, "assume_role_arn": role}
    if address.startswith(("http://", "https://")):
        if role is not None:
            raise misuse("--assume-role-arn is for functions; an endpoint with a URI has no role")
        return {"uri": address, "use_http_11": http11}
    raise misuse(f"expected a URI starting with http:// or https://, or an ARN starting with arn:; found '{address}'")


def _plan(api: Api, document: Mapping[str, Any]) -> tuple[dict[str, Any], bool, list[Change]]:
    """What would be registered, whether its address is new, and what that changes."""
    from holdfast_runtime.app import naming, registering

    before = naming.services(api)
    answer = api.request_json("POST", "/deployments", {**document, "dry_run": True})
    if answer.status >= 400:
        message = answer.message()
        hint = "; --breaking allows it" if "META0006" in message and not document["breaking"] else ""
        raise CliError(message + hint)
    planned = answer.json()
    replaced = [item for item in api.get("/deployments")["deployments"] if item["id"] == planned["id"]]
    served = [service["name"] for item in replaced for service in item["services"]]
    return planned, answer.status == 201, registering.changes(before, planned["services"], served)


def _known(planned: Mapping[str, Any]) -> None:
    from holdfast_runtime.app.commands.services import show_services
    from holdfast_runtime.app.output import say

    say(f"This address is registered already, as [bold]{planned['id']}[/]: nothing is changed. Changed code under it needs --force.")
    show_services(planned["services"])


def _agree(changes: Sequence[Change], *, yes: bool, quiet: bool) -> None:
    """Raises CliError or Exit without a yes."""
    from holdfast_runtime.app.asking import ask
    from holdfast_runtime.app.output import console, remark

    lost = [change for change in changes if change.loses]
    if not lost or yes:
        return
    if quiet or not sys.stdin.isatty():
        words = "; ".join(_lost(change) for change in lost)
        raise misuse(f"this registration takes away {words}; say --yes when that is wanted, or --dry-run to see all of it")
    for change in changes:
        console(stderr=True).print(*change.lines(), sep="\n")
    if not ask("Something that can be called now could not be called any more. Register?"):
        remark("Nothing is changed.")
        raise typer.Exit(FAILED)


def _lost(change: Change) -> str:
    if change.removed:
        return ", ".join(f"{change.service}/{name}" for name in change.removed)
    return f"service {change.service}" if change.kind == "gone" else f"the type of {change.service}"


def _tell(planned: Mapping[str, Any], changes: Sequence[Change], *, dry_run: bool, created: bool) -> None:
    from holdfast_runtime.app.output import console, say

    if dry_run:
        say("Nothing is changed; this would be registered:")
    elif created:
        say(f"[green]Registered[/] as [bold]{planned['id']}[/].")
    else:
        say(f"[green]Replaced[/] [bold]{planned['id']}[/].")
    for change in changes:
        console().print(*change.lines(), sep="\n")
    if planned.get("sdk_version"):
        say(f"[dim]protocol {planned['min_protocol_version']} to {planned['max_protocol_version']}, {planned['sdk_version']}[/]")


@app.command("list")
def list_deployments(
    extra: Annotated[bool, typer.Option("--extra", help="Also count what is in flight on each: reads every such invocation.")] = False,
    admin_url: AdminUrl = ADMIN_URL,
    as_json: AsJson = False,
) -> None:
    """List deployments with the service revisions they brought.

    A deployment is active when it has the newest revision of a service. With --extra, one that is not is draining while invocations
    are pinned to it, and drained afterwards: then it can be removed.

    \b
    holdfast deployments list --extra
    """
    from holdfast_runtime.app import naming
    from holdfast_runtime.app.http import admin_api
    from holdfast_runtime.app.output import coloured, print_json, say, table

    api = admin_api(admin_url)
    found = api.get("/deployments")["deployments"]
    active = {service["deployment_id"] for service in naming.services(api).values()}
    pinned = _pinned(api) if extra else None
    shown = [{**item, "status": _standing(item["id"], active, pinned)} for item in found]
    if pinned is not None:
        shown = [{**item, "pinned_invocations": pinned.get(item["id"], 0)} for item in shown]
    if as_json:
        return print_json(shown)
    if not found:
        return say("No deployments yet. Add one with [bold]holdfast deployments register URI[/].")
    columns = ["deployment", "address", "status", *(["pinned"] if extra else []), "services (revision)", "registered"]
    rows = [
        [
            item["id"],
            naming.address_of(item),
            coloured(item["status"], _STYLES[item["status"]]),
            *([f"{item['pinned_invocations']:,}"] if extra else []),
            _revisions(item),
            item["created_at"][:19] + "Z",
        ]
        for item in shown
    ]
    return table(columns, rows, whole=(0, 2), right=(3,) if extra else ())


_STYLES: Final = {"active": "green", "inactive": "dim", "draining": "yellow", "drained": "dim"}


def _standing(deployment_id: str, active: set[str], pinned: Mapping[str, int] | None) -> str:
    if deployment_id in active:
        return "active"
    if pinned is None:
        return "inactive"
    return "draining" if pinned.get(deployment_id) else "drained"


def _revisions(deployment: Mapping[str, Any]) -> str:
    return ", ".join(f"{service['name']} ({service['revision']})" for service in deployment["services"])


def _pinned(api: Api) -> dict[str, int]:
    from holdfast_runtime.app.query import rows

    statement = (
        "SELECT pinned_deployment_id AS id, COUNT(1) AS number FROM sys_invocation_status "
        "WHERE status != 'completed' AND pinned_deployment_id IS NOT NULL GROUP BY pinned_deployment_id"
    )
    return {row["id"]: row["number"] for row in rows(api, statement)}


def _pinned_to(api: Api, deployment_id: str) -> list[dict[str, Any]]:
    """By handler."""
    from holdfast_runtime.app.query import literal, rows

    columns = "target_service_name AS service, target_handler_name AS handler"
    where = f"pinned_deployment_id = {literal(deployment_id)} AND status != 'completed'"
    statement = (
        f"SELECT {columns}, COUNT(1) AS number FROM sys_invocation_status WHERE {where} GROUP BY target_service_name, target_handler_name"
    )
    return sorted(rows(api, statement), key=lambda row: (row["service"], row["handler"]))


@app.command("describe")
def describe(which: Which, admin_url: AdminUrl = ADMIN_URL, as_json: AsJson = False) -> None:
    """Show one deployment: how it is reached, what it serves, and what is in flight on it.

    \b
    holdfast deployments describe dp_14EMCs9SflBxNcj4HU9rPbj
    holdfast deployments describe http://localhost:9080
    """
    from holdfast_runtime.app import naming
    from holdfast_runtime.app.http import admin_api
    from holdfast_runtime.app.output import coloured, console, print_json, table

    api = admin_api(admin_url)
    found = naming.deployment(api, which)
    pinned = _pinned_to(api, found["id"])
    if as_json:
        return print_json({**found, "pinned_invocations": pinned})
    active = {name: service["revision"] for name, service in naming.services(api).items() if service["deployment_id"] == found["id"]}
    out = console()
    out.print(coloured(found["id"], "bold"))
    for name, value in _facts(found):
        out.print(coloured(f"  {name:<16}", "dim"), end="")
        out.print(coloured(value, None))
    out.print()
    rows = [
        [
            service["name"],
            service["ty"],
            str(service["revision"]),
            coloured("active", "green") if active.get(service["name"]) == service["revision"] else coloured("superseded", "dim"),
            ", ".join(handler["name"] for handler in service["handlers"]),
        ]
        for service in found["services"]
    ]
    table(["service", "type", "revision", "", "handlers"], rows, right=(2,))
    out.print()
    if not pinned:
        return out.print(coloured("Nothing in flight is pinned to it.", "dim"))
    return table(
        ["pinned to it", "in flight"], [[f"{row['service']}/{row['handler']}", f"{row['number']:,}"] for row in pinned], right=(1,)
    )


def _facts(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    named = [
        ("address", found.get("arn") or found["uri"]),
        ("role", found.get("assume_role_arn")),
        (
            "protocol",
            f"{found['min_protocol_version']} to {found['max_protocol_version']}, {found.get('protocol_type', 'RequestResponse')}",
        ),
        ("HTTP", found.get("http_version")),
        ("SDK", found.get("sdk_version")),
        ("compression", found.get("compression")),
        ("registered", found["created_at"][:19] + "Z"),
    ]
    named += [(f"header {name}", value) for name, value in found.get("additional_headers", {}).items()]
    named += [(name, value) for name, value in found.get("metadata", {}).items()]
    return [(name, str(value)) for name, value in named if value]


@app.command("update")
def update(
    which: Which,
    address: Annotated[str | None, typer.Option("--address", metavar="URI_OR_ARN", help="Where it is from now on.")] = None,
    http11: Http11 = None,
    header: Headers = None,
    assume_role: Role = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Also take over what the endpoint says of its services, even incompatibly.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask the endpoint and show what would change; change nothing.")] = False,
    admin_url: AdminUrl = ADMIN_URL,
    as_json: AsJson = False,
) -> None:
    """Point a deployment to another address, or change how it is reached: what is pinned to it goes on there.

    All headers are replaced when one is given.

    \b
    holdfast deployments update dp_14EMCs9SflBxNcj4HU9rPbj --address http://localhost:9081
    """
    from holdfast_runtime.app import naming
    from holdfast_runtime.app.http import admin_api
    from holdfast_runtime.app.output import coloured, console, print_json, say

    api = admin_api(admin_url)
    before = naming.deployment(api, which)
    document: dict[str, Any] = {"overwrite": overwrite, "dry_run": dry_run}
    if address is not None:
        document |= _address(address, http11=bool(http11), role=assume_role)
        if http11 is None:
            document.pop("use_http_11", None)
    else:
        document |= {name: value for name, value in (("use_http_11", http11), ("assume_role_arn", assume_role)) if value is not None}
    if header is not None:
        document["additional_headers"] = pairs(header, "--header")
    if len(document) == 2 and not overwrite:
        raise misuse("say what to change: --address, --header, --use-http1.1, --assume-role-arn or --overwrite")
    after = api.asked("PATCH", f"/deployments/{before['id']}", document=document).json()
    if as_json:
        return print_json(after)
    was, now = dict(_facts(before)), dict(_facts(after))
    changed = [name for name in {**was, **now} if was.get(name) != now.get(name)]
    say(
        "Nothing is changed; this would be:"
        if dry_run
        else f"[green]Updated[/] [bold]{before['id']}[/]."
        if changed or overwrite
        else "Nothing is changed."
    )
    for name in changed:
        console().print(coloured(f"  ~ {name}: {was.get(name, '-')} → {now.get(name, '-')}", "yellow"))
    return None


@app.command("remove")
def remove(
    which: Which,
    yes: Yes = False,
    admin_url: AdminUrl = ADMIN_URL,
) -> None:
    """Remove a deployment. Invocations pinned to it cannot go on; older revisions of its services become active again.

    \b
    holdfast deployments remove dp_14EMCs9SflBxNcj4HU9rPbj
    """
    from holdfast_runtime.app import naming
    from holdfast_runtime.app.asking import ask
    from holdfast_runtime.app.http import admin_api
    from holdfast_runtime.app.output import remark, say

    api = admin_api(admin_url)
    found = naming.deployment(api, which)
    if not yes:
        if not sys.stdin.isatty():
            raise misuse("removing a deployment stops the invocations pinned to it; say --yes when that is wanted")
        _show_loss(api, found)
        if not ask(f"Remove {found['id']} ({naming.address_of(found)})?"):
            remark("Nothing is changed.")
            raise typer.Exit(FAILED)
    api.asked("DELETE", f"/deployments/{found['id']}", query={"force": "true"})
    say(f"[green]Removed[/] [bold]{found['id']}[/].")


def _show_loss(api: Api, found: Mapping[str, Any]) -> None:
    """What is pinned to it, and which services lose their active revision."""
    from holdfast_runtime.app import naming
    from holdfast_runtime.app.output import coloured, console, count

    out = console(stderr=True)
    pinned = _pinned_to(api, found["id"])
    if pinned:
        out.print(coloured(f"{count(sum(row['number'] for row in pinned), 'invocation')} in flight cannot go on without it:", "yellow"))
        for row in pinned:
            out.print(coloured(f"  {row['service']}/{row['handler']}  {row['number']:,}", None))
    else:
        out.print(coloured("Nothing in flight is pinned to it.", "dim"))
    others = [item for item in api.get("/deployments")["deployments"] if item["id"] != found["id"]]
    for name, service in naming.services(api).items():
        if service["deployment_id"] != found["id"]:
            continue
        older = [old["revision"] for item in others for old in item["services"] if old["name"] == name]
        text = f"goes back to revision {max(older)}" if older else "cannot be called any more"
        out.print(coloured(f"  {name} {text}", "yellow"))
