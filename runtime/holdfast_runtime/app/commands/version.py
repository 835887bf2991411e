"""`holdfast version`"""

from __future__ import annotations

import platform

from holdfast_runtime.app.options import AsJson


def version(as_json: AsJson = False) -> None:
    """Print the versions of Holdfast and Python."""
    from holdfast_runtime.app.about import VERSION
    from holdfast_runtime.app.output import print_json

    if as_json:
        print_json({"holdfast": VERSION, "python": platform.python_version()})
    else:
        print(f"holdfast {VERSION} (Python {platform.python_version()})")
