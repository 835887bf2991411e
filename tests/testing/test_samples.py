"""Sagas, carts, approvals and fan-outs, as they are and with every await replayed."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from handlers import cart, orders, reminders, signup

from holdfast import TerminalError
from holdfast.testing import NotKept, TestRuntime
from tests.testing import shop
from tests.testing.shop import EFFECTS, Item, Trip


@pytest.fixture(params=[False, True], ids=["as it is", "always_replay"])
async def runtime(request: pytest.FixtureRequest) -> AsyncIterator[TestRuntime]:
    services = shop.trips, shop.carts, shop.payments, shop.approvals, shop.reports
    async with TestRuntime(*services, always_replay=request.param) as runtime:
        yield runtime


async def test_a_saga_goes_through(runtime: TestRuntime) -> None:
    assert await runtime.call(shop.book, Trip("Bern", 300)) == ["flight-1", "hotel-1", "payment-300"]
    assert EFFECTS == ["flight", "hotel", "charge 300"]


async def test_a_saga_is_undone_in_reverse(runtime: TestRuntime) -> None:
    booked = await runtime.send(shop.book, Trip("Bern", 3_000))
    with pytest.raises(TerminalError, match="the card was declined") as failed:
        await booked.result()
    assert failed.value.code == 402
    assert EFFECTS == ["flight", "hotel", "cancel hotel", "cancel flight"]
    (await booked.journal()).assert_steps("run flight", "run hotel", "run payment", "run cancel hotel", "run cancel flight", "output")


async def test_a_cancelled_saga_is_undone_too(runtime: TestRuntime) -> None:
    booked = await runtime.send(shop.book, Trip("Bern", 300), delay=timedelta(days=1))
    await booked.cancel()
    with pytest.raises(TerminalError):
        await booked.result()
    assert EFFECTS == []


async def test_a_cart_adds_up_per_key(runtime: TestRuntime) -> None:
    await asyncio.gather(*(runtime.call(shop.add, Item(f"cup {n}", n), key="ann") for n in range(1, 5)))
    await runtime.call(shop.add, Item("pot", 20), key="bob")
    assert await runtime.call(shop.count, key="ann") == 4
    state = await runtime.state(shop.carts, "ann")
    assert sorted(item.price for item in state.value("items", list[Item])) == [1, 2, 3, 4]
    assert await runtime.call(shop.checkout, key="ann") == "payment-10"
    assert await runtime.state(shop.carts, "ann") == {}
    assert EFFECTS == ["charge 10"]


async def test_state_can_be_laid_out_beforehand(runtime: TestRuntime) -> None:
    await runtime.set_state(shop.carts, "cleo", {"items": [{"sku": "pot", "price": 20}]})
    assert await runtime.call(shop.checkout, key="cleo") == "payment-20"


async def test_an_approval_in_time_and_one_too_late(runtime: TestRuntime) -> None:
    early = await runtime.send(shop.request, "a desk", key="ann")
    late = await runtime.send(shop.request, "a car", key="bob")
    await runtime.advance(timedelta(days=2))
    await runtime.call(shop.decide, True, key="ann")
    assert await early.result() == "approved"
    with pytest.raises(TerminalError, match="already invoked"):
        await runtime.call(shop.request, "another desk", key="ann")
    assert await runtime.call(shop.status, key="bob") == "asked"
    assert await late.result() == "expired"
    assert await early.result() == "approved"  # also now that its retention is over


async def test_a_fan_out_waits_for_the_slowest(runtime: TestRuntime) -> None:
    began = runtime.now()
    assert await runtime.call(shop.summarize, [3, 1, 2]) == 14
    assert runtime.now() - began == timedelta(hours=3)
    assert len(await runtime.invocations(shop.reports)) == 4


async def test_a_plain_handler_fans_out(runtime: TestRuntime) -> None:
    assert await runtime.call(shop.sync_summarize, [3, 1, 2]) == 9 + 2 + 4
    assert sorted(EFFECTS) == ["double 1", "double 1", "double 2"]


async def test_the_same_idempotency_key_is_the_same_invocation(runtime: TestRuntime) -> None:
    first = await runtime.send(shop.bill, 5, idempotency_key="once")
    second = await runtime.send(shop.bill, 5, idempotency_key="once")
    assert (first.accepted_before, second.accepted_before) == (False, True)
    assert await first.result() == await second.result() == "payment-5"
    assert EFFECTS == ["charge 5"]


@pytest.mark.parametrize("always_replay", [False, True])
async def test_the_sample_services(always_replay: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_DEMO_LEDGER", str(tmp_path / "ledger"))
    async with TestRuntime(cart.cart, orders.orders, reminders.reminders, signup.signup, always_replay=always_replay) as runtime:
        order = orders.Order("o1", "teapot", 2, "4242", "Main St 1")
        assert (await runtime.call(orders.checkout, order)).total_cents == 4_900
        survey = next(found for found in await runtime.invocations(orders.orders, status="scheduled"))
        await runtime.advance(timedelta(days=7))
        assert await survey.status() == "completed"

        joined = await runtime.send(signup.run, signup.User("ann@example.com"), key="ann")
        token = (await runtime.state(signup.signup, "ann"))["token"]
        await runtime.call(signup.confirm, token, key="ann")
        assert await joined.result() == "active"
        forgotten = await runtime.send(signup.run, signup.User("bob@example.com"), key="bob")
        assert await forgotten.result() == "expired"

        line = cart.Line("cup", 2, 690)
        await runtime.call(cart.add, line, key="ann")
        assert (await runtime.call(cart.checkout, key="ann")).total_cents == 1_380

        reminder = await runtime.call(reminders.schedule, reminders.Reminder("+41", "cake"))
        await runtime.call(reminders.call_off, reminder)
        await runtime.advance(timedelta(hours=3))
        with pytest.raises(NotKept):
            await runtime.invocation(reminder).result()  # of one-way calls nobody keeps the result
        assert "sms.sent" not in (tmp_path / "ledger").read_text()
