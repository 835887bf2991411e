"""Carts on the real engine, in memory and in virtual time: a day is over at once."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from holdfast import TerminalError
from holdfast.testing import Crash, TestRuntime, crashes

from cart import gateways
from cart.carts import EXPIRES_AFTER, Cart, add, carts, checkout, remove, show
from cart.orders import Line, Payer
from cart.services import services
from cart.stock import deliver, left, stock

CUP, POT = Line("cup", 2, 690), Line("pot", 1, 2_450)
ANN = Payer("ann@example.com", "4242")
A_MINUTE = timedelta(minutes=1)


@pytest.fixture
def effects(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What providers did, under the id by which they recognise it."""
    done: dict[str, str] = {}
    charge = gateways.charge

    def charged(payment_id: str, card: str, cents: int) -> None:
        charge(payment_id, card, cents)
        done[payment_id] = f"charged {cents}"

    def refunded(payment_id: str) -> None:
        done.pop(payment_id, None)

    def mailed(to: str, text: str) -> None:
        done[to] = text

    for name, function in {"charge": charged, "refund": refunded, "send_mail": mailed}.items():
        monkeypatch.setattr(gateways, name, function)
    return done


@pytest.fixture
async def runtime(effects: dict[str, str]) -> AsyncIterator[TestRuntime]:
    async with TestRuntime(*services, always_replay=True) as runtime:
        await runtime.call(deliver, 5, key="cup")
        await runtime.call(deliver, 1, key="pot")
        yield runtime


async def test_articles_come_and_go(runtime: TestRuntime) -> None:
    await runtime.call(add, CUP, key="ann")
    await runtime.call(add, CUP, key="ann")
    assert await runtime.call(add, POT, key="ann") == Cart([replace(CUP, quantity=4), POT], 5_210)
    assert await runtime.call(remove, "cup", key="ann") == Cart([POT], 2_450)
    assert await runtime.call(show, key="bob") == Cart([], 0)
    with pytest.raises(TerminalError, match="quantity must be at least 1"):
        await runtime.call(add, replace(CUP, quantity=0), key="ann")


async def test_clicks_at_once_lose_nothing(runtime: TestRuntime) -> None:
    await asyncio.gather(*(runtime.call(add, Line(f"book {n}", 1, n), key="ann") for n in range(1, 5)))
    assert (await runtime.call(show, key="ann")).cents == 10


async def test_checkout(runtime: TestRuntime, effects: dict[str, str]) -> None:
    await runtime.call(add, CUP, key="ann")
    await runtime.call(add, POT, key="ann")
    receipt = await runtime.call(checkout, ANN, key="ann")
    assert (receipt.cents, effects[receipt.payment_id]) == (3_830, "charged 3830")
    assert await runtime.call(show, key="ann") == Cart([], 0)
    assert [await runtime.state(stock, sku) for sku in ("cup", "pot")] == [{"left": 3}, {"left": 0}]
    with pytest.raises(TerminalError, match="the cart is empty"):
        await runtime.call(checkout, ANN, key="ann")


@pytest.mark.parametrize(
    ("line", "payer", "why"),
    [(replace(POT, quantity=2), ANN, "pot: 2 wanted, 1 left"), (POT, replace(ANN, card="0000"), "the card was declined")],
    ids=["no stock", "no money"],
)
async def test_a_checkout_that_fails_leaves_everything_as_it_was(
    runtime: TestRuntime, effects: dict[str, str], line: Line, payer: Payer, why: str
) -> None:
    await runtime.call(add, CUP, key="ann")
    cart = await runtime.call(add, line, key="ann")
    with pytest.raises(TerminalError, match=why):
        await runtime.call(checkout, payer, key="ann")
    assert await runtime.call(show, key="ann") == cart
    assert [await runtime.call(left, key=sku) for sku in ("cup", "pot")] == [5, 1]
    assert effects == {}


async def test_nothing_is_added_to_a_cart_that_is_being_paid_for(runtime: TestRuntime) -> None:
    await runtime.call(add, CUP, key="ann")
    runtime.fail_step("charge", ConnectionError("no answer"), times=3)
    paying = await runtime.send(checkout, ANN, key="ann")
    adding = await runtime.send(add, POT, key="ann")
    assert (await paying.result()).cents == 1_380
    assert await adding.result() == Cart([POT], 2_450)


async def test_a_cart_that_is_left_alone_expires_a_day_after_its_last_change(runtime: TestRuntime, effects: dict[str, str]) -> None:
    await runtime.call(add, CUP, key="ann")
    await runtime.advance(EXPIRES_AFTER - A_MINUTE)
    await runtime.call(add, POT, key="ann")
    await runtime.advance(EXPIRES_AFTER - A_MINUTE)
    assert (await runtime.call(show, key="ann")).cents == 3_830
    await runtime.advance(2 * A_MINUTE)
    assert await runtime.state(carts, "ann") == {}
    assert effects == {"ann": "Your cart of 2 articles has expired."}


async def test_there_is_one_timer_however_often_a_cart_is_changed(runtime: TestRuntime) -> None:
    for _ in range(5):
        await runtime.call(add, CUP, key="ann")
    assert len(await runtime.invocations(carts, status="scheduled")) == 1


async def test_a_cart_that_was_bought_does_not_expire(runtime: TestRuntime, effects: dict[str, str]) -> None:
    await runtime.call(add, CUP, key="ann")
    await runtime.call(checkout, ANN, key="ann")
    await runtime.advance(2 * EXPIRES_AFTER)
    assert "ann" not in effects
    assert await runtime.state(carts, "ann") == {}


@pytest.mark.parametrize("crash", crashes(6)[1::3], ids=str)
async def test_whatever_dies_it_is_bought_once(crash: Crash, effects: dict[str, str]) -> None:
    async with TestRuntime(*services, crash_at=crash) as runtime:
        await runtime.call(deliver, 5, key="cup")
        await runtime.call(add, CUP, key="ann")
        receipt = await runtime.call(checkout, ANN, key="ann")
        assert effects == {receipt.payment_id: "charged 1380", ANN.email: f"Thank you for order {receipt.order_id}."}
        assert await runtime.call(left, key="cup") == 3
