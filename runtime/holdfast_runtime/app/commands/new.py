"""`holdfast new`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Name = Annotated[Path, typer.Argument(metavar="NAME", help="Of the project and its folder, such as my-app; a path puts it elsewhere.")]


def new(name: Name) -> None:
    """Create a project: handlers, tests, SAM template, CI workflow; it passes its own checks at once."""
    from holdfast_runtime.app.about import VERSION
    from holdfast_runtime.app.creating import create, package_of

    target = Path.cwd() / name
    for path in create(target, VERSION):
        print(name / path)
    package = package_of(target.name)
    print(f"\nNext: cd {name}, read README.md, then")
    print("  pip install -e '.[dev]'")
    print("  pytest && holdfast lint src")
    print(f"  (cd src && holdfast dev {package}.services)")
