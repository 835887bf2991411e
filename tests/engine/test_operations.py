"""What operators do: pause, resume here and elsewhere, purge the journal; each request once, however often it is delivered."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.protocol.awaiting import Awaiting
from holdfast_runtime.engine import model, pinning
from holdfast_runtime.engine.effects import StartAttempt
from holdfast_runtime.engine.events import AttemptFailed, Deliver, Ended, Look, Operate, Operated, Suspended, Verb
from holdfast_runtime.engine.model import Status
from holdfast_runtime.engine.payload import success
from holdfast_runtime.engine.registry import HandlerKind, RegistryView
from tests.simulation.processes import DEPLOYMENT, VIEW

from .machine import NOW, Machine, arrival, call, named, output, ran, response, run, sleep

A = named(1)
WAITING = Suspended(Awaiting(completions=(1,)))
ELSEWHERE = "dp_1elsewhere"


def suspended(machine: Machine) -> Machine:
    return machine.after(arrival(A), response(A, WAITING, sleep(1, NOW + 50)))


def view_with(**changes: object) -> RegistryView:
    """A second deployment, the latest of every service; `changes` are made to it."""
    there = replace(VIEW.deployments[DEPLOYMENT], id=ELSEWHERE)
    services = {name: replace(service, deployment_id=ELSEWHERE, revision=2) for name, service in there.services.items()}
    there = replace(there, services=services, **changes)  # type: ignore[arg-type]
    return RegistryView(2, {**VIEW.deployments, ELSEWHERE: there}, services)


# ---- Pause and resume


def test_a_suspended_invocation_is_really_paused_and_nothing_wakes_it() -> None:
    machine = suspended(Machine())
    assert machine.after(Operate(Verb.PAUSE, A)).said is Operated.APPLIED
    machine.now += 50
    machine.fire_due()
    assert (machine.status(A), machine.invocation(A)[model.LENGTH]) == (Status.PAUSED, 3)  # the sleep is over, and recorded
    assert machine.after(Operate(Verb.RESUME, A)).said is Operated.APPLIED
    assert (machine.status(A), machine.effects) == (Status.RUNNING, [StartAttempt(A)])


def test_a_cancel_of_a_paused_invocation_resumes_it() -> None:
    machine = suspended(Machine()).after(Operate(Verb.PAUSE, A), Operate(Verb.CANCEL, A))
    assert (machine.said, machine.status(A)) == (Operated.ACCEPTED, Status.RUNNING)


def test_pausing_again_changes_nothing() -> None:
    machine = suspended(Machine()).after(Operate(Verb.PAUSE, A))
    before = len(machine.log)
    assert machine.after(Operate(Verb.PAUSE, A)).said is Operated.APPLIED
    assert len(machine.log) == before


@pytest.mark.parametrize("end", [AttemptFailed(500, "no"), WAITING, Suspended(Awaiting(names=("go",)))])
def test_an_attempt_that_is_to_be_paused_is_paused_when_it_ends(end: AttemptFailed | Suspended) -> None:
    machine = Machine().after(arrival(A), Operate(Verb.PAUSE, A, in_flight=True))
    assert (machine.said, machine.status(A)) == (Operated.ACCEPTED, Status.RUNNING)
    assert machine.after(response(A, end, run(1))).status(A) is Status.PAUSED


def test_a_cancel_goes_before_a_pause_that_has_not_begun() -> None:
    machine = Machine().after(arrival(A), Operate(Verb.PAUSE, A, in_flight=True), Operate(Verb.CANCEL, A))
    machine.after(response(A, Suspended(Awaiting(signals=(1,), names=("go",)))))
    assert (machine.status(A), machine.effects) == (Status.RUNNING, [StartAttempt(A)])


def test_an_attempt_that_ends_with_a_result_is_not_paused() -> None:
    machine = Machine().after(arrival(A), Operate(Verb.PAUSE, A, in_flight=True), response(A, Ended(), output()))
    assert machine.status(A) is Status.DONE


def test_an_operators_pause_goes_before_the_kill_of_an_exhausted_policy() -> None:
    failures = [response(A, AttemptFailed(500, "no"))] * 2
    machine = Machine().after(arrival(A, "Doomed"), *failures, Operate(Verb.PAUSE, A, in_flight=True))
    assert machine.after(response(A, AttemptFailed(500, "no"))).status(A) is Status.PAUSED


def test_what_backs_off_is_paused_at_once_and_its_retry_starts_nothing() -> None:
    machine = Machine().after(arrival(A), response(A, AttemptFailed(500, "no")), Operate(Verb.PAUSE, A))
    assert (machine.said, machine.status(A)) == (Operated.ACCEPTED, Status.PAUSED)


def test_a_resume_of_what_backs_off_starts_a_new_series_now() -> None:
    machine = Machine().after(arrival(A), response(A, AttemptFailed(500, "no")), Operate(Verb.RESUME, A))
    assert (machine.effects, machine.invocation(A)[model.RETRY]) == ([StartAttempt(A)], None)


# ---- Elsewhere


@pytest.mark.parametrize("wanted", [pinning.LATEST, ELSEWHERE])
@pytest.mark.parametrize("paused", [False, True])
def test_what_waits_goes_on_elsewhere(wanted: str, paused: bool) -> None:
    machine = suspended(Machine(view=view_with()))
    assert machine.invocation(A)[model.DEPLOYMENT] == DEPLOYMENT
    if paused:
        machine.after(Operate(Verb.PAUSE, A))
    machine.after(Operate(Verb.RESUME, A, deployment=wanted))
    assert (machine.said, machine.status(A), machine.effects) == (Operated.APPLIED, Status.RUNNING, [StartAttempt(A)])
    assert (machine.invocation(A)[model.DEPLOYMENT], machine.invocation(A)[model.VERSION]) == (ELSEWHERE, 6)


def test_what_runs_or_backs_off_or_is_not_pinned_stays_where_it_is() -> None:
    machine = Machine(view=view_with()).after(arrival(A))
    move = Operate(Verb.RESUME, A, deployment=pinning.LATEST)
    assert machine.after(move).said is Operated.PINNED  # about to start
    assert machine.after(response(A, AttemptFailed(500, "no"), run(1)), move).said is Operated.PINNED  # backs off
    assert machine.invocation(A)[model.DEPLOYMENT] == DEPLOYMENT
    unpinned = named(2)
    machine.after(arrival(unpinned), response(unpinned, Suspended(Awaiting(names=("go",)))))
    assert machine.after(Operate(Verb.RESUME, unpinned, deployment=pinning.LATEST)).said is Operated.PINNED


def _without(handler: str) -> RegistryView:
    view = view_with()
    plain = view.services["Plain"]
    services = {**view.services, "Plain": replace(plain, handlers={n: h for n, h in plain.handlers.items() if n != handler})}
    there = replace(view.deployments[ELSEWHERE], services=services)
    return RegistryView(2, {**VIEW.deployments, ELSEWHERE: there}, services)


def _as_object() -> RegistryView:
    view = view_with()
    plain = view.services["Plain"]
    handlers = {name: replace(handler, kind=HandlerKind.EXCLUSIVE) for name, handler in plain.handlers.items()}
    services = {**view.services, "Plain": replace(plain, handlers=handlers)}
    there = replace(view.deployments[ELSEWHERE], services=services)
    return RegistryView(2, {**VIEW.deployments, ELSEWHERE: there}, services)


@pytest.mark.parametrize(
    ("view", "wanted", "found"),
    [
        (VIEW, "dp_1unknown", Operated.NO_DEPLOYMENT),
        (RegistryView(2, VIEW.deployments, {}), pinning.LATEST, Operated.NO_DEPLOYMENT),
        (_without("run"), ELSEWHERE, Operated.NO_HANDLER),
        (_as_object(), ELSEWHERE, Operated.NO_HANDLER),
        (view_with(min_protocol_version=7, max_protocol_version=7), ELSEWHERE, Operated.NO_VERSION),
        (view_with(min_protocol_version=5, max_protocol_version=5), pinning.LATEST, Operated.NO_VERSION),
    ],
)
def test_a_deployment_that_cannot_take_it_is_refused_and_nothing_changes(view: RegistryView, wanted: str, found: Operated) -> None:
    machine = suspended(Machine(view=view))
    before = len(machine.log)
    assert machine.after(Operate(Verb.RESUME, A, deployment=wanted, request=b"1")).said is found
    assert (machine.status(A), len(machine.log)) == (Status.SUSPENDED, before)


def test_what_is_over_or_not_started_is_refused_for_that_reason_first() -> None:
    machine = Machine(view=view_with()).after(arrival(A, execute_at=NOW + 5))
    assert machine.after(Operate(Verb.RESUME, A, deployment="dp_1unknown")).said is Operated.NOT_STARTED
    machine = Machine(view=view_with()).after(arrival(A), response(A, Ended(), output()))
    assert machine.after(Operate(Verb.RESUME, A, deployment="dp_1unknown")).said is Operated.ALREADY_COMPLETED


# ---- Once


def test_a_late_second_delivery_does_nothing_and_is_answered_as_the_first() -> None:
    """A second cancel would stop the clean-up after the first; a late resume would undo a pause."""
    machine = suspended(Machine())
    for request in (b"1", b"2", b"3"):
        assert machine.after(Operate(Verb.CANCEL, A, request=request)).said is Operated.ACCEPTED
    assert machine.invocation(A)[model.LENGTH] == 5
    assert machine.after(Operate(Verb.CANCEL, A, request=b"1")).said is Operated.ACCEPTED
    assert machine.invocation(A)[model.LENGTH] == 5
    machine.after(response(A, Suspended(Awaiting(names=("go",))), known=5))
    machine.after(Operate(Verb.PAUSE, A, request=b"4"), Operate(Verb.RESUME, A, request=b"5"), Operate(Verb.PAUSE, A, request=b"6"))
    assert machine.after(Operate(Verb.RESUME, A, request=b"5")).said is Operated.APPLIED
    assert machine.status(A) is Status.PAUSED


def test_a_kill_that_is_delivered_twice_was_done_both_times() -> None:
    machine = suspended(Machine()).after(Operate(Verb.KILL, A, request=b"1"), Operate(Verb.KILL, A, request=b"1"))
    assert machine.said is Operated.APPLIED
    assert machine.after(Operate(Verb.KILL, A, request=b"2")).said is Operated.ALREADY_COMPLETED


def test_only_so_many_requests_are_remembered() -> None:
    machine = suspended(Machine()).after(*(Operate(Verb.CANCEL, A, request=bytes([number])) for number in range(40)))
    assert len(machine.invocation(A)[model.ANSWERED]) == 16
    assert machine.after(Operate(Verb.CANCEL, A, request=bytes([39]))).invocation(A)[model.LENGTH] == 42


def test_a_request_that_comes_again_after_a_purge_does_not_run_again() -> None:
    request = arrival(A, request=b"r", minted_at=NOW)
    machine = Machine().after(request, response(A, Ended(), output()), Operate(Verb.PURGE, A))
    assert machine.after(Look(A)).said.exists is False
    assert machine.after(request).said.result == success(b"out")
    assert machine.status(A) is None


# ---- Purge of the journal


def test_purging_the_journal_keeps_the_result() -> None:
    machine = Machine().after(arrival(A), response(A, Ended(), run(1), ran(1), output()))
    assert machine.invocation(A)[model.LENGTH] == 4
    for _ in range(2):
        assert machine.after(Operate(Verb.PURGE_JOURNAL, A)).said is Operated.APPLIED
        assert (machine.invocation(A)[model.LENGTH], machine.journal(A)) == (0, [])
    seen = machine.after(Look(A)).said
    assert (seen.result, seen.expires_at) == (success(b"out"), NOW + 1_000)


def test_a_journal_of_many_pages_is_purged_with_all_of_them() -> None:
    commands = [command for number in range(1, 40) for command in (run(number), ran(number, bytes(9_000)))]
    machine = Machine().after(arrival(A), response(A, Ended(), *commands, output()))
    pages = [model.journal_page(A, number) for number in range(len(machine.invocation(A)[model.PAGES]))]
    assert len(pages) > 3
    machine.after(Operate(Verb.PURGE_JOURNAL, A))
    assert all(machine.page(page_id) is None for page_id in pages)
    machine.now += 1_000
    machine.fire_due()
    assert machine.invocation(A) is None


def test_what_is_not_over_keeps_its_journal() -> None:
    machine = suspended(Machine())
    assert machine.after(Operate(Verb.PURGE_JOURNAL, A)).said is Operated.NOT_COMPLETED
    assert machine.after(Operate(Verb.PURGE_JOURNAL, named(9))).said is Operated.NOT_FOUND
    assert machine.invocation(A)[model.LENGTH] == 2


def test_a_signal_for_a_purged_journal_is_for_nobody() -> None:
    machine = Machine().after(arrival(A), response(A, Ended(), output()), Operate(Verb.PURGE_JOURNAL, A))
    machine.after(Deliver({"m": "s", "id": A, "sig": "go", "r": success(b"1")}))
    assert machine.invocation(A)[model.LENGTH] == 0


# ---- An id that lives again


def test_the_result_of_a_call_that_an_earlier_life_made_is_for_nobody() -> None:
    """Both lives number their commands alike, and what the first had called may end, in another shard, while the second waits."""
    called = response(A, WAITING, call(1))
    machine = Machine().after(arrival(A), called)
    (child,) = (page_id[2:] for page_id in machine.pages if page_id[:2] == "I/" and page_id != model.invocation_page(A))
    ((_, completion_id, type_, of),) = machine.invocation(child)[model.SINKS].values()
    late = {"m": "c", "id": A, "cid": completion_id, "t": type_, "r": success(b"of before"), "of": of}
    machine.after(Operate(Verb.KILL, A), Operate(Verb.PURGE, A))
    machine.now += 1
    machine.after(arrival(A), called, Deliver(late))
    assert (machine.status(A), machine.invocation(A)[model.LENGTH]) == (Status.SUSPENDED, 3)
    machine.after(Deliver({**late, "of": machine.now}))
    assert (machine.status(A), machine.invocation(A)[model.LENGTH]) == (Status.RUNNING, 4)
