"""Deployments over the admin API (http-api §2.5)."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from holdfast_runtime.coordinator.front import Front, RegisterDeployment, UpdateDeployment
from holdfast_runtime.surfaces.admin_json import deployment_json, registered_json
from holdfast_runtime.surfaces.admin_openapi import declared
from holdfast_runtime.surfaces.admin_replies import (
    deployment_id_of,
    error,
    invalid_field,
    json_object,
    json_reply,
    text,
    wrong_shape,
)
from holdfast_runtime.surfaces.admin_shapes import Deployment, Deployments, DeploymentUpdate, Problem, Registered, Registration

Handler = Callable[[Request, int], Awaitable[Response]]

_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE: Final = re.compile(r"[\x20-\x7e\t]*")


def deployment_routes(front: Front) -> Mapping[str, Mapping[str, Handler]]:
    @declared({201: Registered, 200: Registered, 409: Problem}, takes=Registration)
    async def register(request: Request, api: int) -> Response:
        """Register a deployment: discover what it serves and send new work there."""
        # Below v2, scripts rely on force being the default.
        wanted = parse_registration(await json_object(request), force_default=api == 2)
        done = await front.register(wanted)
        if api == 2 and not done.created and not wanted.force:
            return error(409, f"Conflict: deployment {done.deployment.id} already exists")
        status = 201 if done.created or api == 2 else 200
        return json_reply(registered_json(done), status, {"location": f"deployments/{done.deployment.id}"})

    @declared({200: Deployments})
    async def listing(request: Request, api: int) -> Response:
        """List deployments."""
        deployments = front.registry.deployments.values()
        return json_reply({"deployments": [deployment_json(item, full=False) for item in deployments]})

    @declared({200: Deployment, 404: Problem})
    async def get(request: Request, api: int) -> Response:
        """One deployment with what it serves."""
        deployment_id = deployment_id_of(request)
        deployment = front.registry.deployments.get(deployment_id)
        if deployment is None:
            return error(404, f"The requested deployment '{deployment_id}' does not exist")
        return json_reply(deployment_json(deployment, full=True))

    @declared({202: None, 404: Problem, 501: None}, query={"force": bool})
    async def delete(request: Request, api: int) -> Response:
        """Remove a deployment; needs force. What is pinned to it waits until it is resumed elsewhere."""
        deployment_id = deployment_id_of(request)
        force = request.query_params.get("force", "false")
        if force not in ("true", "false"):
            return text(400, "Failed to deserialize query string: force: provided string was not `true` or `false`")
        if force == "false":
            return Response(status_code=501)
        if not await front.remove_deployment(deployment_id):
            return error(404, f"not found in the schema registry: deployment with id '{deployment_id}'")
        return Response(status_code=202)

    @declared({200: Deployment, 400: Problem, 404: Problem}, takes=DeploymentUpdate)
    async def patch(request: Request, api: int) -> Response:
        """Point a deployment elsewhere; invocations under way follow it."""
        deployment_id = deployment_id_of(request)
        changed = await front.update_deployment(deployment_id, parse_update(await json_object(request)))
        if changed is None:
            return error(404, f"The requested deployment '{deployment_id}' does not exist")
        return json_reply(deployment_json(changed, full=True))

    @declared({200: Deployment, 405: Problem}, takes=DeploymentUpdate)
    async def put(request: Request, api: int) -> Response:
        """The old form of PATCH, below /v2 alone."""
        if api == 2:
            return await patch(request, api)
        return error(405, "PUT deployment is deprecated, use PATCH instead")

    return {
        "/deployments": {"GET": listing, "POST": register},
        "/deployments/{deployment_id}": {"GET": get, "PATCH": patch, "PUT": put, "DELETE": delete},
    }


def parse_registration(document: Mapping[str, Any], *, force_default: bool) -> RegisterDeployment:
    """Unknown members are ignored, null counts as absent. Raises AdminError: 422 for a wrong shape, 400 for
    bad headers.
    """
    if not isinstance(document.get("uri"), str) and not isinstance(document.get("arn"), str):
        raise wrong_shape("data did not match any variant of untagged enum RegisterDeploymentRequest")
    over_http = isinstance(document.get("uri"), str)
    if over_http and document.get("auth") is not None:
        raise invalid_field("auth", "this server has no Google account to get tokens from; leave it out, or send a header of your own")
    return RegisterDeployment(
        uri=document["uri"] if over_http else None,
        arn=None if over_http else document["arn"],
        assume_role_arn=_optional(document, "assume_role_arn"),
        additional_headers=_headers(document) or {},
        metadata=_strings(document, "metadata") or {},
        use_http_11=_flag(document, "use_http_11", False),
        force=_flag(document, "force", force_default),
        breaking=_flag(document, "breaking", False),
        dry_run=_flag(document, "dry_run", False),
    )


def parse_update(document: Mapping[str, Any]) -> UpdateDeployment:
    """Null counts as absent. Raises AdminError as `parse_registration` does."""
    use_http_11 = document.get("use_http_11")
    return UpdateDeployment(
        uri=_optional(document, "uri"),
        arn=_optional(document, "arn"),
        assume_role_arn=_optional(document, "assume_role_arn"),
        additional_headers=_headers(document),
        use_http_11=None if use_http_11 is None else _flag(document, "use_http_11", False),
        overwrite=_flag(document, "overwrite", False),
        dry_run=_flag(document, "dry_run", False),
    )


def _headers(document: Mapping[str, Any]) -> dict[str, str] | None:
    headers = _strings(document, "additional_headers")
    for name, value in (headers or {}).items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise invalid_field("additional_headers", f"'{name}' is no valid header name, or its value is none")
    return headers


def _optional(document: Mapping[str, Any], member: str) -> str | None:
    value = document.get(member)
    if value is not None and not isinstance(value, str):
        raise wrong_shape(f"{member}: expected a string, found {value!r:.40}")
    return value


def _flag(document: Mapping[str, Any], member: str, default: bool) -> bool:
    value = document.get(member)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise wrong_shape(f"{member}: expected a boolean, found {value!r:.40}")
    return value


def _strings(document: Mapping[str, Any], member: str) -> dict[str, str] | None:
    value = document.get(member)
    if value is None:
        return None
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise wrong_shape(f"{member}: expected an object of strings, found {value!r:.40}")
    return value
