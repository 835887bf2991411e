"""How many attempts at one deployment are sent, against functions that have room for some."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from random import Random

import pytest

from holdfast_runtime.coordinator.lane import MAX_PAUSE_S, MAX_RETRY_AFTER_S, QUIET_S, Lane, Ticket


@dataclass
class Function:
    """Has room for so many at once, each for `takes_s`; refuses the others within 10 ms. Time passes from event to event."""

    lane: Lane[int]
    room: int
    takes_s: float = 0.1
    now: float = 0.0
    running: int = 0
    tries: int = 0
    most: int = 0
    done: list[int] = field(default_factory=list)
    random: Random = field(default_factory=lambda: Random(1))
    _events: list[tuple[float, int, bool, Ticket[int]]] = field(default_factory=list)

    def play(self, until_s: float) -> None:
        while True:
            self._send()
            opens_at = self.lane.opens_at()
            coming = [event[0] for event in self._events[:1]] + ([opens_at] if opens_at is not None and opens_at > self.now else [])
            if not coming or min(coming) > until_s:
                self.now = until_s
                return
            self.now = min(coming)
            while self._events and self._events[0][0] <= self.now:
                _, _, taken, ticket = heapq.heappop(self._events)
                self._end(taken, ticket)

    def _send(self) -> None:
        while (ticket := self.lane.next(self.now)) is not None:
            self.tries += 1
            taken = self.running < self.room
            self.running += taken
            self.most = max(self.most, self.running)
            heapq.heappush(self._events, (self.now + (self.takes_s if taken else 0.01), self.tries, taken, ticket))

    def _end(self, taken: bool, ticket: Ticket[int]) -> None:
        if not taken:
            self.lane.refuse(ticket, self.now, jitter=self.random.random())
            return
        self.running -= 1
        self.done.append(ticket.holder)
        self.lane.answered(self.now)


def waiting(count: int, *, limit: int = 1000) -> Lane[int]:
    lane: Lane[int] = Lane(limit)
    for number in range(count):
        lane.enter(number)
    return lane


def test_without_refusals_the_limit_alone_holds() -> None:
    function = Function(waiting(1_000, limit=7), room=1_000)
    function.play(3600)
    assert function.done == list(range(1_000))
    assert (function.most, function.tries) == (7, 1_000)


@pytest.mark.parametrize("takes_s", [0.005, 0.1, 30.0])
def test_a_thousand_at_a_function_with_room_for_five(takes_s: float) -> None:
    """The first thousand at once, which nobody could know better, then one try in vain for four that are taken, at most."""
    function = Function(waiting(1_000), room=5, takes_s=takes_s)
    function.play(1e6)
    assert sorted(function.done) == list(range(1_000))
    assert function.most == 5
    assert function.tries - 2_000 < 250 + 100


def test_the_room_is_used() -> None:
    """Not much time is lost by careful asking: ten thousand attempts of a second, forty at once."""
    function = Function(waiting(10_000), room=40, takes_s=1.0)
    function.play(10_000 / 40 * 1.4)
    assert len(function.done) == 10_000


def test_nobody_overtakes_who_was_refused() -> None:
    """With room for one there is no doubt about the order."""
    function = Function(waiting(50), room=1)
    function.play(3600)
    assert function.done == list(range(50))


def test_a_function_that_takes_nothing_is_asked_a_few_times_a_minute() -> None:
    function = Function(waiting(1_000), room=0)
    function.play(120)
    before = function.tries
    function.play(120 + 600)
    assert 60 <= function.tries - before <= 120


def test_work_goes_on_soon_after_the_limit_was_lifted() -> None:
    function = Function(waiting(1_000), room=0)
    function.play(600)
    function.room = 1_000
    function.play(600 + MAX_PAUSE_S + 60)
    assert len(function.done) == 1_000


def test_more_room_is_found_after_a_quiet_minute() -> None:
    function = Function(waiting(100_000), room=5, takes_s=1.0)
    function.play(300)
    done, function.room = len(function.done), 500
    function.play(300 + 2 * QUIET_S + 30)
    assert function.most == 500
    assert len(function.done) - done > 10_000


def test_two_processes_share_what_there_is() -> None:
    """The one that came later gets its part, although the first never leaves anything free."""
    lanes = [waiting(50_000), waiting(50_000)]
    first = Function(lanes[0], room=40, takes_s=1.0)
    first.play(100)
    second = Function(lanes[1], room=0, takes_s=1.0, now=100)
    for tick in range(20_000):
        until = 100 + tick * 0.05
        for one, other in ((first, second), (second, first)):
            one.room = 40 - other.running
            one.play(until)
    shares = sorted((len(first.done) - 3_000, len(second.done)))
    assert shares[0] > shares[1] * 0.5, shares


def test_a_wish_for_later_is_respected_within_bounds() -> None:
    lane = waiting(2)
    ticket = lane.next(0.0)
    assert ticket is not None
    lane.refuse(ticket, 0.0, retry_after_s=30)
    assert lane.next(29.9) is None
    ticket = lane.next(30.0)
    assert ticket is not None
    lane.refuse(ticket, 30.0, retry_after_s=1e9)
    assert lane.opens_at() == 30.0 + MAX_RETRY_AFTER_S


def test_what_may_be_the_works_own_fault_does_not_hold_up_others() -> None:
    lane = waiting(2)
    first = lane.next(0.0)
    assert first is not None
    lane.refuse(first, 0.0, last=True)
    second = lane.next(MAX_PAUSE_S)
    assert second is not None
    assert (first.holder, second.holder) == (0, 1)


def test_the_log_hears_of_the_beginning_and_the_end() -> None:
    lane = waiting(100)
    told = []
    for now in (0.0, 20.0, 40.0):
        ticket = lane.next(now)
        assert ticket is not None
        told.append(lane.refuse(ticket, now))
    assert (told, lane.refused) == ([True, False, False], 3)
    ends = []
    for now in (60.0, 40.0 + QUIET_S, 41.0 + QUIET_S):
        assert lane.next(now) is not None
        ends.append(lane.answered(now))
    assert ends == [False, True, False]


def test_who_is_gone_leaves_the_line() -> None:
    lane = waiting(10)
    lane.drop(lambda number: number % 2 == 0)
    tickets = [lane.next(0.0) for _ in range(6)]
    assert [ticket.holder for ticket in tickets if ticket is not None] == [1, 3, 5, 7, 9]
    for ticket in tickets:
        if ticket is not None:
            lane.unsent()
    assert lane.idle
