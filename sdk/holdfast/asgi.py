"""Serving handlers over HTTP, with any ASGI server.

Rules: bodies are read whole before the handler starts, as the mode is request and response; a client that goes
away does not stop the handler.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from holdfast.endpoint import Endpoint
from holdfast.logs import Log
from holdfast.service import ServiceBase

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def app(
    *services: ServiceBase, logger: Log | None = None, identity_keys: Sequence[str] = ()
) -> Callable[[Message, Receive, Send], Awaitable[None]]:
    """The ASGI application of these services, e.g. for `uvicorn module:app`."""
    endpoint = Endpoint(services, logger=logger, identity_keys=identity_keys)

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await _lifespan(receive, send)
        if scope["type"] != "http":
            raise RuntimeError(f"only HTTP is served here, found {scope['type']}")
        body = await _read(receive)
        if body is None:
            return None  # the client left
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        status, answered, content = await endpoint.handle(scope["method"], scope["path"], headers, body)
        raw = [(name.encode(), value.encode("latin-1")) for name, value in answered.items()]
        raw.append((b"content-length", str(len(content)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": content})
        return None

    return application


async def _read(receive: Receive) -> bytes | None:
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
