"""The life of an invocation: every pair of the table, and every pair that is absent from it."""

from __future__ import annotations

import itertools

import pytest

from holdfast.protocol.awaiting import Awaiting
from holdfast_runtime.engine import model
from holdfast_runtime.engine.effects import Answer, RetryAt, StartAttempt
from holdfast_runtime.engine.events import Arrival, AttemptFailed, Deliver, Ended, Operate, Operated, Suspended, TimerDue, Verb
from holdfast_runtime.engine.lifecycle import LIFECYCLE, Change, next_status
from holdfast_runtime.engine.model import Status
from holdfast_runtime.engine.payload import success

from .machine import NOW, Machine, arrival, named, output, response, sleep

PAIRS = list(itertools.product([None, *Status], Change))
A, B = named(1, "k"), named(2, "k")


@pytest.mark.parametrize(("status", "change"), [pair for pair in PAIRS if pair in LIFECYCLE])
def test_a_pair_of_the_table_leads_somewhere(status: Status | None, change: Change) -> None:
    assert next_status(status, change) is LIFECYCLE[status, change]


@pytest.mark.parametrize(("status", "change"), [pair for pair in PAIRS if pair not in LIFECYCLE])
def test_an_absent_pair_raises_and_names_both_halves(status: Status | None, change: Change) -> None:
    with pytest.raises(AssertionError, match=rf"{status.name if status is not None else 'a new invocation'}.*{change.name}"):
        next_status(status, change)


def test_every_status_but_done_is_left_somehow() -> None:
    assert {status for status, _ in LIFECYCLE} == {None, *Status} - {Status.DONE}


def test_an_arrival_runs_and_its_output_ends_it() -> None:
    machine = Machine().after(arrival(A))
    assert machine.said.arrival is Arrival.NEW
    assert machine.effects == [StartAttempt(A)]
    machine.after(response(A, Ended(), output()))
    assert machine.status(A) is Status.DONE
    assert machine.effects == [Answer(A, success(b"out"))]


def test_an_end_whose_output_an_earlier_attempt_sent_ends_it() -> None:
    machine = Machine().after(arrival(A), response(A, AttemptFailed(500, "cut"), output()))
    assert machine.status(A) is Status.RUNNING
    machine.after(response(A, Ended(), known=2))
    assert machine.invocation(A)[model.RESULT] == success(b"out")


def test_an_end_without_any_output_is_a_failed_attempt() -> None:
    machine = Machine().after(arrival(A), response(A, Ended()))
    assert machine.status(A) is Status.RUNNING
    assert isinstance(machine.effects[0], RetryAt)


def test_a_suspension_waits_for_its_timer_and_the_timer_counts_once() -> None:
    machine = Machine().after(arrival(A), response(A, Suspended(Awaiting(completions=(1,))), sleep(1, NOW + 50)))
    assert machine.status(A) is Status.SUSPENDED
    (key,) = machine.page(model.timer_page(0, NOW // model.HOUR_MS, 0))
    due = TimerDue(NOW // model.HOUR_MS, 0, key)
    assert machine.after(due).said is False  # early
    machine.now += 50
    assert machine.after(due).said is True
    assert (machine.status(A), machine.effects) == (Status.RUNNING, [StartAttempt(A)])
    assert machine.after(due).said is False


def test_a_suspension_is_matched_against_what_the_attempt_was_not_given() -> None:
    signal = Deliver({"m": "s", "id": A, "sig": "go", "r": success(b"1")})
    waiting = Suspended(Awaiting(names=("go",)))
    machine = Machine().after(arrival(A), signal)
    assert machine.after(response(A, waiting, known=1)).status(A) is Status.RUNNING  # it came while the attempt ran
    assert machine.after(response(A, waiting, known=2)).status(A) is Status.SUSPENDED  # it was given, and used up
    assert machine.after(signal).status(A) is Status.RUNNING


def test_exhausted_retries_pause_and_a_resume_runs_again() -> None:
    machine = Machine().after(arrival(A, "Brittle"))
    for _ in range(3):
        machine.after(response(A, AttemptFailed(500, "no")))
    assert machine.status(A) is Status.PAUSED
    assert machine.after(Operate(Verb.RESUME, A)).said is Operated.APPLIED
    assert machine.status(A) is Status.RUNNING


def test_exhausted_retries_kill_where_the_policy_says_so() -> None:
    machine = Machine().after(arrival(A, "Doomed"), *[response(A, AttemptFailed(500, "no"))] * 3)
    assert machine.invocation(A)[model.RESULT][:3] == ["f", 500, "no"]


def test_an_exact_delay_does_not_consume_an_attempt() -> None:
    machine = Machine().after(arrival(A, "Brittle"), *[response(A, AttemptFailed(500, "no", delay_ms=7))] * 9)
    assert machine.effects == [RetryAt(A, NOW + 7)]


def test_what_is_over_drops_the_answer_of_its_attempt() -> None:
    machine = Machine().after(arrival(A), Operate(Verb.KILL, A))
    before = list(machine.log)
    assert machine.after(response(A, Ended(), output())).log == before


def test_a_cancel_ends_what_has_not_started_and_is_a_signal_for_all_else() -> None:
    machine = Machine().after(arrival(A, "Object", "write", "k"), arrival(B, "Object", "write", "k"))
    assert machine.after(Operate(Verb.CANCEL, B)).said is Operated.APPLIED
    assert machine.status(B) is None
    assert machine.after(Operate(Verb.CANCEL, A)).said is Operated.ACCEPTED
    assert machine.invocation(A)[model.LENGTH] == 2


def test_a_scheduled_invocation_starts_when_its_time_has_come() -> None:
    machine = Machine().after(arrival(A, execute_at=NOW + 10))
    assert (machine.status(A), machine.said.execute_at) == (Status.SCHEDULED, NOW + 10)
    (key,) = machine.page(model.timer_page(0, NOW // model.HOUR_MS, 0))
    machine.now += 10
    assert machine.after(TimerDue(NOW // model.HOUR_MS, 0, key)).status(A) is Status.RUNNING
