"""Every message that docs/troubleshooting.md quotes is one that the code can say."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from holdfast_runtime.app.filters import STATUSES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
HEADS = re.findall(r"\*\*(.+?)\*\*", PAGE, re.DOTALL)
HOLE = "\0"  # what differs from one message to the next
LONGEST_GAP = 150  # between two parts of a message; in the code, what stands there may be longer or shorter than a value


@cache
def spoken() -> list[str]:
    """Every text of the code, with a hole for each value."""
    files = [*(ROOT / "sdk").rglob("*.py"), *(ROOT / "runtime").rglob("*.py")]
    return [text for file in files for text in texts(ast.parse(file.read_text()))]


def texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value.replace("%s", HOLE)


def pattern(message: str) -> re.Pattern[str]:
    parts = [part.strip() for part in message.split("...") if part.strip()]
    assert any(len(part) >= 8 for part in parts), f"quote more of {message!r}"
    return re.compile(f".{{0,{LONGEST_GAP}}}".join(map(re.escape, parts)), re.DOTALL)


def test_the_code_says_every_message() -> None:
    messages = [" ".join(head.strip("`").split()) for head in HEADS if head.startswith("`")]
    assert len(messages) > 100
    said = spoken()
    assert [message for message in messages if not any(map(pattern(message).search, said))] == []


def test_every_status_that_can_last_is_explained() -> None:
    explained = {name for head in HEADS for name in re.findall(r"^An invocation is `([\w-]+)`", head)}
    assert explained == set(STATUSES) - {"running", "completed"}


def test_every_code_of_a_failure_is_explained() -> None:
    given = {text for text in spoken() if re.fullmatch(r"RT\d{4}", text)}
    assert set(re.findall(r"RT\d{4}", PAGE)) == given
