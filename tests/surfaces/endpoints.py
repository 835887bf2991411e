"""Endpoints of registration tests: an official SDK's ASGI application in process, and one that answers as told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from holdfast_runtime.coordinator.addresses import shown
from holdfast_runtime.ports.endpoint import (
    Address,
    EndpointFailure,
    EndpointRequest,
    EndpointResponse,
    HttpAddress,
    HttpVersion,
)

MANIFEST_V4 = "application/vnd.restate.endpointmanifest.v4+json"


class SdkEndpoint:
    """Serves ASGI applications by their deployment's address, as a server in front of them would.

    Instead of an application an address may have a ready answer, or a failure.
    """

    def __init__(self, apps: Mapping[str, Any]) -> None:
        self._apps = apps

    async def request(self, address: Address, request: EndpointRequest, *, timeout_s: float) -> EndpointResponse:
        app = self._apps.get(shown(address))
        if app is None:
            raise EndpointFailure("Connection refused")
        if isinstance(app, EndpointFailure):
            raise app
        if isinstance(app, EndpointResponse):
            return app
        http2 = isinstance(address, HttpAddress) and address.http_version is HttpVersion.HTTP_2
        messages: list[dict[str, Any]] = []
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "2" if http2 else "1.1",
            "method": request.method,
            "path": request.path,
            "raw_path": request.path.encode(),
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in request.headers.items()],
            "extensions": {},
        }

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": request.body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            messages.append(message)

        await app(scope, receive, send)
        headers = {name.decode().lower(): value.decode() for name, value in messages[0]["headers"]}
        body = b"".join(message.get("body", b"") for message in messages[1:])
        return EndpointResponse(messages[0]["status"], headers, body)

    async def close(self) -> None:
        pass


Respond = Callable[[Address], EndpointResponse]


@dataclass
class ToldEndpoint:
    """`respond` gives the answer or raises EndpointFailure; `asked` counts."""

    respond: Respond
    asked: list[Address] = field(default_factory=list)

    async def request(self, address: Address, request: EndpointRequest, *, timeout_s: float) -> EndpointResponse:
        assert request.path == "/discover"
        self.asked.append(address)
        return self.respond(address)

    async def close(self) -> None:
        pass
