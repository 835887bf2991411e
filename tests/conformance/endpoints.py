"""The ways a deployment of the conformance services is served, one class per way.

Each deployment puts its own prefix before the service names, so all of them live on one server at once.
"""

import contextlib
import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Final

import httpx

from tests.conformance import toolbox
from tests.conformance.servers import free_port
from tests.support.lambda_service import FunctionSpec, LambdaServiceProcess

START_TIMEOUT_S: Final = 60.0


class Endpoint(ABC):
    """A running deployment: `prefix` before its service names, `deployment` for the registration."""

    name: ClassVar[str]

    def __init__(self, effects: Path, functions: LambdaServiceProcess) -> None:
        self.prefix = self.name.replace("-", " ").title().replace(" ", "")
        self.effects = effects
        self.functions = functions

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def stop(self) -> None: ...

    @property
    @abstractmethod
    def deployment(self) -> dict[str, Any]:
        """The body of `POST /deployments`."""

    def variables(self) -> dict[str, str]:
        return {"CONFORMANCE_PREFIX": self.prefix, "CONFORMANCE_EFFECTS": str(self.effects)}


class HttpEndpoint(Endpoint):
    """A process that listens on a port."""

    http_11: ClassVar[bool] = True

    @abstractmethod
    def command(self) -> tuple[list[str], Path]:
        """The command line and its working directory."""

    def start(self) -> None:
        self.port = free_port()
        command, folder = self.command()
        environment = {**os.environ, **self.variables(), "PORT": str(self.port)}
        with (self.effects / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
        self._wait_until_it_listens()

    def _wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        with httpx.Client(http1=self.http_11, http2=not self.http_11) as client:
            while True:
                try:
                    client.get(f"http://127.0.0.1:{self.port}/health")
                    return
                except httpx.TransportError:
                    if self._process.poll() is not None or time.monotonic() > deadline:
                        log = (self.effects / f"{self.name}.log").read_text()[-2000:]
                        raise RuntimeError(f"{self.name} did not start; its log ends:\n{log}") from None
                    time.sleep(0.02)

    def stop(self) -> None:
        """At once, and with the workers that some servers start."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    @property
    def deployment(self) -> dict[str, Any]:
        return {"uri": f"http://127.0.0.1:{self.port}", "use_http_11": self.http_11}


class PythonHttp1(HttpEndpoint):
    """The Python SDK under hypercorn."""

    name = "python-http1"

    def command(self) -> tuple[list[str], Path]:
        hypercorn = toolbox.ROOT / ".venv" / "bin" / "hypercorn"
        return [str(hypercorn), "app:app", "--bind", f"127.0.0.1:{self.port}"], toolbox.SERVICES / "python"


class TypescriptH2c(HttpEndpoint):
    """The TypeScript SDK as `restate.serve` serves it: HTTP/2 with prior knowledge, streaming announced."""

    name = "typescript-h2c"
    http_11 = False

    def command(self) -> tuple[list[str], Path]:
        return [str(toolbox.node()), "serve.mjs"], toolbox.SERVICES / "typescript"

    def variables(self) -> dict[str, str]:
        return {**super().variables(), "CONFORMANCE_SDK": str(toolbox.typescript_sdk("node"))}


class TypescriptHttp1(TypescriptH2c):
    """The TypeScript SDK's Node handler in request-response mode behind Node's HTTP/1.1 server."""

    name = "typescript-http1"
    http_11 = True

    def variables(self) -> dict[str, str]:
        return {**super().variables(), "CONFORMANCE_TRANSPORT": "http1"}


class LambdaEndpoint(Endpoint):
    """A function of the loopback Lambda service; its processes start with their first invocation."""

    @abstractmethod
    def spec(self) -> FunctionSpec: ...

    def start(self) -> None:
        self.functions.add(self.spec())

    def stop(self) -> None:
        self.functions.kill(self.name)

    @property
    def deployment(self) -> dict[str, Any]:
        return {"arn": self.spec().arn}


class PythonLambda(LambdaEndpoint):
    """The Python SDK under awslambdaric."""

    name = "python-lambda"

    def spec(self) -> FunctionSpec:
        folder = str(toolbox.SERVICES / "python")
        return FunctionSpec(self.name, folder, handler="app.app", environment=self.variables())


class TypescriptLambda(LambdaEndpoint):
    """The TypeScript SDK's Lambda handler under a runtime loop of ours."""

    name = "typescript-lambda"

    def spec(self) -> FunctionSpec:
        environment = {**self.variables(), "CONFORMANCE_SDK": str(toolbox.typescript_sdk("lambda"))}
        return FunctionSpec(
            self.name,
            str(toolbox.SERVICES / "typescript"),
            handler="lambda.handler",
            command=(str(toolbox.node()), "lambda.mjs"),
            environment=environment,
        )


TRANSPORTS: Final[dict[str, type[Endpoint]]] = {
    kind.name: kind for kind in (PythonHttp1, PythonLambda, TypescriptH2c, TypescriptHttp1, TypescriptLambda)
}
