"""How a coordinator stands right now, looked up when somebody asks (what has happened is counted in `ports.metrics`)."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast_runtime.coordinator.node import Node
from holdfast_runtime.engine import model


@dataclass(frozen=True, slots=True)
class Gauges:
    """Of one process. oldest_dirty_s: how long the page that has waited longest has waited to be written back."""

    attempts_in_flight: int
    attempts_waiting: int
    attempts_limit: int
    invocations_running: int
    shards_owned: int
    shards_unowned: int
    oldest_dirty_s: float
    dirty_pages: int
    page_bytes: int
    log_bytes_behind: int
    timers_armed: int


def gauges(node: Node) -> Gauges:
    shards = list(node.shards.values())
    waiting = node.slots_waiting
    return Gauges(
        attempts_in_flight=sum(len(shard.attempts) for shard in shards) - waiting,
        attempts_waiting=waiting,
        attempts_limit=node.settings.max_attempts_in_flight,
        invocations_running=sum(
            len(page.document or ())
            for shard in shards
            for page_id in model.active_pages(shard.number)
            if (page := shard.pages.get(page_id)) is not None
        ),
        shards_owned=len(shards),
        shards_unowned=node.unowned(),
        oldest_dirty_s=max((shard.flusher.oldest_age_s() for shard in shards), default=0.0),
        dirty_pages=sum(shard.flusher.dirty for shard in shards),
        page_bytes=sum(shard.flusher.bytes_in_memory for shard in shards),
        log_bytes_behind=sum(shard.flusher.bytes_behind() for shard in shards),
        timers_armed=sum(shard.timers.armed for shard in shards),
    )
