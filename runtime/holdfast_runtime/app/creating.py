"""`holdfast new`: a project that passes its own tests, types and lint from the first minute.

Rules: what exists is never touched; the folder appears complete or not at all.
"""

from __future__ import annotations

import keyword
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from holdfast_runtime.app.errors import CliError, misuse

TEMPLATES: Final = Path(__file__).parent / "templates" / "new"
_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_TAKEN: Final = frozenset({"holdfast", "holdfast_runtime", "tests", "src"})


def create(target: Path, version: str) -> list[Path]:
    """The files written, relative to the target. version: of Holdfast, which the project asks for. Raises CliError."""
    name = target.name
    package = package_of(name)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CliError(f"{target} exists already and is not an empty folder; choose another name")
    if not target.parent.is_dir():
        raise CliError(f"{target.parent} is not a folder; create it first")
    words = {"NAME": name, "PACKAGE": package, "VERSION": version, "NEXT": _next(version)}
    # A crash leaves a folder of another name behind, never half a project under the right one.
    making = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
    try:
        written = [_write(template, making, words) for template in sorted(TEMPLATES.rglob("*.in"))]
        making.chmod(0o755)
        os.replace(making, target)
    except OSError as error:
        shutil.rmtree(making, ignore_errors=True)
        raise CliError(f"{target} cannot be written: {error}") from error
    return written


def package_of(name: str) -> str:
    """The name of its Python package. Raises CliError."""
    package = name.replace("-", "_")
    if not _NAME.fullmatch(name):
        raise misuse(f"expected a name of small letters, digits and single hyphens, such as my-app; found '{name}'")
    if keyword.iskeyword(package) or package in _TAKEN or package in sys.stdlib_module_names:
        raise misuse(f"'{package}' is the name of another Python module; choose a name of your own, such as my-{name}")
    return package


def _write(template: Path, folder: Path, words: dict[str, str]) -> Path:
    relative = Path(str(template.relative_to(TEMPLATES)).removesuffix(".in").replace("PACKAGE", words["PACKAGE"]))
    text = template.read_text(encoding="utf-8")
    for word, value in words.items():
        text = text.replace(f"%%{word}%%", value)
    path = folder / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return relative


def _next(version: str) -> str:
    """The first version that may break what this one promises: 0.2 for 0.1.3, 2 for 1.4.0."""
    major, minor = (int(part) for part in version.split(".")[:2])
    return f"0.{minor + 1}" if major == 0 else str(major + 1)
