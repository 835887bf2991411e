"""Names that do not exist: whether they do, and which one may have been meant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from holdfast_runtime.app.errors import CliError, nearest_or_all
from holdfast_runtime.app.http import Api


def services(api: Api) -> dict[str, dict[str, Any]]:
    return {item["name"]: item for item in api.get("/services")["services"]}


def service(api: Api, name: str) -> dict[str, Any]:
    """One that exists. Raises CliError with the nearest name."""
    known = services(api)
    if name not in known:
        raise CliError(f"there is no service '{name}'{nearest_or_all(name, known)}")
    return known[name]


def deployment(api: Api, deployment_id: str) -> dict[str, Any]:
    """One that exists, by its id or the beginning of it, its address, or its only service. Raises CliError."""
    listed = api.get("/deployments")["deployments"]
    for item in listed:
        if deployment_id in (item["id"], address_of(item), address_of(item).rstrip("/")):
            found: dict[str, Any] = api.get(f"/deployments/{item['id']}")
            return found
    known = [item["id"] for item in listed]
    hint = nearest_or_all(deployment_id, known) or "; none is registered"
    raise CliError(f"there is no deployment '{deployment_id}'{hint}")


def address_of(item: dict[str, Any]) -> str:
    return str(item.get("arn") or item["uri"])


def remarks(api: Api, wanted: Iterable[str], handlers: Iterable[str]) -> list[str]:
    """Why a list may be empty: services and handlers that are not registered now."""
    known, missing = services(api), list(wanted)
    offered = {handler["name"] for name in (set(missing) & set(known) or known) for handler in known[name]["handlers"]}
    found = [f"no service is called '{name}' now{nearest_or_all(name, known)}" for name in missing if name not in known]
    return found + [f"no handler is called '{name}' now{nearest_or_all(name, offered)}" for name in handlers if name not in offered]


def meant(api: Api, service_name: str, handler: str) -> str:
    """What may have been meant by a call that found nothing; nothing when the admin API cannot be asked."""
    try:
        known = services(api)
    except CliError:
        return ""
    if service_name not in known:
        return nearest_or_all(service_name, known)
    return nearest_or_all(handler, (item["name"] for item in known[service_name]["handlers"]))
