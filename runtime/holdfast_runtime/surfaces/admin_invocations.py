"""Operations on invocations (http-api §2.8), and our own ways of looking at them.

What an operation found decides the answer by one table; `{id}` stands for the invocation id.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from holdfast.protocol.ids import IdError, InvocationId, parse_deployment_id
from holdfast_runtime.coordinator.front import Done, Front, InvocationFilter
from holdfast_runtime.surfaces.admin_replies import AdminError, error, invocation_id_of, json_reply, text

Handler = Callable[[Request, int], Awaitable[Response]]
Operation = Callable[[InvocationId], Awaitable[Done]]

MAX_LISTED: Final = 10_000  # rows of one listing; ask more precisely for more

_UNKNOWN: Final = (404, "The requested invocation '{id}' does not exist")
_COMPLETED: Final = (409, "The invocation '{id}' was already completed.")
_NOT_PAUSABLE: Final = (409, "The invocation '{id}' is not running, cannot be paused.")
_NOT_STARTED: Final = (425, "The invocation '{id}' is either inboxed or scheduled, cannot be resumed.")

# Refusals per operation; APPLIED and ACCEPTED are in _SUCCESS.
_REFUSALS: Final[Mapping[tuple[str, Done], tuple[int, str]]] = {
    ("cancel", Done.ALREADY_COMPLETED): _COMPLETED,
    ("kill", Done.ALREADY_COMPLETED): _COMPLETED,
    ("purge", Done.NOT_COMPLETED): (409, "The invocation '{id}' is not yet completed."),
    ("pause", Done.ALREADY_COMPLETED): _NOT_PAUSABLE,
    ("pause", Done.NOT_RUNNING): _NOT_PAUSABLE,
    ("pause", Done.NOT_STARTED): _NOT_PAUSABLE,
    ("resume", Done.ALREADY_COMPLETED): (409, "The invocation '{id}' is completed, cannot be resumed."),
    ("resume", Done.NOT_STARTED): _NOT_STARTED,
    ("resume", Done.NOT_RUNNING): _NOT_STARTED,
}
_SUCCESS: Final[Mapping[tuple[str, Done], int]] = {
    ("cancel", Done.ACCEPTED): 202,  # it still has to see the cancellation
    ("pause", Done.ACCEPTED): 202,
}


def invocation_routes(front: Front) -> Mapping[str, Mapping[str, Handler]]:
    operations: Mapping[str, Operation] = {
        "cancel": front.cancel,
        "kill": front.kill,
        "purge": front.purge,
        "pause": front.pause,
        "resume": front.resume,
    }

    def patch(name: str) -> Handler:
        async def operate(request: Request, api: int) -> Response:
            invocation_id = invocation_id_of(request)
            if name == "resume":
                _only_same_deployment(request)
            return _done(name, invocation_id, await operations[name](invocation_id))

        return operate

    async def old_form(request: Request, api: int) -> Response:
        """Whatever it finds, the old form answers 202."""
        mode = request.query_params.get("mode", "cancel")
        if mode not in ("Cancel", "cancel", "Kill", "kill", "Purge", "purge"):
            return text(
                400,
                f"Failed to deserialize query string: mode: unknown variant `{mode}`, "
                "expected one of `Cancel`, `cancel`, `Kill`, `kill`, `Purge`, `purge`",
            )
        await operations[mode.lower()](invocation_id_of(request))
        return Response(status_code=202)

    async def listing(request: Request, api: int) -> Response:
        query = request.query_params
        where = InvocationFilter(
            service=query.get("service"),
            handler=query.get("handler"),
            key=query.get("key"),
            status=query.get("status"),
            limit=_limit(query.get("limit", "100")),
        )
        return json_reply({"invocations": [plain(row) for row in await front.list_invocations(where)]})

    async def describe(request: Request, api: int) -> Response:
        invocation_id = invocation_id_of(request)
        found = await front.describe(invocation_id)
        if found is None:
            status, message = _UNKNOWN
            return error(status, message.format(id=invocation_id))
        return json_reply(plain(found))

    async def state(request: Request, api: int) -> Response:
        service, key = request.path_params["service"], request.path_params["key"]
        entries = await front.state(service, key)
        shown = {name: encoded(value) for name, value in entries.items()}
        return json_reply({"service": service, "key": key, "state": shown})

    return {
        **{f"/invocations/{{invocation_id}}/{name}": {"PATCH": patch(name)} for name in operations},
        "/invocations/{invocation_id}": {"DELETE": old_form},
        "/holdfast/invocations": {"GET": listing},
        "/holdfast/invocations/{invocation_id}": {"GET": describe},
        "/holdfast/state/{service}/{key:path}": {"GET": state},
    }


def _done(operation: str, invocation_id: InvocationId, done: Done) -> Response:
    if done in (Done.APPLIED, Done.ACCEPTED):
        return Response(status_code=_SUCCESS.get((operation, done), 200))
    fallback = (409, f"The invocation '{{id}}' is {done.value}.")
    status, message = _UNKNOWN if done is Done.NOT_FOUND else _REFUSALS.get((operation, done), fallback)
    return error(status, message.format(id=invocation_id))


def _only_same_deployment(request: Request) -> None:
    """`?deployment=` keeps the pinned one by default; moving to another is refused, but read correctly."""
    given = request.query_params.get("deployment", "keep")
    if given in ("keep", "Keep"):
        return
    if given not in ("latest", "Latest"):
        try:
            parse_deployment_id(given)
        except IdError as problem:
            message = f"The query parameter 'deployment' is invalid. Reason: {problem.reason}"
            raise AdminError(error(400, message)) from problem
    raise AdminError(
        error(
            501,
            "Resuming on another deployment is not supported; resume with deployment=keep, "
            "or register the corrected code under the same address with force.",
        )
    )


def _limit(given: str) -> int:
    if not (given.isascii() and given.isdecimal() and 0 < int(given) <= MAX_LISTED):
        message = f"Failed to deserialize query string: limit: expected 1 to {MAX_LISTED}, found `{given}`"
        raise AdminError(text(400, message))
    return int(given)


def plain(value: Any) -> Any:
    """Rows as JSON: bytes become `{"base64": ..., "text": ...}`, everything unknown its text."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case bytes():
            return encoded(value)
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
    return str(value)


def encoded(value: bytes) -> dict[str, str | None]:
    """Exact bytes as base64, and as text where they are UTF-8."""
    try:
        shown: str | None = value.decode()
    except UnicodeDecodeError:
        shown = None
    return {"base64": base64.b64encode(value).decode(), "text": shown}
