"""Who is alive and who should own what. Only efficiency depends on it: safety is the log's (storage design §4.5)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from holdfast_runtime.coordinator.settings import Settings
from holdfast_runtime.ports.store import Member, ShardRecord
from holdfast_runtime.ports.system import Clock


class Membership:
    def __init__(self, process_id: str, settings: Settings, clock: Clock) -> None:
        self._me = process_id
        self._settings = settings
        self._clock = clock
        self._moved: dict[str, tuple[int, float]] = {}  # process -> counter, when it was first seen with that value
        self._members: dict[str, Member] = {}
        self._records: dict[int, ShardRecord] = {}

    def saw(self, records: Mapping[int, ShardRecord], members: Mapping[str, Member], at: float) -> None:
        """A reading of all records, asked for at monotonic second `at`."""
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

    def to_take(self) -> list[ShardRecord]:
        """Shards that should be ours and that no living process holds."""
        return [r for r in self._records.values() if self._home(r.shard) == self._me and not self._is_held(r)]

    def to_release(self) -> list[ShardRecord]:
        """Shards in our name that belong to another living process."""
        return [r for r in self._records.values() if r.owner == self._me and self._home(r.shard) != self._me]

    def all_owned(self) -> bool:
        return bool(self._records) and all(self._is_held(record) for record in self._records.values())

    def address_of(self, shard: int) -> str | None:
        """Where the owner of a shard is reached, as far as known; None when that is nobody else."""
        record = self._records.get(shard)
        member = self._members.get(record.owner) if record is not None else None
        return member.address if member is not None and member.process_id != self._me else None

    def _is_held(self, record: ShardRecord) -> bool:
        """Our own earlier ownership that was lost does not count: `to_take` is asked only for shards we do not hold."""
        return bool(record.owner) and record.owner != self._me and self.is_alive(record.owner)

    def _home(self, shard: int) -> str:
        """Rendezvous hashing over the living: when a process comes or goes only its own shards move."""
        living = [process_id for process_id in self._members if self.is_alive(process_id)] or [self._me]
        return max(living, key=lambda process_id: hashlib.sha256(f"{process_id}/{shard}".encode()).digest())
