"""What stands behind the exchanges: the fixture services on the official SDK, endpoints made for the occasion, a Lambda function, STS.

The captures name fixed ports; each stands for a free one here (`Endpoints.authorities`).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import hypercorn.asyncio
import hypercorn.config
from aiohttp import web

from tests.support import fixture_services
from tests.support.lambda_service import FunctionSpec, LambdaService

MANIFEST_V4: Final = "application/vnd.restate.endpointmanifest.v4+json"
SPECIAL_PORT, CLOSED_PORT = 21195, 21999
# Captured port -> attribute of the fixture services, and the variables they were started with.
FIXTURES: Final[Mapping[int, tuple[str, Mapping[str, str]]]] = {
    21010: ("app", {}),
    21011: ("versioned", {"FLAVOR": "versioned"}),
    21012: ("versioned", {"FLAVOR": "versioned2", "SVC_VERSION": "2"}),
    21013: ("versioned", {"FLAVOR": "changed"}),
    21014: ("entries", {}),
    21020: ("versioned", {"FLAVOR": "versioned"}),
}


@dataclass(frozen=True)
class Told:
    """The answer to `GET /discover` of an endpoint made by hand."""

    manifest: Mapping[str, Any]
    content_type: str = MANIFEST_V4


class Endpoints:
    """Everything that listens. `authorities`: captured `host:port` -> ours. `special` is what the hand-made endpoint says.

    While `gate` is closed no attempt begins: the fixture services do not answer. So an exchange with an invocation under way cannot be
    late.
    """

    def __init__(self) -> None:
        self.authorities: dict[str, str] = {}
        self.special = Told({})
        self.variables: dict[str, str] = {}
        self.gate = asyncio.Event()
        self.gate.set()

    def port(self, captured: int) -> int:
        return int(self.authorities[f"127.0.0.1:{captured}"].rpartition(":")[2])


@asynccontextmanager
async def endpoints() -> AsyncIterator[Endpoints]:
    found = Endpoints()
    async with AsyncExitStack() as stack:
        for captured, (attribute, variables) in FIXTURES.items():
            app = getattr(_services(variables) if variables else fixture_services, attribute)
            found.authorities[f"127.0.0.1:{captured}"] = await stack.enter_async_context(_hypercorn(_gated(app, found.gate)))
        closed = stack.enter_context(_bound())  # bound and not listening: a connection is refused, and nobody else gets the port
        found.authorities[f"127.0.0.1:{CLOSED_PORT}"] = _authority(closed)
        found.authorities[f"127.0.0.1:{SPECIAL_PORT}"] = await stack.enter_async_context(_aiohttp(_hand_made(found)))
        functions = await stack.enter_async_context(LambdaService())
        functions.add(FunctionSpec("my-fn", str(Path(__file__).parent), handler="lambda_function.handler"))
        sts = await stack.enter_async_context(_aiohttp(_token_service()))
        found.variables = {"AWS_ENDPOINT_URL_LAMBDA": functions.url, "AWS_ENDPOINT_URL_STS": f"http://{sts}"}
        yield found


def _services(variables: Mapping[str, str]) -> Any:
    """The fixture services as another process would import them: they read their flavour from the environment."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        spec = importlib.util.spec_from_file_location("fixture_services_of_a_flavor", fixture_services.__file__)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return module


def _gated(app: Any, gate: asyncio.Event) -> Any:
    async def gated(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)  # the SDK's application knows requests only
        else:
            if "/invoke/" in scope["path"]:
                await gate.wait()
            await app(scope, receive, send)

    return gated


async def _lifespan(receive: Any, send: Any) -> None:
    for _ in range(2):
        await send({"type": f"{(await receive())['type']}.complete"})


@contextlib.contextmanager
def _bound() -> Any:
    with contextlib.closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


def _authority(bound: socket.socket) -> str:
    host, port = bound.getsockname()
    return f"{host}:{port}"


@asynccontextmanager
async def _hypercorn(app: Any) -> AsyncIterator[str]:
    """HTTP/2 with prior knowledge, streaming both ways, as the captures were taken."""
    with _bound() as bound:
        bound.listen(100)
        config = hypercorn.config.Config()
        config.bind = [f"fd://{os.dup(bound.fileno())}"]
        config.graceful_timeout = 0.1
        config.errorlog = None
        stop = asyncio.Event()
        serving = asyncio.create_task(hypercorn.asyncio.serve(app, config, shutdown_trigger=stop.wait))
        try:
            yield _authority(bound)
        finally:
            stop.set()
            await serving


@asynccontextmanager
async def _aiohttp(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def _hand_made(found: Endpoints) -> web.Application:
    """HTTP/1.1 only, and it does not say which SDK it is."""

    async def discover(_: web.Request) -> web.Response:
        told = found.special
        return web.Response(body=json.dumps(told.manifest), headers={"content-type": told.content_type})

    app = web.Application()
    app.router.add_get("/discover", discover)
    return app


def _token_service() -> web.Application:
    """STS AssumeRole: every role may be assumed."""

    async def assume(request: web.Request) -> web.Response:
        form = await request.post()
        if form.get("Action") != "AssumeRole":
            return web.Response(status=400, text=f"AssumeRole expected, found {form.get('Action')!s}")
        credentials = "".join(
            f"<{name}>{value}</{name}>"
            for name, value in (
                ("AccessKeyId", "ASIALOCAL"),
                ("SecretAccessKey", "local"),
                ("SessionToken", "local"),
                ("Expiration", "2099-01-01T00:00:00Z"),
            )
        )
        user = f"<AssumedRoleUser><Arn>{form['RoleArn']!s}</Arn><AssumedRoleId>AROALOCAL:local</AssumedRoleId></AssumedRoleUser>"
        text = (
            '<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>'
            f"<Credentials>{credentials}</Credentials>{user}</AssumeRoleResult>"
            "<ResponseMetadata><RequestId>local</RequestId></ResponseMetadata></AssumeRoleResponse>"
        )
        return web.Response(text=text, content_type="text/xml")

    app = web.Application()
    app.router.add_post("/", assume)
    return app
