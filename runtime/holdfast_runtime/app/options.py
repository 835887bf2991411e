"""Options and arguments that several commands share, and how their texts are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import typer

from holdfast_runtime.app.errors import misuse

DEFAULT_INGRESS: Final = "127.0.0.1:8080"
DEFAULT_ADMIN: Final = "127.0.0.1:9070"

AdminUrl = Annotated[
    str, typer.Option("--admin-url", envvar="HOLDFAST_ADMIN_URL", help="Where the admin API is.", rich_help_panel="Server")
]
IngressUrl = Annotated[
    str, typer.Option("--ingress-url", envvar="HOLDFAST_INGRESS_URL", help="Where calls enter.", rich_help_panel="Server")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

ADMIN_URL: Final = f"http://{DEFAULT_ADMIN}"
INGRESS_URL: Final = f"http://{DEFAULT_INGRESS}"


def host_and_port(text: str, option: str) -> tuple[str, int]:
    """`HOST:PORT`, `[IPv6]:PORT`, `:PORT` or `PORT`. Raises CliError."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if not (port.isascii() and port.isdecimal() and int(port) < 65536):
        raise misuse(f"{option} expects HOST:PORT with a port from 0 to 65535, such as {DEFAULT_INGRESS}; found '{text}'")
    return host, int(port)


def pairs(given: Sequence[str], option: str) -> dict[str, str]:
    """`name=value`, each. Raises CliError."""
    found = {}
    for item in given:
        name, separator, value = item.partition("=")
        if not separator or not name:
            raise misuse(f"{option} expects NAME=VALUE; found '{item}'")
        found[name] = value
    return found
