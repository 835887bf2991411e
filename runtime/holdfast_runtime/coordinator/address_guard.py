"""Addresses no deployment may have: registering one must not turn the coordinator into a way to the
machine's credentials.

Link-local networks carry the metadata services of AWS (EC2, ECS) and are never a place where handlers run.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

_FORBIDDEN: Final = tuple(ip_network(net) for net in ("169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128", "fd00:ec2::23/128"))

Resolve = Callable[[str], Awaitable[Sequence[str]]]


def is_forbidden(address: str) -> bool:
    """Whether this IP address (as text, a zone is ignored) is link-local or a metadata service."""
    try:
        ip: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, IPv6Address):
        ip = ip.ipv4_mapped or ip.sixtofour or ip
    return any(ip in network for network in _FORBIDDEN if network.version == ip.version)


async def resolve(host: str) -> Sequence[str]:
    """All addresses of a host name; none when it does not resolve, which the request itself will report."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return ()
    return tuple({str(item[4][0]) for item in found})


async def forbidden_address(host: str, resolver: Resolve = resolve) -> str | None:
    """The forbidden address `host` is or resolves to, or None."""
    if is_forbidden(host):
        return host
    return next((address for address in await resolver(host) if is_forbidden(address)), None)
