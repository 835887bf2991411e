"""How far a longer piece of work is: a bar in a terminal, nothing in a pipe."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Final

FROM: Final = 20  # pieces from which on a bar is worth its line


class Progress:
    def __init__(self, total: int, what: str) -> None:
        self._total, self._what = total, what
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        if self._total < FROM or not sys.stderr.isatty():
            return self
        from rich import progress

        from holdfast_runtime.app.output import console

        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(bar_width=None),
            progress.TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
            progress.TextColumn("{task.fields[refused]}", style="red"),
            console=console(stderr=True),
            expand=True,
        )
        self._bar.__enter__()
        self._task = self._bar.add_task(self._what, total=self._total, refused="")
        return self

    def at(self, done: int, refused: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=done + refused, refused=f"{refused:,} refused" if refused else "")

    def say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text)
        else:
            print(text, file=sys.stderr, flush=True)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.__exit__(kind, error, trace)
