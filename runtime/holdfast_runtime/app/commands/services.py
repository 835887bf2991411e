"""`holdfast services`: what can be called, how it is set up, and how it does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from holdfast_runtime.app.errors import misuse
from holdfast_runtime.app.options import ADMIN_URL, AdminUrl, AsJson

app = typer.Typer(help="What can be called, how it is set up, and how it does.", no_args_is_help=True, add_completion=False)
config = typer.Typer(help="Settings of a service that can be changed while it runs.", no_args_is_help=True)
app.add_typer(config, name="config")

Name = Annotated[str, typer.Argument(metavar="SERVICE", help="Name of the service.", show_default=False)]
Duration = Annotated[str | None, typer.Option(metavar="DURATION", help="Such as 30s, 12h or 7d; 0 keeps nothing.")]
Timeout = Annotated[str | None, typer.Option(metavar="DURATION", help="Such as 30s or 10m.")]

_SETTINGS: Final = (
    "public",
    "idempotency_retention",
    "workflow_completion_retention",
    "journal_retention",
    "inactivity_timeout",
    "abort_timeout",
)


@app.command("list")
def list_services(admin_url: AdminUrl = ADMIN_URL, as_json: AsJson = False) -> None:
    """List services with their active revision and handlers.

    \b
    holdfast services list
    """
    from holdfast_runtime.app.http import admin_api
    from holdfast_runtime.app.output import print_json

    found = admin_api(admin_url).get("/services")["services"]
    return print_json(found) if as_json else show_services(found)


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


@app.command("describe")
def describe(name: Name, admin_url: AdminUrl = ADMIN_URL, as_json: AsJson = False) -> None:
    """Show one service: where it runs, its settings, and what each handler takes and gives.

    \b
    holdfast services describe carts
    """
    from holdfast_runtime.app import naming
    from holdfast_runtime.app.http import admin_api
    from holdfast_runtime.app.output import coloured, console, print_json, table

    api = admin_api(admin_url)
    found = naming.service(api, name)
    if as_json:
        return print_json(found)
    deployment = api.get(f"/deployments/{found['deployment_id']}")
    out = console()
    out.print(coloured(found["name"], "bold"))
    if found.get("documentation"):
        out.print(coloured(f"  {found['documentation'].strip()}", None))
    for fact, value in _facts(found, deployment):
        out.print(coloured(f"  {fact:<{FACT_WIDTH}}", "dim"), end="")
        out.print(coloured(value, "yellow" if fact == "note" else None))
    out.print()
    rows = [
        [item["name"], _kind(item), item["input_description"], item["output_description"], _overrides(item)] for item in found["handlers"]
    ]
    return table(["handler", "kind", "takes", "gives", "its own settings"], rows)


FACT_WIDTH: Final = 31


def _facts(found: Mapping[str, Any], deployment: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "type", found["ty"]
    yield "revision", str(found["revision"])
    yield "deployment", f"{found['deployment_id']}  {deployment.get('arn') or deployment['uri']}"
    for name in _SETTINGS:
        if found.get(name) is not None:
            yield name.replace("_", " "), _plain(found[name])
    yield "lazy state", _plain(found.get("enable_lazy_state", False))
    if found.get("retry_policy"):
        yield "retries", _retries(found["retry_policy"])
    yield from found.get("metadata", {}).items()
    for note in found.get("info", []):
        yield "note", f"{note['code']}: {note['message']}"


def _plain(value: Any) -> str:
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _retries(policy: Mapping[str, Any]) -> str:
    attempts = policy.get("max_attempts")
    times = f"{attempts} attempts, then {str(policy['on_max_attempts']).lower()}" if attempts is not None else "without end"
    return (
        f"after {policy['initial_interval']}, times {policy['exponentiation_factor']:g}, at most {policy.get('max_interval', '-')}; {times}"
    )


def _kind(handler: Mapping[str, Any]) -> str:
    kind = str(handler.get("ty") or "").lower()
    return {"workflow": "run"}.get(kind, kind) + ("" if handler.get("public", True) else " private")


def _overrides(handler: Mapping[str, Any]) -> str:
    found = [f"{name.replace('_', ' ')} {_plain(handler[name])}" for name in _SETTINGS[1:] if handler.get(name) is not None]
    policy = {name: value for name, value in handler.get("retry_policy", {}).items() if value is not None}
    return ", ".join([*found, *(f"{name.replace('_', ' ')} {value}" for name, value in policy.items())])


# ---- Settings


@config.command("show")
def config_show(name: Name, admin_url: AdminUrl = ADMIN_URL, as_json: AsJson = False) -> None:
    """Show the settings of a service.

    \b
    holdfast services config show carts
    """
    from holdfast_runtime.app import naming
    from holdfast_runtime.app.http import admin_api
    from holdfast_runtime.app.output import print_json, table

    found = naming.service(admin_api(admin_url), name)
    settings = {setting: found[setting] for setting in _SETTINGS if found.get(setting) is not None}
    if as_json:
        return print_json(settings)
    return table(["setting", "value"], [[f"--{setting.replace('_', '-')}", _plain(value)] for setting, value in settings.items()])


@config.command("set")
def config_set(
    name: Name,
    public: Annotated[bool | None, typer.Option("--public/--private", help="Whether it can be called from outside.")] = None,
    idempotency_retention: Duration = None,
    workflow_completion_retention: Duration = None,
    journal_retention: Duration = None,
    inactivity_timeout: Timeout = None,
    abort_timeout: Timeout = None,
    admin_url: AdminUrl = ADMIN_URL,
    as_json: AsJson = False,
) -> None:
    """Change settings of a service. They hold until its next revision is registered, and for invocations accepted from now on.

    \b
    holdfast services config set carts --private
    holdfast services config set orders --journal-retention 3d --abort-timeout 30m
    """
    from holdfast_runtime.app import naming
    from holdfast_runtime.app.http import admin_api
    from holdfast_runtime.app.output import print_json, quoted, say

    given = {
        "idempotency_retention": idempotency_retention,
        "workflow_completion_retention": workflow_completion_retention,
        "journal_retention": journal_retention,
        "inactivity_timeout": inactivity_timeout,
        "abort_timeout": abort_timeout,
    }
    wanted: dict[str, Any] = {setting: _duration(setting, value) for setting, value in given.items() if value is not None}
    if public is not None:
        wanted["public"] = public
    if not wanted:
        raise misuse("say what to set, such as --private or --journal-retention 3d; `holdfast services config show` has all settings")
    api = admin_api(admin_url)
    before = naming.service(api, name)
    after = api.asked("PATCH", f"/services/{quote(name, safe='')}", document=wanted).json()
    if as_json:
        return print_json(after)
    changed = [setting for setting in wanted if before.get(setting) != after.get(setting)]
    for setting in changed:
        words = setting.replace("_", " ")
        say(f"[green]Changed[/] {words}: {quoted(_plain(before.get(setting)))} → [bold]{quoted(_plain(after.get(setting)))}[/]")
    return say("Nothing is changed: it is set up so already.") if not changed else None


def _duration(setting: str, given: str) -> str:
    from holdfast_runtime.surfaces.durations import parse_duration

    try:
        parse_duration(given)
    except ValueError as problem:
        raise misuse(f"--{setting.replace('_', '-')} expects a duration such as 30s, 12h or 7d; found '{given}'") from problem
    return given


# ---- How it does


@app.command("status")
def status(
    name: Annotated[str | None, typer.Argument(metavar="[SERVICE]", help="Only this service.")] = None,
    admin_url: AdminUrl = ADMIN_URL,
    as_json: AsJson = False,
) -> None:
    """Show what each handler has in flight, by status, and which keys are held or waited for longest.

    \b
    holdfast services status
    holdfast services status carts
    """
    from holdfast_runtime.app import ages, naming, standing
    from holdfast_runtime.app.http import admin_api
    from holdfast_runtime.app.output import console, print_json, say

    api = admin_api(admin_url)
    known = naming.services(api)
    if name is not None:
        known = {name: naming.service(api, name)}
    found = standing.look(api, known)
    if as_json:
        return print_json(found.as_json())
    if not known:
        return show_services([])
    if not found.handlers:
        return say("Nothing is in flight.")
    return console().print(standing.shown(found, ages.now_ms()))
