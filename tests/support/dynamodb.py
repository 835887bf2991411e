"""DynamoDB and S3 on loopback for tests: the emulators' processes, tables, and what an AWS client finds in its environment.

- **dynoxide** stands in for DynamoDB: one binary on SQLite, in memory or in a file, faithful in what this project
  depends on (conditions, old items, sizes, capacity units). `tests/conformance/setup.py` installs it into `tools/`.
- **moto** stands in for S3, and for DynamoDB once more, because people use it in their own tests. Too weak to be
  relied on for the table: constant capacity units, pages cut elsewhere, sizes wrong by some bytes.

A folder that needs the fixtures imports them in its `conftest.py`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from holdfast_runtime.adapters.dynamodb_client import Patience
from tests.support.ports import free_port

ROOT: Final = Path(__file__).resolve().parents[2]
BINARY: Final = Path(os.environ.get("DYNAMODB_EMULATOR", ROOT / "tools/node_modules/@dynoxide/linux-x64/dynoxide"))
START_S: Final = 60.0
PATIENCE: Final = Patience(try_s=60.0, call_s=60.0)  # of a store in a test on a machine that does other things
ENVIRONMENT: Final = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


@contextlib.contextmanager
def served(command: list[str], port: int, variables: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process, from when its port answers; killed at the end."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT, env=variables)
    try:
        deadline = time.monotonic() + START_S
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert process.poll() is None and time.monotonic() < deadline, f"{command[0]} did not start"
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def dynoxide(database: Path | None = None, *, port: int | None = None, more: tuple[str, ...] = ()) -> Iterator[str]:
    """The address of a new emulator; with `database` it keeps what it acknowledged in that file."""
    if not BINARY.exists():
        pytest.skip("no DynamoDB emulator; python tests/conformance/setup.py installs it")
    port = port or free_port()
    command = [str(BINARY), "serve", "--port", str(port), *more]
    with served(command + (["--db-path", str(database)] if database else []), port):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def moto() -> Iterator[str]:
    """The address of a new moto server: every service, in memory."""
    port = free_port()
    with served([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def aws_at(**services: str) -> Iterator[None]:
    """The environment in which AWS clients find these services: dynamodb="http://...", s3=...; no others."""
    wanted = ENVIRONMENT | {f"AWS_ENDPOINT_URL_{name.upper()}": url for name, url in services.items()}
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in wanted.items():
            patch.setenv(name, value)
        yield


def new_table_name() -> str:
    return f"t-{uuid.uuid4().hex[:12]}"


def set_up(name: str, shards: int, bucket: str | None = None) -> None:
    """A table as `holdfast store init` makes it, where AWS clients look."""
    from holdfast_runtime.adapters.dynamodb_setup import Setup
    from holdfast_runtime.adapters.dynamodb_table import DynamoDbTable
    from holdfast_runtime.adapters.system import SystemClock

    for _ in Setup(DynamoDbTable(name), SystemClock()).init(shards, bucket):
        pass


def sweep_expired(maintenance_url: str) -> None:
    """Delete what has expired now: an emulator started with `more=maintenance(port)` does it on request only."""
    import httpx

    headers = {"Accept": "application/json, text/event-stream"}

    def post(method: str, params: dict[str, Any], number: int | None) -> httpx.Response:
        body = {"jsonrpc": "2.0", "method": method, "params": params} | ({"id": number} if number is not None else {})
        return httpx.post(maintenance_url, headers=headers, json=body, timeout=30)

    client = {"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": {"name": "tests", "version": "1"}}
    session = post("initialize", client, 1).raise_for_status().headers.get("mcp-session-id")
    if session is not None:
        headers["Mcp-Session-Id"] = session
    post("notifications/initialized", {}, None)
    post("tools/call", {"name": "sweep_ttl", "arguments": {}}, 2).raise_for_status()


def maintenance(port: int) -> tuple[str, ...]:
    return ("--mcp", "--mcp-port", str(port), "--mcp-no-auth")


@pytest.fixture(scope="session")
def dynamodb_url() -> Iterator[str]:
    with dynoxide() as url:
        yield url


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    with moto() as url:
        yield url


@pytest.fixture
def aws(dynamodb_url: str) -> Iterator[None]:
    with aws_at(dynamodb=dynamodb_url):
        yield


@pytest.fixture
def table(aws: None) -> str:
    """A table of 3 shards."""
    name = new_table_name()
    set_up(name, 3)
    return name
