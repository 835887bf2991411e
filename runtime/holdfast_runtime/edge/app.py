"""The front door as a Chalice application, and the Lambda handler before it.

Served: send and delayed send, awakeables, output, lookup and health, with the paths, checks and errors of the coordinator's ingress,
because it is the same code. Who may call is decided in front: by IAM or API keys at the gateway or function URL.

Configuration: HOLDFAST_STORE (`dynamodb://table`), HOLDFAST_INBOX_QUEUE_URL; optional HOLDFAST_INGRESS_URL, a coordinator's ingress that is
asked for outputs first, because a result takes minutes to be in the table.
"""

from __future__ import annotations

import asyncio
import http.client
import logging
import os
from collections.abc import Awaitable, Coroutine
from functools import cache
from typing import Any, Final, TypeVar
from urllib.parse import urlencode, urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from chalice.app import Chalice, Response

from holdfast_runtime.adapters.dynamodb_table import DynamoDbTable
from holdfast_runtime.edge.front import EdgeFront
from holdfast_runtime.edge.table import TableReader
from holdfast_runtime.ports import inbox
from holdfast_runtime.ports.inbox import InboxMessage, InboxUnavailable
from holdfast_runtime.surfaces.ingress import Ingress, IngressSettings
from holdfast_runtime.surfaces.ingress_replies import Reply, ingress_error
from holdfast_runtime.surfaces.ingress_request import Request

log = logging.getLogger("holdfast.edge")
T = TypeVar("T")

MAX_BODY_BYTES: Final = 700_000  # a message on the queue holds 1 MB, and bodies travel as base64
ASK_TIMEOUT_S: Final = 3.0
MAX_SEGMENTS: Final = 7  # of a path of the ingress

app = Chalice(app_name="holdfast-edge")
app.api.binary_types.append("*/*")


class Setup(Exception):
    """The function's environment is not complete."""


class _Whole(Request):
    """A request that has arrived as a whole."""

    __slots__ = ()

    def __init__(self, method: str, path: bytes, query: bytes, headers: dict[bytes, bytes], body: bytes) -> None:
        super().__init__(method, path, query, headers)
        self.body = body
        self.complete = True

    async def more(self) -> tuple[bytes, bool]:
        return b"", False

    def waiting(self, work: Coroutine[Any, Any, T]) -> Awaitable[T]:
        return work


@cache
def _queue() -> Any:
    return boto3.client("sqs", config=Config(connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3}))


def _put(message: InboxMessage) -> None:
    try:
        _queue().send_message(QueueUrl=_setting("HOLDFAST_INBOX_QUEUE_URL"), MessageBody=inbox.encode(message))
    except (BotoCoreError, ClientError) as problem:
        raise InboxUnavailable(str(problem)) from problem


@cache
def _ingress() -> Ingress:
    front = EdgeFront(_table(), _put)
    return Ingress(front, IngressSettings(max_body_bytes=MAX_BODY_BYTES))  # type: ignore[arg-type]  # as much of a Front as it needs


def _table() -> TableReader:
    try:
        return TableReader(DynamoDbTable.parse(_setting("HOLDFAST_STORE")))
    except ValueError as problem:
        raise Setup(f"HOLDFAST_STORE: {problem}") from problem


def _setting(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise Setup(f"expected the environment variable {name}, found nothing; the template sets it on the function")
    return value


def answer(request: Request) -> Reply:
    """What the ingress answers, or the coordinator where it can be asked. Raises nothing."""
    asked = _from_coordinator(request)
    if asked is not None:
        return asked
    try:
        return asyncio.run(_ingress().handle(request))
    except Setup as problem:
        log.error("edge.not_set_up", extra={"error": str(problem)})
        return ingress_error(500, "the front door is not set up, its log says what is missing")


def _from_coordinator(request: Request) -> Reply | None:
    """An output, from who knows the newest. None: not asked, or no answer."""
    url = os.environ.get("HOLDFAST_INGRESS_URL")
    is_output = request.method == "GET" and (request.path.endswith(b"/output") or request.path.startswith(b"/restate/output/"))
    if not url or not is_output:
        return None
    at = urlsplit(url)
    kind = http.client.HTTPSConnection if at.scheme == "https" else http.client.HTTPConnection
    connection = kind(at.hostname or "", at.port, timeout=ASK_TIMEOUT_S)
    try:
        connection.request("GET", at.path.rstrip("/") + request.path.decode("latin-1"))
        response = connection.getresponse()
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in response.getheaders()]
        return Reply(response.status, headers, response.read())
    except (OSError, http.client.HTTPException) as problem:
        log.warning("edge.coordinator_unreachable", extra={"error": str(problem)})
        return None
    finally:
        connection.close()


