"""Sending the outboxes: in order, a window at a time, again until acknowledged (storage design §4.6)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from holdfast_runtime.engine import model
from holdfast_runtime.engine.events import Message, MessagesAcknowledged

if TYPE_CHECKING:
    from holdfast_runtime.coordinator.shard import Shard

log = logging.getLogger("holdfast.channels")


class Channels:
    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._sendable: dict[int, int] = {}  # destination -> last number whose record is durable
        self._sending: set[int] = set()

    def start(self) -> None:
        """Everything that recovery found in an outbox is durable."""
        for destination in range(self._shard.environment.shards):
            box = self._shard.pages[model.outbox_page(self._shard.number, destination)].document
            if box is not None and box.get("n", 0) > box.get("a", 0):
                self.send(destination, box["n"])

    def send(self, destination: int, sequence: int) -> None:
        self._sendable[destination] = max(sequence, self._sendable.get(destination, 0))
        if destination not in self._sending:
            self._sending.add(destination)
            self._shard.spawn(self._send(destination))

    async def _send(self, destination: int) -> None:
        shard, environment = self._shard, self._shard.environment
        try:
            while True:
                shard.check()  # to deliver to ourselves may show that the shard is lost; that ends every task but the one that shows it
                window = self._window(destination)
                if not window:
                    return
                shard.check_lease()
                try:
                    applied = await environment.deliver(destination, shard.number, window)
                except (OSError, TimeoutError, Unreachable) as error:
                    log.info("channel.retry", extra={"shard": shard.number, "destination": destination, "error": str(error)})
                    await environment.clock.sleep(environment.settings.resend_s)
                    continue
                if applied < window[0][0]:
                    await environment.clock.sleep(environment.settings.resend_s)
                await shard.perform(MessagesAcknowledged(destination, applied), lazy=True)
        finally:
            self._sending.discard(destination)

    def _window(self, destination: int) -> list[tuple[int, Message]]:
        shard = self._shard
        box = shard.pages[model.outbox_page(shard.number, destination)].document or {}
        first = box.get("a", 0) + 1
        last = min(self._sendable.get(destination, 0), first + shard.environment.settings.window - 1)
        window = []
        for sequence in range(first, last + 1):
            page = shard.pages[model.messages_page(shard.number, destination, sequence)].document or {}
            window.append((sequence, page[sequence]))
        return window


class Unreachable(Exception):
    """Nobody owns the destination just now."""
