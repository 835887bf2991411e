"""`holdfast whoami`: which server commands talk to, and whether it is there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import typer

from holdfast_runtime.app.errors import FAILED, CliError
from holdfast_runtime.app.options import ADMIN_URL, INGRESS_URL, AdminUrl, AsJson, IngressUrl

if TYPE_CHECKING:
    from holdfast_runtime.app.http import Api

_VARIABLES: Final = ("HOLDFAST_ADMIN_URL", "HOLDFAST_INGRESS_URL", "HOLDFAST_EDITOR", "NO_COLOR")


def whoami(admin_url: AdminUrl = ADMIN_URL, ingress_url: IngressUrl = INGRESS_URL, as_json: AsJson = False) -> None:
    """Show which server commands talk to, whether it answers, and what it has. The exit code is 1 when it does not."""
    from holdfast_runtime.app.about import VERSION
    from holdfast_runtime.app.http import ingress_api, quick_api
    from holdfast_runtime.app.output import print_json

    found: dict[str, Any] = {"holdfast": VERSION}
    found["admin"] = _asked(lambda: _admin(quick_api(admin_url)), admin_url)
    found["ingress"] = _asked(lambda: {"services": len(ingress_api(ingress_url).get("/restate/health")["services"])}, ingress_url)
    found["environment"] = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    if as_json:
        print_json(found)
    else:
        _show(found)
    if not (found["admin"]["reachable"] and found["ingress"]["reachable"]):
        raise typer.Exit(FAILED)


def _asked(ask: Any, url: str) -> dict[str, Any]:
    try:
        return {"url": url, "reachable": True, **ask()}
    except CliError as problem:
        return {"url": url, "reachable": False, "error": str(problem)}


def _admin(api: Api) -> dict[str, Any]:
    about = api.get("/version")
    return {
        "version": about.get("holdfast_version"),
        "api": f"v{about['min_admin_api_version']} to v{about['max_admin_api_version']}",
        "deployments": len(api.get("/deployments")["deployments"]),
    }


def _show(found: dict[str, Any]) -> None:
    from holdfast_runtime.app.output import coloured, console, count, error_line

    out = console()
    lines: list[tuple[str, str, str | None]] = [("holdfast", found["holdfast"], None)]
    for name in ("admin", "ingress"):
        item = found[name]
        lines.append((name, item["url"], None))
        if item["reachable"]:
            what = f"reachable, version {item['version']}, API {item['api']}" if name == "admin" else "reachable"
            lines.append(("", what, "green"))
            numbers = {"deployment": item.get("deployments"), "service": item.get("services")}
            lines += [("", count(number, kind), None) for kind, number in numbers.items() if number is not None]
    for name, value in found["environment"].items():
        lines.append((name, value, None))
    width = max(len(name) for name, _, _ in lines) + 2
    for name, value, style in lines:
        out.print(coloured(name.ljust(width), "dim"), end="")
        out.print(coloured(str(value), style))
    for name in ("admin", "ingress"):
        if not found[name]["reachable"]:
            error_line(found[name]["error"])
