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
_GAP: Final = 3  # columns between those of a table
_MIN_WIDTH: Final = 16  # of a column that is cut or wrapped
_NOTHING: Final = frozenset({"", "-", "·"})
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
    """A table; where the terminal is too narrow for it, a few lines for each row instead."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    cells = [[Text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    natural = [max([len(column), *(_longest_line(row[index]) for row in cells)]) for index, column in enumerate(columns)]
    room = width()
    widths = natural if room is None else _fitted(natural, room, whole=whole, right=right, cut=cut)
    if widths is None:
        return _records(columns, cells)
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold", border_style="dim")
    for index, column in enumerate(columns):
        ends = index in cut and room is not None
        shown.add_column(
            column,
            no_wrap=index in whole or ends,
            overflow="ellipsis" if ends else "fold",
            justify="right" if index in right else "left",
            width=None if room is None else widths[index],
        )
    for row in cells:
        shown.add_row(*row)
    return shown


def _longest_line(cell: Text) -> int:
    return max((line.cell_len for line in cell.split("\n")), default=0)


def _fitted(natural: list[int], room: int, *, whole: Sequence[int], right: Sequence[int], cut: Sequence[int]) -> list[int] | None:
    """Widths that fit: first what may be cut is, from the right, then what may be wrapped, the widest first. None: they do not fit."""
    widths = list(natural)
    over = sum(widths) + _GAP * (len(widths) - 1) - room
    wrapped = [index for index in range(len(widths)) if index not in whole and index not in right and index not in cut]
    for index in [*sorted(cut, reverse=True), *sorted(wrapped, key=lambda index: -widths[index])]:
        taken = min(max(over, 0), max(widths[index] - _MIN_WIDTH, 0))
        widths[index] -= taken
        over -= taken
    return widths if over <= 0 else None


def _records(columns: Sequence[str], rows: Iterable[Sequence[Text]]) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    given = list(rows)
    said = [name for index, name in enumerate(columns) if index and any(row[index].plain not in _NOTHING for row in given)]
    names = max(map(len, said), default=0) + 2
    parts: list[RenderableType] = []
    for row in given:
        parts.append(Text(row[0].plain, "bold", overflow="fold"))
        facts = Table.grid(padding=(0, 2, 0, 0))
        facts.add_column(no_wrap=True, style="dim", width=names)
        facts.add_column(overflow="fold")
        for name, cell in zip(columns[1:], row[1:], strict=True):
            if cell.plain not in _NOTHING:
                facts.add_row(f"  {name}", cell)
        parts.append(facts)
    return Group(*parts)


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
