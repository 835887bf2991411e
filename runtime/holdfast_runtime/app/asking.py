"""Questions to the person at the terminal. Asked on standard error, so that results can be redirected."""

from __future__ import annotations

import sys


def ask(question: str, *, default: bool = False) -> bool:
    """The end of the input, and Ctrl-C, are a no."""
    from holdfast_runtime.app.output import console

    out = console(stderr=True)
    hint = "[Y/n]" if default else "[y/N]"
    while True:
        out.print(f"{question} ", end="", markup=False, style="bold")
        out.print(f"{hint} ", end="", markup=False, style="dim")
        try:
            answer = sys.stdin.readline()
        except KeyboardInterrupt:
            answer = ""
        if not answer:
            out.print()
            return False
        given = answer.strip().lower()
        if not given:
            return default
        if given in ("y", "yes"):
            return True
        if given in ("n", "no"):
            return False
        out.print("Please answer y or n.")
