"""How long results and journals are kept (http-api §6.4), and how much a journal may hold."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.protocol.awaiting import Awaiting
from holdfast_runtime.engine import journal, model
from holdfast_runtime.engine.events import Arrival, Arrive, AttemptFailed, Deliver, Ended, Look, Operate, Operated, Suspended, Verb
from holdfast_runtime.engine.model import Status
from holdfast_runtime.engine.payload import success

from .machine import NOW, Machine, arrival, named, output, ran, response, run, sleep

A = named(1)
ENDS = response(A, Ended(), run(1), ran(1), output())


def ended(**retentions: Any) -> Machine:
    return Machine().after(arrival(A, **retentions), ENDS)


def test_the_journal_goes_before_the_result() -> None:
    machine = ended(retention_ms=1_000, journal_retention_ms=400)
    machine.now += 399
    assert machine.fire_due().invocation(A)[model.LENGTH] == 4
    machine.now += 1
    assert machine.fire_due().invocation(A)[model.LENGTH] == 0
    assert machine.after(Look(A)).said.result == success(b"out")
    machine.now += 600
    assert machine.after(Look(A)).said.exists is False


def test_a_journal_that_is_not_kept_is_gone_with_the_end() -> None:
    machine = ended(retention_ms=1_000, journal_retention_ms=0)
    assert (machine.invocation(A)[model.LENGTH], machine.journal(A)) == (0, [])
    assert machine.after(Look(A)).said.result == success(b"out")


def test_a_journal_is_never_kept_longer_than_its_result() -> None:
    machine = ended(retention_ms=1_000, journal_retention_ms=5_000)
    assert machine.page(model.timer_index(0)) is None  # no timer for it: it goes with the result
    machine.now += 1_000
    assert machine.after(Operate(Verb.PURGE_JOURNAL, A)).said is Operated.NOT_FOUND


def test_with_both_zero_nothing_survives_but_what_a_repeated_request_is_told() -> None:
    machine = ended(retention_ms=0, journal_retention_ms=0)
    assert machine.invocation(A) is None
    assert all(machine.page(model.finished_page(0, machine.now // model.FINISHED_BUCKET_MS, number)) is None for number in range(2))


def test_a_workflow_keeps_its_state_until_the_result_goes_not_the_journal() -> None:
    machine = Machine().after(arrival(A, "Flow", "run", "k", retention_ms=1_000, journal_retention_ms=100))
    machine.after(response(A, Ended(), output()))
    machine.now += 100
    assert machine.fire_due().invocation(A)[model.LENGTH] == 0
    machine.now += 900
    assert machine.fire_due().invocation(A) is None


def test_the_timer_of_an_earlier_life_does_not_touch_the_journal_of_the_next() -> None:
    repeatable: dict[str, Any] = {"retention_ms": 300, "journal_retention_ms": 200, "idempotency_key": "i"}
    machine = Machine().after(arrival(A, **repeatable), ENDS, Operate(Verb.PURGE, A))
    machine.now += 100
    machine.after(arrival(A, **repeatable), response(A, Ended(), output()))
    machine.now += 100
    assert machine.fire_due().invocation(A)[model.LENGTH] == 2
    machine.now += 100
    assert machine.fire_due().invocation(A)[model.LENGTH] == 0


def test_what_is_over_runs_again_under_its_idempotency_key() -> None:
    machine = Machine().after(arrival(A, retention_ms=300, idempotency_key="i"), ENDS)
    machine.now += 300
    machine.after(arrival(A, retention_ms=300, idempotency_key="i"))
    assert (machine.said.arrival, machine.status(A)) == (Arrival.NEW, Status.RUNNING)


REQUEST: Arrive = arrival(A, retention_ms=300, request=b"r", minted_at=NOW)


def test_what_is_over_is_not_shown_and_its_request_is_still_known_when_it_is_delivered_again() -> None:
    machine = Machine().after(REQUEST, ENDS)
    machine.now += 300
    assert machine.fire_due().after(Look(A)).said.exists is False
    machine.now += 20_000
    again = machine.fire_due().after(REQUEST).said
    assert (again.arrival, again.result, machine.status(A)) == (Arrival.NEW, success(b"out"), Status.DONE)


def test_what_is_over_is_known_until_a_second_delivery_would_be_refused_for_its_age() -> None:
    machine = Machine()
    commands = [command for number in range(1, 20) for command in (run(number), ran(number, bytes(9_000)))]  # needs pages of its own
    machine.after(REQUEST, response(A, Ended(), *commands, output()))
    machine.now += model.STALE_REQUEST_MS - 1
    assert machine.fire_due().after(REQUEST).said.result == success(b"out")
    machine.now += model.RECENT_MS
    assert machine.fire_due().invocation(A) is None
    assert machine.after(REQUEST).said.arrival is Arrival.STALE


# ---- A full journal


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "MAX_JOURNAL", 5)


def full(machine: Machine) -> Machine:
    """Five entries, with the completion of the sleep that is still to come."""
    machine.after(arrival(A), response(A, AttemptFailed(500, "no"), run(1), ran(1), sleep(2, NOW + 50)))
    assert (machine.invocation(A)[model.LENGTH], len(machine.invocation(A)[model.PENDING])) == (4, 1)
    return machine


@pytest.mark.usefixtures("small")
def test_a_command_too_many_ends_the_invocation_with_a_reason() -> None:
    machine = full(Machine()).after(response(A, AttemptFailed(500, "no"), run(3), known=4))
    assert machine.invocation(A)[model.RESULT][:3] == ["f", 500, journal.FULL]


@pytest.mark.usefixtures("small")
def test_what_was_asked_for_before_still_arrives_and_the_invocation_can_end() -> None:
    machine = full(Machine()).after(response(A, Suspended(Awaiting(completions=(2,))), known=4))
    machine.now += 50
    assert machine.fire_due().status(A) is Status.RUNNING
    machine.after(response(A, Ended(), output(), known=5))
    assert machine.invocation(A)[model.RESULT] == success(b"out")


@pytest.mark.usefixtures("small")
def test_a_signal_too_many_ends_the_invocation_too() -> None:
    machine = full(Machine()).after(Deliver({"m": "s", "id": A, "sig": "go", "r": success(b"1")}))
    assert machine.invocation(A)[model.RESULT][:3] == ["f", 500, journal.FULL]


def test_the_limit_is_that_of_the_design() -> None:
    assert model.MAX_JOURNAL == 100_000
    assert "100000 entries" in journal.FULL
