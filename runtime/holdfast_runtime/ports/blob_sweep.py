"""What a sweep of large values asks of a store that several processes share (see `coordinator.blob_sweep`)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple, Protocol


class Candidate(NamedTuple):
    """A large value that was put long ago. key: its name in the store, see `key_of`. version: changes when it is put again.

    condemned: it is on its way out already, see `condemn`.
    """

    key: str
    version: str
    condemned: bool = False


class SweptBlobs(Protocol):
    """Methods raise StoreUnavailable."""

    def key_of(self, blob_id: str) -> str:
        """The key under which a value with this id is stored."""
        ...

    def candidates(self, put_before_ms: int, limit: int) -> AsyncIterator[Candidate]:
        """Values that were put before that instant and not again since, at most `limit`, those that are condemned first. Some may be
        left out; the next sweep finds them."""
        ...

    def encoded(self) -> AsyncIterator[tuple[bytes, bool]]:
        """The bytes of every stored page and log item that is there from the call to the end, as they stood at some instant between;
        and whether they are a page's. Reads are strongly consistent."""
        ...

    async def condemn(self, candidate: Candidate) -> bool:
        """Let it go, unless it was put again. It can still be read for a time that is longer than some sweeps, and comes back when it is
        put again or reprieved. False: it was put again."""
        ...

    async def reprieve(self, candidate: Candidate) -> None:
        """Keep a condemned value: it is referred to after all."""
        ...
