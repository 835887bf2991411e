"""Journals in assertions: what they name, and what they say when they are not as expected."""

import pytest

from holdfast.testing import Journal, TestRuntime
from tests.testing import shop
from tests.testing.shop import Item, Trip


async def journal_of_a_booking() -> Journal:
    async with TestRuntime(shop.trips) as runtime:
        booked = await runtime.send(shop.book, Trip("Bern", 300))
        await booked.result()
        return await booked.journal()


async def test_steps_have_names_results_and_types() -> None:
    journal = await journal_of_a_booking()
    journal.assert_steps("run flight", "run hotel", "run payment", "output")
    journal.assert_in_order("run flight", "run payment")
    journal.assert_ran("hotel")
    assert journal.runs == ["flight", "hotel", "payment"]
    assert journal.step("payment").result == "payment-300"
    assert journal.step("run payment").value(str) == "payment-300"
    assert journal.output == ["flight-1", "hotel-1", "payment-300"]
    assert journal.status == "completed"


async def test_a_failed_assertion_prints_what_differs_and_the_timeline() -> None:
    journal = await journal_of_a_booking()
    with pytest.raises(AssertionError) as failed:
        journal.assert_steps("run flight", "run payment", "output")
    told = str(failed.value)
    assert "  + run hotel" in told
    assert "    3  run hotel" in told
    assert '→ "hotel-1"' in told
    with pytest.raises(AssertionError, match=r"expected 2 × run 'hotel', found 1\.\ntrips/book"):
        journal.assert_ran("hotel", times=2)
    with pytest.raises(AssertionError, match="'run flight' is missing there"):
        journal.assert_in_order("run hotel", "run flight")
    with pytest.raises(AssertionError, match="expected one step 'car', found 0"):
        journal.step("car")


async def test_the_timeline_of_everything() -> None:
    async with TestRuntime(shop.carts, shop.payments, shop.approvals) as runtime:
        await runtime.call(shop.add, Item("pot", 20), key="ann")
        out = await runtime.send(shop.checkout, key="ann")
        await out.result()
        asked = await runtime.send(shop.request, "a desk", key="bob")
        journal = await asked.journal()
        journal.assert_waits_for("await promise decision")
        with pytest.raises(AssertionError, match="it waits for sleep timeout, await promise decision"):
            journal.assert_waits_for("signal word")
        first, second = str(await out.journal()).splitlines(), str(journal).splitlines()
    assert first[0].startswith(f"carts/ann/checkout  {out.invocation_id}  completed")
    assert [line[2:] for line in first[1:]] == [
        "  0  input               null",
        '  1  get state items     → [{"sku": "pot", "price": 20}]',
        "  2  clear state items",
        '  3  call payments/bill  (20)  → "payment-20"',
        '  6  output              → "payment-20"',
    ]
    assert "  4  sleep timeout           until +3 days, 0:00:00  … waiting" in [line[2:] for line in second]


async def test_a_failing_test_is_told_with_the_journals() -> None:
    with pytest.raises(AssertionError) as failed:
        async with TestRuntime(shop.trips) as runtime:
            assert await runtime.call(shop.book, Trip("Bern", 300)) == ["nothing"]
    assert "run payment" in "".join(failed.value.__notes__)
