"""The same tests against a deployed stack; what needs virtual time or injection is skipped with a sentence."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from holdfast import TerminalError
from holdfast.testing import Crash, NotKept, TestRuntime, _deployed
from holdfast.testing.sync import TestRuntime as SyncTestRuntime
from tests.testing import shop, stack
from tests.testing.shop import Item, Trip


@pytest.fixture(scope="module")
def urls() -> Iterator[tuple[str, str]]:
    with stack.running(shop.trips, shop.carts, shop.payments, shop.approvals, shop.naps) as urls:
        yield urls


@pytest.fixture(autouse=True)
def _deployed_stack(urls: tuple[str, str]) -> Iterator[None]:
    _deployed.use(_deployed.Stack(*urls))
    yield
    _deployed.use(None)


async def test_calls_journals_state_and_failures() -> None:
    async with TestRuntime(shop.trips, shop.carts, shop.payments) as runtime:
        booked = await runtime.send(shop.book, Trip("Bern", 300))
        assert await booked.result() == ["flight-1", "hotel-1", "payment-300"]
        (await booked.journal()).assert_steps("run flight", "run hotel", "run payment", "output")
        with pytest.raises(TerminalError, match="declined") as failed:
            await runtime.call(shop.book, Trip("Bern", 3_000))
        assert failed.value.code == 402
        await runtime.call(shop.add, Item("pot", 20), key="ann")
        assert (await runtime.state(shop.carts, "ann"))["items"] == [{"sku": "pot", "price": 20}]
        assert await runtime.call(shop.checkout, key="ann") == "payment-20"
        assert await booked.status() == "completed"
        assert booked.invocation_id in [found.invocation_id for found in await runtime.invocations(shop.trips)]


def test_plain_tests_too() -> None:
    with SyncTestRuntime(shop.naps) as runtime:
        asked = runtime.send(shop.wait_for_answer)
        runtime.resolve_awakeable(asked.awakeable_id(), "yes")
        assert asked.result() == "yes"
        waiting = runtime.send(shop.wait_for_answer, idempotency_key="once")
        assert runtime.send(shop.wait_for_answer, idempotency_key="once").accepted_before
        runtime.reject_awakeable(waiting.awakeable_id(), "no")
        with pytest.raises(TerminalError, match="no"):
            waiting.result()
        with pytest.raises(NotKept):
            runtime.invocation(f"{asked.invocation_id[:-4]}0000").result()


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (lambda runtime: runtime.advance(timedelta(days=1)), "advancing time by 1 day, 0:00:00 needs virtual time"),
        (lambda runtime: runtime.mock(shop.bill, "free"), "mocking payments/bill needs the runtime in memory"),
        (lambda runtime: runtime.fail_step("payment"), "injecting failures needs the runtime in memory"),
        (lambda runtime: runtime.crash_coordinator(), "crashing the coordinator needs the runtime in memory"),
        (lambda runtime: runtime.promise(shop.approvals, "k", "decision").resolve(True), "call a handler of the workflow"),
    ],
)
async def test_what_needs_the_runtime_in_memory_skips(act: Any, reason: str) -> None:
    async with TestRuntime(shop.naps) as runtime:
        with pytest.raises(pytest.skip.Exception, match=reason):
            result = act(runtime)
            await result


@pytest.mark.parametrize("options", [{"always_replay": True}, {"crash_at": 3}, {"crash_at": Crash(2)}, {"disable_retries": True}], ids=str)
def test_options_of_the_runtime_in_memory_skip(options: dict[str, Any]) -> None:
    with pytest.raises(pytest.skip.Exception, match="needs the runtime in memory; this run is against a deployed stack"):
        TestRuntime(shop.naps, **options)
