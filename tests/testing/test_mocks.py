"""Mocks stand for handlers of services that are elsewhere, and for own ones."""

import pytest

from holdfast import Context, ObjectContext, Service, TerminalError, VirtualObject, Workflow, WorkflowContext
from holdfast.testing import TestRuntime
from tests.testing import shop
from tests.testing.shop import EFFECTS, Item

stock = VirtualObject("stock")
flow = Workflow("flow")
orders = Service("orders")


@stock.handler
async def take(ctx: ObjectContext, number: int) -> int: ...


@flow.main
async def main(ctx: WorkflowContext, text: str) -> str: ...


@flow.handler
async def peek(ctx: object) -> str: ...


@orders.handler
async def order(ctx: Context, number: int) -> str:
    left = await ctx.call(take, number, key="pots")
    text = await ctx.call(main, f"{left} left", key="f1")
    ctx.send(take, -1, key="cups")
    return text


async def test_services_that_are_elsewhere_are_mocked_with_their_types() -> None:
    async with TestRuntime(orders) as runtime:
        taken = runtime.mock(take, lambda number: 10 - number)
        started = runtime.mock(main, "started")
        assert await runtime.call(order, 3) == "started"
        await runtime.settle()
        assert started.arguments == ["7 left"]
        assert [(call.argument, call.key) for call in taken.calls] == [(3, "pots"), (-1, "cups")]
        started.assert_called_once_with("7 left")
        with pytest.raises(AssertionError, match=r"expected one call of flow/main with 'other', found 1:\n  1\. '7 left'"):
            started.assert_called_once_with("other")
        with pytest.raises(AssertionError, match="expected no call of stock/take, found 2"):
            taken.assert_not_called()


async def test_a_mock_may_fail_and_may_be_asynchronous() -> None:
    async def asynchronous(text: str) -> str:
        return text.upper()

    async with TestRuntime(orders) as runtime:
        runtime.mock(main, asynchronous)
        runtime.mock(take, TerminalError("none left", code=410))
        with pytest.raises(TerminalError, match="none left") as failed:
            await runtime.call(order, 3)
        assert failed.value.code == 410
        runtime.mock(take, 1)
        assert await runtime.call(order, 3) == "1 LEFT"


async def test_a_handler_of_the_runtime_can_be_mocked_later() -> None:
    async with TestRuntime(shop.carts, shop.payments) as runtime:
        await runtime.call(shop.add, Item("pot", 20), key="ann")
        billed = runtime.mock(shop.bill, "free of charge")
        assert await runtime.call(shop.checkout, key="ann") == "free of charge"
        assert billed.arguments == [20]
        assert EFFECTS == []


async def test_what_is_neither_served_nor_mocked_is_named() -> None:
    async with TestRuntime(orders) as runtime:
        with pytest.raises(AssertionError, match="no service 'stock' in this runtime; it has orders"):
            await runtime.call(take, 1, key="pots")
        with pytest.raises(AssertionError, match="service 'orders' has no handler 'other'; it has order"):
            await runtime.call("orders/other", 1)
        with pytest.raises(ValueError, match="needs key="):
            await runtime.call(take, 1)
