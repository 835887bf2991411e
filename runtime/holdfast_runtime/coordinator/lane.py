"""How many attempts at one deployment may be in flight, and who is next. Pure: time and chance are given.

Rules

- First come, first served; who is refused keeps its place in the line, or goes to its end.
- Never more in flight than the window, never more than `limit`. There is no window until the deployment refuses work.
- A refusal halves what was in flight, once for all that were sent before it was halved last; each further one of those says that no more
  than what is still in flight can be had, which is the capacity itself when a thousand requests meet room for five.
- Answers open the window again, by one for each window of answers; after a quiet minute by one each, because the capacity has changed then.
  Processes that share a function find their shares this way.
- After a refusal nothing is sent for a moment, which doubles with each refusal in a row: a function that takes nothing at all is asked
  six to twelve times a minute, however many wait.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

T = TypeVar("T")

FIRST_PAUSE_S: Final = 0.1
MAX_PAUSE_S: Final = 10.0  # what a caller may wait in vain after the limit was lifted
MAX_RETRY_AFTER_S: Final = 300.0  # a service that asks for more is asked again all the same
QUIET_S: Final = 60.0  # without a refusal: it is over


@dataclass(slots=True, eq=False)
class Ticket(Generic[T]):
    """A place in the line. started: number of its last start, in the order of all starts."""

    number: int
    holder: T
    started: int = 0

    def __lt__(self, other: Ticket[T]) -> bool:
        return self.number < other.number


class Lane(Generic[T]):
    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running = 0
        self.throttled = False  # for the log: since the first refusal, until a quiet minute has passed
        self.refused = 0  # tries, since then
        self._window = math.inf
        self._line: list[Ticket[T]] = []
        self._numbers = 0
        self._starts = 0
        self._halved_at = 0  # starts when the window was halved last
        self._in_a_row = 0  # refusals without an answer between them
        self._refused_at = -math.inf
        self._opens_at = -math.inf

    @property
    def waiting(self) -> int:
        return len(self._line)

    @property
    def idle(self) -> bool:
        """Nothing is lost when it is forgotten."""
        return not (self.running or self._line or self.throttled)

    @property
    def window(self) -> int:
        """So many may be in flight."""
        return self.limit if self._window >= self.limit else max(1, int(self._window))

    def enter(self, holder: T) -> None:
        self._numbers += 1
        heapq.heappush(self._line, Ticket(self._numbers, holder))

    def next(self, now: float) -> Ticket[T] | None:
        """Who may start now; it counts as in flight until `answered`, `unsent` or `refuse` is told."""
        if not self._line or self.running >= self.window or now < self._opens_at:
            return None
        ticket = heapq.heappop(self._line)
        self.running += 1
        self._starts += 1
        ticket.started = self._starts
        return ticket

    def opens_at(self) -> float | None:
        """When to ask `next` again although nothing has ended by then; None: no need to."""
        return self._opens_at if self._line and self.running < self.window else None

    def unsent(self) -> None:
        """Who had started needs nothing any more, or not from here: it says nothing about the deployment."""
        self.running -= 1

    def answered(self, now: float) -> bool:
        """The deployment took the work, whatever came of it. True: it had refused some before, and that is over."""
        self.running -= 1
        self._in_a_row = 0
        if self._window < math.inf:
            self._open(now)
        if self.throttled and now - self._refused_at >= QUIET_S:
            self.throttled = False
            return True
        return False

    def refuse(self, ticket: Ticket[T], now: float, *, retry_after_s: float | None = None, last: bool = False, jitter: float = 0.0) -> bool:
        """The deployment did not take the work: it waits again. True: that is new.

        last: at the end of the line, because the cause may be the work itself. jitter: in [0, 1).
        """
        sent = min(self.window, self.running)
        self.running -= 1
        if ticket.started > self._halved_at:
            self._halved_at = self._starts
            self._window = max(1.0, sent / 2)
            self._in_a_row += 1
            pause = min(FIRST_PAUSE_S * 2.0 ** min(self._in_a_row - 1, 30), MAX_PAUSE_S)
            self._opens_at = max(self._opens_at, now + pause * (1 + jitter) / 2)
        else:
            self._window = max(1.0, min(self._window, self.running))
        if retry_after_s is not None:
            self._opens_at = max(self._opens_at, now + min(retry_after_s, MAX_RETRY_AFTER_S))
        if last:
            self._numbers += 1
            ticket.number = self._numbers
        heapq.heappush(self._line, ticket)
        new, self.throttled = not self.throttled, True
        self.refused = 1 if new else self.refused + 1
        self._refused_at = now
        return new

    def drop(self, gone: Callable[[T], bool]) -> list[T]:
        """Take out of the line whoever is `gone`; who that was, in order."""
        dropped = sorted(ticket for ticket in self._line if gone(ticket.holder))
        if dropped:
            out = set(map(id, dropped))
            self._line = [ticket for ticket in self._line if id(ticket) not in out]
            heapq.heapify(self._line)
        return [ticket.holder for ticket in dropped]

    def _open(self, now: float) -> None:
        self._window += 1.0 if now - self._refused_at >= QUIET_S else 1.0 / self._window
        if self._window >= self.limit:
            self._window = math.inf
