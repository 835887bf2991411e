"""`holdfast version`"""

from __future__ import annotations

import platform

from holdfast_runtime.app.options import ADMIN_URL, AdminUrl, AsJson


def version(admin_url: AdminUrl = ADMIN_URL, as_json: AsJson = False) -> None:
    """Print the versions of Holdfast, Python, and the server if one can be reached."""
    from holdfast_runtime.app.about import VERSION
    from holdfast_runtime.app.errors import CliError
    from holdfast_runtime.app.http import quick_api
    from holdfast_runtime.app.output import print_json

    server, why = None, None
    try:
        server = quick_api(admin_url).get("/version").get("holdfast_version")
    except CliError as unreachable:
        why = str(unreachable)
    if as_json:
        return print_json({"holdfast": VERSION, "python": platform.python_version(), "server": server, "admin_url": admin_url})
    print(f"holdfast {VERSION} (Python {platform.python_version()})")
    return print(f"server {server or '?'} at {admin_url}" if why is None else f"no server at {admin_url}")
