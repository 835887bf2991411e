"""How one coordinator process asks another: a request goes to the owner of a shard, the answer comes back.

Delivery is at most once per call and may be lost, late or repeated by the network; every request is safe to repeat (storage design §8).
"""

from __future__ import annotations

from typing import Any, Protocol


class PeerUnavailable(Exception):
    """The peer could not be asked, or the answer was lost: whether it acted is unknown."""


class Peers(Protocol):
    async def ask(self, address: str, request: dict[str, Any]) -> dict[str, Any]:
        """Send `request` (msgpack-able) to the process at `address` and await its answer. Raises PeerUnavailable."""
        ...
