"""Who is alive and who should own what. Only efficiency depends on it: safety is the log's (storage design §4.5)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Container, Mapping, Sequence

from holdfast_runtime.coordinator.settings import Settings
from holdfast_runtime.ports.store import Member, ShardRecord
from holdfast_runtime.ports.system import Clock


def homes(shards: Sequence[int], living: Sequence[str]) -> dict[int, str]:
    """Who should own what; whoever sees the same living processes finds the same.

    Rendezvous hashing, so that few shards move when a process comes or goes, but nobody gets more than its share, rounded up: with few
    shards plain hashing leaves some process with none (8 shards and 3 processes: one time in eight) and another with most of them.
    """
    most = -(-len(shards) // len(living))
    given = dict.fromkeys(living, 0)
    found: dict[int, str] = {}
    for shard in shards:
        able = [process_id for process_id in living if given[process_id] < most]
        home = max(able, key=lambda process_id: hashlib.sha256(f"{process_id}/{shard}".encode()).digest())
        given[home] += 1
        found[shard] = home
    return found


class Membership:
    def __init__(self, process_id: str, settings: Settings, clock: Clock) -> None:
        self._me = process_id
        self._settings = settings
        self._clock = clock
        self._moved: dict[str, tuple[int, float]] = {}  # process -> counter, when it was first seen with that value
        self._members: dict[str, Member] = {}
        self._records: dict[int, ShardRecord] = {}
        self._seen_at = -math.inf
        self._homes_of: tuple[list[str], int] = ([], 0)  # what `_homes_are` was found for
        self._homes_are: dict[int, str] = {}

    def saw(self, records: Mapping[int, ShardRecord], members: Mapping[str, Member], at: float) -> None:
        """A reading of all records, asked for at monotonic second `at`; one that was overtaken by a later one is forgotten."""
        if at < self._seen_at:
            return
        self._seen_at = at
        self._records = dict(records)
        self._members = dict(members)
        for process_id, member in members.items():
            before = self._moved.get(process_id)
            if before is None or before[0] != member.counter:
                self._moved[process_id] = (member.counter, at)
        for process_id in set(self._moved) - set(members):
            del self._moved[process_id]

    def is_alive(self, process_id: str) -> bool:
        if process_id == self._me:
            return True
        if self._settings.exclusive_store:
            return False
        seen = self._moved.get(process_id)
        return seen is not None and self._clock.monotonic() - seen[1] < self._settings.presumed_dead_s

    def next_death_s(self) -> float:
        """Seconds until a process of which nothing more is heard is presumed dead; infinite when nobody else lives."""
        now = self._clock.monotonic()
        others = [at for process_id, (_, at) in self._moved.items() if process_id != self._me and self.is_alive(process_id)]
        return min(others, default=math.inf) + self._settings.presumed_dead_s - now

    def to_take(self) -> list[ShardRecord]:
        """Shards that should be ours and that no living process holds."""
        return [r for r in self._records.values() if self._home(r.shard) == self._me and not self._is_held(r)]

    def to_release(self) -> list[ShardRecord]:
        """Shards in our name that belong to another living process."""
        return [r for r in self._records.values() if r.owner == self._me and self._home(r.shard) != self._me]

    def all_owned(self) -> bool:
        return bool(self._records) and all(self._is_held(record) for record in self._records.values())

    def unowned(self, ours: Container[int]) -> int:
        """Shards that nobody who lives holds; `ours` are those we hold."""
        return sum(1 for record in self._records.values() if record.shard not in ours and not self._is_held(record))

    def address_of(self, shard: int) -> str | None:
        """Where the owner of a shard is reached, as far as known; None when that is nobody else."""
        record = self._records.get(shard)
        member = self._members.get(record.owner) if record is not None else None
        return member.address if member is not None and member.process_id != self._me else None

    def _is_held(self, record: ShardRecord) -> bool:
        """Our own earlier ownership that was lost does not count: `to_take` is asked only for shards we do not hold."""
        return bool(record.owner) and record.owner != self._me and self.is_alive(record.owner)

    def _home(self, shard: int) -> str:
        return self._homes()[shard]

    def _homes(self) -> dict[int, str]:
        living = sorted(process_id for process_id in self._members if self.is_alive(process_id)) or [self._me]
        if self._homes_of != (living, len(self._records)):
            self._homes_of = (living, len(self._records))
            self._homes_are = homes(sorted(self._records), living)
        return self._homes_are
