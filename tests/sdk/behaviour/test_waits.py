"""Other invocations, combinators, results from outside, state, workflows; deadlines, sagas, cancellation."""

import pytest

from holdfast import TerminalError
from tests.sdk.behaviour import effects
from tests.sdk.behaviour.runtimes import Stage
from tests.sdk.behaviour.values import Called, Facts, Order, User

# ---- Other handlers


async def test_calls_sends_and_attach(stage: Stage, tag: str) -> None:
    called = await stage.runtime.call(stage.handlers.calls, tag)
    facts = Facts(called.facts.invocation_id, stage.handlers.facts.service_name, "facts", "", 1, tag, '"x"')
    assert called == Called([2, 5, 5, 15, 15], ("never", 418, {"why": "tea"}), facts, True, ["hidden", "ba"])


async def test_an_output_is_nothing_until_it_is_there(stage: Stage, tag: str) -> None:
    assert await stage.runtime.call(stage.handlers.outputs, tag) == [None, "went", "went"]


async def test_an_idempotency_key_makes_a_call_happen_once(stage: Stage, tag: str) -> None:
    first = await stage.runtime.send(stage.handlers.steps, tag, idempotency_key=tag)
    again = await stage.runtime.send(stage.handlers.steps, "other", idempotency_key=tag)
    assert (first.accepted_before, again.accepted_before, again.invocation_id) == (False, True, first.invocation_id)
    assert await again.result() == await first.result()
    assert effects.times(f"{tag}-1") == 1


# ---- Combining


async def test_runs_in_parallel_and_map(stage: Stage, tag: str) -> None:
    assert await stage.runtime.call(stage.handlers.parallel, tag) == [f"done {tag}-a", f"done {tag}-b", [1, 2, 3]]
    assert [effects.times(f"{tag}-a"), effects.times(f"{tag}-b")] == [1, 1]


async def test_the_quicker_timer_wins(stage: Stage, tag: str) -> None:
    assert await stage.runtime.call(stage.handlers.race, tag) == ["quick", 1, 0, [True, True]]


async def test_a_failure_leaves_a_combinator(stage: Stage, tag: str) -> None:
    assert await stage.runtime.call(stage.handlers.failures, tag) == ["never"] * 3


# ---- Results from outside


async def test_an_awakeable_is_resolved_from_outside_and_by_a_handler(stage: Stage, tag: str) -> None:
    asked = [await stage.runtime.send(stage.handlers.answered, f"{tag}-{n}") for n in range(2)]
    ids = [await stage.line(f"{tag}-{n}") for n in range(2)]
    assert ids == [handle.awakeable_id() for handle in asked]
    await stage.runtime.resolve_awakeable(ids[0], Order("o", []))
    await stage.runtime.call(stage.handlers.answers, ids[1])
    assert [await handle.result() for handle in asked] == [Order("o", [])] * 2


async def test_an_awakeable_is_rejected_from_outside_and_by_a_handler(stage: Stage, tag: str) -> None:
    asked = [await stage.runtime.send(stage.handlers.answered, f"{tag}-{n}") for n in range(2)]
    await stage.runtime.reject_awakeable(await stage.line(f"{tag}-0"), "no")
    await stage.runtime.call(stage.handlers.rejects, await stage.line(f"{tag}-1"))
    for handle, code in zip(asked, (500, 418), strict=True):
        with pytest.raises(TerminalError, match=r"^no$") as failure:
            await handle.result()
        assert failure.value.code == code


async def test_signals_arrive_in_order(stage: Stage, tag: str) -> None:
    asked = await stage.runtime.send(stage.handlers.told, tag)
    assert await stage.line(tag) == asked.invocation_id
    await stage.runtime.call(stage.handlers.tells, asked.invocation_id)
    assert await asked.result() == [0, None, 2]


# ---- State


