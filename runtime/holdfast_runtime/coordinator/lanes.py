"""The lanes of a process: each attempt waits in that of its deployment, then for one of the process's slots.

The order matters: who waits for its deployment holds nothing that others need. A lane's places are fewer than the slots, so a deployment
whose attempts take long leaves some to others.

Nothing here is stored. An invocation whose attempt waits is running in its page; whoever owns its shard after a crash starts the attempt
again, which then waits there. It may be tried once more too early for that, and no more is lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, Protocol

from holdfast_runtime.coordinator.environment import Slots
from holdfast_runtime.coordinator.lane import Lane, Ticket
from holdfast_runtime.engine.registry import CONCURRENCY, RegistryView
from holdfast_runtime.ports.system import Clock, Entropy

log = logging.getLogger("holdfast.lanes")

MAX_CONCURRENCY: Final = 1_000_000


class Holder(Protocol):
    """Who waits in a lane."""

    def begin(self, turn: Turn) -> bool:
        """It is its turn, which ends with `turn.over()`. False: it is not needed any more."""
        ...

    def stays(self, view: RegistryView) -> bool:
        """Whether it still waits in the right lane. False: it is taken out, and `wait` finds the right one."""
        ...

    def wait(self) -> None: ...


class Turn:
    """A place in a lane and a slot, until `over`. What was told before is what the lane learns; nothing told: nothing was sent."""

    __slots__ = ("_lanes", "_ticket", "_told", "deployment")

    def __init__(self, lanes: Lanes, deployment: str, ticket: Ticket[Holder]) -> None:
        self._lanes = lanes
        self.deployment = deployment
        self._ticket = ticket
        self._told: Callable[[], None] = partial(lanes.unsent, deployment)

    def answered(self) -> None:
        self._told = partial(self._lanes.answered, self.deployment)

    def refused(self, *, retry_after_ms: int | None, last: bool, reason: str) -> None:
        """Its holder waits again, and gets another turn; `last` and the delay are those of `Lane.refuse`."""
        self._told = partial(self._lanes.refused, self.deployment, self._ticket, retry_after_ms, last=last, reason=reason)

    def over(self) -> None:
        self._told()


class Lanes:
    def __init__(self, clock: Clock, entropy: Entropy, registry: Callable[[], RegistryView], slots: Slots, limit: int) -> None:
        self._clock = clock
        self._entropy = entropy
        self._registry = registry
        self._slots = slots
        self._limit = limit
        self._view: RegistryView | None = None  # the registry that the lanes' limits come from
        self._lanes: dict[str, Lane[Holder]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._busy: set[str] = set()  # lanes that are being looked through

    def enter(self, deployment: str, holder: Holder) -> None:
        """`holder` begins now, or when it is its turn. deployment: its id, empty when there is none."""
        lane = self._lanes.get(deployment)
        if lane is None:
            lane = self._lanes[deployment] = Lane(self._limit_of(deployment, self._registry()))
        lane.enter(holder)
        self._advance(deployment, lane)

    def waiting(self, deployment: str | None = None) -> int:
        """Attempts that wait for their deployment, or for any."""
        if deployment is not None:
            lane = self._lanes.get(deployment)
            return lane.waiting if lane is not None else 0
        return sum(lane.waiting for lane in self._lanes.values())

    def drop(self, gone: Callable[[Holder], bool]) -> None:
        """Whoever is `gone` waits no more."""
        for lane in self._lanes.values():
            lane.drop(gone)

    # -- ends of turns: the slot first, so that who waits for it of another deployment goes before our own next

    def answered(self, deployment: str) -> None:
        self._slots.give_back()
        lane = self._lanes[deployment]
        if lane.answered(self._clock.monotonic()):
            log.info("deployment.takes_work_again", extra={"deployment_id": deployment, "refused": lane.refused})
        self._advance(deployment, lane)

    def unsent(self, deployment: str) -> None:
        self._slots.give_back()
        lane = self._lanes[deployment]
        lane.unsent()
        self._advance(deployment, lane)

    def refused(self, deployment: str, ticket: Ticket[Holder], retry_after_ms: int | None, *, last: bool, reason: str) -> None:
        self._slots.give_back()
        lane = self._lanes[deployment]
        retry_after_s = retry_after_ms / 1000 if retry_after_ms is not None else None
        now, jitter = self._clock.monotonic(), self._entropy.fraction()
        if lane.refuse(ticket, now, retry_after_s=retry_after_s, last=last, jitter=jitter):
            facts = {"deployment_id": deployment, "in_flight": lane.running, "waiting": lane.waiting, "reason": reason}
            log.warning("deployment.refuses_work", extra=facts)
        self._advance(deployment, lane)

    # -- turns

    def _advance(self, deployment: str, lane: Lane[Holder]) -> None:
        """Let begin who may, and look again when the lane opens."""
        if deployment in self._busy:
            return  # called by a holder that began or was not needed any more: whoever looks through the lane goes on
        self._busy.add(deployment)
        try:
            self._follow(self._registry())
            while (ticket := lane.next(self._clock.monotonic())) is not None:
                self._slots.take(partial(self._begin, deployment, lane, ticket))
        finally:
            self._busy.discard(deployment)
        timer = self._timers.pop(deployment, None)
        if timer is not None:
            timer.cancel()
        opens_at = lane.opens_at()
        if opens_at is not None:
            delay = max(0.0, opens_at - self._clock.monotonic())
            self._timers[deployment] = asyncio.get_running_loop().call_later(delay, self._opened, deployment)
        elif lane.idle:
            del self._lanes[deployment]

    def _begin(self, deployment: str, lane: Lane[Holder], ticket: Ticket[Holder]) -> bool:
        """The slot is there. False: nobody needs it."""
        if ticket.holder.begin(Turn(self, deployment, ticket)):
            return True
        lane.unsent()
        self._advance(deployment, lane)
        return False

    def _opened(self, deployment: str) -> None:
        self._timers.pop(deployment, None)
        self._advance(deployment, self._lanes[deployment])

    def _follow(self, view: RegistryView) -> None:
        """Limits may change with the registry, and where an invocation goes that no deployment has begun.

        Who is in the wrong lane does not wait there for its turn: a function that takes nothing refuses whoever is first in line, again and
        again, and nobody behind it gets any further.
        """
        if view is self._view:
            return
        self._view = view
        for deployment, lane in list(self._lanes.items()):
            lane.limit = self._limit_of(deployment, view)
            for holder in lane.drop(lambda waiting: not waiting.stays(view)):
                holder.wait()

    def _limit_of(self, deployment: str, view: RegistryView) -> int:
        found = view.deployments.get(deployment)
        try:
            return (concurrency_of(found.metadata) if found is not None else None) or self._limit
        except ValueError:  # registered before this was looked at
            return self._limit


def concurrency_of(metadata: Mapping[str, str]) -> int | None:
    """The limit that a registration asks for; None: none. Raises ValueError."""
    text = metadata.get(CONCURRENCY)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and 0 < int(text[:8]) <= MAX_CONCURRENCY and len(text) < 8):
        raise ValueError(f"expected a whole number from 1 to {MAX_CONCURRENCY} as {CONCURRENCY}, found '{text[:40]}'")
    return int(text)
