"""What a shard owner has around it, handed down once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast_runtime.coordinator.settings import Settings
from holdfast_runtime.engine.events import Message
from holdfast_runtime.engine.registry import RegistryView
from holdfast_runtime.ports.endpoint import Endpoint
from holdfast_runtime.ports.store import Store
from holdfast_runtime.ports.system import Clock, Entropy

if TYPE_CHECKING:
    from holdfast_runtime.coordinator.shard import Shard


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
    attempts_in_flight: asyncio.Semaphore

    @property
    def shards(self) -> int:
        return self.store.shards
