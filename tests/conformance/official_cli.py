"""The official CLI against a running server, without questions and colours."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conformance import toolbox
from tests.conformance.servers import Server

TIMEOUT_S = 60  # bounds a hang: a command takes a fraction of a second


@dataclass(frozen=True)
class Ran:
    """`shown` is what it printed, both streams."""

    status: int
    shown: str


@dataclass(frozen=True)
class Cli:
    """Called with the words of a command that must succeed, it gives what was printed."""

    server: Server

    def __call__(self, *words: str, editor: Path | None = None) -> str:
        ran = self.run(*words, editor=editor)
        assert ran.status == 0, ran.shown
        return ran.shown

    def run(self, *words: str, editor: Path | None = None) -> Ran:
        addresses = {"RESTATE_ADMIN_URL": self.server.admin_url, "RESTATE_INGRESS_URL": self.server.ingress_url}
        chosen = {} if editor is None else {"RESTATE_EDITOR": str(editor)}
        ran = subprocess.run(
            [str(binary()), "--yes", *words],
            env={**os.environ, **addresses, **chosen, "RESTATE_CLI_CONFIG_HOME": str(self.server.folder), "NO_COLOR": "1"},
            check=False,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        return Ran(ran.returncode, re.sub(r"\x1b\[[0-9;]*m", "", ran.stdout + ran.stderr))


def binary() -> Path:
    found = sorted((toolbox.MODULES / "@restatedev").glob("restate-linux-*/bin/restate"))
    if not found:
        pytest.skip(f"the official CLI is not installed; install it with `{toolbox.SETUP}`")
    return found[0]


def fields(shown: str) -> dict[str, str]:
    """The lines `Name:  value` of a description; the first of a name counts."""
    found: dict[str, str] = {}
    for name, value in re.findall(r"^ *([A-Z][\w ?/-]*?):? {2,}(\S.*?) *$", shown, re.MULTILINE):
        found.setdefault(name, value)
    return found


def editor(folder: Path, name: str, script: str) -> Path:
    """An editor that is a shell script; `$1` is the file to edit."""
    path = folder / f"{name}.sh"
    path.write_text(f"#!/bin/sh\nset -e\n{script}\n")
    path.chmod(0o755)
    return path
