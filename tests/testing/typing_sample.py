"""Checked by mypy, never executed: what must pass, and what must not (each line with an ignore is an error without it)."""

from datetime import datetime, timedelta
from typing import Any, assert_type

from holdfast.testing import Crash, Invocation, Mock, State, TestRuntime, sync
from tests.testing.shop import Item, Trip, add, bill, book, carts, checkout, nap


async def asynchronous(runtime: TestRuntime) -> None:
    assert_type(await runtime.call(book, Trip("Bern", 1)), list[str])
    assert_type(await runtime.call(checkout, key="ann"), str)
    assert_type(await runtime.call("trips/book", {"city": "Bern", "price": 1}), Any)
    assert_type(await runtime.call("trips/book", {"city": "Bern", "price": 1}, returns=str), str)
    await runtime.call(book, "Bern")  # type: ignore[misc]
    await runtime.call(nap)  # type: ignore[arg-type]

    sent = await runtime.send(add, Item("pot", 1), key="ann", delay=timedelta(days=1))
    assert_type(sent, Invocation[int])
    assert_type(await sent.result(), int)
    assert_type(runtime.invocation("inv_1", int), Invocation[int])
    assert_type(await runtime.state(carts, "ann"), State)
    assert_type((await runtime.state(carts, "ann")).value("items", list[Item]), list[Item])
    assert_type(runtime.now(), datetime)

    mock = runtime.mock(bill, "paid")
    assert_type(mock, Mock[int, str])
    mock.assert_called_once_with("five")  # type: ignore[arg-type]
    runtime.advance(3)  # type: ignore[arg-type, unused-coroutine]


def options() -> None:
    TestRuntime(carts, crash_at=3, always_replay=True)
    sync.TestRuntime(carts, crash_at=[Crash(3, of="coordinator")], always_replay=True)
    sync.TestRuntime(carts, always_repeat=True)  # type: ignore[call-arg]
    Crash(3, of="server")  # type: ignore[arg-type]


def plain(runtime: sync.TestRuntime) -> None:
    assert_type(runtime.call(book, Trip("Bern", 1)), list[str])
    sent = runtime.send(add, Item("pot", 1), key="ann")
    assert_type(sent, sync.Invocation[int])
    assert_type(sent.result(), int)
    assert_type(runtime.call("trips/book", None, returns=str), str)
    runtime.call(book, "Bern")  # type: ignore[misc]
