"""A request as the ingress sees it, whichever server has read it: our own (`http1_connection.py`) or any that speaks ASGI."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from holdfast_runtime.surfaces.asgi import CallerGone, Receive, Scope, while_connected

T = TypeVar("T")


class Request(ABC):
    """path, query: as sent, not decoded. headers: lower-case names; of repeated headers the first counts.

    body: what has been read so far; complete: that is all of it, `more` has nothing to add.
    """

    __slots__ = ("body", "complete", "headers", "method", "path", "query")

    def __init__(self, method: str, path: bytes, query: bytes, headers: dict[bytes, bytes]) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.body = b""
        self.complete = False

    @abstractmethod
    async def more(self) -> tuple[bytes, bool]:
        """The next bytes of the body, and whether others follow. Raises CallerGone."""

    @abstractmethod
    def waiting(self, work: Coroutine[Any, Any, T]) -> Awaitable[T]:
        """The result of `work`, which is given up when the caller goes away.

        `work` only waits: what it waits for goes on without it.
        """


class AsgiRequest(Request):
    """Read by an ASGI server."""

    __slots__ = ("_receive",)

    def __init__(self, scope: Scope, receive: Receive) -> None:
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name not in headers:
                headers[name] = value
        path: bytes = scope.get("raw_path") or scope["path"].encode()
        super().__init__(scope["method"], path, scope["query_string"], headers)
        self._receive = receive

    async def more(self) -> tuple[bytes, bool]:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise CallerGone
        return message.get("body", b""), message.get("more_body", False)

    def waiting(self, work: Coroutine[Any, Any, T]) -> Awaitable[T]:
        return while_connected(work, self._receive)
