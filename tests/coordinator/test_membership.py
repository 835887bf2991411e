"""Who should own what: everybody finds the same, nobody gets much more than others, and little moves."""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from holdfast_runtime.adapters.system import SystemClock
from holdfast_runtime.coordinator.membership import Membership, homes
from holdfast_runtime.coordinator.settings import Settings
from holdfast_runtime.ports.store import Member, ShardRecord


class Hands(SystemClock):
    """A clock that is set by hand."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


NAMES = st.lists(st.text("0123456789abcdef", min_size=16, max_size=16), min_size=1, max_size=12, unique=True).map(sorted)


@given(st.integers(1, 64), NAMES)
def test_every_shard_has_a_home_and_nobody_has_more_than_its_share_rounded_up(shards: int, living: list[str]) -> None:
    found = homes(range(shards), living)
    assert list(found) == list(range(shards))
    assert max(Counter(found.values()).values()) <= math.ceil(shards / len(living))


@given(NAMES)
def test_no_replica_is_without_a_shard_where_there_are_twice_as_many(living: list[str]) -> None:
    shards = 2 * len(living)
    assert set(homes(range(shards), living).values()) == set(living)


@given(st.integers(1, 64), NAMES)
def test_one_alone_gets_all(shards: int, living: list[str]) -> None:
    assert set(homes(range(shards), living[:1]).values()) == {living[0]}


def test_few_shards_move_when_one_of_many_goes() -> None:
    moved = 0
    for cluster in range(50):
        living = [f"{cluster}-{number}" for number in range(4)]
        before, after = homes(range(64), living), homes(range(64), living[1:])
        moved += sum(before[shard] not in (after[shard], living[0]) for shard in before)
    assert moved / 50 < 64 * 3 / 4 * 0.25  # of those that could have stayed


def test_when_a_silent_process_will_be_presumed_dead() -> None:
    clock = Hands()
    membership = Membership("me", Settings(presumed_dead_s=8.0), clock)
    records = {0: ShardRecord(0, 1, "other", 0, 0)}
    assert membership.next_death_s() == math.inf
    began = clock.monotonic()
    for counter in (1, 2):
        membership.saw(records, {"me": Member("me", counter, ""), "other": Member("other", 1, "")}, began)
    assert membership.next_death_s() == 8.0
    clock.now += 8.0
    assert not membership.is_alive("other")
    assert membership.next_death_s() == math.inf
    assert [record.shard for record in membership.to_take()] == [0]
