"""Addresses no deployment may have: registering one must not turn the coordinator into a way to the machine's credentials.

Link-local networks carry the metadata services of AWS (EC2, ECS) and are never a place where handlers run.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

_FORBIDDEN: Final = tuple(ip_network(net) for net in ("169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128", "fd00:ec2::23/128"))
# IPv6 addresses that end with the IPv4 address they lead to: the deprecated compatible ones (RFC 4291 §2.5.5.1), and those that a
# translator makes of all names in subnets without IPv4 (RFC 6052, AWS NAT64).
_ENDING_WITH_IPV4: Final = tuple(ip_network(net) for net in ("::/96", "64:ff9b::/96"))


def is_forbidden(address: str) -> bool:
    """Whether this IP address (as text, a zone is ignored) is link-local or a metadata service, or leads to one."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return any(each in network for each in (ip, _within(ip)) for network in _FORBIDDEN if each.version == network.version)


def _within(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address to which what is sent to this IPv6 address goes; without one the address itself."""
    if isinstance(ip, IPv4Address):
        return ip
    if any(ip in network for network in _ENDING_WITH_IPV4):
        return IPv4Address(int(ip) & 0xFFFF_FFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo is not None else ip)
