"""Several `holdfast serve` processes on one table, for a moment; `bench/replica_chaos.py` does it for as long as one likes."""

import asyncio
import os

import pytest
from bench import processes, replica_chaos
from bench.replica_chaos import Options

PATIENT = {"HOLDFAST_HEARTBEAT_INTERVAL": "500ms", "HOLDFAST_PRESUMED_DEAD_AFTER": "5s", "HOLDFAST_LEASE_DURATION": "6s"}


@pytest.mark.skipif("REPLICA_CHAOS" not in os.environ, reason="takes minutes on two cores; set REPLICA_CHAOS to run it")
def test_nothing_acknowledged_is_lost_doubled_or_out_of_order_when_replicas_are_killed_paused_and_cut_off() -> None:
    options = Options(seed=5, clients=1, most=3, longest_pause_s=3.0, longest_calm_s=0.5, pause_s=0.2, variables=PATIENT)
    with processes.folder() as base:
        made = asyncio.run(replica_chaos.chaos(base, 5, options))
    assert made.report.wrong == []
    assert sum(made.counts[kind] for kind in ("kill", "pause", "stop", "leave")) >= 3
    assert sum(made.report.appended.values()) > 0
    assert made.report.results


def test_a_rolling_deployment_shows_no_error_to_anybody() -> None:
    options = Options(clients=1, request_limit_s=300.0, pause_s=0.2, variables=PATIENT)
    with processes.folder() as base:
        made = asyncio.run(replica_chaos.rolling(base, 1, options))
    assert made.report.wrong == []
    assert made.counts["stop"] == 3
    assert all(answered > 0 and unknown == 0 for answered, unknown in made.report.bumped.values())
