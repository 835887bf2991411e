"""Attempts are lost and coordinators die at every entry; what was recorded happened once, and everything comes to its end."""

from datetime import timedelta

import pytest

from holdfast import RetryPolicy, TerminalError
from holdfast.testing import Crash, Stuck, TestRuntime, crashes
from tests.testing import shop
from tests.testing.shop import EFFECTS, Item, Trip


@pytest.mark.parametrize("crash", crashes(8), ids=str)
async def test_a_saga_survives_every_crash(crash: Crash) -> None:
    async with TestRuntime(shop.trips, crash_at=crash) as runtime:
        booked = await runtime.send(shop.book, Trip("Bern", 300))
        assert await booked.result() == ["flight-1", "hotel-1", "payment-300"]
        journal = await booked.journal()
    journal.assert_steps("run flight", "run hotel", "run payment", "output")
    assert list(dict.fromkeys(EFFECTS)) == ["flight", "hotel", "charge 300"]
    assert len(EFFECTS) <= 4  # only the effect whose result was lost happened again


async def test_a_crash_before_the_result_is_stored_repeats_the_side_effect() -> None:
    async with TestRuntime(shop.payments, crash_at=Crash(2, stored=False)) as runtime:
        assert await runtime.call(shop.bill, 5) == "payment-5"
    assert EFFECTS == ["charge 5", "charge 5"]


async def test_a_crash_after_the_result_is_stored_does_not() -> None:
    async with TestRuntime(shop.payments, crash_at=2) as runtime:
        assert await runtime.call(shop.bill, 5) == "payment-5"
    assert EFFECTS == ["charge 5"]


@pytest.mark.parametrize("crash", crashes(7), ids=str)
@pytest.mark.parametrize("shards", [1, 3])
async def test_calls_between_services_survive_every_crash(crash: Crash, shards: int) -> None:
    async with TestRuntime(shop.carts, shop.payments, crash_at=crash, shards=shards) as runtime:
        await runtime.call(shop.add, Item("pot", 20), key="ann")
        assert await runtime.call(shop.checkout, key="ann") == "payment-20"
        assert await runtime.state(shop.carts, "ann") == {}
        paid = [await found.journal() for found in await runtime.invocations(shop.payments)]
    assert [journal.runs for journal in paid] == [["charge"]]


async def test_a_crash_can_be_aimed_at_one_handler() -> None:
    async with TestRuntime(shop.carts, shop.payments, crash_at=Crash(2, stored=False, handler=shop.bill)) as runtime:
        await runtime.call(shop.add, Item("pot", 20), key="ann")
        assert await runtime.call(shop.checkout, key="ann") == "payment-20"
    assert EFFECTS == ["charge 20", "charge 20"]


async def test_timers_survive_the_coordinator() -> None:
    async with TestRuntime(shop.approvals) as runtime:
        asked = await runtime.send(shop.request, "a desk", key="ann")
        await runtime.advance(timedelta(days=1))
        await runtime.crash_coordinator()
        began = runtime.now()
        assert await asked.result() == "expired"
        assert runtime.now() - began == timedelta(days=2)
    assert EFFECTS == ["mail a desk"]


async def test_crashes_and_replays_together() -> None:
    async with TestRuntime(shop.trips, always_replay=True, crash_at=[Crash(2), Crash(4, of="coordinator", stored=False)]) as runtime:
        with pytest.raises(TerminalError, match="declined"):
            await runtime.call(shop.book, Trip("Bern", 3_000))
    assert list(dict.fromkeys(EFFECTS)) == ["flight", "hotel", "cancel hotel", "cancel flight"]


async def test_a_step_that_fails_is_tried_again() -> None:
    async with TestRuntime(shop.trips) as runtime:
        runtime.fail_step("payment", ConnectionError("the gateway is down"), times=2)
        began = runtime.now()
        assert await runtime.call(shop.book, Trip("Bern", 300)) == ["flight-1", "hotel-1", "payment-300"]
        assert timedelta(0) < runtime.now() - began < timedelta(seconds=1)  # 0.1 s and 0.2 s, virtual
    assert EFFECTS == ["flight", "hotel", "charge 300"]


async def test_a_step_that_fails_too_often_fails_for_good_and_is_undone() -> None:
    async with TestRuntime(shop.trips) as runtime:
        runtime.fail_step("payment", ConnectionError("the gateway is down"), times=3)
        with pytest.raises(TerminalError, match="the gateway is down"):
            await runtime.call(shop.book, Trip("Bern", 300))
    assert EFFECTS == ["flight", "hotel", "cancel hotel", "cancel flight"]


async def test_a_step_can_fail_after_its_side_effect() -> None:
    async with TestRuntime(shop.trips) as runtime:
        runtime.fail_step("payment", after=True)
        await runtime.call(shop.book, Trip("Bern", 300))
    assert EFFECTS == ["flight", "hotel", "charge 300", "charge 300"]


async def test_an_endpoint_that_is_down_is_tried_again() -> None:
    async with TestRuntime(shop.payments) as runtime:
        runtime.fail_endpoint(shop.bill, times=3)
        paid = await runtime.send(shop.bill, 5)
        await runtime.settle()
        assert await paid.status() == "backing-off"
        assert await paid.result() == "payment-5"
    assert EFFECTS == ["charge 5"]


async def test_a_handler_that_never_works_ends_paused_and_the_test_is_told_why() -> None:
    async with TestRuntime(shop.naps) as runtime:
        with pytest.raises(Stuck, match=r"it is paused after its last failure: .*ValueError: no good") as stuck:
            await runtime.call(shop.broken)
    assert isinstance(stuck.value.__cause__, ValueError)
    assert EFFECTS == ["before"]
    assert RetryPolicy().max_attempts is None  # the server's default policy applied, not one of the service


async def test_a_paused_invocation_can_be_resumed_and_killed() -> None:
    async with TestRuntime(shop.approvals) as runtime:
        asked = await runtime.send(shop.request, "a desk", key="ann")
        await runtime.settle()
        await asked.kill()
        with pytest.raises(TerminalError, match="killed"):
            await asked.result()
