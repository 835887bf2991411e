"""Retries, timeouts and retentions as the specifications give them, each through a real coordinator (http-api §6)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from holdfast_runtime.coordinator.front import (
    CoordinatorUnavailable,
    Done,
    Failed,
    NewInvocation,
    NotFound,
    Restarted,
    Scan,
    Success,
    Target,
)
from holdfast_runtime.coordinator.settings import Settings
from holdfast_runtime.engine.registry import OnMaxAttempts, RetryPolicy
from holdfast_runtime.ports.endpoint import EndpointFailure, EndpointResponse

from .virtual import FIRST, SECOND, Attempt, World, done, failed, in_virtual_time, runs, serves, sleeps, waits

BRITTLE = {
    "name": "greet",
    "retryPolicyInitialInterval": 100,
    "retryPolicyExponentiationFactor": 3,
    "retryPolicyMaxInterval": 500,
    "retryPolicyMaxAttempts": 5,
}


# ---- Retries


@in_virtual_time
async def test_a_policy_of_the_manifest_paces_the_attempts_and_pauses() -> None:
    world = await World.start(serves(BRITTLE), lambda attempt: failed("boom"))
    invocation = await world.send()
    await world.until(invocation, "paused")
    assert world.instants() == [0.0, 0.1, 0.4, 0.9, 1.4]
    assert await world.row(invocation, "last_failure") == ["[500 Internal] boom"]
    assert await world.front.resume(invocation) is Done.APPLIED
    await asyncio.sleep(10)
    assert len(world.endpoint.attempts) == 10  # a new series


@in_virtual_time
async def test_a_policy_that_kills_ends_with_the_last_error() -> None:
    world = await World.start(serves({**BRITTLE, "retryPolicyOnMaxAttempts": "KILL"}), lambda attempt: failed("boom", code=503))
    invocation = await world.send()
    outcome = await world.result(invocation)
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.message) == (503, "boom")
    assert len(world.endpoint.attempts) == 5


@in_virtual_time
async def test_handler_goes_before_service_before_default() -> None:
    policy = RetryPolicy(1_000, 1.0, 1_000, 3, OnMaxAttempts.KILL)
    settings = Settings(exclusive_store=True, default_retry_policy=policy)
    world = await World.start(
        serves({"name": "greet", "retryPolicyInitialInterval": 200}, retryPolicyMaxAttempts=2), lambda _: failed(), settings
    )
    assert isinstance(await world.result(await world.send()), Failed)
    assert world.instants() == [0.0, 0.2]


@in_virtual_time
async def test_what_nobody_says_is_said_by_the_server() -> None:
    policy = RetryPolicy(1_000, 2.0, 3_000, 4, OnMaxAttempts.KILL)
    settings = Settings(exclusive_store=True, default_retry_policy=policy, default_abort_timeout_ms=7_000)
    world = await World.start(serves(), lambda _: failed(), settings)
    assert isinstance(await world.result(await world.send()), Failed)
    assert world.instants() == [0.0, 1.0, 3.0, 6.0]
    assert {attempt.timeout_s for attempt in world.endpoint.attempts} == {7.0}


@in_virtual_time
async def test_services_may_ask_for_no_more_attempts_than_the_server_allows() -> None:
    settings = Settings(exclusive_store=True, max_retry_policy_max_attempts=2)
    world = await World.start(serves({**BRITTLE, "retryPolicyOnMaxAttempts": "KILL"}), lambda _: failed(), settings)
    assert isinstance(await world.result(await world.send()), Failed)
    assert len(world.endpoint.attempts) == 2


@pytest.mark.parametrize("status", [429, 503])
def test_a_delay_the_endpoint_asks_for_is_exact_and_takes_no_attempt(status: int) -> None:
    @in_virtual_time
    async def test() -> None:
        limit = EndpointResponse(status, {"retry-after": "7"}, b"later")
        world = await World.start(serves({**BRITTLE, "retryPolicyMaxAttempts": 3}), lambda _: limit)
        world.endpoint.answer = lambda _: limit if len(world.endpoint.attempts) <= 10 else done()
        assert isinstance(await world.result(await world.send()), Success)
        assert world.instants() == [7.0 * number for number in range(11)]

    test()


@in_virtual_time
async def test_a_delay_the_sdk_asks_for_is_exact_and_takes_no_attempt() -> None:
    world = await World.start(serves({**BRITTLE, "retryPolicyMaxAttempts": 2}), lambda _: failed(delay_ms=1_500))
    world.endpoint.answer = lambda _: failed(delay_ms=1_500) if len(world.endpoint.attempts) <= 5 else done()
    assert isinstance(await world.result(await world.send()), Success)
    assert world.instants() == [1.5 * number for number in range(6)]


@in_virtual_time
async def test_a_silent_attempt_is_given_up_after_its_time_and_tried_again() -> None:
    """The transport gives up (adapters' tests); what it says then is one failed attempt."""
    silent = EndpointFailure("no complete response in time; the request was given up", error_code="RT0001")
    world = await World.start(serves({**BRITTLE, "abortTimeout": 42_000}), lambda _: silent)
    invocation = await world.send()
    await world.until(invocation, "paused")
    assert {attempt.timeout_s for attempt in world.endpoint.attempts} == {42.0}
    assert await world.row(invocation, "last_failure_error_code") == ["RT0001"]
    assert len(world.endpoint.attempts) == 5


@in_virtual_time
async def test_progress_resets_what_an_attempt_is_told_and_not_the_policy() -> None:
    """service protocol §4.2: failures since an entry was stored, and the time since then; §3.8: progress does not reset the policy."""
    told: list[tuple[int, int]] = []

    def answer(attempt: Attempt) -> Any:
        told.append((attempt.start.retry_count_since_last_stored_entry, attempt.start.duration_since_last_stored_entry))
        return [*runs(1), *failed()] if len(told) == 3 else failed()

    world = await World.start(serves(BRITTLE), answer)
    invocation = await world.send()
    await world.until(invocation, "paused")
    assert told == [(0, 0), (1, 100), (2, 400), (1, 500), (2, 1_000)]


@in_virtual_time
async def test_a_suspension_begins_a_new_series() -> None:
    def answer(attempt: Attempt) -> Any:
        if "SLEEP_COMMAND" not in attempt.journal:
            return failed() if len(world.endpoint.attempts) < 5 else sleeps(1, 60)
        return failed()

    world = await World.start(serves(BRITTLE), answer)
    invocation = await world.send()
    await world.until(invocation, "paused")
    assert len(world.endpoint.attempts) == 5 + 5
    assert world.endpoint.attempts[5].start.retry_count_since_last_stored_entry == 0


# ---- Retentions


async def invisible(world: World, invocation: Any, *, idempotency_key: str | None = None) -> bool:
    """In every way of looking alike."""
    seen = [
        not isinstance(await world.front.output(invocation), NotFound),
        not isinstance(await world.front.attach(invocation), NotFound),
        await world.front.describe(invocation) is not None,
        await world.row(invocation, "id") is not None,
        any(row[0] == str(invocation) for row in (await world.front.scan(Scan("invocations", ["id"]))).rows),
    ]
    assert len(set(seen)) == 1, seen
    return not seen[0]


@in_virtual_time
async def test_a_result_is_gone_when_its_retention_is_over() -> None:
    world = await World.start(serves({"name": "greet", "idempotencyRetention": 5_000}), lambda _: done())
    invocation = await world.send(idempotency_key="i")
    plain = await world.send()
    await world.result(invocation)
    await asyncio.sleep(4)
    assert not await invisible(world, invocation) and not await invisible(world, plain)
    await asyncio.sleep(1)
    assert await invisible(world, invocation) and await invisible(world, plain)
    assert await world.send(idempotency_key="i") == invocation
    await world.result(invocation)
    assert len(world.endpoint.attempts) == 3


@in_virtual_time
async def test_a_journal_is_gone_when_its_retention_is_over_and_the_result_stays() -> None:
    world = await World.start(
        serves({"name": "greet", "idempotencyRetention": 60_000, "journalRetention": 5_000}), lambda _: [*runs(1), *done()]
    )
    invocation = await world.send()
    await world.result(invocation)
    assert await world.row(invocation, "journal_size", "completion_retention", "journal_retention") == [4, 60_000, 5_000]
    await asyncio.sleep(5)
    described = await world.front.describe(invocation)
    assert described is not None
    assert (described["journal_size"], described["journal"]) == (0, [])
    assert await world.row(invocation, "journal_size") == [0]
    assert await world.front.restart_as_new(invocation) is Done.NO_JOURNAL
    assert isinstance(await world.result(invocation), Success)
    await asyncio.sleep(55)
    assert await invisible(world, invocation)


@in_virtual_time
async def test_retentions_follow_how_an_invocation_was_created() -> None:
    """http-api §6.4, with §1.8: requests to services and objects are kept as if they had a key, those to workflows are not."""
    hour, day = 3_600_000, 86_400_000
    settings = Settings(
        exclusive_store=True,
        default_idempotency_retention_ms=2 * hour,
        default_journal_retention_ms=hour,
        default_workflow_completion_retention_ms=day,
    )
    flow = serves({"name": "run", "ty": "WORKFLOW"}, {"name": "ask", "ty": "SHARED"}, name="Flow", ty="WORKFLOW")
    world = await World.start({**flow, "services": [*flow["services"], *serves()["services"]]}, lambda _: done(), settings)
    created = [
        await world.send(),
        await world.send(idempotency_key="i"),
        await world.send("Flow/run", key="k"),
        await world.send("Flow/ask", key="k"),
        await world.send("Flow/ask", key="k", idempotency_key="i"),
    ]
    found = [await world.row(invocation, "completion_retention", "journal_retention") for invocation in created]
    assert found == [[2 * hour, hour], [2 * hour, hour], [day, hour], [hour, hour], [2 * hour, hour]]


@in_virtual_time
async def test_the_server_limits_what_services_ask_for() -> None:
    settings = Settings(exclusive_store=True, max_idempotency_retention_ms=4_000, max_journal_retention_ms=3_000)
    world = await World.start(serves(), lambda _: done(), settings)
    assert await world.row(await world.send(), "completion_retention", "journal_retention") == [4_000, 3_000]


@in_virtual_time
async def test_with_retentions_of_zero_a_waiting_caller_gets_the_result_and_nothing_is_listed() -> None:
    world = await World.start(serves({"name": "greet", "idempotencyRetention": 0, "journalRetention": 0}), lambda _: done())
    invocation = NewInvocation(Target("Greeter", "greet"), b"in", [])
    invocation_id = world.front.mint(invocation)
    assert await world.front.call(invocation_id, invocation) == Success(b"out")
    assert await world.front.describe(invocation_id) is None
    assert (await world.front.scan(Scan("invocations", ["id"]))).rows == []


# ---- Elsewhere and again


@in_virtual_time
async def test_what_is_pinned_to_a_removed_deployment_pauses_and_goes_on_elsewhere() -> None:
    world = await World.start(serves(BRITTLE), lambda attempt: [*runs(1), *waits(names=["go"])] if len(attempt.journal) == 1 else done())
    invocation = await world.send()
    await world.until(invocation, "suspended")
    (first,) = world.deployments.view.deployments
    second = await world.register(SECOND, serves(BRITTLE))
    await world.front.remove_deployment(first)
    assert await world.front.resume(invocation) is Done.APPLIED
    await world.until(invocation, "paused")
    assert await world.row(invocation, "last_failure_error_code", "pinned_deployment_id") == ["RT0011", first]
    assert await world.front.resume(invocation, first) is Done.NO_DEPLOYMENT
    assert await world.front.resume(invocation, "latest") is Done.APPLIED
    assert isinstance(await world.result(invocation), Success)
    assert [attempt.uri for attempt in world.endpoint.attempts] == [FIRST, SECOND]
    assert await world.row(invocation, "pinned_deployment_id") == [second]


@in_virtual_time
async def test_a_restart_runs_again_and_says_what_it_is_a_run_of() -> None:
    world = await World.start(serves(), lambda attempt: [*runs(1), *done()] if len(attempt.journal) == 1 else done(b"from the middle"))
    old = await world.send(idempotency_key="i")
    await world.result(old)
    whole, part = await world.front.restart_as_new(old), await world.front.restart_as_new(old, upto=1)
    assert isinstance(whole, Restarted) and isinstance(part, Restarted)
    assert await world.result(whole.invocation_id) == Success(b"out", *_when(await world.result(whole.invocation_id)))
    result = await world.result(part.invocation_id)
    assert isinstance(result, Success)
    assert result.value == b"from the middle"
    assert world.endpoint.attempts[-1].journal == ["INPUT_COMMAND", "RUN_COMMAND", "RUN_COMPLETION"]
    columns = ("invoked_by", "restarted_from", "idempotency_key")
    assert await world.row(whole.invocation_id, *columns) == ["restart_as_new", str(old), None]
    described = await world.front.describe(part.invocation_id)
    assert described is not None
    assert (described["invoked_by"], described["restarted_from"]) == ("restart_as_new", str(old))
    assert await world.front.purge(old) is Done.APPLIED
    assert isinstance(await world.front.restart_as_new(whole.invocation_id), Restarted)


def _when(outcome: Any) -> tuple[Any, ...]:
    return outcome.expires_at_ms, outcome.target


@in_virtual_time
async def test_a_large_input_is_restarted_from_the_blob_it_is_kept_in() -> None:
    world = await World.start(serves(), lambda attempt: done(attempt.entries[0].value.content[-3:]))
    invocation = NewInvocation(Target("Greeter", "greet"), bytes(100_000) + b"end", [])
    old = world.front.mint(invocation)
    await world.front.call(old, invocation)
    again = await world.front.restart_as_new(old)
    assert isinstance(again, Restarted)
    await world.front.purge(old)
    result = await world.result(again.invocation_id)
    assert isinstance(result, Success) and result.value == b"end"


@in_virtual_time
async def test_purging_the_journal_of_what_is_over() -> None:
    world = await World.start(serves(), lambda _: [*runs(1), *done()])
    invocation = await world.send()
    await world.result(invocation)
    assert await world.front.purge_journal(invocation) is Done.APPLIED
    assert await world.row(invocation, "journal_size", "status") == [0, "completed"]
    assert isinstance(await world.result(invocation), Success)
    assert await world.front.restart_as_new(invocation) is Done.NO_JOURNAL


@in_virtual_time
async def test_a_pause_is_for_what_has_not_ended() -> None:
    world = await World.start(serves({"name": "greet", "retryPolicyMaxAttempts": 1}), lambda _: [*sleeps(1, 60)])
    invocation = await world.send()
    await world.until(invocation, "suspended")
    assert await world.front.pause(invocation) is Done.APPLIED
    await asyncio.sleep(120)
    assert await world.row(invocation, "status") == ["paused"]
    world.endpoint.answer = lambda _: done()
    assert await world.front.cancel(invocation) is Done.ACCEPTED
    assert isinstance(await world.result(invocation), Success)
    assert await world.front.pause(invocation) is Done.NOT_RUNNING


@in_virtual_time
async def test_who_is_not_answered_is_told_whether_to_ask_again() -> None:
    world = await World.start(serves(), lambda _: done())
    invocation = await world.send()
    await world.result(invocation)
    await world.node.stop()
    told = []
    for operate in (world.front.kill, world.front.pause, world.front.cancel, world.front.restart_as_new):
        with pytest.raises(CoordinatorUnavailable) as unavailable:
            await operate(invocation)
        told.append(unavailable.value.retry_safe)
    assert told == [True, True, False, False]


def test_settings_are_what_the_specification_names() -> None:
    assert replace(Settings().default_retry_policy) == RetryPolicy(500, 2.0, 60_000, 70, OnMaxAttempts.PAUSE)
