"""What a coordinator counts and how it stands, over a real one in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

from holdfast_runtime.coordinator.gauges import gauges
from holdfast_runtime.ports.metrics import Histogram, quantile

from .virtual import Attempt, World, done, failed, in_virtual_time, serves, sleeps

HANDLERS = [{"name": name} for name in ("greet", "nap", "give_up", "hang")]


def _answer(attempt: Attempt) -> Any:
    handler = attempt.path.rpartition("/")[2]
    if handler == "nap":
        return done() if len(attempt.journal) == 3 else sleeps(1, 60)
    if handler == "hang":
        return sleeps(1, 86_400)
    return failed("no", code=500) if handler == "give_up" else done()


@in_virtual_time
async def test_invocations_attempts_and_appends_are_counted_by_what_became_of_them() -> None:
    given_up = {"retryPolicyMaxAttempts": 2, "retryPolicyOnMaxAttempts": "KILL"}
    world = await World.start(serves(*({**handler, **given_up} for handler in HANDLERS)), _answer)
    metrics, node = world.node.metrics, world.node
    ids = {name: await world.send(f"Greeter/{name}") for name in ("greet", "nap", "give_up", "hang")}
    await world.result(ids["greet"])
    await world.result(ids["give_up"])
    await world.until(ids["nap"], "suspended")
    await world.until(ids["hang"], "suspended")
    now = gauges(node)
    assert (now.shards_owned, now.shards_unowned, now.invocations_running, now.attempts_in_flight) == (2, 0, 0, 0)
    assert now.dirty_pages > 0
    assert now.log_bytes_behind == metrics.append_bytes > 0  # nothing is flushed yet, so recovery would read it all
    await world.front.kill(ids["hang"])
    await world.result(ids["nap"])
    assert metrics.invocations_accepted == 4
    assert metrics.invocations_finished == {"succeeded": 2, "failed": 1, "cancelled": 0, "killed": 1}
    assert metrics.attempts_ended == {"ended": 2, "suspended": 2, "failed": 2, "throttled": 0}
    assert metrics.attempts_started == 6
    assert metrics.transitions >= sum(metrics.append_seconds.counts) >= 4
    assert metrics.shards_taken == 2
    assert metrics.shards_lost == 0


@in_virtual_time
async def test_what_waits_to_be_written_back_has_an_age_and_then_is_written() -> None:
    world = await World.start(serves(*HANDLERS), _answer)
    await world.until(await world.send("Greeter/hang"), "suspended")
    await asyncio.sleep(200)
    assert 199 <= gauges(world.node).oldest_dirty_s <= 201
    await asyncio.sleep(400)  # flushed after five minutes, checkpoint soon after
    now = gauges(world.node)
    assert now.oldest_dirty_s < 300
    assert now.log_bytes_behind < world.node.metrics.append_bytes


@in_virtual_time
async def test_a_lost_shard_is_counted_and_one_that_is_handed_over_is_not() -> None:
    world = await World.start(serves(*HANDLERS), _answer)
    world.node.shards[0].fence("a test takes it away")
    assert world.node.metrics.shards_lost == 1
    await world.node.stop()
    assert world.node.metrics.shards_lost == 1


def test_quantiles_are_the_bounds_that_hold_them() -> None:
    histogram = Histogram((0.01, 0.1, 1.0))
    for seconds in [0.005] * 98 + [0.05, 3.0]:
        histogram.observe(seconds)
    assert histogram.counts == [98, 1, 0, 1]
    assert quantile(histogram.bounds, histogram.counts, 0.5) == 0.01
    assert quantile(histogram.bounds, histogram.counts, 0.99) == 0.1
    assert quantile(histogram.bounds, histogram.counts, 1.0) == 1.0  # at least
    assert quantile(histogram.bounds, [0, 0, 0, 0], 0.99) == 0.0
