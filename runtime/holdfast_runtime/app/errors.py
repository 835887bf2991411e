"""What a command says when it cannot do what was asked: one sentence, and an exit code."""

from __future__ import annotations

from typing import Final

FAILED: Final = 1  # the request was understood, and refused or impossible
MISUSED: Final = 2  # the command line itself is wrong


class CliError(Exception):
    """message: what was expected, what was found, what to do."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def misuse(message: str) -> CliError:
    return CliError(message, MISUSED)
