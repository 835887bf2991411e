"""Refusing forbidden addresses (`ports.forbidden`) behind any name, when a deployment is registered: who registers learns why.

A name may be pointed elsewhere later; whoever connects looks again at the address it has reached.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence

from holdfast_runtime.ports.forbidden import is_forbidden

Resolve = Callable[[str], Awaitable[Sequence[str]]]


async def resolve(host: str) -> Sequence[str]:
    """All addresses of a host name; none when it does not resolve, which the request itself will report."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, ValueError):  # ValueError: no name at all, such as one with an empty label or one longer than 63 characters
        return ()
    return tuple({str(item[4][0]) for item in found})


async def forbidden_address(host: str, resolver: Resolve = resolve) -> str | None:
    """The forbidden address `host` is or resolves to, or None."""
    if is_forbidden(host):
        return host
    return next((address for address in await resolver(host) if is_forbidden(address)), None)
