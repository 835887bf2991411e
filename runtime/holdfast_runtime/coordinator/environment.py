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
    from holdfast_runtime.coordinator.lanes import Lanes
    from holdfast_runtime.coordinator.shard import Shard


LOADS: Final = 64  # invocations whose page is read to learn where their attempt goes, at a time; a take-over may have many


class Slots:
    """How many may work at a time; the rest wait their turn in order. A plain counter while there is room."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._waiting: deque[Callable[[], bool]] = deque()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def take(self, start: Callable[[], bool]) -> None:
        """Run `start` now, or when a slot is given back. False of it: the slot is not needed any more."""
        if self._free > 0:
            self._free -= 1
            if not start():
                self.give_back()
        else:
            self._waiting.append(start)

    def give_back(self) -> None:
        while self._waiting:
            if self._waiting.popleft()():
                return
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
    lanes: Lanes
    owned_shards: Callable[[], int]  # how many share this process's limits, at least 1
    metrics: Metrics = field(default_factory=Metrics)
    loads: Slots = field(default_factory=lambda: Slots(LOADS))
    turns: Turns = field(default_factory=Turns)
    wakeups: Wakeups | None = None  # None: nobody has to be woken, because this process is always there (embedded store)

    @property
    def shards(self) -> int:
        return self.store.shards
