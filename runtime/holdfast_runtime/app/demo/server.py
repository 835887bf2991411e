"""The server of the demonstration as a process: started, killed, started again on the same file and addresses."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from holdfast_runtime.app.errors import CliError

SERVICES: Final = "holdfast_runtime.app.demo.orders"
START_TIMEOUT_S: Final = 60.0


class DemoServer:
    def __init__(self, folder: Path) -> None:
        self.ledger = folder / "ledger"
        self.log = folder / "server.log"
        self._store = folder / "store.sqlite"
        self._addresses = {"ingress": "127.0.0.1:0", "admin": "127.0.0.1:0"}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> int:
        """Returns the pid once it serves. Raises CliError."""
        command = [sys.executable, "-m", "holdfast_runtime.app.cli", "dev", SERVICES, "--no-reload", "--store", str(self._store)]
        for name, address in self._addresses.items():
            command += [f"--{name}", address]
        command += ["--log-format", "json", "--log-level", "info"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "HOLDFAST_DEMO_LEDGER": str(self.ledger)},
            )
        facts = json.loads(self._first_line(self._process))
        self._addresses = {name: facts[name].removeprefix("http://").rstrip("/") for name in self._addresses}
        return self._process.pid

    def _first_line(self, process: subprocess.Popen[bytes]) -> bytes:
        """Printed when it is ready."""
        assert process.stdout is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and process.poll() is None:
            if select.select([process.stdout], [], [], 0.1)[0]:
                line = process.stdout.readline()
                if line:
                    return line
        tail = self.log.read_text(errors="replace").strip().splitlines()[-1:] or ["nothing"]
        raise CliError(f"the demonstration's server did not start; it said: {tail[0]}")

    @property
    def ingress_url(self) -> str:
        return f"http://{self._addresses['ingress']}"

    @property
    def admin_url(self) -> str:
        return f"http://{self._addresses['admin']}"

    def kill(self) -> int:
        """SIGKILL: nothing can be saved or closed in order. Returns how the process ended."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        return self._process.wait()

    def stop(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
