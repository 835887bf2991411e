"""Ids as arguments of commands."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from holdfast_runtime.app.errors import misuse

EXAMPLE: Final = "inv_1fLfrb6R3Bf24DtcxPi1xLnIxQ7kzQpLk5"
InvocationArgument = Annotated[str, typer.Argument(metavar="ID", help="The invocation's id, inv_…", show_default=False)]


def check_id(invocation_id: str) -> str:
    """Raises CliError."""
    from holdfast.protocol.ids import IdError, InvocationId

    try:
        InvocationId.parse(invocation_id)
    except IdError as problem:
        hint = "`holdfast invocations list` shows ids"
        raise misuse(f"expected an invocation id such as {EXAMPLE}, found '{invocation_id}' ({problem.reason}); {hint}") from problem
    return invocation_id
