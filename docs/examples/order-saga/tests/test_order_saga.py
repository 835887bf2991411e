"""The saga on the real engine, in memory and in virtual time, and with a crash at every place."""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Literal

import pytest
from holdfast import TerminalError
from holdfast.testing import Crash, TestRuntime, crashes

from order_saga import gateways
from order_saga.app import services
from order_saga.orders import Order, checkout
from order_saga.payment import charge
from order_saga.shipping import PACKING
from order_saga.stock import deliver, free, stock

ORDER = Order("o1", "ann@example.com", "teapot", 2, "4242", "Main St 1")


class Outside:
    """Providers as they should be: what comes twice under the same id happens once."""

    def __init__(self) -> None:
        self.charged: dict[str, int] = {}
        self.requests: Counter[str] = Counter()
        self.parcels: set[str] = set()
        self.mails: list[str] = []

    def charge(self, payment_id: str, card: str, cents: int) -> None:
        self.requests[f"charge {payment_id}"] += 1
        if card.startswith("0"):
            raise TerminalError("the card was declined", code=402)
        self.charged[payment_id] = cents

    def refund(self, payment_id: str) -> None:
        self.charged.pop(payment_id, None)

    def dispatch(self, order_id: str, street: str) -> str:
        if "Nowhere" in street:
            raise TerminalError(f"cannot deliver to '{street}'", code=422)
        self.parcels.add(order_id)
        return f"parcel-{order_id}"

    def send_mail(self, to: str, text: str) -> None:
        self.mails.append(text)


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> Outside:
    outside = Outside()
    for name in ("charge", "refund", "dispatch", "send_mail"):
        monkeypatch.setattr(gateways, name, getattr(outside, name))
    return outside


@pytest.fixture
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(*services, always_replay=True) as runtime:
        await runtime.call(deliver, 5, key="teapot")
        yield runtime


async def test_an_order_arrives_and_is_asked_about_a_week_later(runtime: TestRuntime, outside: Outside) -> None:
    receipt = await runtime.call(checkout, ORDER)
    assert (receipt.tracking, receipt.cents, outside.charged) == ("parcel-o1", 4_900, {receipt.payment_id: 4_900})
    await runtime.settle()
    assert await runtime.state(stock, "teapot") == {"free": 3, "reserved": {}}
    assert outside.mails == ["Order o1 is on its way: parcel-o1"]

    await runtime.advance(timedelta(days=6, hours=23))
    assert len(outside.mails) == 1
    await runtime.advance(timedelta(hours=2))
    assert outside.mails[1:] == ["How was order o1?"]


@pytest.mark.parametrize(
    ("order", "code", "why"),
    [
        (replace(ORDER, quantity=6), 409, "teapot: 6 wanted, 5 in stock"),
        (replace(ORDER, card="0000"), 402, "the card was declined"),
        (replace(ORDER, street="Nowhere 1"), 422, "cannot deliver to 'Nowhere 1'"),
    ],
    ids=["no stock", "no money", "no address"],
)
async def test_a_refused_order_leaves_no_trace(runtime: TestRuntime, outside: Outside, order: Order, code: int, why: str) -> None:
    with pytest.raises(TerminalError, match=why) as refused:
        await runtime.call(checkout, order)
    assert refused.value.code == code
    await runtime.settle()
    assert (outside.charged, outside.parcels) == ({}, set())
    assert await runtime.state(stock, "teapot") == {"free": 5, "reserved": {}}
    assert outside.mails == [f"Order o1 could not be completed: {why}"]


async def test_what_is_undone_last_one_first(runtime: TestRuntime, outside: Outside) -> None:
    refused = await runtime.send(checkout, replace(ORDER, street="Nowhere 1"))
    with pytest.raises(TerminalError):
        await refused.result()
    (await refused.journal()).assert_in_order(
        "call stock/reserve", "call payment/charge", "call shipping/dispatch", "call payment/refund", "call stock/release"
    )


