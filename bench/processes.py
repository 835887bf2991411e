"""What is measured, as processes: the two servers, their endpoints, the Lambda service.

Both servers get the same endpoints, the same load and their own fresh folder; both write durably before they
answer (ours: SQLite WAL with synchronous=FULL; the official one: its defaults, which sync its log).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import httpx
from tests.conformance import toolbox
from tests.conformance.servers import HoldfastServer, RestateServer, Server, answers
from tests.support.lambda_service import FunctionSpec, LambdaServiceProcess
from tests.support.ports import free_port

from bench.load import Load, measure

ROOT: Final = toolbox.ROOT
SERVICES: Final = ROOT / "bench" / "services"
BIN: Final = Path(sys.executable).parent
START_TIMEOUT_S: Final = 60.0
LAMBDA_CONCURRENCY: Final = 64  # execution environments: a process of 40 MB each
NOWHERE: Final = "http://127.0.0.1:9"
MANIFEST: Final = "application/vnd.restate.endpointmanifest.v4+json"
WARM_AT_ONCE: Final = 4


class OfficialServer(RestateServer):
    """With as many partitions as ours has shards: on two cores it is then about twice as fast as with its default of 24.

    `BENCH_RESTATE_PARTITIONS` sets another number.
    """

    def variables(self) -> dict[str, str]:
        return {**super().variables(), "RESTATE_DEFAULT_NUM_PARTITIONS": os.environ.get("BENCH_RESTATE_PARTITIONS", "4")}


class OwnInProcess(Server):
    """Ours with the handlers in the coordinator's own process."""

    kind = "holdfast"

    def command(self) -> list[str]:
        store = str(self.folder / "store.sqlite")
        return [sys.executable, "-m", "bench.in_process", store, str(self.ingress_port), str(self.admin_port)]

    def variables(self) -> dict[str, str]:
        return {"PYTHONPATH": str(ROOT)}

    def describe(self, invocation_id: str) -> None:
        raise NotImplementedError


SERVERS: Final[dict[str, type[Server]]] = {"holdfast": HoldfastServer, "restate": OfficialServer}


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """On a disk, not in memory: durability is part of what is measured. `BENCH_FOLDER` chooses another one."""
    base = Path(os.environ.get("BENCH_FOLDER", ROOT / ".holdfast"))
    base.mkdir(parents=True, exist_ok=True)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # a benchmark that is ended takes its processes with it
    with tempfile.TemporaryDirectory(prefix="bench-", dir=base, ignore_cleanup_errors=True) as name:
        yield Path(name)


@contextlib.contextmanager
def server(kind: type[Server], base: Path, lambda_url: str = NOWHERE) -> Iterator[Server]:
    """A running server on a store of its own below `base`."""
    place = base / kind.__name__
    place.mkdir(exist_ok=True)
    started = kind(place, lambda_url)
    started.start()
    try:
        yield started
    finally:
        started.kill()


def pid_of(started: Server) -> int:
    assert started._process is not None
    return started._process.pid


@contextlib.contextmanager
def http_endpoint(module: str, base: Path, workers: int = 1, variables: Mapping[str, str] | None = None) -> Iterator[tuple[str, int]]:
    """hypercorn, HTTP/1.1, with `module:app`; its address and process id."""
    port = free_port()
    command = [str(BIN / "hypercorn"), f"{module}:app", "--bind", f"127.0.0.1:{port}", "--workers", str(workers)]
    with _process(command, SERVICES, base / f"{module}-http.log", f"http://127.0.0.1:{port}/health", variables) as pid:
        yield f"http://127.0.0.1:{port}", pid


@contextlib.contextmanager
def canned_endpoint(base: Path) -> Iterator[tuple[str, int]]:
    """The endpoint that costs next to nothing."""
    port = free_port()
    command = [sys.executable, "-m", "bench.canned_endpoint", str(port)]
    with _process(command, ROOT, base / "canned.log", f"http://127.0.0.1:{port}/discover") as pid:
        yield f"http://127.0.0.1:{port}", pid


@contextlib.contextmanager
def lambda_service() -> Iterator[LambdaServiceProcess]:
    with LambdaServiceProcess(free_port()) as service:
        yield service


def lambda_function(module: str) -> FunctionSpec:
    """A function that serves `module:app` under awslambdaric."""
    return FunctionSpec(module, str(SERVICES), handler=f"{module}.app", concurrency=LAMBDA_CONCURRENCY, timeout_s=60)


def warm(service: LambdaServiceProcess, function: FunctionSpec, count: int) -> None:
    """Starts `count` environments, a few at a time: a function's initialisation may take 10 s at most, like Lambda's.

    What they are asked for is a discovery. Many at once, because an environment that is idle is used first.
    """
    event = {"path": "/discover", "httpMethod": "GET", "headers": {"accept": MANIFEST}, "body": "", "isBase64Encoded": True}
    path = f"/2015-03-31/functions/{function.name}/invocations"
    for number in [*range(WARM_AT_ONCE, count, WARM_AT_ONCE), count]:
        measure(Load(service.port, path, json.dumps(event), concurrency=number, limit=number, seconds=120))


@contextlib.contextmanager
def _process(command: list[str], where: Path, log: Path, url: str, variables: Mapping[str, str] | None = None) -> Iterator[int]:
    """Started, answering at `url`, killed at the end."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, cwd=where, env={**os.environ, **(variables or {})}, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _listens(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(command)} did not start; its log ends:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(url: str) -> bool:
    try:
        httpx.get(url, timeout=2)
    except httpx.TransportError:
        return False
    return True


__all__ = [
    "SERVERS",
    "OfficialServer",
    "OwnInProcess",
    "answers",
    "canned_endpoint",
    "folder",
    "free_port",
    "http_endpoint",
    "lambda_function",
    "lambda_service",
    "pid_of",
    "server",
    "warm",
]
