"""A server under test: ours or the official one, as a process with a store that survives it.

`kill` is SIGKILL; `start` after it opens the same store on the same ports, so clients and deployments go on.
"""

import os
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Final

import httpx

from tests.conformance import toolbox
from tests.support.ports import free_port

START_TIMEOUT_S: Final = 60.0  # the official server on two busy cores
STOP_TIMEOUT_S: Final = 60.0
AWS_DUMMIES: Final = {
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
}


class Server(ABC):
    """What tests ask of a server; the subclasses say how it is run and how its invocations are looked at."""

    kind: ClassVar[str]

    def __init__(self, folder: Path, lambda_url: str) -> None:
        self.folder = folder
        self.lambda_url = lambda_url
        self.ingress_port, self.admin_port, self.internal_port = free_port(), free_port(), free_port()
        self.ingress_url = f"http://127.0.0.1:{self.ingress_port}"
        self.admin_url = f"http://127.0.0.1:{self.admin_port}"
        self.log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """The command line of the process."""

    @abstractmethod
    def variables(self) -> dict[str, str]:
        """What the process wants in its environment, besides AWS."""

    @abstractmethod
    def describe(self, invocation_id: str) -> dict[str, Any] | None:
        """The operator's view of an invocation: `status`, `last_failure` and more; None when unknown."""

    def start(self) -> None:
        """Start the process and wait until both APIs answer."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                env={
                    **os.environ,
                    **AWS_DUMMIES,
                    "AWS_ENDPOINT_URL_LAMBDA": self.lambda_url,
                    **self.variables(),
                },
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (answers(f"{self.ingress_url}/restate/health") and answers(f"{self.admin_url}/health")):
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = self.log.read_text(errors="replace")[-3000:]
                raise RuntimeError(f"{self.kind} did not start ({' '.join(self.command())}); its log ends:\n{tail}")
            time.sleep(0.05)

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL: nothing is flushed, no connection is closed in order."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL when that takes too long."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()

    def restart(self) -> None:
        """Killed and started again on the same store."""
        self.kill()
        self.start()

    def register(self, deployment: dict[str, Any]) -> dict[str, Any]:
        """POST /deployments; the answer names the services."""
        answer = httpx.post(f"{self.admin_url}/deployments", json=deployment, timeout=150)
        if answer.status_code not in (200, 201):
            raise RuntimeError(f"registering {deployment} expected 201, got {answer.status_code}: {answer.text}")
        found: dict[str, Any] = answer.json()
        return found


class HoldfastServer(Server):
    """Ours, with its embedded store."""

    kind = "holdfast"

    def command(self) -> list[str]:
        addresses = [f"127.0.0.1:{self.ingress_port}", f"127.0.0.1:{self.admin_port}"]
        store = str(self.folder / "store.sqlite")
        return [self._cli(), "serve", "--store", store, "--ingress", addresses[0], "--admin", addresses[1]]

    def variables(self) -> dict[str, str]:
        return {"HOLDFAST_DISCOVERY_TIMEOUT": "2m"}  # functions start slowly on a busy machine

    def describe(self, invocation_id: str) -> dict[str, Any] | None:
        # What `holdfast invocations describe ID --json` prints, without the start of a process for every look.
        answer = httpx.get(f"{self.admin_url}/holdfast/invocations/{invocation_id}", timeout=30)
        if answer.status_code == 404:
            return None
        found: dict[str, Any] = answer.raise_for_status().json()
        return found

    def _cli(self) -> str:
        return str(toolbox.ROOT / ".venv" / "bin" / "holdfast")


class RestateServer(Server):
    """The official one, a single node with few partitions."""

    kind = "restate"

    def command(self) -> list[str]:
        return [
            str(toolbox.restate_server()),
            "--base-dir",
            str(self.folder / "base"),
            "--node-name",
            "conformance",
        ]

    def variables(self) -> dict[str, str]:
        return {
            "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{self.ingress_port}",
            "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{self.admin_port}",
            "RESTATE_BIND_ADDRESS": f"127.0.0.1:{self.internal_port}",
            "RESTATE_DEFAULT_NUM_PARTITIONS": "4",
            "RESTATE_DISABLE_TELEMETRY": "true",
            "RUST_LOG": "warn",
        }

    def describe(self, invocation_id: str) -> dict[str, Any] | None:
        columns = "status, retry_count, last_failure, last_failure_error_code, completion_failure, idempotency_key"
        query = f"SELECT {columns} FROM sys_invocation WHERE id = '{invocation_id}'"
        answer = httpx.post(
            f"{self.admin_url}/query",
            json={"query": query},
            headers={"accept": "application/json"},
            timeout=30,
        )
        # Right after a restart its partitions cannot be read for a moment, which is a 500.
        rows: list[dict[str, Any]] = answer.json().get("rows", [])
        return rows[0] if rows else None


def answers(url: str) -> bool:
    """True when a GET is answered with 200."""
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


KINDS: Final[dict[str, type[Server]]] = {"holdfast": HoldfastServer, "restate": RestateServer}
