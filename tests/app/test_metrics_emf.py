"""Lines for CloudWatch: what the specification of the embedded metric format demands, and numbers that can be added up."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from holdfast_runtime.app.metrics_emf import UNITS, EmbeddedMetrics
from holdfast_runtime.coordinator.gauges import gauges
from tests.coordinator.virtual import World, done, in_virtual_time, serves


@in_virtual_time
async def test_a_line_a_minute_tells_what_came_since_the_last() -> None:
    world = await World.start(serves(), lambda _: done())
    lines: list[dict[str, Any]] = []
    metrics = world.node.metrics
    emf = EmbeddedMetrics(lambda: (metrics, gauges(world.node)), cluster="shop", clock=world.node.clock)
    telling = asyncio.create_task(emf.run(lambda line: lines.append(json.loads(line))))
    await world.result(await world.send())
    metrics.inbox["refused"] += 2
    for _ in range(98):
        metrics.append_seconds.observe(0.004)
    metrics.append_seconds.observe(0.2)
    metrics.append_seconds.observe(0.2)
    await asyncio.sleep(61)
    metrics.inbox["refused"] += 1
    await asyncio.sleep(60)
    telling.cancel()
    first, second = lines
    assert (first["MessagesRefused"], second["MessagesRefused"]) == (2, 1)
    assert (first["AppendLatencyP99"], second["AppendLatencyP99"]) == (250.0, 0.0)
    assert 59 <= first["OldestDirtyPageAge"] <= 61
    assert first["ShardsUnowned"] == 0
    # The specification: milliseconds, one directive, each metric and each dimension a member of the root.
    about = first["_aws"]
    assert about["Timestamp"] == world.node.clock.now_ms() - 61_000
    (directive,) = about["CloudWatchMetrics"]
    assert directive["Namespace"] == "Holdfast"
    assert directive["Dimensions"] == [["Cluster"]]
    assert first["Cluster"] == "shop"
    assert {metric["Name"]: metric["Unit"] for metric in directive["Metrics"]} == UNITS
    assert all(isinstance(first[name], int | float) for name in UNITS)
