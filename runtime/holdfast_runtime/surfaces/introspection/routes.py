"""`POST /query` of the admin API (http-api §2.9): Arrow, or JSON when `accept` is exactly that."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from holdfast_runtime.surfaces.admin_openapi import declared
from holdfast_runtime.surfaces.admin_replies import json_object, json_reply, wrong_shape
from holdfast_runtime.surfaces.admin_shapes import Rows, Statement
from holdfast_runtime.surfaces.introspection.engine import Engine, QueryError

Handler = Callable[[Request, int], Awaitable[Response]]

ARROW: Final = "application/vnd.apache.arrow.stream"
JSON: Final = "application/json"
RETRY_AFTER_S: Final = 1


def query_routes(engine: Engine) -> Mapping[str, Mapping[str, Handler]]:
    @declared({200: Rows}, takes=Statement)
    async def query(request: Request, api: int) -> Response:
        """Rows of an SQL statement."""
        document = await json_object(request)
        if "query" not in document:
            raise wrong_shape("missing field `query`")
        statement = document["query"]
        if not isinstance(statement, str):
            raise wrong_shape(f"query: expected a string, found {type(statement).__name__}")
        as_json = request.headers.get("accept") == JSON
        try:
            parts = await engine.query(statement, json=as_json)
        except QueryError as error:
            headers = {"retry-after": str(RETRY_AFTER_S)} if error.status == 429 else None
            return json_reply({"message": str(error)}, error.status, headers)
        return StreamingResponse(_each(parts), 200, {"vary": "accept-encoding"}, JSON if as_json else ARROW)

    return {"/query": {"POST": query}}


async def _each(parts: list[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
