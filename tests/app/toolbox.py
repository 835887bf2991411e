"""Running the command as a process, and asking what it serves."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.ports import free_port

PROJECT: Final = Path(__file__).parent / "project"
START_TIMEOUT_S: Final = 60.0  # two busy cores
HOLDFAST: Final = [sys.executable, "-m", "holdfast_runtime.app.cli"]


def environment(**more: str) -> dict[str, str]:
    """Ours without what would change the output or the server asked."""
    dropped = ("HOLDFAST_", "NO_COLOR", "FORCE_COLOR", "COLUMNS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return {**kept, "PYTHONUNBUFFERED": "1", **more}


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        assert self.code == 0, self
        return json.loads(self.out)


def cli(*arguments: str, cwd: Path | None = None, stdin: str = "", **variables: str) -> Done:
    """Run a command to its end, its output in pipes."""
    done = subprocess.run(
        [*HOLDFAST, *arguments],
        cwd=cwd,
        env=environment(**variables),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def in_terminal(*arguments: str, columns: int = 120, **variables: str) -> Done:
    """The same in a terminal of its own (both streams)."""
    import pty

    parent, child = pty.openpty()
    process = subprocess.Popen(
        [*HOLDFAST, *arguments],
        env=environment(TERM="xterm-256color", COLUMNS=str(columns), **variables),
        stdin=child,
        stdout=child,
        stderr=child,
        close_fds=True,
    )
    os.close(child)
    output = b""
    with contextlib.suppress(OSError):  # EIO: the other side is closed
        while chunk := os.read(parent, 65536):
            output += chunk
    os.close(parent)
    return Done(process.wait(60), output.decode(), "")


class Server:
    """`holdfast dev` or `holdfast serve` as a process; `start` after `kill` uses the same store and addresses."""

    def __init__(self, folder: Path, command: Sequence[str], **variables: str) -> None:
        self.folder, self.command, self.variables = folder, list(command), variables
        self.store = folder / "store.sqlite"
        self.ledger = folder / "ledger"
        self.log = folder / "server.log"
        self.ingress, self.admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
        self.process: subprocess.Popen[bytes]

    def start(self) -> Server:
        begin = self.log.stat().st_size if self.log.exists() else 0
        self.launch()
        self.wait_for(lambda: len(self._addresses(begin)) == 2)
        addresses = self._addresses(begin)
        self.ingress, self.admin = addresses["ingress"], addresses["admin"]
        return self

    def launch(self) -> None:
        """Start the process without waiting for it."""
        arguments = [*self.command, "--store", str(self.store), "--ingress", self.ingress, "--admin", self.admin]
        variables = environment(SHOP_LEDGER=str(self.ledger), **self.variables)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*HOLDFAST, *arguments], cwd=self.folder, env=variables, stdout=log, stderr=log)

    def _addresses(self, begin: int) -> dict[str, str]:
        """As the ready lines say."""
        return dict(re.findall(r"(ingress|admin) +http://([\d.:]+)/", self.output(begin)))

    def output(self, begin: int = 0) -> str:
        return self.log.read_bytes()[begin:].decode(errors="replace")

    def wait_for(self, condition: Callable[[], object], timeout_s: float = START_TIMEOUT_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise AssertionError(f"it did not happen (process: {self.process.poll()}); the log ends:\n{self.output()[-3000:]}")
            time.sleep(0.05)

    def cli(self, *arguments: str, stdin: str = "") -> Done:
        return cli(*arguments, cwd=None, stdin=stdin, **self.urls)

    @property
    def urls(self) -> dict[str, str]:
        return {"HOLDFAST_ADMIN_URL": f"http://{self.admin}", "HOLDFAST_INGRESS_URL": f"http://{self.ingress}"}

    def post(self, path: str, document: object) -> Any:
        """A call over plain HTTP, waiting for its result."""
        return self._ask(f"http://{self.ingress}{path}", json.dumps(document).encode())

    def row(self, invocation_id: str) -> dict[str, Any]:
        """An invocation as the admin API shows it; without a process of its own, because tests ask in a loop."""
        found: dict[str, Any] = self._ask(f"http://{self.admin}/holdfast/invocations/{invocation_id}")
        return found

    def started(self, target: str, argument: object = None, *, status: str = "suspended") -> str:
        """The id of a new invocation, once it has this status."""
        body = b"" if argument is None else json.dumps(argument).encode()
        invocation_id: str = self._ask(f"http://{self.ingress}/{target}/send", body, "POST")["invocationId"]
        self.wait_for(lambda: self.row(invocation_id)["status"] == status)
        return invocation_id

    def tell(self, invocation_id: str, value: object) -> None:
        """Resolve its first awakeable."""
        from holdfast.protocol import ids

        name = ids.awakeable_id(ids.InvocationId.parse(invocation_id), 17)
        self._ask(f"http://{self.ingress}/restate/awakeables/{name}/resolve", json.dumps(value).encode())

    def suspended(self) -> list[str]:
        """Ids of what waits."""
        found = self._ask(f"http://{self.admin}/holdfast/invocations?status=suspended")["invocations"]
        return [row["id"] for row in found]

    def _ask(self, url: str, body: bytes | None = None, method: str | None = None) -> Any:
        headers = {} if body == b"" else {"content-type": "application/json"}
        request = urllib.request.Request(url, body, headers, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def notes(self) -> list[str]:
        return self.ledger.read_text().splitlines() if self.ledger.exists() else []

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """Exit code and seconds it took."""
        began = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(120), time.monotonic() - began

    def __enter__(self) -> Server:
        try:
            return self.start()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()


def project(folder: Path) -> Path:
    """A copy of the services' module in `folder`, to be changed by the test."""
    shutil.copy(PROJECT / "shop.py", folder)
    return folder / "shop.py"


@contextlib.contextmanager
def http_endpoint(folder: Path, port: int) -> Iterator[str]:
    """The services behind a web server of their own; its URI."""
    project(folder)
    command = [sys.executable, "-m", "uvicorn", "shop:app", "--port", str(port), "--log-level", "warning"]
    process = subprocess.Popen(command, cwd=folder, env=environment())
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10):
                break
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)
