"""Where the official parts are, and the sentence a test is skipped with when one of them is missing."""

from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
TOOLS: Final = ROOT / "tools"
MODULES: Final = TOOLS / "node_modules"
SERVICES: Final = Path(__file__).parent / "services"
SETUP: Final = "python tests/conformance/setup.py"


def node() -> Path:
    """Node 22, which the TypeScript SDK wants."""
    return _present(MODULES / "node" / "bin" / "node", "Node 22")


def typescript_sdk(entry: str) -> Path:
    """The SDK's module for an entry point: `node` or `lambda`."""
    return _present(MODULES / "@restatedev" / "restate-sdk" / "dist" / f"{entry}.js", "the TypeScript SDK")


def restate_server() -> Path:
    """The binary, not the script around it: a SIGKILL has to reach it."""
    found = sorted((MODULES / "@restatedev").glob("restate-server-*/bin/restate-server"))
    return _present(found[0] if found else MODULES / "restate-server", "the official server")


def _present(path: Path, what: str) -> Path:
    if not path.exists():
        pytest.skip(f"{what} is not installed; install it with `{SETUP}`")
    return path
