"""Cold starts of Lambda functions: ours beside the official SDK, AWS's durable functions, Powertools and bare boto3.

    bench/setup_cold_start.sh && .venv/bin/python -m bench.bench_cold_start [--starts 20] [--only holdfast,restate]

Each start is a fresh process of the Lambda runtime client with a runtime API of its own; the contestants take turns, files are in the page
cache. As packed: without bytecode, because `pip install --no-compile` and zip files of most tools have none and Lambda's /var/task cannot
be written, so that every cold start compiles what it imports. Compiled: with `python -m compileall` before packing.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from holdfast.protocol.frames import encode
from holdfast.protocol.ids import random_invocation_id
from holdfast.protocol.messages import MessageType, Start, input_command

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGES: Final = ROOT / "tools" / "cold-start"
SOURCES: Final = ROOT / "bench" / "services" / "cold_start"
PYTHON: Final = PACKAGES / "lambda" / "bin" / "python"
TIMEOUT_S: Final = 60.0
BY_LAMBDA: Final = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six.py", "urllib3")  # what its image has beside Python


def plain_event() -> dict[str, Any]:
    return {"a": 1}


def protocol_event() -> dict[str, Any]:
    """The first attempt at an invocation of `bench/noop`, in the envelope of the protocol."""
    start = Start(id=random_invocation_id(1, 2, bytes(10)).raw, debug_id="inv_1", known_entries=1, random_seed=7)
    body = encode(MessageType.START, start.SerializeToString()) + input_command((), b'"hello"')
    return {
        "path": "/invoke/bench/noop",
        "httpMethod": "POST",
        "headers": {"content-type": "application/vnd.restate.invocation.v6"},
        "body": base64.b64encode(body).decode(),
        "isBase64Encoded": True,
    }


def durable_event() -> dict[str, Any]:
    """The first invocation of a durable function."""
    begun = {"Id": "execution", "Type": "EXECUTION", "Status": "STARTED", "StartTimestamp": 1_700_000_000_000}
    return {
        "DurableExecutionArn": "arn:aws:lambda:us-east-1:123456789012:function:bench:1/durable-execution/bench/1",
        "CheckpointToken": "token",
        "InitialExecutionState": {"Operations": [{**begun, "ExecutionDetails": {"InputPayload": '"hello"'}}], "NextMarker": ""},
    }


@dataclass(frozen=True)
class Contestant:
    """package: what is installed, below tools/cold-start. answer: what its first answer must hold."""

    name: str
    source: str
    package: str | None
    event: Callable[[], dict[str, Any]]
    answer: bytes


CONTESTANTS: Final = [
    Contestant("empty function", "empty", None, plain_event, b'{"a": 1}'),
    Contestant("boto3, one client", "boto3", "boto3", plain_event, b'{"a": 1}'),
    Contestant("Powertools", "powertools", "powertools", plain_event, b'{"a": 1}'),
    Contestant("holdfast, async handler", "holdfast", "holdfast", protocol_event, b'"statusCode": 200'),
    Contestant("holdfast, plain handler", "holdfast_plain", "holdfast", protocol_event, b'"statusCode": 200'),
    Contestant("restate-sdk", "restate", "restate", protocol_event, b'"statusCode": 200'),
    Contestant("aws-durable-execution-sdk", "aws_durable", "aws-durable", durable_event, b'"Status": "SUCCEEDED"'),
]


class RuntimeApi(ThreadingHTTPServer):
    """One invocation for one process; when it asked for it and when it had answered."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """The process is killed while it asks for more work."""

    def __init__(self, event: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Exchange)
        self.event = event
        self.ready_at = self.answered_at = 0.0
        self.answer = b""
        self.done = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Exchange(BaseHTTPRequestHandler):
    server: RuntimeApi
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        if self.server.ready_at:  # the second request for work: there is none
            self.server.done.wait(TIMEOUT_S)
            self.close_connection = True
            return
        self.server.ready_at = time.perf_counter()
        self._reply(200, self.server.event)

    def do_POST(self) -> None:
        self.server.answer = self.rfile.read(int(self.headers["content-length"]))
        self.server.answered_at = time.perf_counter()
        self._reply(202, b"{}")
        self.server.done.set()

    def _reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Length": str(len(body)),
            "Content-Type": "application/json",
            "Lambda-Runtime-Aws-Request-Id": "6e8ba3a1-0000-4000-8000-000000000000",
            "Lambda-Runtime-Deadline-Ms": str(int(time.time() * 1000) + 60_000),
            "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:us-east-1:123456789012:function:bench",
            "Lambda-Runtime-Trace-Id": "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=0",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def packed(contestant: Contestant, folder: Path) -> Path:
    """The package as it is uploaded, unzipped."""
    target = folder / contestant.source
    if contestant.package is None:
        target.mkdir()
    else:
        shutil.copytree(PACKAGES / contestant.package, target, ignore=shutil.ignore_patterns("__pycache__"))
    if contestant.package == "holdfast":
        shutil.copytree(ROOT / "sdk" / "holdfast", target / "holdfast", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(SOURCES / f"{contestant.source}.py", target / "app.py")
    shutil.copy(SOURCES / "entry.py", target / "entry.py")
    return target


def sizes(folder: Path) -> tuple[int, int, int]:
    """Bytes of the package, of its zip file, and of the zip file without what Lambda's image has."""
    whole, zipped, own = 0, io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as all_of_it, zipfile.ZipFile(own, "w", zipfile.ZIP_DEFLATED) as ours:
        for path in sorted(folder.rglob("*")):
            if path.is_dir():
                continue
            name = path.relative_to(folder)
            whole += path.stat().st_size
            all_of_it.write(path, name)
            if name.parts[0].partition("-")[0] not in BY_LAMBDA:
                ours.write(path, name)
    return whole, zipped.tell(), own.tell()