def _serve(**segments: str) -> Response:
    """Any path: the ingress reads it itself, undecoded."""
    current = app.current_request
    assert current is not None
    raw = current.to_original_event()
    headers: dict[bytes, bytes] = {}
    for name, value in (raw.get("holdfast_headers") or raw.get("headers") or {}).items():
        if not _is_credential(name.lower(), value):
            headers.setdefault(name.lower().encode(), value.encode("latin-1", "replace"))
    path = raw.get("holdfast_path") or "/" + "/".join(segments.values())  # the second: `chalice local`, without our handler
    query = raw.get("holdfast_query") or urlencode([(name, value) for name, value in (current.query_params or {}).items()])
    query = "&".join(pair for pair in query.split("&") if not _is_signature(pair))
    raw_body = current.raw_body
    body = raw_body.encode() if isinstance(raw_body, str) else raw_body
    reply = answer(_Whole(current.method, path.encode("latin-1", "replace"), query.encode("latin-1", "replace"), headers, body))
    kept: dict[str, str | list[str]] = {
        name.decode("latin-1"): value.decode("latin-1") for name, value in reply.headers if name != b"content-length"
    }
    return Response(body=reply.body, status_code=reply.status, headers=kept)


def _is_credential(name: str, value: str) -> bool:
    """What was proved to API Gateway or to the function URL. Headers are stored with an invocation and given to handlers: these never."""
    return name in ("x-api-key", "x-amz-security-token") or (name == "authorization" and value.startswith("AWS4-"))


def _is_signature(pair: str) -> bool:
    """Of a presigned URL; path and query are stored with an invocation, too."""
    return pair.lower().startswith("x-amz-")


for _count in range(1, MAX_SEGMENTS + 1):
    _route = "".join(f"/{{s{number}}}" for number in range(_count))
    app.route(_route, methods=["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"], content_types=["*/*"])(_serve)


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """For API Gateway (REST with a proxy route, HTTP API) and function URLs: Chalice knows only the first, with its own routes.

    Paths come as they were sent, but from HTTP APIs, which decode them: keys with a "/" or "%" cannot come through those.
    """
    if event.get("version") == "2.0":
        event = _first_version(event)
    path = event["path"]
    segments = path.rstrip("/").split("/")[1:]
    if not 1 <= len(segments) <= MAX_SEGMENTS:
        reply = ingress_error(400, f"bad path: {path}")
        return {"statusCode": reply.status, "headers": {"content-type": "application/json"}, "body": reply.body.decode()}
    route = "".join(f"/{{s{number}}}" for number in range(len(segments)))
    query = event.get("holdfast_query")
    if query is None:
        pairs = (event.get("multiValueQueryStringParameters") or {}).items()
        query = "&".join(f"{name}={value}" for name, values in pairs for value in values)
    headers = event.get("headers") or {}
    event = {
        **event,
        "headers": {"accept": "*/*", **{name.lower(): value for name, value in headers.items()}},  # Chalice refuses a request without
        "holdfast_headers": headers,
        "resource": route,
        "pathParameters": {f"s{number}": segment for number, segment in enumerate(segments)},
        "requestContext": {**event["requestContext"], "resourcePath": route, "httpMethod": event["httpMethod"]},
        "holdfast_path": path,
        "holdfast_query": query,
    }
    found: dict[str, Any] = app(event, context)
    return found


def _first_version(event: dict[str, Any]) -> dict[str, Any]:
    request, headers = event["requestContext"], dict(event.get("headers") or {})
    query = event.get("queryStringParameters") or {}
    body = event.get("body")
    return {
        "path": event["rawPath"],
        "httpMethod": request["http"]["method"],
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": query,
        "multiValueQueryStringParameters": {name: value.split(",") for name, value in query.items()} or None,
        "stageVariables": None,
        "body": body,
        "isBase64Encoded": event.get("isBase64Encoded", False),
        "requestContext": {**request, "identity": {"sourceIp": request["http"].get("sourceIp")}},
        "holdfast_query": event.get("rawQueryString", ""),
    }
