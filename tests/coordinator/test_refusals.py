"""Deployments that refuse to start handlers, or take only so many at once: who waits, in which order, and what of it is recorded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from holdfast_runtime.adapters.lambda_envelope import request_too_large
from holdfast_runtime.coordinator.attempts import TROUBLE_S
from holdfast_runtime.coordinator.front import Failed, NotFound, Outcome, RegisterDeployment, RegistrationError, Success
from holdfast_runtime.coordinator.lane import MAX_PAUSE_S
from holdfast_runtime.coordinator.settings import Settings
from holdfast_runtime.ports.endpoint import EndpointFailure, EndpointResponse, Refusal
from tests.coordinator.virtual import FIRST, SECOND, Answer, Attempt, World, done, failed, in_virtual_time, runs, serves, sleeps

AT_ITS_LIMIT = EndpointFailure("Rate Exceeded.", code=429, error_code="RT0023", refusal=Refusal.LIMIT)
IN_TROUBLE = EndpointFailure("Internal.", code=500, error_code="RT0006", refusal=Refusal.TROUBLE)
NEVER_AGAIN: dict[str, Any] = {"retryPolicyMaxAttempts": 1, "retryPolicyOnMaxAttempts": "KILL"}


def refuses(
    times: int, then: Callable[[Attempt], Answer] = lambda _: done(), refusal: EndpointFailure = AT_ITS_LIMIT
) -> Callable[[Attempt], Answer]:
    left = [times]

    def answer(attempt: Attempt) -> Answer:
        if left[0]:
            left[0] -= 1
            return refusal
        return then(attempt)

    return answer


def appended(world: World) -> int:
    """Log items so far, of all shards."""
    return sum(shard.next for shard in world.node.shards.values())


@in_virtual_time
async def test_tries_in_vain_are_no_attempts_and_are_not_recorded() -> None:
    world = await World.start(serves(**NEVER_AGAIN), refuses(50))
    invocation = await world.send()
    await asyncio.sleep(1)
    before = appended(world)
    await asyncio.sleep(60)
    assert len(world.endpoint.attempts) > 8
    assert appended(world) == before
    assert isinstance(await world.result(invocation), Success)
    assert len(world.endpoint.attempts) == 51
    assert appended(world) == before + 1
    assert world.endpoint.attempts[-1].start.retry_count_since_last_stored_entry == 0


@in_virtual_time
async def test_a_handler_that_fails_after_it_was_refused_fails_for_the_first_time() -> None:
    policy: dict[str, Any] = {"retryPolicyMaxAttempts": 2, "retryPolicyOnMaxAttempts": "KILL"}
    world = await World.start(serves(**policy), refuses(5, lambda _: failed("mine")))
    invocation = await world.send()
    assert await world.result(invocation) == Failed(500, "mine")
    assert len(world.endpoint.attempts) == 5 + 2


@in_virtual_time
async def test_who_waits_is_ready_and_says_why() -> None:
    world = await World.start(serves(), refuses(1_000))
    invocation = await world.send()
    await asyncio.sleep(30)
    columns = "status", "in_flight", "retry_count", "last_failure", "last_failure_error_code", "next_retry_at"
    assert await world.row(invocation, *columns) == ["ready", False, None, "[429] Rate Exceeded.", "RT0023", None]
    described = await world.front.describe(invocation)
    assert described is not None
    assert (described["status"], described["retry_count"], described["last_failure"]) == ("ready", 0, "[429] Rate Exceeded.")


@in_virtual_time
async def test_the_log_tells_once_that_a_deployment_refuses_work() -> None:
    told: list[tuple[str, str]] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append((record.levelname, record.msg))

    listener, logger = Listener(), logging.getLogger("holdfast.lanes")
    logger.addHandler(listener)
    logger.setLevel(logging.INFO)
    try:
        world = await World.start(serves(), refuses(100))
        await asyncio.gather(*map(world.result, [await world.send() for _ in range(30)]))
        await asyncio.sleep(120)
        await world.result(await world.send())
    finally:
        logger.removeHandler(listener)
        logger.setLevel(logging.NOTSET)
    assert told == [("WARNING", "deployment.refuses_work"), ("INFO", "deployment.takes_work_again")]


@pytest.mark.parametrize("operation", ["kill", "pause", "cancel"])
def test_operators_do_not_wait_for_who_waits(operation: str) -> None:
    @in_virtual_time
    async def test() -> None:
        world = await World.start(serves(), refuses(1_000))
        invocation = await world.send()
        await asyncio.sleep(30)
        began = asyncio.get_running_loop().time()
        await getattr(world.front, operation)(invocation)
        if operation == "kill":
            outcome = await world.result(invocation)
            assert isinstance(outcome, Failed)
            assert outcome.message == "killed"
        elif operation == "pause":
            await world.until(invocation, "paused")
        assert asyncio.get_running_loop().time() - began < 0.1
        tries = len(world.endpoint.attempts)
        await asyncio.sleep(60)
        assert (len(world.endpoint.attempts) > tries) == (operation == "cancel")

    test()


@in_virtual_time
async def test_a_pause_asked_for_during_a_try_in_vain_happens_at_its_end() -> None:
    world: World

    class Slowly(EndpointFailure):
        pass

    slow = Slowly("Rate Exceeded.", code=429, refusal=Refusal.LIMIT)
    world = await World.start(serves(), lambda _: slow)
    ask = world.endpoint.request

    async def request(*args: object, **more: object) -> EndpointResponse:
        try:
            return await ask(*args, **more)  # type: ignore[arg-type]
        except Slowly:
            await asyncio.sleep(5)
            raise

    world.endpoint.request = request  # type: ignore[method-assign]
    invocation = await world.send()
    await asyncio.sleep(1)
    assert await world.row(invocation, "status") == ["running"]
    await world.front.pause(invocation)
    assert await world.row(invocation, "status") == ["running"]
    await asyncio.sleep(5)
    assert await world.row(invocation, "status") == ["paused"]
    world.endpoint.request = ask  # type: ignore[method-assign]
    world.endpoint.answer = lambda _: done()
    await world.front.resume(invocation)
    assert isinstance(await world.result(invocation), Success)


@in_virtual_time
async def test_trouble_that_lasts_with_one_invocation_counts_in_the_end() -> None:
    def answer(attempt: Attempt) -> Answer:
        return IN_TROUBLE if attempt.path.endswith("poison") else done()

    world = await World.start(serves({"name": "poison", **NEVER_AGAIN}, {"name": "greet"}), answer)
    poisoned = await world.send("Greeter/poison")
    ended = asyncio.ensure_future(world.result(poisoned))
    loop = asyncio.get_running_loop()
    began, served = loop.time(), 0
    while not ended.done():
        asked = loop.time()
        await world.result(await world.send())
        assert loop.time() - asked < 2 * MAX_PAUSE_S
        served += 1
        await asyncio.sleep(5)
    outcome = ended.result()
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.message) == (500, "Internal.; it has been so for 10 minutes, so this counts as a failed attempt")
    assert TROUBLE_S <= loop.time() - began < TROUBLE_S + 60
    assert served > 50


@pytest.mark.parametrize(("on_max", "status"), [("PAUSE", "paused"), ("KILL", "completed")])
def test_a_journal_that_does_not_fit_is_sent_once(on_max: str, status: str) -> None:
    """It would be refused in the same way for ever: what happens after the last attempt happens after the first."""

    @in_virtual_time
    async def test() -> None:
        policy: dict[str, Any] = {"retryPolicyOnMaxAttempts": on_max}
        world = await World.start(serves(**policy), lambda _: request_too_large(9_000_000, 12_000_000, compressed=True))
        invocation = await world.send()
        await world.until(invocation, status)
        assert len(world.endpoint.attempts) == 1
        if on_max == "KILL":
            outcome = await world.result(invocation)
            assert isinstance(outcome, Failed)
            assert (outcome.code, outcome.message[:47]) == (413, "the journal and state of this invocation are 90")
            return
        (reason,) = await world.row(invocation, "last_failure") or []
        assert "9000000 bytes" in reason
        world.endpoint.answer = lambda _: done()
        await world.front.resume(invocation)
        assert isinstance(await world.result(invocation), Success)

    test()


@in_virtual_time
async def test_attempts_at_one_deployment_begin_in_order_and_hold_up_nobody_else() -> None:
    settings = Settings(exclusive_store=True, max_attempts_in_flight=4, max_attempts_per_deployment=3)
    running = {FIRST: 0, SECOND: 0}
    most: list[int] = []
    world = await World.start(serves(), lambda _: done(), settings)
    ask = world.endpoint.request

    async def request(address: object, *args: object, **more: object) -> EndpointResponse:
        uri = address.uri  # type: ignore[attr-defined]
        answer = await ask(address, *args, **more)  # type: ignore[arg-type]
        running[uri] += 1
        most.append(running[FIRST])
        if uri == FIRST:
            await asyncio.sleep(60)
        running[uri] -= 1
        return answer

    await world.register(SECOND, serves(name="Other"))
    world.endpoint.request = request  # type: ignore[method-assign]
    sent = [await world.send() for _ in range(9)]
    others = [await world.send("Other/greet") for _ in range(20)]
    began = asyncio.get_running_loop().time()
    await asyncio.gather(*map(world.result, others))
    assert asyncio.get_running_loop().time() - began < 1
    statuses = [(await world.row(invocation, "status") or [])[0] for invocation in sent]
    assert statuses == ["running"] * 3 + ["ready"] * 6
    await asyncio.gather(*map(world.result, sent))
    assert asyncio.get_running_loop().time() - began == pytest.approx(180, abs=1)
    assert max(most) == 3
    assert [attempt.start.debug_id for attempt in world.endpoint.attempts if attempt.uri == FIRST] == [
        str(invocation) for invocation in sent
    ]


@in_virtual_time
async def test_a_limit_that_is_no_number_is_not_registered() -> None:
    world = await World.start(serves(), lambda _: done())
    world.endpoint.manifests[SECOND] = serves(name="Other")
    for wrong in ("", "0", "-1", "many", "1e3", "9" * 5_000):
        with pytest.raises(RegistrationError, match=r"expected a whole number from 1 to 1000000 as holdfast\.concurrency, found"):
            await world.front.register(RegisterDeployment(uri=SECOND, metadata={"holdfast.concurrency": wrong}))
    assert len(world.deployments.view.deployments) == 1


@in_virtual_time
async def test_the_registration_can_set_a_limit_of_its_own() -> None:
    running: list[int] = [0, 0]
    world = await World.start(serves(), lambda _: done())
    world.endpoint.manifests[SECOND] = serves(name="Other")
    registered = await world.front.register(RegisterDeployment(uri=SECOND, metadata={"holdfast.concurrency": "2"}))
    assert registered.deployment.metadata == {"holdfast.concurrency": "2"}
    ask = world.endpoint.request

    async def request(*args: object, **more: object) -> EndpointResponse:
        answer = await ask(*args, **more)  # type: ignore[arg-type]
        running[0] += 1
        running[1] = max(running)
        await asyncio.sleep(1)
        running[0] -= 1
        return answer

    world.endpoint.request = request  # type: ignore[method-assign]
    await asyncio.gather(*map(world.result, [await world.send("Other/greet") for _ in range(7)]))
    assert running[1] == 2


def _first_is_at_its_limit(attempt: Attempt) -> Answer:
    return AT_ITS_LIMIT if attempt.uri == FIRST else done()


@in_virtual_time
async def test_who_waits_follows_a_new_deployment() -> None:
    """Registered because the old one takes nothing: what has not begun goes to the new one within one look at the old."""
    world = await World.start(serves(), _first_is_at_its_limit)
    sent = [await world.send() for _ in range(40)]
    await asyncio.sleep(300)
    await world.register(SECOND, serves())
    began = asyncio.get_running_loop().time()
    outcomes: list[Outcome | NotFound] = await asyncio.gather(*map(world.result, sent))
    assert all(isinstance(outcome, Success) for outcome in outcomes)
    assert asyncio.get_running_loop().time() - began < MAX_PAUSE_S + 1


def _is_stopped_after_a_step(attempt: Attempt) -> Answer:
    if attempt.uri == SECOND:
        return done()
    return [*runs(1), *sleeps(2, 100)] if attempt.at_s < 50 else AT_ITS_LIMIT


@in_virtual_time
async def test_who_follows_a_new_deployment_does_not_wait_behind_who_cannot() -> None:
    """The old one takes nothing any more, and those that began there are first in line."""
    world = await World.start(serves(), _is_stopped_after_a_step)
    for _ in range(3):
        await world.send()
    await asyncio.sleep(200)
    sent = [await world.send() for _ in range(20)]
    await asyncio.sleep(60)
    await world.register(SECOND, serves())
    began = asyncio.get_running_loop().time()
    await asyncio.gather(*map(world.result, sent))
    assert asyncio.get_running_loop().time() - began < MAX_PAUSE_S + 1
    assert [attempt.start.debug_id for attempt in world.endpoint.attempts if attempt.uri == SECOND] == list(map(str, sent))


@in_virtual_time
async def test_who_is_resumed_elsewhere_does_not_wait_where_it_was() -> None:
    world = await World.start(serves(), _is_stopped_after_a_step)
    sent = [await world.send() for _ in range(4)]
    await asyncio.sleep(200)
    repaired = await world.register(SECOND, serves())
    await world.front.pause(sent[3])
    await world.until(sent[3], "paused")
    await world.front.resume(sent[3], repaired)
    assert isinstance(await asyncio.wait_for(world.result(sent[3]), 60), Success)
    assert [(await world.row(invocation, "status")) for invocation in sent[:3]] == [["ready"]] * 3


@in_virtual_time
async def test_a_refusal_in_the_middle_of_a_journal_changes_nothing_in_it() -> None:
    answers: list[Answer] = [[*runs(1), *sleeps(2, 10)], AT_ITS_LIMIT, AT_ITS_LIMIT, done()]
    world = await World.start(serves(), lambda _: answers.pop(0))
    assert isinstance(await world.result(await world.send()), Success)
    given = [attempt.journal for attempt in world.endpoint.attempts]
    assert given[1] == given[2] == given[3]
    assert len(given[1]) == 5
