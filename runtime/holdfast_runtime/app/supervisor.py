"""Reloading: a process that holds the addresses and watches the code, and a child that serves.

Rules: a change ends the child gracefully and starts a new one, which imports everything anew; the store makes that safe at any
moment, and callers that come in between wait in the listening sockets, which stay open here. A child whose code cannot be
imported is reported, and the next change tried; at the first start it is an error. The child is stopped by closing its
standard input, so that it never outlives this process, and a signal of the terminal that reaches both does no harm.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final

STOP_TIMEOUT_S: Final = 10.0  # beyond the grace of its callers: a child that blocks its event loop so long is killed; nothing is lost
BROKEN_CODE: Final = 3  # exit code of a child whose modules cannot be imported
_POLL_MS: Final = 300


class Supervisor:
    """config: what the child reads, as JSON. sockets: inherited by it, in the order of `config["sockets"]`.

    grace_s: how long the child lets its callers wait once it stops.
    """

    def __init__(self, config: Mapping[str, Any], sockets: Sequence[socket.socket], *, grace_s: float) -> None:
        self._config = config
        self._stop_timeout_s = STOP_TIMEOUT_S + grace_s
        self._sockets = sockets
        self._child: subprocess.Popen[bytes] | None = None
        self._stop = threading.Event()
        self._starts = 0

    def run(self, folders: Sequence[Path]) -> int:
        """Until a signal, or the child ends by itself; the exit code."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        self._start()
        try:
            return self._watch(folders)
        finally:
            self._end()

    def _watch(self, folders: Sequence[Path]) -> int:
        assert self._child is not None
        reported = False
        for changed in self._changes(folders):
            if self._stop.is_set():
                break
            if changed:
                self._end()
                self._start()
                reported = False
                continue
            code = self._child.poll()
            if code is None or reported:
                continue
            if code != BROKEN_CODE or self._starts == 1:
                return 1 if code == BROKEN_CODE or code < 0 else code
            print("waiting for the next change", file=sys.stderr, flush=True)
            reported = True
        return 0

    def _changes(self, folders: Sequence[Path]) -> Iterator[object]:
        """What changed, or something empty every now and then; ends when stopped."""
        if not folders:
            while not self._stop.wait(_POLL_MS / 1000):
                yield None
            return
        from watchfiles import PythonFilter, watch

        yield from watch(
            *folders,
            watch_filter=PythonFilter(),
            stop_event=self._stop,
            rust_timeout=_POLL_MS,
            yield_on_timeout=True,
            raise_interrupt=False,
        )

    def _start(self) -> None:
        self._starts += 1
        config = {**self._config, "supervised": True, "first": self._starts == 1, "sockets": [item.fileno() for item in self._sockets]}
        self._child = subprocess.Popen(
            [sys.executable, "-m", "holdfast_runtime.app.dev_process", json.dumps(config)],
            stdin=subprocess.PIPE,
            pass_fds=config["sockets"],
        )

    def _end(self) -> None:
        child = self._child
        if child is None:
            return
        assert child.stdin is not None
        child.stdin.close()
        try:
            child.wait(self._stop_timeout_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._stop.is_set() and self._child is not None:
            self._child.kill()
        self._stop.set()
