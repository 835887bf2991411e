"""Wake-ups for timers that are too far away to be kept in memory (storage design §7).

Every page of far timers has one wake-up, a little ahead of its first timer, and when that has come near, of the next one. Nothing
depends on it while a process is alive: every owner reads the pages that come near. It is arranged after the timer is durable; what
could not be arranged is tried again. A new owner arranges all pages it finds, and moves the wake-ups that exist to where it believes
they are: else a timer that is added before the first one of a page would not move a wake-up that is set for the first one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Final

from holdfast_runtime.engine import model
from holdfast_runtime.ports.inbox import Wake
from holdfast_runtime.ports.wakeups import WakeupsUnavailable

if TYPE_CHECKING:
    from holdfast_runtime.coordinator.shard import Shard

log = logging.getLogger("holdfast.timers")

AHEAD_MS: Final = 90_000  # a wake-up may be a minute late, and somebody must start
EARLIER_MS: Final = 60_000  # a new first timer moves the wake-up only by more than its precision
RETRY_S: Final = 5.0  # after a refusal; doubled up to a minute
_Page = tuple[int, int]  # hour, number


class FarTimers:
    """Of one shard. Does nothing where no wake-ups are configured."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._arranged: dict[_Page, int] = {}  # page -> the first timer its wake-up is arranged for
        self._waiting: deque[tuple[_Page, int, bool]] = deque()  # page, first timer, whether to move an earlier wake-up
        self._wanted = asyncio.Event()

    def start(self) -> None:
        """Arrange what the pages ask for. First timers of pages from before are not known, so their hour counts, or what is left of it."""
        if self._shard.environment.wakeups is None:
            return
        environment = self._shard.environment
        near_ms = environment.clock.now_ms() + int(environment.settings.timer_horizon_s * 1000)
        index = self._shard.pages[model.timer_index(self._shard.number)].document or {}
        for hour, last in index.items():
            if (hour + 1) * model.HOUR_MS > near_ms:
                for number in range(last + 1):
                    self._want((hour, number), max(hour * model.HOUR_MS, near_ms), move=True)
        self._shard.spawn(self._run())

    def added(self, at_ms: int, hour: int, number: int) -> None:
        """A far timer is durable."""
        if self._shard.environment.wakeups is None:
            return
        before = self._arranged.get((hour, number))
        is_used_up = before is not None and before - AHEAD_MS <= self._shard.environment.clock.now_ms()
        if before is None or is_used_up or at_ms < before - EARLIER_MS:
            self._want((hour, number), at_ms, move=before is not None)

    def left(self, first_ms: int, hour: int, number: int) -> None:
        """The first timer of a page that stays far while others of it have come near: the wake-up of those is used up, or about to be."""
        before = self._arranged.get((hour, number))
        if before is not None and before - AHEAD_MS <= self._shard.environment.clock.now_ms():
            self._want((hour, number), first_ms, move=True)

    def near(self, horizon_ms: int) -> None:
        """The pages up to there are in memory now."""
        for page in [page for page in self._arranged if page[0] * model.HOUR_MS < horizon_ms - model.HOUR_MS]:
            del self._arranged[page]

    def _want(self, page: _Page, first_ms: int, *, move: bool) -> None:
        self._arranged[page] = first_ms
        self._waiting.append((page, first_ms, move))
        self._wanted.set()

    async def _run(self) -> None:
        environment = self._shard.environment
        clock, wakeups = environment.clock, environment.wakeups
        assert wakeups is not None
        delay = RETRY_S
        while True:
            while not self._waiting:
                self._wanted.clear()
                await self._wanted.wait()
            page, first_ms, move = self._waiting[0]
            is_outdated = self._arranged.get(page, first_ms) < first_ms  # an earlier one waits behind it, or is arranged
            if first_ms > clock.now_ms() and not is_outdated:  # else every living owner has it in memory, and there is one: us
                try:
                    await wakeups.arrange(Wake(self._shard.number, *page), first_ms - AHEAD_MS, replace=move)
                except Exception as problem:  # whatever it is, a reminder that cannot be set must not cost the shard its owner
                    environment.metrics.wakeups["failed"] += 1
                    facts = {"shard": self._shard.number, "hour": page[0], "waiting": len(self._waiting), "error": str(problem)}
                    log.warning("wakeups.failed", extra=facts, exc_info=not isinstance(problem, WakeupsUnavailable))
                    self._waiting.rotate(-1)  # one that is refused time and again does not hold up the others
                    await clock.sleep(delay)
                    delay = min(delay * 2, 60.0)
                    continue
                environment.metrics.wakeups["arranged"] += 1
                delay = RETRY_S
                await clock.sleep(environment.settings.wakeup_pace_s)
            self._waiting.popleft()