async def test_an_object_keeps_its_state(stage: Stage, tag: str) -> None:
    h, runtime = stage.handlers, stage.runtime
    assert [await runtime.call(h.add, 2, key=tag), await runtime.call(h.add_lazily, 3, key=tag)] == [2, 5]
    assert await runtime.call(h.count, key=tag) == 5
    assert await runtime.call(h.count, key=f"{tag}/ä b") == 0
    assert await runtime.call(h.key, key=tag) == [tag, tag, "count"]


async def test_state_is_cleared(stage: Stage, tag: str) -> None:
    h, runtime = stage.handlers, stage.runtime
    await runtime.call(h.add, 2, key=tag)
    assert await runtime.call(h.clears, key=tag) == [["count", "other"], ["count"], []]
    assert await runtime.call(h.count, key=tag) == 0
    await runtime.call(h.add, 2, key=tag)
    assert await runtime.call(h.clears_lazily, key=tag) == ["count"]
    assert await runtime.call(h.count, key=tag) == 0


# ---- Workflows


async def test_a_workflow_waits_for_its_promise(stage: Stage, tag: str) -> None:
    h, runtime = stage.handlers, stage.runtime
    started = await runtime.send(h.run, User("Ann", 60_000), key=tag)
    assert (await runtime.send(h.run, User("Bob", 1), key=tag)).accepted_before
    listening = await runtime.send(h.confirmed, key=tag)
    assert await runtime.call(h.confirm, "yes", key=tag) is None
    assert [await started.result(), await listening.result()] == ["Ann yes", "yes"]
    with pytest.raises(TerminalError, match="promise was already completed") as failure:
        await runtime.call(h.confirm, "again", key=tag)
    assert failure.value.code == 409
    assert await runtime.call(h.status, key=tag) == "confirmed"


async def test_a_workflow_is_refused_or_expires(stage: Stage, tag: str) -> None:
    h, runtime = stage.handlers, stage.runtime
    started = await runtime.send(h.run, User("Ann", 60_000), key=tag)
    await runtime.call(h.refuses, "no", key=tag)
    with pytest.raises(TerminalError, match=r"^no$") as failure:
        await started.result()
    assert failure.value.code == 418
    assert await runtime.call(h.run, User("Bob", 50), key=f"{tag}-2") == "Bob expired"


# ---- Deadlines, sagas, cancellation


async def test_a_deadline_passes(stage: Stage, tag: str) -> None:
    assert await stage.runtime.call(stage.handlers.deadline, tag) == "late"
    assert effects.times(tag) == 1
    with pytest.raises(TerminalError, match="not done within") as failure:
        await stage.runtime.call(stage.handlers.overdue, tag)
    assert failure.value.code == 408


async def test_a_saga_is_undone_in_reverse_and_to_its_end(stage: Stage, tag: str) -> None:
    with pytest.raises(TerminalError, match="refused"):
        await stage.runtime.call(stage.handlers.compensated, tag)
    assert effects.after(tag) == ["do", "undo-2", "undo-1"]


async def test_a_cancelled_saga_is_undone_in_reverse_and_cancels_its_child(stage: Stage, tag: str) -> None:
    started = await stage.runtime.send(stage.handlers.undone, tag)
    await stage.until(lambda: effects.times(f"{tag}-child-began"), "the child")
    await started.cancel()
    with pytest.raises(TerminalError) as failure:
        await started.result()
    assert failure.value.code == 409
    await stage.until(lambda: effects.times(f"{tag}-child-cancelled"), "the child to be cancelled")
    assert effects.after(tag) == ["do-1", "do-2", "undo-2", "undo-1", "cancelled"]


async def test_a_handler_may_go_on_after_a_cancellation(stage: Stage, tag: str) -> None:
    started = await stage.runtime.send(stage.handlers.recovers, tag)
    await stage.until(lambda: effects.times(tag), "its first step")
    await started.cancel()
    assert await started.result() == "recovered"


async def test_a_handler_cancels_another_invocation(stage: Stage, tag: str) -> None:
    started = await stage.runtime.send(stage.handlers.long_nap, tag)
    assert await stage.runtime.call(stage.handlers.stops, started.invocation_id) == 409
    assert effects.times(f"{tag}-child-cancelled") == 1