def start(contestant: Contestant, folder: Path) -> dict[str, float]:
    """One cold start and its first invocation; milliseconds."""
    api = RuntimeApi(json.dumps(contestant.event()).encode())
    report = folder.parent / "report.json"
    report.unlink(missing_ok=True)
    variables = {
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{api.server_address[1]}",
        "AWS_LAMBDA_FUNCTION_NAME": "bench",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_EC2_METADATA_DISABLED": "true",
        "LAMBDA_TASK_ROOT": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
        "COLD_START_REPORT": str(report),
        "TZ": ":UTC",
    }
    began = time.perf_counter()
    process = subprocess.Popen(
        [PYTHON, "-m", "awslambdaric", "entry.handler"], cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        if not api.done.wait(TIMEOUT_S) or contestant.answer not in api.answer:
            process.kill()
            log = process.communicate()[0].decode(errors="replace")
            raise RuntimeError(f"{contestant.name} answered {api.answer[:500]!r}; its log: {log[-2000:]}")
    finally:
        process.kill()
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0  # it is reaped already
        assert process.stdout is not None
        process.stdout.close()
        api.shutdown()
        api.server_close()
    found: dict[str, float] = json.loads(report.read_text())
    return {
        **found,
        "ready_ms": (api.ready_at - began) * 1000,
        "answered_ms": (api.answered_at - began) * 1000,
        "cpu_ms": (usage.ru_utime + usage.ru_stime) * 1000,
    }


def measured(folders: dict[Contestant, Path], starts: int) -> dict[Contestant, dict[str, float]]:
    """Medians over so many starts of each, taking turns; one more before, which does not count."""
    found: dict[Contestant, list[dict[str, float]]] = {contestant: [] for contestant in folders}
    for turn in range(starts + 1):
        for contestant, folder in folders.items():
            result = start(contestant, folder)
            if turn:
                found[contestant].append(result)
        print(f"\r{turn}/{starts} ", end="", file=sys.stderr)
    print(file=sys.stderr)
    return {contestant: {key: statistics.median(one[key] for one in many) for key in many[0]} for contestant, many in found.items()}


COLUMNS: Final = {
    "import, CPU": "import_cpu_ms",
    "import": "import_ms",
    "first call": "first_ms",
    "start to first answer": "answered_ms",
    "CPU of it all": "cpu_ms",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=20, help="cold starts of each (20)")
    parser.add_argument("--only", help="sources, e.g. holdfast,restate")
    asked = parser.parse_args()
    if not PYTHON.exists():
        parser.error("the packages are not installed; run bench/setup_cold_start.sh")
    chosen = [one for one in CONTESTANTS if asked.only is None or one.source in asked.only.split(",")]
    with tempfile.TemporaryDirectory() as temporary:
        folders = {contestant: packed(contestant, Path(temporary)) for contestant in chosen}
        weights = {contestant: sizes(folder) for contestant, folder in folders.items()}
        plain = measured(folders, asked.starts)
        command = [str(PYTHON), "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", temporary]
        subprocess.run(command, check=False)
        compiled = measured(folders, asked.starts)
    print(
        "| | package, MB | zipped, KB | zipped without what Lambda has, KB | modules | memory, MB |\n| --- | --- | --- | --- | --- | --- |"
    )
    for contestant, (whole, zipped, own) in weights.items():
        found = plain[contestant]
        cells = f"{whole / 1e6:.1f} | {zipped / 1000:,.0f} | {own / 1000:,.0f} | {found['modules']:.0f} | {found['memory_mb']:.0f}"
        print(f"| {contestant.name} | {cells} |")
    for title, table in (("as packed, without bytecode", plain), ("compiled", compiled)):
        print(f"\n{title}, ms:\n\n| | {' | '.join(COLUMNS)} |\n| --- |{' --- |' * len(COLUMNS)}")
        for contestant, found in table.items():
            print(f"| {contestant.name} | {' | '.join(f'{found[key]:.0f}' for key in COLUMNS.values())} |")


if __name__ == "__main__":
    main()
