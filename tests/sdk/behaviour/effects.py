"""Side effects that tests can count: one line per effect in the file named by LEDGER."""

import os
from pathlib import Path


def note(line: str) -> None:
    """Appends a line; short appends do not mix."""
    with Path(os.environ["LEDGER"]).open("a") as file:
        file.write(line + "\n")


def noted(line: str) -> int:
    """How often a line was written."""
    path = Path(os.environ["LEDGER"])
    return path.read_text().splitlines().count(line) if path.exists() else 0


def once(line: str) -> str:
    """An effect worth recording."""
    note(line)
    return f"done {line}"


async def once_async(line: str) -> str:
    """The same, as a coroutine function."""
    return once(line)


def failing(line: str, times: int) -> str:
    """Fails the first `times` times."""
    note(line)
    if noted(line) <= times:
        raise ValueError(f"{line} is not ready")
    return f"done {line}"
