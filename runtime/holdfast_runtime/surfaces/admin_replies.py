"""Reading requests to and writing answers of the admin API (http-api §2.2)."""

from __future__ import annotations

import json
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from holdfast.protocol.ids import IdError, InvocationId, parse_deployment_id

MAX_BODY_BYTES: Final = 4 * 1024 * 1024  # registrations and the like are small


class AdminError(Exception):
    """A request that is answered before it does anything."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


def json_reply(document: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    body = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
    return Response(body, status, headers, "application/json")


def error(status: int, message: str, restate_code: str | None = None) -> Response:
    """The form every client understands."""
    return json_reply({"message": message, "restate_code": restate_code}, status)


def text(status: int, message: str) -> Response:
    """For requests refused before a route looked at them."""
    return Response(message, status, {"content-type": "text/plain; charset=utf-8"})


def invalid_field(field: str, reason: str) -> AdminError:
    return AdminError(error(400, f"The request field '{field}' is invalid. Reason: {reason}"))


def wrong_shape(reason: str) -> AdminError:
    return AdminError(text(422, f"Failed to deserialize the JSON body into the target type: {reason}"))


async def json_object(request: Request) -> dict[str, Any]:
    """The body, which must be a JSON object declared as JSON. Raises AdminError."""
    document = await json_body(request)
    if not isinstance(document, dict):
        raise wrong_shape(f"expected an object, found {type(document).__name__}")
    return document


async def json_body(request: Request) -> Any:
    """The body, which must be JSON and declared so. Raises AdminError."""
    declared = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if declared != "application/json" and not (declared.startswith("application/") and declared.endswith("+json")):
        raise AdminError(text(415, "Expected request with `Content-Type: application/json`"))
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise AdminError(text(413, "length limit exceeded"))
    try:
        return json.loads(bytes(body))
    except (ValueError, RecursionError) as problem:
        raise AdminError(text(400, f"Failed to parse the request body as JSON: {problem}")) from problem


def invocation_id_of(request: Request) -> InvocationId:
    try:
        return InvocationId.parse(request.path_params["invocation_id"])
    except IdError as problem:
        raise invalid_field("invocation_id", problem.reason) from problem


def deployment_id_of(request: Request) -> str:
    given: str = request.path_params["deployment_id"]
    try:
        parse_deployment_id(given)
    except IdError as problem:
        message = f"Invalid URL: Cannot parse `deployment` with value `{given}`: {problem.reason}"
        raise AdminError(text(400, message)) from problem
    return given
