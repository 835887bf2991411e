"""What commands print: tables and colours where a person reads, plain lines in a pipe, JSON on request.

Rules: results go to standard output, errors and remarks to standard error; a pipe gets whole values, never cut to a
width; NO_COLOR and terminals without colours are respected (rich does). Data is never markup.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
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
    return Console(file=stream, width=None if stream.isatty() else _PIPE_WIDTH, highlight=False, soft_wrap=not stream.isatty(), emoji=False)


def width() -> int | None:
    """Columns of the terminal; None in a pipe, where nothing is cut."""
    return console().width if sys.stdout.isatty() else None


def print_json(document: object) -> None:
    print(json.dumps(document, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False, default=str))


def say(text: str) -> None:
    """A line for people; markup allowed, data in it must be escaped (`quoted`)."""
    console().print(text)


def remark(text: str) -> None:
    """The same on standard error: what is not a result."""
    console(stderr=True).print(text)


def quoted(text: object) -> str:
    """Data inside of markup."""
    from rich.markup import escape

    return escape(str(text))


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str | Text]],
    *,
    whole: Sequence[int] = (0,),
    right: Sequence[int] = (),
    cut: Sequence[int] = (),
) -> None:
    """whole: columns that are never wrapped (ids, which are copied). right: aligned so. cut: end with `…` in a narrow terminal."""
    console().print(grid(columns, rows, whole=whole, right=right, cut=cut))


def grid(
    columns: Sequence[str],
    rows: Iterable[Sequence[str | Text]],
    *,
    whole: Sequence[int] = (0,),
    right: Sequence[int] = (),
    cut: Sequence[int] = (),
) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold", border_style="dim")
    narrow = width() is not None
    for index, column in enumerate(columns):
        ends = index in cut and narrow
        shown.add_column(
            column,
            no_wrap=index in whole or ends,
            overflow="ellipsis" if ends else "fold",
            justify="right" if index in right else "left",
            min_width=len(column) if ends else None,
        )
    for row in rows:
        shown.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return shown


def coloured(text: str, style: str | None) -> Text:
    from rich.text import Text

    return Text(text, style=style or "")


def status_text(status: str, *, failed: bool = False) -> Text:
    shown = "failed" if failed else status
    return coloured(shown, STATUS_STYLES.get(shown))


def one_line(text: str) -> str:
    """The first line that says something, for columns."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def count(number: int, what: str) -> str:
    """`1 invocation`, `1,234 invocations`."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def error_line(message: str) -> None:
    """Standard error; red `error:` in a terminal that wants colours."""
    if sys.stderr.isatty():
        console(stderr=True).print(f"[bold red]error:[/] {quoted(message)}")
    else:
        print(f"error: {message}", file=sys.stderr)


def plain(value: Any) -> str:
    return "-" if value is None or value == "" else str(value)


def moment(at_ms: int | None) -> str:
    from holdfast_runtime.app import ages

    return ages.moment(at_ms)
