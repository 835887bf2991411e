"""What a shard owner has around it, handed down once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from holdfast_runtime.coordinator.settings import Settings
from holdfast_runtime.engine.events import Message
from holdfast_runtime.engine.registry import RegistryView
from holdfast_runtime.ports.endpoint import Endpoint
from holdfast_runtime.ports.metrics import Metrics
from holdfast_runtime.ports.store import Store
from holdfast_runtime.ports.system import Clock, Entropy
from holdfast_runtime.ports.wakeups import Wakeups

if TYPE_CHECKING:
    from holdfast_runtime.coordinator.shard import Shard


class Slots:
    """How many attempts may be in flight; the rest wait their turn in order. A plain counter while there is room."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._waiting: deque[Callable[[], None]] = deque()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def take(self, start: Callable[[], None]) -> None:
        """Run `start` now, or when a slot is given back."""
        if self._free > 0:
            self._free -= 1
            start()
        else:
            self._waiting.append(start)

    def give_back(self) -> None:
        if self._waiting:
            self._waiting.popleft()()
        else:
            self._free += 1


class Turns:
    """Lets scans do a piece of work, about a millisecond, one piece in so many turns of the loop, however many scans there are.

    A call needs some ten turns from its arrival to its answer, so it waits for two or three pieces. Turns in which nothing is to be done
    cost 20 us, so a scan that is alone loses little.
    """

    BETWEEN: Final = 4

    def __init__(self) -> None:
        self._left = 0  # turns until the next piece

    async def take(self) -> None:
        while True:
            await asyncio.sleep(0)
            if self._left == 0:
                break
        self._left = self.BETWEEN
        asyncio.get_running_loop().call_soon(self._pass)

    def _pass(self) -> None:
        self._left -= 1
        if self._left:
            asyncio.get_running_loop().call_soon(self._pass)


@dataclass(slots=True)
class Environment:
    """deliver(destination, source, messages): give messages to the owner of another shard; the last number it has applied durably."""

    clock: Clock
    entropy: Entropy
    store: Store
    settings: Settings
    endpoint: Endpoint
    registry: Callable[[], RegistryView]
    deliver: Callable[[int, int, Sequence[tuple[int, Message]]], Awaitable[int]]
    shard_lost: Callable[[int, Shard], None]
    slots: Slots
    owned_shards: Callable[[], int]  # how many share this process's limits, at least 1
    metrics: Metrics = field(default_factory=Metrics)
    turns: Turns = field(default_factory=Turns)
    wakeups: Wakeups | None = None  # None: nobody has to be woken, because this process is always there (embedded store)

    @property
    def shards(self) -> int:
        return self.store.shards
