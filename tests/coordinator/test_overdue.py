"""Pages that cannot be written back for long: nothing new is taken, what is known is answered, and all goes on when they can be
(storage design §4.4)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from holdfast_runtime.coordinator.front import CoordinatorUnavailable, NewInvocation, Success, Target
from holdfast_runtime.coordinator.settings import Settings
from holdfast_runtime.ports.store import PageStore, StoredPage, StoreUnavailable

from .virtual import World, done, in_virtual_time, serves

OVERDUE_S = 900.0  # in place of six hours, which take seconds to pass


class NoRoom:
    """A page store that takes nothing while it is `full`."""

    def __init__(self, pages: PageStore) -> None:
        self._pages = pages
        self.full = True

    async def get(self, page_ids: Sequence[str]) -> Mapping[str, StoredPage]:
        return await self._pages.get(page_ids)

    async def put(self, page_id: str, page: StoredPage, *, expires_at_ms: int | None = None) -> bool:
        if self.full:
            raise StoreUnavailable("no room for pages")
        return await self._pages.put(page_id, page, expires_at_ms=expires_at_ms)


def test_it_is_six_hours() -> None:
    assert Settings().overdue_s == 6 * 3600
    assert Settings().flush_after_s < Settings().overdue_s / 10


def test_new_work_is_refused_after_a_time_and_taken_again_when_pages_are_written(caplog: pytest.LogCaptureFixture) -> None:
    @in_virtual_time
    async def test() -> None:
        world = await World.start(serves(), lambda _: done(), Settings(exclusive_store=True, overdue_s=OVERDUE_S))
        environment = next(iter(world.node.shards.values())).environment
        pages = NoRoom(environment.store.pages)
        environment.store = replace(environment.store, pages=pages)
        request = NewInvocation(Target("Greeter", "greet", None), b"in", [], "once")
        known = world.front.mint(request)
        assert await world.front.call(known, request) == Success(b"out", None)
        await asyncio.sleep(0.95 * OVERDUE_S)
        assert isinstance(await world.result(await world.send(idempotency_key="soon")), Success)  # not yet
        await asyncio.sleep(0.1 * OVERDUE_S)
        other = replace(request, idempotency_key="once more")
        moved = world.front.mint(other)
        while moved.partition_key >> 63 != known.partition_key >> 63:  # of the two shards the one that waits since the beginning
            other = replace(other, idempotency_key=f"{other.idempotency_key}!")
            moved = world.front.mint(other)
        with pytest.raises(CoordinatorUnavailable, match="no new work is taken") as refused:
            await world.front.call(moved, other)
        assert refused.value.retry_safe
        assert isinstance(await world.front.call(known, request), Success)  # known: attached to
        assert [record.levelname for record in caplog.records if record.message == "pages.overdue"] == ["CRITICAL"]
        pages.full = False
        await asyncio.sleep(10)
        assert isinstance(await world.front.call(moved, other), Success)
        assert [record.message for record in caplog.records if record.message.startswith("pages.")] == ["pages.overdue", "pages.written"]

    with caplog.at_level(logging.INFO, logger="holdfast.flush"):
        test()
