"""The command line as a person uses it: in a terminal of its own, whose screen is read and whose keys are pressed."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

import pexpect
import pyte

from tests.app.toolbox import HOLDFAST, environment

PATIENCE_S: Final = 90.0  # for what must come; two busy cores
_HISTORY: Final = 10_000


def _as_in_a_shell() -> None:
    """Ctrl-C means something, also where the tests themselves run in the background, which ignores it and hands that on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """screen: what stands there now. text: everything that was ever printed, with what has scrolled away, line by line."""

    def __init__(self, *arguments: str, columns: int = 120, rows: int = 45, **variables: str) -> None:
        self._screen = pyte.HistoryScreen(columns, rows, history=_HISTORY, ratio=0.5)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""
        self._process = pexpect.spawn(
            HOLDFAST[0],
            [*HOLDFAST[1:], *arguments],
            env=environment(TERM="xterm-256color", LANG="C.UTF-8", **variables),
            dimensions=(rows, columns),
            timeout=PATIENCE_S,
            echo=True,
            preexec_fn=_as_in_a_shell,
        )

    @property
    def screen(self) -> str:
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip()

    @property
    def text(self) -> str:
        above = ["".join(line[column].data for column in range(self._screen.columns)).rstrip() for line in self._screen.history.top]
        return "\n".join([*above, self.screen])

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    def _read(self) -> bool:
        """False at its end."""
        try:
            chunk: bytes = self._process.read_nonblocking(65536, timeout=1)
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False
        self.raw += chunk
        self._stream.feed(chunk)
        return True

    def until(self, what: str | Callable[[str], bool]) -> str:
        """The screen, once it has this text or is like this."""
        holds = what if callable(what) else lambda text: what in text
        deadline = time.monotonic() + PATIENCE_S
        while not holds(self.screen):
            alive = self._read()
            assert holds(self.screen) or (alive and time.monotonic() < deadline), f"{what!r} did not come; the screen:\n{self.screen}"
        return self.screen

    def press(self, keys: str) -> None:
        self._process.send(keys)

    def ctrl_c(self) -> None:
        self._process.sendintr()

    def ended(self) -> int:
        """Its exit code."""
        deadline = time.monotonic() + PATIENCE_S
        while self._read():
            assert time.monotonic() < deadline, f"it does not end; the screen:\n{self.screen}"
        self._process.wait()
        if self._process.exitstatus is None:
            return -int(self._process.signalstatus)
        return int(self._process.exitstatus)

    def styles(self, text: str) -> set[str]:
        """The colours in which this text stands on the screen."""
        found: set[str] = set()
        for number, line in enumerate(self._screen.display):
            start = line.find(text)
            if start >= 0:
                cells: Any = self._screen.buffer[number]
                found |= {cells[column].fg for column in range(start, start + len(text))}
        return found

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(Exception):
            if self._process.isalive():
                self._process.kill(signal.SIGKILL)
                self._process.wait()


def shown(*arguments: str, columns: int = 120, rows: int = 45, code: int = 0, **variables: str) -> Terminal:
    """Run to its end."""
    with Terminal(*arguments, columns=columns, rows=rows, **variables) as terminal:
        assert terminal.ended() == code, terminal.text
        return terminal
