"""Near timers in memory, far ones in their pages until they come near (storage design §7). Memory is only a reminder: firing asks the
page."""

from __future__ import annotations

import asyncio
import heapq
import logging
from typing import TYPE_CHECKING, Final

from holdfast_runtime.coordinator.far_timers import FarTimers
from holdfast_runtime.engine import model
from holdfast_runtime.engine.events import TimerDue

if TYPE_CHECKING:
    from holdfast_runtime.coordinator.shard import Shard

log = logging.getLogger("holdfast.timers")

_RETRY: Final = -1  # in place of an hour: the entry is an invocation to retry
_MARGIN_S: Final = 60.0  # how long before the end of the horizon to look further ahead: this, or a tenth of a longer horizon
_TOGETHER: Final = 64
_BROKEN_MS: Final = 60_000


class Timers:
    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._far = FarTimers(shard)
        self._heap: list[tuple[int, int, int, str]] = []  # (due ms, hour or _RETRY, page, key)
        self._horizon_ms = 0  # timers due up to here are in the heap
        self._changed: asyncio.Future[None] | None = None

    def start(self) -> None:
        self._shard.spawn(self._run())
        self._far.start()

    def stop(self) -> None:
        self._heap.clear()

    def arm(self, at_ms: int, hour: int, number: int, key: str) -> None:
        if at_ms <= self._horizon_ms:
            self._push((at_ms, hour, number, key))
        else:
            self._far.added(at_ms, hour, number)

    @property
    def armed(self) -> int:
        """Reminders in memory, those of retries included."""
        return len(self._heap)

    def retry_at(self, at_ms: int, invocation: str) -> None:
        self._push((at_ms, _RETRY, 0, invocation))

    def next_due_ms(self) -> int | None:
        """When the first timer that still counts is due, for clocks that jump there. Reminders of timers that are over are forgotten."""
        while self._heap:
            at_ms, hour, _, key = self._heap[0]
            if self._counts(at_ms, hour, key):
                return at_ms
            heapq.heappop(self._heap)
        return None

    def _counts(self, at_ms: int, hour: int, key: str) -> bool:
        invocation, _, completion = (key, "", "") if hour == _RETRY else key.rpartition(":")
        page = self._shard.pages.get(model.invocation_page(invocation))
        if page is None:
            return True  # not in memory: firing will tell
        document = page.document or {}
        if hour == _RETRY:
            retry = document.get(model.RETRY)
            found = retry[2] if retry else None
        else:
            found = document.get(model.TIMERS, {}).get(int(completion))
        return found is not None and found <= at_ms

    def _push(self, entry: tuple[int, int, int, str]) -> None:
        first = self._heap[0] if self._heap else None
        heapq.heappush(self._heap, entry)
        if (first is None or entry < first) and self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    async def _run(self) -> None:
        shard, clock = self._shard, self._shard.environment.clock
        horizon_s = shard.environment.settings.timer_horizon_s
        while True:
            now = clock.now_ms()
            if now + (horizon_s - max(_MARGIN_S, horizon_s / 10)) * 1000 > self._horizon_ms:
                await self._load(now + int(horizon_s * 1000))
            while self._heap and self._heap[0][0] <= clock.now_ms():
                await self._fire()
            await self._sleep()

    async def _fire(self) -> None:
        """Some of what is due; several together, because each may have to load pages."""
        shard, now = self._shard, self._shard.environment.clock.now_ms()
        events: list[TimerDue] = []
        while self._heap and self._heap[0][0] <= now and len(events) < _TOGETHER:
            _, hour, number, key = heapq.heappop(self._heap)
            if hour == _RETRY:
                shard.attempts.start(key)
            else:
                events.append(TimerDue(hour, number, key))
        if len(events) == 1:
            await self._due(events[0])
            return
        await asyncio.gather(*map(self._due, events))

    async def _due(self, event: TimerDue) -> None:
        shard = self._shard
        try:
            fired, _ = await shard.perform(event)
            if not fired:
                self._again(event)
        except Exception:
            if shard.fenced:
                raise
            # A bug of ours: the timer stays in its page and is tried again, the others go on.
            log.exception("timer.broken", extra={"shard": shard.number, "key": event.key})
            self._push((shard.environment.clock.now_ms() + _BROKEN_MS, event.hour, event.number, event.key))

    def _again(self, event: TimerDue) -> None:
        """It was not due after all: the wall clock was set back since. The page says when it is."""
        page = self._shard.pages.get(model.timer_page(self._shard.number, event.hour, event.number))
        found = page.document.get(event.key) if page is not None and page.document is not None else None
        if found is not None:
            self._push((found[0], event.hour, event.number, event.key))

    async def _sleep(self) -> None:
        """Until the next timer, a new first one, or the time to look further ahead."""
        clock = self._shard.environment.clock
        delay = min((self._heap[0][0] - clock.now_ms()) / 1000 if self._heap else _MARGIN_S / 2, _MARGIN_S / 2)
        if delay <= 0:
            return
        self._changed = asyncio.get_running_loop().create_future()
        sleeping = asyncio.ensure_future(clock.sleep(delay))
        try:
            await asyncio.wait([sleeping, self._changed], return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            self._changed = None

    async def _load(self, horizon_ms: int) -> None:
        """Bring the timers due up to `horizon_ms` into the heap."""
        shard = self._shard
        before, self._horizon_ms = self._horizon_ms, horizon_ms  # timers added from now on up to the horizon arm themselves
        self._far.near(horizon_ms)
        index = dict(shard.pages[model.timer_index(shard.number)].document or {})
        for hour, last in index.items():
            if hour * model.HOUR_MS > horizon_ms:
                continue
            page_ids = [model.timer_page(shard.number, hour, number) for number in range(last + 1)]
            await shard.load(page_ids)
            for number, page_id in enumerate(page_ids):
                while page_id not in shard.pages:  # evicted again while the others came
                    await shard.load([page_id])
                page = shard.pages[page_id]
                first_far: int | None = None
                for key, (at_ms, _) in (page.document or {}).items():
                    if before < at_ms <= horizon_ms:
                        heapq.heappush(self._heap, (at_ms, hour, number, key))
                    elif at_ms > horizon_ms and (first_far is None or at_ms < first_far):
                        first_far = at_ms
                if first_far is not None:
                    self._far.left(first_far, hour, number)
