"""What commands print: tables and colours where a person reads, plain lines in a pipe, JSON on request.

Rules: results go to standard output, errors and remarks to standard error; a pipe gets whole values, never cut to a
width; NO_COLOR and terminals without colours are respected (rich does).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_PIPE_WIDTH: Final = 10_000
STATUS_STYLES: Final = {
    "completed": "green",
    "running": "cyan",
    "ready": "cyan",
    "suspended": "blue",
    "scheduled": "blue",
    "pending": "magenta",
    "backing-off": "yellow",
    "paused": "yellow",
    "failed": "red",
}


def console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else _PIPE_WIDTH, highlight=False, soft_wrap=not stream.isatty())


def print_json(document: object) -> None:
    print(json.dumps(document, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False, default=str))


def say(text: str) -> None:
    """A line for people; markup allowed."""
    console().print(text)


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, whole: Sequence[int] = (0,)) -> None:
    """whole: columns that are never wrapped (ids, which are copied)."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        shown.add_column(column, no_wrap=index in whole, overflow="fold")
    for row in rows:
        shown.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))  # data is never markup
    console().print(shown)


def coloured(text: str, style: str | None) -> Text:
    from rich.text import Text

    return Text(text, style=style or "")


def status_text(status: str, *, failed: bool = False) -> Text:
    shown = "failed" if failed else status
    return coloured(shown, STATUS_STYLES.get(shown))


def moment(at_ms: int | None) -> str:
    """The reader's own time; with the date unless it is today."""
    if at_ms is None:
        return "-"
    at = datetime.fromtimestamp(at_ms / 1000).astimezone()
    today = datetime.now().astimezone().date()
    return at.strftime("%H:%M:%S" if at.date() == today else "%Y-%m-%d %H:%M:%S")


def error_line(message: str) -> None:
    """Standard error; red `error:` in a terminal that wants colours."""
    if sys.stderr.isatty():
        from rich.markup import escape

        console(stderr=True).print(f"[bold red]error:[/] {escape(message)}")
    else:
        print(f"error: {message}", file=sys.stderr)


def plain(value: Any) -> str:
    return "-" if value is None or value == "" else str(value)
