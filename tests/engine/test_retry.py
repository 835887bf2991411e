"""Delays of the retry policy (service protocol §3.8)."""

from __future__ import annotations

import pytest

from holdfast_runtime.engine.registry import RetryPolicy
from holdfast_runtime.engine.retry import next_delay_ms

POLICY = RetryPolicy(initial_interval_ms=100, factor=3.0, max_interval_ms=2_000, max_attempts=6)


@pytest.mark.parametrize(("failures", "delay"), [(1, 100), (2, 300), (3, 900), (4, 2_000), (5, 2_000), (6, None), (7, None)])
def test_delays_grow_to_their_maximum_and_end(failures: int, delay: int | None) -> None:
    assert next_delay_ms(POLICY, failures, 0.0) == delay


def test_jitter_only_lengthens() -> None:
    assert next_delay_ms(POLICY, 2, 0.999) == 389


def test_a_series_without_end_does_not_overflow() -> None:
    assert next_delay_ms(RetryPolicy(max_attempts=None), 1_000_000, 0.0) == 60_000
