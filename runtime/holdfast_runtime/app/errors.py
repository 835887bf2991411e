"""What a command says when it cannot do what was asked: one sentence, and an exit code."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

FAILED: Final = 1  # the request was understood, and refused or impossible
MISUSED: Final = 2  # the command line itself is wrong
INTERRUPTED: Final = 130  # by Ctrl-C, as shells count


class CliError(Exception):
    """message: what was expected, what was found, what to do."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Unreachable(CliError):
    """No answer: the server is not there, or not now."""


def misuse(message: str) -> CliError:
    return CliError(message, MISUSED)


def nearest(name: str, names: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing when no name is near."""
    import difflib

    known = {item.lower(): item for item in names}
    found = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.6)
    return f"; did you mean '{known[found[0]]}'?" if found else ""


def nearest_or_all(name: str, names: Iterable[str]) -> str:
    """The same, else all the names there are."""
    listed = sorted(names)
    return nearest(name, listed) or (f"; there are {', '.join(listed)}" if listed else "")
