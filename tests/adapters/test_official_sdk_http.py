"""The official Python SDK served by hypercorn, over HTTP/1.1 and over HTTP/2 in cleartext."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypercorn.asyncio import serve
from hypercorn.config import Config

from holdfast_runtime.adapters.endpoints import Endpoints
from holdfast_runtime.adapters.system import SystemClock
from holdfast_runtime.ports.endpoint import EndpointRequest, HttpAddress, HttpVersion
from holdfast_runtime.ports.outcomes import failure_of
from tests.adapters.functions import official

VECTORS = Path(__file__).parents[1] / "golden" / "vectors"
ACCEPT = ", ".join(f"application/vnd.restate.endpointmanifest.v{n}+json" for n in (2, 3, 4))


@pytest.fixture
async def uri() -> AsyncIterator[str]:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(64)
    port = listening.getsockname()[1]
    config = Config()
    config.bind = [f"fd://{listening.detach()}"]  # the server's own from here on
    config.errorlog = None
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(official.app, config, shutdown_trigger=stop.wait))
    yield f"http://127.0.0.1:{port}"
    stop.set()
    await serving


@pytest.fixture
async def endpoints() -> AsyncIterator[Endpoints]:
    endpoints = Endpoints(SystemClock())
    yield endpoints
    await endpoints.close()


@pytest.mark.parametrize(("version", "mode"), [(HttpVersion.HTTP_1_1, "REQUEST_RESPONSE"), (HttpVersion.HTTP_2, "BIDI_STREAM")])
async def test_discovery_and_an_invocation(endpoints: Endpoints, uri: str, version: HttpVersion, mode: str) -> None:
    address = HttpAddress(uri, version)
    discover = EndpointRequest("GET", "/discover", {"accept": ACCEPT}, b"")
    manifest = await endpoints.request(address, discover, timeout_s=60)
    assert manifest.headers["content-type"] == "application/vnd.restate.endpointmanifest.v4+json"
    assert json.loads(manifest.body)["protocolMode"] == mode

    recorded = json.loads((VECTORS / "02-invoke-plain.json").read_text())["exchanges"][0]
    request = recorded["request"]
    invocation = EndpointRequest("POST", request["path"], request["headers"], bytes.fromhex(request["body_hex"]))
    for _ in range(3):  # on kept connections too
        response = await endpoints.request(address, invocation, timeout_s=60)
        assert failure_of(response, request["headers"]["content-type"], now_ms=0) is None
        assert (response.status, response.broken) == (200, None)
        assert response.body.hex() == recorded["response"]["body_hex"]
        assert response.headers["x-restate-server"].startswith("restate-sdk-python/")


@pytest.mark.parametrize("version", list(HttpVersion))
async def test_an_unknown_service_and_version(endpoints: Endpoints, uri: str, version: HttpVersion) -> None:
    address = HttpAddress(uri, version)
    headers = {"content-type": "application/vnd.restate.invocation.v6"}
    unknown = await endpoints.request(address, EndpointRequest("POST", "/invoke/No/way", headers, b""), timeout_s=60)
    failure = failure_of(unknown, headers["content-type"], now_ms=0)
    assert failure is not None
    assert (failure.code, failure.error_code) == (404, "RT0012")