async def test_nonsense_is_refused_before_anything_happens(runtime: TestRuntime, outside: Outside) -> None:
    with pytest.raises(TerminalError, match="unknown item 'unicorn', known are teapot, cup"):
        await runtime.call(checkout, replace(ORDER, item="unicorn"))
    with pytest.raises(TerminalError, match="quantity must be at least 1, found 0"):
        await runtime.call(checkout, replace(ORDER, quantity=0))
    assert outside.mails == []


async def test_an_order_cancelled_while_it_is_packed_leaves_no_trace(runtime: TestRuntime, outside: Outside) -> None:
    order = await runtime.send(checkout, ORDER)
    await runtime.advance(PACKING / 2)
    assert len(outside.charged) == 1
    await order.cancel()
    with pytest.raises(TerminalError, match="cancelled"):
        await order.result()
    assert (outside.charged, outside.parcels) == ({}, set())
    assert await runtime.call(free, key="teapot") == 5


async def test_the_last_teapot_is_sold_once(runtime: TestRuntime, outside: Outside) -> None:
    first, second = [await runtime.send(checkout, replace(ORDER, id=id, quantity=3)) for id in ("o1", "o2")]
    assert (await first.result()).tracking == "parcel-o1"
    with pytest.raises(TerminalError, match="3 wanted, 2 in stock"):
        await second.result()


async def test_two_clicks_are_one_order(runtime: TestRuntime, outside: Outside) -> None:
    clicks = [await runtime.send(checkout, ORDER, idempotency_key=ORDER.id) for _ in range(2)]
    first, second = [await click.result() for click in clicks]
    assert first == second
    assert len(outside.charged) == 1


async def test_a_provider_with_a_bad_minute_costs_no_order(runtime: TestRuntime, outside: Outside) -> None:
    runtime.fail_step("charge", ConnectionError("no answer"), times=3, handler=charge)
    assert (await runtime.call(checkout, ORDER)).tracking == "parcel-o1"


def everywhere(of: Literal["attempt", "coordinator"], *, stored: bool) -> list[Crash]:
    """A crash at every entry of every journal: nobody gets further than one step at a time."""
    return [Crash(entry, of=of, stored=stored) for entry in range(1, 25)]


def named(value: Crash | list[Crash]) -> str:
    return str(value) if isinstance(value, Crash) else f"{value[0]} and everywhere"


@pytest.mark.parametrize("street", ["Main St 1", "Nowhere 1"])
@pytest.mark.parametrize("crash", [*crashes(2), everywhere("attempt", stored=True), everywhere("attempt", stored=False)], ids=named)
async def test_whatever_dies_the_books_agree(crash: Crash | list[Crash], street: str, outside: Outside) -> None:
    async with TestRuntime(*services, crash_at=crash) as runtime:
        await runtime.call(deliver, 5, key="teapot")
        order = await runtime.send(checkout, replace(ORDER, street=street))
        if street == "Main St 1":
            receipt = await order.result()
            assert (outside.charged, outside.parcels) == ({receipt.payment_id: 4_900}, {"o1"})
            assert await runtime.call(free, key="teapot") == 3
        else:
            with pytest.raises(TerminalError, match="cannot deliver"):
                await order.result()
            assert (outside.charged, outside.parcels) == ({}, set())
            assert await runtime.call(free, key="teapot") == 5


async def test_a_crash_before_the_record_asks_the_provider_again_with_the_same_id(outside: Outside) -> None:
    """Why `payment_id` is drawn by the caller: the provider hears of it twice, and charges once."""
    lost = Crash(2, stored=False, handler=charge)  # entry 2 of payment/charge is the result of its step
    async with TestRuntime(*services, crash_at=lost) as runtime:
        await runtime.call(deliver, 5, key="teapot")
        receipt = await runtime.call(checkout, ORDER)
    assert outside.requests == {f"charge {receipt.payment_id}": 2}
    assert outside.charged == {receipt.payment_id: 4_900}
