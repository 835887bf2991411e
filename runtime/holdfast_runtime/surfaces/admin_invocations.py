"""Operations on invocations (http-api §2.8), and our own ways of looking at them.

What an operation found decides the answer by one table; `{id}` stands for the invocation id, `{deployment}` for what was asked for. A
batch does the same for many and says of each what became of it.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from holdfast.protocol.ids import IdError, InvocationId, parse_deployment_id
from holdfast_runtime.coordinator.front import CoordinatorUnavailable, Done, Front, InvocationFilter, Restarted
from holdfast_runtime.surfaces.admin_openapi import declared
from holdfast_runtime.surfaces.admin_replies import (
    AdminError,
    error,
    invalid_field,
    invocation_id_of,
    json_object,
    json_reply,
    text,
    wrong_shape,
)
from holdfast_runtime.surfaces.admin_shapes import Batch, BatchDone
from holdfast_runtime.surfaces.admin_shapes import Restarted as RestartedShape

Handler = Callable[[Request, int], Awaitable[Response]]

MAX_LISTED: Final = 10_000  # rows of one listing; ask more precisely for more
MAX_BATCH: Final = 1_000  # http-api §2.8
BATCH_TOGETHER: Final = 32  # of a batch: enough to share log records, few enough to leave the owners to others

OPERATIONS: Final = ("cancel", "kill", "purge", "purge-journal", "pause", "resume", "restart-as-new")
_LATEST: Final = "latest"

_UNKNOWN: Final = (404, "The requested invocation '{id}' does not exist")
_COMPLETED: Final = (409, "The invocation '{id}' was already completed.")
_NOT_COMPLETED: Final = (409, "The invocation '{id}' is not yet completed.")
_NOT_PAUSABLE: Final = (409, "The invocation '{id}' is not running, cannot be paused.")
_NOT_STARTED: Final = (425, "The invocation '{id}' is either inboxed or scheduled, cannot be resumed.")
_DEPLOYMENT: Final = "The query parameter 'deployment' is invalid. Reason: "
_FROM: Final = "The query parameter 'from' is invalid. Reason: "

_UNFINISHED: Final = (  # also when there is no such entry, as the reference says it
    400,
    "The prefix of the journal '{id}' up to 'from' (included) contains some Commands without respective Completions.",
)

# Refusals per operation; APPLIED and ACCEPTED are in _SUCCESS.
_REFUSALS: Final[Mapping[tuple[str, Done], tuple[int, str]]] = {
    ("cancel", Done.ALREADY_COMPLETED): _COMPLETED,
    ("kill", Done.ALREADY_COMPLETED): _COMPLETED,
    ("purge", Done.NOT_COMPLETED): _NOT_COMPLETED,
    ("purge-journal", Done.NOT_COMPLETED): _NOT_COMPLETED,
    ("pause", Done.ALREADY_COMPLETED): _NOT_PAUSABLE,
    ("pause", Done.NOT_RUNNING): _NOT_PAUSABLE,
    ("pause", Done.NOT_STARTED): _NOT_PAUSABLE,
    ("resume", Done.ALREADY_COMPLETED): (409, "The invocation '{id}' is completed, cannot be resumed."),
    ("resume", Done.NOT_STARTED): _NOT_STARTED,
    ("resume", Done.NOT_RUNNING): _NOT_STARTED,
    ("resume", Done.PINNED): (
        409,
        "The invocation '{id}' is still running or the deployment id is not pinned yet, deployment id cannot be changed.",
    ),
    ("resume", Done.NO_DEPLOYMENT): (400, "The given deployment was not found when trying to resume the invocation '{id}'."),
    ("restart-as-new", Done.NO_DEPLOYMENT): (
        400,
        "The given deployment was not found when trying to restart as new the invocation '{id}'.",
    ),
    ("restart-as-new", Done.NOT_STARTED): (425, "The invocation '{id}' cannot be restarted because it's not running yet."),
    ("restart-as-new", Done.STILL_RUNNING): (409, "The invocation '{id}' is still running."),
    ("restart-as-new", Done.UNSUPPORTED): (
        422,
        "Restarting the invocation '{id}' is not supported. Restarting workflows is not supported, "
        "and restarting invocations created using the old service protocol.",
    ),
    ("restart-as-new", Done.NO_JOURNAL): (
        410,
        "The invocation '{id}' cannot be restarted because the input is not available. "
        "This indicates that the journal was already purged, or not retained at all.",
    ),
    ("restart-as-new", Done.OUT_OF_RANGE): _UNFINISHED,
    ("restart-as-new", Done.UNFINISHED): _UNFINISHED,
    ("restart-as-new", Done.TOO_LARGE): (
        400,
        _FROM + "the journal of '{id}' up to this entry is larger than what can be copied; choose an earlier entry",
    ),
}
# Whichever operation asked for a deployment.
_NO_DEPLOYMENT: Final[Mapping[Done, tuple[int, str]]] = {
    Done.NO_HANDLER: (400, _DEPLOYMENT + "the deployment '{deployment}' does not serve the handler of the invocation '{id}'"),
    Done.NO_VERSION: (
        400,
        _DEPLOYMENT + "the deployment '{deployment}' does not speak the service protocol version that the journal of '{id}' is written in",
    ),
}
_SUCCESS: Final[Mapping[tuple[str, Done], int]] = {
    ("cancel", Done.ACCEPTED): 202,  # it still has to see the cancellation
    ("pause", Done.ACCEPTED): 202,
}


def invocation_routes(front: Front) -> Mapping[str, Mapping[str, Handler]]:
    def patch(name: str) -> Handler:
        elsewhere = {"deployment": str} if name in ("resume", "restart-as-new") else {}
        restart = name == "restart-as-new"

        @declared({200: RestartedShape if restart else None}, query={**elsewhere, **({"from": int} if restart else {})})
        async def operate(request: Request, api: int) -> Response:
            invocation_id = invocation_id_of(request)
            query = request.query_params
            try:
                deployment = _deployment(query.get("deployment"), name)
            except IdError as problem:
                raise AdminError(error(400, _DEPLOYMENT + problem.reason)) from problem
            upto = _index(query.get("from", "0")) if name == "restart-as-new" else 0
            found = await _operate(front, name, invocation_id, deployment, upto)
            if isinstance(found, Restarted):
                return json_reply({"new_invocation_id": str(found.invocation_id)})
            if found in (Done.APPLIED, Done.ACCEPTED):
                return Response(status_code=_SUCCESS.get((name, found), 200))
            return error(*_refusal(name, invocation_id, found, deployment))

        operate.__doc__ = f"{name} one invocation."
        return operate

    def batch(name: str) -> Handler:
        @declared({200: BatchDone}, takes=Batch)
        async def operate_all(request: Request, api: int) -> Response:
            wanted, deployment = _batch(await json_object(request), name)
            return json_reply(await _operate_all(front, name, wanted, deployment))

        operate_all.__doc__ = f"{name} many invocations."
        return operate_all

    @declared({202: None}, query={"mode": str})
    async def old_form(request: Request, api: int) -> Response:
        """Cancel, kill or purge an invocation, the old form: 202 whatever it finds."""
        mode = request.query_params.get("mode", "cancel")
        if mode not in ("Cancel", "cancel", "Kill", "kill", "Purge", "purge"):
            return text(
                400,
                f"Failed to deserialize query string: mode: unknown variant `{mode}`, "
                "expected one of `Cancel`, `cancel`, `Kill`, `kill`, `Purge`, `purge`",
            )
        await _operate(front, mode.lower(), invocation_id_of(request))
        return Response(status_code=202)

    @declared({200: dict[str, list[Any]]}, query={"service": str, "handler": str, "key": str, "status": str, "limit": int})
    async def listing(request: Request, api: int) -> Response:
        """List invocations, newest first."""
        query = request.query_params
        where = InvocationFilter(
            service=query.get("service"),
            handler=query.get("handler"),
            key=query.get("key"),
            status=query.get("status"),
            limit=_limit(query.get("limit", "100")),
        )
        return json_reply({"invocations": [plain(row) for row in await front.list_invocations(where)]})

    @declared({200: dict[str, Any]})
    async def describe(request: Request, api: int) -> Response:
        """One invocation with its journal."""
        invocation_id = invocation_id_of(request)
        found = await front.describe(invocation_id)
        if found is None:
            status, message = _UNKNOWN
            return error(status, message.format(id=invocation_id))
        return json_reply(plain(found))

    @declared({200: dict[str, Any]})
    async def state(request: Request, api: int) -> Response:
        """The state of a key."""
        service, key = request.path_params["service"], request.path_params["key"]
        entries = await front.state(service, key)
        shown = {name: encoded(value) for name, value in entries.items()}
        return json_reply({"service": service, "key": key, "state": shown})

    return {
        **{f"/invocations/{{invocation_id}}/{name}": {"PATCH": patch(name)} for name in OPERATIONS},
        **{f"/internal/invocations_batch_operations/{name}": {"POST": batch(name)} for name in OPERATIONS},
        "/invocations/{invocation_id}": {"DELETE": old_form},
        "/holdfast/invocations": {"GET": listing},
        "/holdfast/invocations/{invocation_id}": {"GET": describe},
        "/holdfast/state/{service}/{key:path}": {"GET": state},
    }


# ---- Operations


async def _operate(front: Front, name: str, invocation_id: InvocationId, deployment: str | None = None, upto: int = 0) -> Done | Restarted:
    match name:
        case "cancel":
            return await front.cancel(invocation_id)
        case "kill":
            return await front.kill(invocation_id)
        case "purge":
            return await front.purge(invocation_id)
        case "purge-journal":
            return await front.purge_journal(invocation_id)
        case "pause":
            return await front.pause(invocation_id)
        case "resume":
            return await front.resume(invocation_id, deployment)
        case "restart-as-new":
            return await front.restart_as_new(invocation_id, upto=upto, deployment=deployment)
    raise AssertionError(f"unknown operation {name!r}")


def _refusal(name: str, invocation_id: InvocationId, done: Done, deployment: str | None) -> tuple[int, str]:
    fallback = (409, f"The invocation '{{id}}' is {done.value}.")
    status, message = _UNKNOWN if done is Done.NOT_FOUND else _REFUSALS.get((name, done)) or _NO_DEPLOYMENT.get(done, fallback)
    return status, message.format(id=invocation_id, deployment=deployment or "keep")


def _deployment(given: str | None, operation: str) -> str | None:
    """An id, "latest", or None: the pinned one. Raises IdError."""
    if operation not in ("resume", "restart-as-new"):
        return None
    if given is None:
        return _LATEST if operation == "restart-as-new" else None
    if given in ("keep", "Keep"):
        return None
    if given in (_LATEST, "Latest"):
        return _LATEST
    parse_deployment_id(given)
    return given


def _index(given: str) -> int:
    if not (given.isascii() and given.isdecimal() and len(given) < 10):
        raise AdminError(text(400, f"Failed to deserialize query string: from: expected the index of a journal entry, found `{given}`"))
    return int(given)


# ---- Batches


def _batch(body: Mapping[str, Any], name: str) -> tuple[list[InvocationId], str | None]:
    """The invocations and the deployment that a batch names. Raises AdminError."""
    given = body.get("invocation_ids")
    if not isinstance(given, list):
        raise wrong_shape(f"invocation_ids: expected a list of invocation ids, found {type(given).__name__}")
    if len(given) > MAX_BATCH:
        raise AdminError(error(400, f"Batch size {len(given)} exceeds maximum allowed size of {MAX_BATCH}"))
    wanted = []
    for number, item in enumerate(given):
        if not isinstance(item, str):
            raise wrong_shape(f"invocation_ids[{number}]: expected an invocation id, found {type(item).__name__}")
        try:
            wanted.append(InvocationId.parse(item))
        except IdError as problem:
            raise wrong_shape(f"invocation_ids[{number}]: {problem.reason}") from problem
    deployment = body.get("deployment")
    if deployment is not None and not isinstance(deployment, str):
        raise invalid_field("deployment", f"expected Keep, Latest or a deployment id, found {type(deployment).__name__}")
    try:
        return wanted, _deployment(deployment, name)
    except IdError as problem:
        raise invalid_field("deployment", problem.reason) from problem


async def _operate_all(front: Front, name: str, wanted: list[InvocationId], deployment: str | None) -> dict[str, Any]:
    """What succeeded and what failed, each in the order it was asked for. One that cannot be reached costs only itself."""
    free = asyncio.Semaphore(BATCH_TOGETHER)

    async def one(invocation_id: InvocationId) -> Done | Restarted | CoordinatorUnavailable:
        async with free:
            try:
                return await _operate(front, name, invocation_id, deployment)
            except CoordinatorUnavailable as unavailable:
                return unavailable

    succeeded: list[Any] = []
    failed: list[dict[str, str]] = []
    for invocation_id, found in zip(wanted, await asyncio.gather(*map(one, wanted)), strict=True):
        if isinstance(found, Restarted):
            succeeded.append({"old_invocation_id": str(invocation_id), "new_invocation_id": str(found.invocation_id)})
        elif found in (Done.APPLIED, Done.ACCEPTED):
            succeeded.append(str(invocation_id))
        else:
            failed.append({"invocation_id": str(invocation_id), "error": _why(name, invocation_id, found, deployment)})
    return {"succeeded": succeeded, "failed": failed}


def _why(name: str, invocation_id: InvocationId, found: Done | CoordinatorUnavailable, deployment: str | None) -> str:
    if isinstance(found, CoordinatorUnavailable):
        return f"the coordinator cannot be reached: {found}"
    if found is Done.NOT_FOUND:
        return f"Invocation '{invocation_id}' not found"
    message = _refusal(name, invocation_id, found, deployment)[1]
    return message.replace("The invocation", "Invocation", 1).removesuffix(".")


# ---- Our own


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
