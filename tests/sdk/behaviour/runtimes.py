"""Where the scenarios run. A scenario talks to a `TestRuntime` in each case: in memory, or over the ingress of a server.

A server has one flavour over HTTP/1.1 and the other as a Lambda function, the other server the other way round, so that every pair of
flavour and transport is there once. Requests are signed, and the endpoints demand it.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TypeVar

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from holdfast.testing import Invocation, TestRuntime, _deployed
from holdfast_runtime.adapters.request_identity import load_identity
from holdfast_runtime.adapters.system import SystemClock
from tests.conformance.client import until
from tests.conformance.servers import KINDS, Server, answers
from tests.conformance.toolbox import ROOT
from tests.sdk.behaviour import async_services, effects, sync_services
from tests.support.lambda_service import FunctionSpec, LambdaServiceProcess
from tests.support.ports import free_port

T = TypeVar("T")
FLAVOURS: Final[dict[str, ModuleType]] = {"async": async_services, "sync": sync_services}
IN_MEMORY: Final[dict[str, bool]] = {"memory": False, "replaying": True}  # always_replay
OVER_HTTP: Final = {"holdfast": "sync", "restate": "async"}  # the other flavour is a Lambda function
PATIENCE_S: Final = 60.0
POLL_S: Final = 0.01


@dataclass(frozen=True)
class Served:
    """A server with the services of both flavours. endpoint_url: of the one over HTTP. function: the other one."""

    kind: str
    server: Server
    endpoint_url: str
    function: FunctionSpec
    functions: LambdaServiceProcess


@dataclass(frozen=True)
class Stage:
    """Where one scenario runs, and whose handlers it calls."""

    kind: str
    handlers: Any  # the module of a flavour
    runtime: TestRuntime
    server: Server | None = None

    async def status(self, handle: Invocation[Any]) -> str:
        """As an operator sees it; the official server is asked in its own way."""
        if self.server is None:
            return await handle.status()
        return str((self.server.describe(handle.invocation_id) or {}).get("status"))

    async def becomes(self, handle: Invocation[Any], status: str) -> None:
        """Waits for a status."""
        deadline = time.monotonic() + PATIENCE_S
        while (found := await self.status(handle)) != status:
            assert time.monotonic() < deadline, f"waited {PATIENCE_S:g} s for {handle} to be {status}, it is {found}"
            await asyncio.sleep(POLL_S)

    async def until(self, look: Callable[[], T | None], what: str) -> T:
        """What `look` finds once it is neither nothing nor false; handlers go on meanwhile, virtual time does not."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            await self.runtime.settle()
            if found := look():
                return found
            assert time.monotonic() < deadline, f"waited {PATIENCE_S:g} s for {what}"
            await asyncio.sleep(POLL_S)

    async def line(self, tag: str) -> str:
        """What follows the tag in the first line that was noted with it."""
        return (await self.until(lambda: effects.after(tag), f"a line with {tag}"))[0]


def in_memory(kind: str, flavour: str) -> Stage:
    runtime = TestRuntime(*FLAVOURS[flavour].services, always_replay=IN_MEMORY[kind], logger=effects.logger())
    return Stage(kind, FLAVOURS[flavour], runtime)


def deployed(served: Served, flavour: str) -> Stage:
    _deployed.use(_deployed.Stack(served.server.ingress_url, served.server.admin_url))
    try:
        return Stage(served.kind, FLAVOURS[flavour], TestRuntime(*FLAVOURS[flavour].services), served.server)
    finally:
        _deployed.use(None)


@contextmanager
def serving(kind: str, folder: Path) -> Iterator[Served]:
    """The server of this kind, the services registered with it."""
    over_http = OVER_HTTP[kind]
    as_function = "sync" if over_http == "async" else "async"
    key_file = folder / "identity.pem"
    variables = {
        "LEDGER": os.environ["LEDGER"],
        "IDENTITY_KEY": identity(key_file),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "sdk"), str(ROOT)]),
    }
    with ExitStack() as stack:
        functions = stack.enter_context(LambdaServiceProcess(free_port()))
        server = KINDS[kind](folder, functions.url)
        server.command()  # skips when the binary is not installed
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        prefix = "HOLDFAST" if kind == "holdfast" else "RESTATE"
        environment.setenv(f"{prefix}_REQUEST_IDENTITY_PRIVATE_KEY_PEM_FILE", str(key_file))
        url = stack.enter_context(over_http_11(folder, {**variables, "FLAVOUR": over_http}))
        spec = FunctionSpec(
            "behaviour", str(ROOT), handler="tests.sdk.behaviour.app.handler", environment={**variables, "FLAVOUR": as_function}
        )
        functions.add(spec)
        stack.callback(server.stop)
        server.start()
        server.register({"arn": spec.arn})
        until(lambda: answers(f"{url}/health"), "the services to answer")
        server.register({"uri": url, "use_http_11": True})
        yield Served(kind, server, url, spec, functions)


def identity(file: Path) -> str:
    """A new private key in the file; the public one as SDKs take it."""
    key = Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM
    file.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return load_identity(file, SystemClock()).public_key


@contextmanager
def over_http_11(folder: Path, variables: dict[str, str]) -> Iterator[str]:
    """The ASGI application under uvicorn; its URL. It may not answer yet."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "tests.sdk.behaviour.app:app", "--port", str(port), "--log-level", "warning"]
    with (folder / "services.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **variables}, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
