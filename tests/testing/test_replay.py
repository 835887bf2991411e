"""Journals exported from a server are replayed against today's code; nothing is executed again."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdfast import Client, Context, Service, TerminalError, sync
from holdfast.testing import NotKept, ReplayMismatch, TestRuntime
from holdfast.testing.sync import TestRuntime as SyncTestRuntime
from holdfast_runtime.app.exporting import exported
from holdfast_runtime.app.http import admin_api
from tests.testing import shop, stack
from tests.testing.shop import EFFECTS, Item, Trip


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, str]]:
    with stack.running(shop.trips, shop.carts, shop.payments, shop.approvals, shop.reports) as urls:
        yield urls


def recorded(server: tuple[str, str], handler: Any, argument: Any = None, *, key: str | None = None) -> dict[str, Any]:
    """What `holdfast invocations export` writes of an invocation that is over."""
    client = Client(server[0])
    sent = client.send(handler, argument, key=key)
    client.attach(sent)
    EFFECTS.clear()
    return exported(admin_api(server[1]), sent.invocation_id)


def again(server: tuple[str, str], id: str, *, entry: int) -> dict[str, Any]:
    """The export of an invocation that went on with the journal of another up to this entry."""
    answer = httpx.patch(f"{server[1].rstrip('/')}/invocations/{id}/restart-as-new", params={"from": entry}).raise_for_status()
    Client(server[0]).attach(answer.json()["new_invocation_id"])
    EFFECTS.clear()
    return exported(admin_api(server[1]), answer.json()["new_invocation_id"])


def changed(name: str = "book") -> tuple[Service, Any]:
    """An empty service in the place of `trips`."""
    service = Service("trips")
    return service, service.handler(name=name)


async def test_unchanged_code_replays_and_executes_nothing(server: tuple[str, str], tmp_path: Path) -> None:
    file = tmp_path / "journal.json"
    file.write_text(json.dumps(recorded(server, shop.book, Trip("Bern", 300))))
    async with TestRuntime(shop.trips) as runtime:
        replayed = await runtime.replay(file)
    assert replayed.handler == "trips/book"
    assert replayed.output == ["flight-1", "hotel-1", "payment-300"]
    assert replayed.entries == 8
    assert replayed.next == ()
    assert EFFECTS == []


def test_state_calls_and_plain_handlers_replay(server: tuple[str, str]) -> None:
    added = recorded(server, shop.add, Item("pot", 20), key="ann")
    bought = recorded(server, shop.checkout, key="ann")
    counted = recorded(server, shop.sync_summarize, [0, 1, 2])
    with SyncTestRuntime(shop.carts, shop.payments, shop.reports) as runtime:
        assert runtime.replay(added).output == 1
        assert runtime.replay(bought).output == "payment-20"
        assert runtime.replay(counted).output == 6
    assert EFFECTS == []


async def test_chance_is_that_of_the_journal_also_after_a_restart(server: tuple[str, str]) -> None:
    journal = recorded(server, shop.draw)
    restarted = again(server, journal["invocation"]["id"], entry=2)
    assert restarted["invocation"]["id"] != journal["invocation"]["id"]
    async with TestRuntime(shop.reports) as runtime:
        assert (await runtime.replay(journal)).output == (await runtime.replay(restarted)).output == ["first-1", "second-1"]
        del journal["invocation"]["random_seed"]  # as it was exported in former times
        assert (await runtime.replay(journal)).output == ["first-1", "second-1"]
        del restarted["invocation"]["random_seed"]
        with pytest.raises(ReplayMismatch, match="entry 1 records run 'first"):
            await runtime.replay(restarted)


async def test_a_step_that_is_new_in_the_middle_is_reported_with_its_entry(server: tuple[str, str]) -> None:
    journal = recorded(server, shop.book, Trip("Bern", 300))
    service, handler = changed()

    @handler
    async def book(ctx: Context, trip: Trip) -> list[str]:
        flight = await ctx.run(shop.effect, "flight", name="flight")
        car = await ctx.run(shop.effect, "car", name="car")
        return [flight, car]

    async with TestRuntime(service) as runtime:
        with pytest.raises(ReplayMismatch, match=r"entry 3 records run 'hotel', the handler issued run 'car'") as found:
            await runtime.replay(journal)
    assert found.value.entry_index == 3
    assert EFFECTS == []


async def test_a_step_that_is_gone_is_reported(server: tuple[str, str]) -> None:
    journal = recorded(server, shop.book, Trip("Bern", 300))
    service, handler = changed()

    @handler
    def book(ctx: sync.Context, trip: Trip) -> list[str]:
        return [ctx.run(shop.effect, "flight", name="flight")]

    async with TestRuntime(service) as runtime:
        with pytest.raises(ReplayMismatch, match="entry 3 records run 'hotel', the handler issued output"):
            await runtime.replay(journal)


async def test_a_failure_that_is_new_is_reported(server: tuple[str, str]) -> None:
    journal = recorded(server, shop.book, Trip("Bern", 300))
    service, handler = changed()

    @handler
    async def book(ctx: Context, trip: Trip) -> None:
        await ctx.run(shop.effect, "flight", name="flight")
        raise TerminalError("no trips today")

    async with TestRuntime(service) as runtime:
        with pytest.raises(ReplayMismatch, match="entry 3 records run 'hotel', the handler issued output"):
            await runtime.replay(journal)


async def test_code_that_can_no_longer_read_what_is_recorded_is_reported(server: tuple[str, str]) -> None:
    journal = recorded(server, shop.book, Trip("Bern", 300))
    service, handler = changed()

    def fly(to: str) -> int:
        return 1

    @handler
    async def book(ctx: Context, trip: Trip) -> int:
        return await ctx.run(fly, "flight", name="flight")

    async with TestRuntime(service) as runtime:
        with pytest.raises(ReplayMismatch, match=r"TypeError: the recorded result of 'flight' cannot be read as int"):
            await runtime.replay(journal)


async def test_an_invocation_in_flight_goes_on_as_the_code_says(server: tuple[str, str]) -> None:
    client = Client(server[0])
    asked = client.send(shop.request, "a desk", key="in flight")
    api = admin_api(server[1])
    journal = stack.eventually(
        lambda: exported(api, asked.invocation_id),
        lambda found: len(found["entries"]) >= 6 and found["invocation"]["status"] == "suspended",
    )
    async with TestRuntime(shop.approvals) as runtime:
        replayed = await runtime.replay(journal)
        assert (replayed.output, replayed.next, replayed.failure) == (None, (), None)

    shorter = {**journal, "entries": journal["entries"][:2]}  # as it was before the mail was sent
    EFFECTS.clear()
    async with TestRuntime(shop.approvals) as runtime:
        assert (await runtime.replay(shorter)).next == ("run 'mail'",)
    assert EFFECTS == []


async def test_what_is_no_journal_is_refused_in_words(tmp_path: Path) -> None:
    async with TestRuntime(shop.trips) as runtime:
        with pytest.raises(ValueError, match=r'expected a document with "format": "holdfast.journal"'):
            await runtime.replay({"entries": []})
        with pytest.raises(ValueError, match="has version 9 of the format"):
            await runtime.replay({"format": "holdfast.journal", "version": 9})
        with pytest.raises(ValueError, match="cannot read the journal"):
            await runtime.replay(tmp_path / "missing.json")
        (tmp_path / "broken.json").write_text("{")
        with pytest.raises(ValueError, match="is not JSON"):
            await runtime.replay(str(tmp_path / "broken.json"))


async def test_a_journal_of_another_service_is_refused(server: tuple[str, str]) -> None:
    journal = recorded(server, shop.bill, 5)
    async with TestRuntime(shop.trips) as runtime:
        with pytest.raises(ReplayMismatch, match="the journal is of payments/bill, but service 'payments' is not served here"):
            await runtime.replay(journal)


async def test_a_journal_of_the_kit_itself_is_what_the_command_line_exports(server: tuple[str, str]) -> None:
    service, handler = changed()

    @handler
    async def book(ctx: Context, trip: Trip) -> list[str]:
        return [await ctx.run(shop.effect, "hotel", name="hotel")]

    async with TestRuntime(shop.trips) as old:
        trip = await old.send(shop.book, Trip("Bern", 300))
        await trip.result()
        journal = await trip.export()
    ours = recorded(server, shop.book, Trip("Bern", 300))
    assert [entry["type"] for entry in journal["entries"]] == [entry["type"] for entry in ours["entries"]]
    assert set(journal) < set(ours)
    async with TestRuntime(service) as new:
        with pytest.raises(ReplayMismatch, match="entry 1 records run 'flight', the handler issued run 'hotel'"):
            await new.replay(journal)


async def test_a_journal_that_is_not_kept_cannot_be_exported() -> None:
    brief = Service("brief", journal_retention=timedelta(0), idempotency_retention=timedelta(hours=1))

    @brief.handler
    async def end(ctx: Context) -> None: ...

    async with TestRuntime(brief) as runtime:
        ended = await runtime.send(end)
        await runtime.advance(timedelta(minutes=10))
        with pytest.raises(NotKept):
            await ended.export()


def test_plain_tests_export_too() -> None:
    with SyncTestRuntime(shop.reports) as runtime:
        report = runtime.send(shop.sync_summarize, [0, 1, 2])
        report.result()
        assert runtime.replay(report.export()).output == 6
