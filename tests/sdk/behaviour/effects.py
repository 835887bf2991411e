"""Side effects that tests can count: one line per effect in the file named by LEDGER, whichever process it happens in."""

import logging
import os
from pathlib import Path


def note(line: str) -> None:
    """Appends a line; short appends do not mix."""
    with Path(os.environ["LEDGER"]).open("a") as file:
        file.write(line + "\n")


def noted() -> list[str]:
    path = Path(os.environ["LEDGER"])
    return path.read_text().splitlines() if path.exists() else []


def times(line: str) -> int:
    """How often a line was written."""
    return noted().count(line)


def after(tag: str) -> list[str]:
    """What follows the tag in the lines that begin with it, in order."""
    return [line.removeprefix(f"{tag} ") for line in noted() if line.startswith(f"{tag} ")]


def once(line: str) -> str:
    """An effect worth recording."""
    note(line)
    return f"done {line}"


async def once_async(line: str) -> str:
    """The same, as a coroutine function."""
    return once(line)


def failing(line: str, failures: int) -> str:
    """Fails the first so many times."""
    note(line)
    if times(line) <= failures:
        raise ValueError(f"{line} is not ready")
    return f"done {line}"


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())


def logger() -> logging.Logger:
    """Its lines are effects too."""
    found = logging.Logger("behaviour", logging.INFO)
    found.addHandler(_Notes())
    return found
