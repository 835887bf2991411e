"""Which pages of the packed index a scan reads: enough for every answer to be right, and few when few can hold what is wanted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from holdfast.endpoint import Endpoint
from holdfast_runtime.adapters.system import SystemClock
from holdfast_runtime.app.runtime import Runtime, RuntimeConfig
from holdfast_runtime.coordinator import listed
from holdfast_runtime.coordinator.front import NEWEST, OLDEST, NewInvocation, Scan, Target
from holdfast_runtime.engine import model
from holdfast_runtime.engine.listing import row_of
from holdfast_runtime.surfaces.server import Listener
from tests.surfaces.query_services import greeter

COUNT = 240
STEP_MS = 90_000  # from one invocation to the next: six hours altogether, seventy buckets of finished ones
COLUMNS = ["id", "created_at", "status", "completed_at"]


class SteppedClock(SystemClock):
    """Real time, moved back by what is left of the six hours."""

    behind_ms = COUNT * STEP_MS

    def now_ms(self) -> int:
        return super().now_ms() - self.behind_ms


async def populated(runtime: Runtime) -> None:
    """Every third one waits for its time, the others end at once."""
    clock = SteppedClock()
    runtime.clock = clock
    await runtime.start({"api": Endpoint([greeter]).handle})
    for number in range(COUNT):
        delay = 48 * model.HOUR_MS if number % 3 == 0 else None
        new = NewInvocation(Target("ApiGreeter", "greet"), b'"x"', [("content-type", "application/json")], delay_ms=delay)
        minted = runtime.coordinator.mint(new)
        if delay is None:
            await runtime.coordinator.call(minted, new)
        else:
            await runtime.coordinator.send(minted, new)
        clock.behind_ms -= STEP_MS


@pytest.fixture
def pages_read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Ids of index pages, as they are read."""
    found: list[str] = []
    stored = listed._stored

    async def recorded(shard: Any, page_ids: Any) -> Any:
        found.extend(page_ids)
        return await stored(shard, page_ids)

    monkeypatch.setattr(listed, "_stored", recorded)
    monkeypatch.setattr(listed, "INDEX_PAGES", 1)
    monkeypatch.setattr(model, "INDEX_ENTRIES", 8)
    yield found


async def test_a_scan_reads_the_pages_it_needs_and_finds_what_a_full_one_does(pages_read: list[str]) -> None:
    runtime = Runtime(RuntimeConfig(None, Listener(port=0), Listener(port=0)))
    try:
        await populated(runtime)
        await _compare(runtime, pages_read)
        _rows_tell_what_pages_do(runtime)
    finally:
        await runtime.stop()


async def _compare(runtime: Runtime, pages_read: list[str]) -> None:
    scan = runtime.coordinator.scan
    pages_read.clear()
    everything = [tuple(row) for row in (await scan(Scan("invocations", COLUMNS, limit=10_000))).rows]
    total = len(pages_read)
    assert len({row[0] for row in everything}) == COUNT
    assert total > 60
    times = sorted(row[1] for row in everything)
    wheres: list[dict[str, list[str]]] = [{}, {"status": ["scheduled"]}, {"status": ["completed"]}, {"raw_status": ["paused"]}]
    bounds = [(None, None), (times[200], None), (None, times[30]), (times[100], times[120]), (times[-1] + 1, None)]
    for where in wheres:
        for since, until in bounds:
            fit = [row for row in everything if not where or row[2] in next(iter(where.values()))]
            fit = [row for row in fit if (since is None or row[1] >= since) and (until is None or row[1] <= until)]
            found = await scan(Scan("invocations", COLUMNS, where, 10_000, since, until))
            assert sorted(map(tuple, found.rows)) == sorted(fit), (where, since, until)
            for order, sign in ((NEWEST, -1), (OLDEST, 1)):
                ordered = sorted(fit, key=lambda row: (sign * row[1], row[0]))[:7]
                first = await scan(Scan("invocations", COLUMNS, where, 7, since, until, order))
                assert sorted(map(tuple, first.rows), key=lambda row: (sign * row[1], row[0]))[:7] == ordered, (where, since, until, order)
    for order in (NEWEST, OLDEST):
        pages_read.clear()
        await scan(Scan("invocations", COLUMNS, {}, 7, order=order))
        assert len(pages_read) < total / 2, (order, len(pages_read), total)
    pages_read.clear()
    await scan(Scan("invocations", COLUMNS, {"status": ["completed"]}, 100, times[-20]))
    assert len(pages_read) < total / 3
    assert {page_id[0] for page_id in pages_read} == {"A"}


def _rows_tell_what_pages_do(runtime: Runtime) -> None:
    for shard in runtime.node.shards.values():
        rows = {name: row for page_id, page in shard.pages.items() if page_id[0] in "NA" for name, row in (page.document or {}).items()}
        for page_id, page in shard.pages.items():
            if page_id[:2] == "I/" and page.document is not None:
                assert rows[page_id[2:]] == row_of(page.document)
