"""The sizes a simulated world runs with: so small that every page splits, every queue overflows and every value spills within seconds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, Final

from holdfast_runtime.coordinator import far_timers, flush, packing, timers
from holdfast_runtime.coordinator.settings import Settings
from holdfast_runtime.engine import model, packs, response
from holdfast_runtime.engine.commands import call

_SMALL: Final[list[tuple[Any, dict[str, Any]]]] = [
    (
        model,
        {
            "INLINE_LIMIT": 120,
            "JOURNAL_PAGE_BYTES": 400,
            "STATE_INLINE_BYTES": 60,
            "QUEUE_PAGE": 2,
            "PROMISES_INLINE": 1,
            "TIMERS_PER_PAGE": 2,
            "MESSAGES_PER_PAGE": 3,
            "INDEX_ENTRIES": 3,
            "RECENT_BYTES": 400,
            "HOUR_MS": 7_000,
            "FINISHED_BUCKET_MS": 20_000,
        },
    ),
    (response, {"INLINE_LIMIT": 700}),
    (call, {"LOCAL_CHILDREN": 2}),
    (packs, {"WIDTHS_MS": (4_000, 1_000, 250, 50), "PACK_BYTES": 4_000, "ENTRY_BYTES": 1_500}),
    (flush, {"TOMBSTONE_MS": 600_000, "LOG_MS": 600_000}),  # longer than any world plays before it calms down
    (packing, {"READ_PACKS": 3, "PARALLEL": 2}),
]


@contextlib.contextmanager
def small_limits(more: Sequence[tuple[Any, dict[str, Any]]] = ()) -> Iterator[None]:
    """Within it the engine's limits are small, and `more` is as it says."""
    small = [*_SMALL, *more]
    before = [(module, name, getattr(module, name)) for module, values in small for name in values]
    for module, values in small:
        for name, value in values.items():
            setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def operated_limits(chance: Random) -> list[tuple[Any, dict[str, int]]]:
    """Timers are far, and journals full, within seconds."""
    return [
        (timers, {"_MARGIN_S": 6}),
        (far_timers, {"AHEAD_MS": 2_000, "EARLIER_MS": 1_000}),
        (model, {"MAX_JOURNAL": chance.choice([100_000, 100_000, 100_000, 10, 16])}),
    ]


def small_settings(random: Random) -> Settings:
    """Settings with which flush, evict, checkpoint, hand-over and take-over all happen within seconds."""
    return Settings(
        heartbeat_s=0.5,
        presumed_dead_s=2.0,
        lease_s=random.choice([2.5, 3.5]),
        take_interval_s=0.1,
        flush_after_s=random.choice([0.5, 3.0, 20.0]),
        log_limit_bytes=random.choice([3_000, 1_000_000]),
        checkpoint_interval_s=random.choice([1.0, 3.0]),
        memory_limit_bytes=random.choice([2_000, 8_000, 1_000_000]),
        flush_parallel=random.choice([1, 4, 64]),
        part_bytes=random.choice([250, 1_000, 340_000]),
        max_attempts_in_flight=random.choice([3, 50]),
        window=random.choice([1, 4, 64]),
        resend_s=0.3,
        timer_horizon_s=75.0,
        acknowledge_timeout_s=8.0,
        retry_store_s=0.02,
    )
