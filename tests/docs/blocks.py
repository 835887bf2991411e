"""The code blocks of a page, and what the comments above them say. The contract for writers is in docs/contributing-docs.md."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sybil import Document
from sybil.parsers.markdown.lexers import DirectiveInHTMLCommentLexer, RawFencedCodeBlockLexer

ROOT: Final = Path(__file__).parents[2]
SHELLS: Final = frozenset({"sh", "bash", "console"})
MARKS: Final = frozenset({"no-run", "background", "output", "exit", "raises", "excerpt"})
ACTIONS: Final = frozenset({"kill", "stop", "wait", "tested-by"})
REASONS: Final = (
    "kills by name",
    "needs an AWS account",
    "needs Docker",
    "needs the sources of a project",
    "code for ",
    "runs all tests",
    "waits ten seconds",
    "installs ",
    "needs root",
    "needs an emulator in tools/",
    "needs the sqlite3 command",
)

_FENCES: Final = RawFencedCodeBlockLexer(re.compile(r"(?P<info>[^\n]*)$\n", re.MULTILINE))
_HIDDEN: Final = DirectiveInHTMLCommentLexer("hidden", "[^\n]+")
_COMMENT: Final = re.compile(r"^[ \t]*<!-- (?P<name>[a-z][a-z-]*)(?:: (?P<value>[^\n]*?))? -->[ \t]*$", re.MULTILINE)
_TITLE: Final = re.compile(r"\btitle=\"([^\"]*)\"")
_INCLUDE: Final = re.compile(r'^--8<-- "(?P<path>[^"]+)"$', re.MULTILINE)


class PageError(Exception):
    """What is wrong, beginning with `file:line: `."""


@dataclass(frozen=True)
class Block:
    """line: of its first line of code. marks: what the comments above it say, by name."""

    page: Path
    line: int
    language: str
    title: str
    source: str
    marks: Mapping[str, str]

    @property
    def file(self) -> str | None:
        """The file that the block is, when its title is a name of one. The title of a shell block is a caption."""
        return self.title if re.fullmatch(r"[\w./-]+\.\w+", self.title) and self.language not in SHELLS else None

    def error(self, text: str) -> PageError:
        return PageError(f"{shown(self.page)}:{self.line}: {text}")


@dataclass(frozen=True)
class Action:
    """Something that the reader does between two blocks."""

    page: Path
    line: int
    name: str
    value: str

    def error(self, text: str) -> PageError:
        return PageError(f"{shown(self.page)}:{self.line}: {text}")


def shown(page: Path) -> str:
    return str(page.relative_to(ROOT)) if page.is_relative_to(ROOT) else str(page)


def pages() -> list[Path]:
    """All pages that hold code."""
    return sorted(
        path for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")] if re.search("^ *```", path.read_text(), re.MULTILINE)
    )


def parse(page: Path) -> list[Block | Action]:
    """What there is to do, in the order of the page."""
    text = page.read_text()
    document = Document(text, str(page))
    found: list[tuple[int, Block | Action]] = []
    marks: dict[int, tuple[int, str, str]] = {}  # by where the text goes on after the comment
    inside = [(region.start, region.end) for lexer in (_FENCES, _HIDDEN) for region in lexer(document)]
    for comment in _COMMENT.finditer(text):
        if any(start <= comment.start() < end for start, end in inside):
            continue
        name, value = comment["name"], comment["value"] or ""
        line = _line(text, comment.start())
        if name in ACTIONS:
            found.append((comment.start(), Action(page, line, name, value)))
        elif name in MARKS:
            marks[_after(text, comment.end())] = (comment.start(), name, value)
        else:
            raise PageError(f"{shown(page)}:{line}: `{name}` is none of {', '.join(sorted(MARKS | ACTIONS))}, hidden")
    for region in _FENCES(document):
        info = region.lexemes["info"].strip()
        language = re.match(r"[\w+-]*", info)
        title = _TITLE.search(info)
        found.append(
            (
                region.start,
                Block(
                    page,
                    _line(text, region.start) + 1,
                    language[0] if language else "",
                    title[1] if title else "",
                    _included(str(region.lexemes["source"])),
                    dict(_taken(marks, _after(text, region.start))),
                ),
            )
        )
    for region in _HIDDEN(document):
        language_, _, rest = region.lexemes["arguments"].strip().partition(" ")
        title = _TITLE.search(rest)
        source = str(region.lexemes["source"])
        own = dict(_taken(marks, _after(text, region.start)))
        found.append((region.start, Block(page, _line(text, region.start) + 1, language_, title[1] if title else "", source, own)))
    for _, name, _ in marks.values():
        raise PageError(f"{shown(page)}: no block follows a comment `{name}`")
    return [item for _, item in sorted(found, key=lambda item: item[0])]


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _after(text: str, position: int) -> int:
    """Where the next thing that is no white space begins."""
    return position + len(text[position:]) - len(text[position:].lstrip())


def _taken(marks: dict[int, tuple[int, str, str]], position: int) -> Iterator[tuple[str, str]]:
    """The comments that stand directly above."""
    while position in marks:
        position, name, value = marks.pop(position)
        yield name, value


def _included(source: str) -> str:
    """With what it includes from other files (the snippets of pymdownx)."""
    return _INCLUDE.sub(lambda match: (ROOT / "docs" / match["path"]).read_text().rstrip("\n"), source)


def files(page: Path) -> dict[str, str]:
    """Name to content of the files of a page, as they are at its end."""
    return {block.file: block.source for block in blocks(page) if block.file is not None and not block.marks.keys() & {"no-run", "raises"}}


def blocks(page: Path) -> Iterable[Block]:
    return (item for item in parse(page) if isinstance(item, Block))
