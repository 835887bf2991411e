"""Restart as new: what the new journal holds, what is refused, and that one request makes one invocation."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.protocol import frames, ids, messages
from holdfast.protocol.awaiting import Awaiting
from holdfast.protocol.messages import MessageType as M
from holdfast_runtime.engine import model, pinning, restart
from holdfast_runtime.engine.effects import StartAttempt
from holdfast_runtime.engine.events import (
    AttemptFailed,
    AttemptOver,
    Deliver,
    Ended,
    Operate,
    Operated,
    ReceivedFrame,
    Restart,
    Suspended,
    Verb,
)
from holdfast_runtime.engine.model import Status
from holdfast_runtime.engine.payload import BlobRef, Entry, blob_refs, entry_type, success
from holdfast_runtime.engine.registry import DAY_MS
from holdfast_runtime.engine.snapshot import snapshot
from tests.simulation.processes import DEPLOYMENT

from . import machine as one_shard
from .machine import NOW, Machine, arrival, call, output, ran, response, run, set_state, sleep
from .test_operations import ELSEWHERE, view_with


def named(number: int) -> str:
    """All of one partition, as an invocation and its restarts are."""
    return one_shard.named(number, "k")


A, B = named(1), named(2)
KEPT: dict[str, Any] = {"retention_ms": DAY_MS, "journal_retention_ms": DAY_MS}
# Input, run 1, its result, call 2, the child's id, sleep 4, the sleep's end, the child's result, output
LONG = Suspended(Awaiting(completions=(2, 4)))


def again(upto: int = 0, deployment: str | None = pinning.LATEST, *, old: str = A, new: str = B, request: bytes = b"r") -> Restart:
    return Restart(old, new, request, NOW, upto, deployment)


def finished(machine: Machine) -> Machine:
    return machine.after(arrival(A, **KEPT), response(A, Ended(), run(1), ran(1), output()))


def types(journal: list[Entry]) -> list[str]:
    return [M(entry_type(entry)).name for entry in journal]


# ---- From the input


def test_it_runs_once_more_with_its_input_and_nothing_else() -> None:
    machine = finished(Machine())
    machine.after(again())
    assert (machine.said, machine.status(B), machine.effects) == (Operated.APPLIED, Status.RUNNING, [StartAttempt(B)])
    assert machine.journal(B) == machine.journal(A)[:1]
    new = machine.invocation(B)
    assert (new[model.RESTARTED_FROM], new[model.SOURCE]) == (A, [])
    assert not {model.IDEMPOTENCY_KEY, model.DEPLOYMENT, model.VERSION, model.SEED_OF} & set(new)
    assert machine.status(A) is Status.DONE


def test_it_is_kept_as_long_as_the_old_one() -> None:
    machine = Machine().after(arrival(A, retention_ms=DAY_MS, journal_retention_ms=5_000), response(A, Ended(), output()), again())
    assert (machine.invocation(B)[model.RETENTION], machine.invocation(B)[model.JOURNAL_RETENTION]) == (DAY_MS, 5_000)


def test_an_object_handler_queues_on_its_key() -> None:
    old, holder, new = named(1), named(2), named(3)
    machine = Machine().after(arrival(old, "Object", "write", "k", **KEPT), response(old, Ended(), output()))
    machine.after(arrival(holder, "Object", "write", "k"), again(old=old, new=new))
    assert (machine.said, machine.status(new)) == (Operated.APPLIED, Status.QUEUED)
    machine.after(response(holder, Ended(), output()))
    assert machine.status(new) is Status.RUNNING


def test_what_was_killed_can_be_restarted() -> None:
    machine = Machine().after(arrival(A, **KEPT), Operate(Verb.KILL, A), again())
    assert machine.said is Operated.APPLIED


# ---- Once


def test_the_same_request_again_makes_no_second_one() -> None:
    machine = finished(Machine()).after(again())
    before = len(machine.log)
    assert machine.after(again()).said is Operated.APPLIED
    assert len(machine.log) == before
    machine.after(response(B, Ended(), output()), Operate(Verb.PURGE, A))
    assert machine.after(again()).said is Operated.APPLIED  # though the old one is gone by now


def test_a_request_that_comes_when_nothing_is_known_of_it_any_more_is_refused() -> None:
    machine = finished(Machine())
    machine.now += model.STALE_REQUEST_MS + 1
    assert machine.after(again()).said is Operated.STALE
    assert machine.invocation(B) is None


# ---- Refused


@pytest.mark.parametrize(
    ("prepare", "found"),
    [
        ([], Operated.NOT_FOUND),
        ([arrival(A, execute_at=NOW + 5, **KEPT)], Operated.NOT_STARTED),
        ([arrival(A, **KEPT)], Operated.STILL_RUNNING),
        ([arrival(A, **KEPT), response(A, AttemptFailed(500, "no"))], Operated.STILL_RUNNING),
        ([arrival(A, **KEPT), response(A, Suspended(Awaiting(names=("go",))))], Operated.STILL_RUNNING),
        ([arrival(A, **KEPT), Operate(Verb.PAUSE, A)], Operated.STILL_RUNNING),
        ([arrival(A, **KEPT), Operate(Verb.KILL, A), Operate(Verb.PURGE_JOURNAL, A)], Operated.NO_JOURNAL),
        ([arrival(A, retention_ms=DAY_MS, journal_retention_ms=0), Operate(Verb.KILL, A)], Operated.NO_JOURNAL),
        ([arrival(A, "Flow", "run", "k", **KEPT), Operate(Verb.KILL, A)], Operated.UNSUPPORTED),
        ([arrival(A, "Flow", "query", "k", **KEPT), Operate(Verb.KILL, A)], Operated.UNSUPPORTED),
        ([arrival(A, retention_ms=0, journal_retention_ms=0), Operate(Verb.KILL, A)], Operated.NOT_FOUND),
    ],
)
def test_what_cannot_be_restarted_is_left_as_it_is(prepare: list[Any], found: Operated) -> None:
    machine = Machine().after(*prepare)
    before = len(machine.log)
    assert machine.after(again()).said is found
    assert (machine.invocation(B), len(machine.log)) == (None, before)


def test_what_waits_for_its_key_was_not_started() -> None:
    holder, old, new = named(1), named(2), named(3)
    machine = Machine().after(arrival(holder, "Object", "write", "k"), arrival(old, "Object", "write", "k"))
    assert machine.after(again(old=old, new=new)).said is Operated.NOT_STARTED


def test_a_journal_whose_retention_is_over_is_gone_even_if_its_timer_is_late() -> None:
    machine = Machine().after(arrival(A, retention_ms=DAY_MS, journal_retention_ms=100), response(A, Ended(), output()))
    machine.now += 100
    assert machine.invocation(A)[model.LENGTH] == 2
    assert machine.after(again()).said is Operated.NO_JOURNAL


@pytest.mark.parametrize("upto", [-1, 4, 10**8])
def test_an_entry_that_is_not_there_is_refused(upto: int) -> None:
    assert finished(Machine()).after(again(upto)).said is Operated.OUT_OF_RANGE


def test_a_prefix_too_large_to_be_copied_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restart, "COPY_BYTES", 30)
    assert finished(Machine()).after(again(3)).said is Operated.TOO_LARGE


# ---- From an entry


def test_completions_of_the_prefix_follow_it_in_their_order() -> None:
    """Two commands are completed behind the entry, the later first; what belongs to later commands is left."""
    machine = Machine().after(arrival(A, **KEPT))
    machine.after(response(A, LONG, run(1), ran(1), call(2), sleep(4, NOW + 50)))
    child = machine.invocation(A)[model.JOURNAL][4]
    machine.now += 50
    machine.fire_due()
    waits_on = Suspended(Awaiting(completions=(2,)))
    machine.after(response(A, waits_on, run(5), ran(5), known=7))
    machine.after(Deliver({"m": "c", "id": A, "cid": 2, "t": int(M.CALL_COMPLETION), "r": success(b"kid")}))
    machine.after(response(A, Ended(), output(), known=10))
    old = machine.journal(A)
    assert types(old)[5:] == ["SLEEP_COMMAND", "SLEEP_COMPLETION", "RUN_COMMAND", "RUN_COMPLETION", "CALL_COMPLETION", "OUTPUT_COMMAND"]
    assert machine.after(again(5, None)).said is Operated.APPLIED
    assert machine.journal(B) == [*old[:7], old[9]]
    assert machine.journal(B)[4] == child
    assert (machine.invocation(B)[model.PENDING], machine.invocation(B)[model.TIMERS]) == ({}, {})
    assert (machine.invocation(B)[model.DEPLOYMENT], machine.invocation(B)[model.VERSION]) == (DEPLOYMENT, 6)


def test_every_prefix_is_a_journal_that_can_be_given_to_an_attempt() -> None:
    machine = Machine().after(arrival(A, **KEPT), response(A, Ended(), run(1), ran(1), run(2), ran(2), output()))
    for upto in range(6):
        new = named(10 + upto)
        assert machine.after(again(upto, new=new)).said is Operated.APPLIED
        taken = machine.within(lambda tx, new=new: snapshot(tx, new))
        assert taken.known == taken.start.known_entries == len(machine.journal(new)) == upto + (2 if upto in (1, 3) else 1)


def test_an_unfinished_command_in_the_prefix_is_refused() -> None:
    machine = Machine().after(arrival(A, **KEPT), response(A, LONG, run(1), ran(1), call(2), sleep(4, NOW + 50)), Operate(Verb.KILL, A))
    assert [machine.after(again(upto, new=named(10 + upto))).said for upto in range(6)] == [
        Operated.APPLIED,
        Operated.APPLIED,
        Operated.APPLIED,
        Operated.UNFINISHED,
        Operated.UNFINISHED,
        Operated.UNFINISHED,
    ]


def test_signals_of_the_prefix_are_part_of_it_and_later_ones_are_not() -> None:
    machine = Machine().after(arrival(A, **KEPT))
    for name, value in (("go", b"1"), (17, b"2")):
        machine.after(Deliver({"m": "s", "id": A, "sig": name, "r": success(value)}))
    machine.after(response(A, Suspended(Awaiting(names=("stop",))), run(1), ran(1), known=3))
    machine.after(Deliver({"m": "s", "id": A, "sig": 18, "r": success(b"3")}), Operate(Verb.KILL, A), again(4))
    assert machine.journal(B) == machine.journal(A)[:5]
    assert machine.invocation(B)[model.SIGNALLED] == {17: 1}
    machine.after(*(Deliver({"m": "s", "id": B, "sig": index, "r": success(b"4")}) for index in (17, 18)))
    assert machine.invocation(B)[model.LENGTH] == 6


def test_a_long_prefix_is_laid_out_in_pages_and_goes_on_in_them() -> None:
    commands = [command for number in range(1, 40) for command in (run(number), ran(number, bytes([number]) * 9_000))]
    machine = Machine().after(arrival(A, **KEPT), response(A, Ended(), *commands, output()), again(61))
    assert machine.journal(B) == machine.journal(A)[:63]  # the command of entry 61, and its result
    machine.after(response(B, AttemptFailed(500, "no"), *commands[62:], known=63))
    assert machine.journal(B) == machine.journal(A)[:-1]
    machine.after(Operate(Verb.PURGE, A))
    assert len(machine.journal(B)) == 79


def test_large_values_are_shared_and_outlive_the_old_invocation() -> None:
    """A command whose value is kept aside: its completion is found without reading it."""
    command = call(1, parameter=bytes(50_000))[1]
    encoded = frames.encode(M.CALL_COMMAND, command.SerializeToString())
    at = encoded.find(bytes(50_000))
    reference = BlobRef(f"{A}/x", 50_000)
    entry: Entry = [encoded[:at], reference, encoded[at + 50_000 :]]
    assert restart.completion_ids(entry) == {1, 2}
    large = AttemptOver(A, 1, [ReceivedFrame(M.CALL_COMMAND, entry, command, reference)], LONG, DEPLOYMENT, 6, 0.0)
    machine = Machine().after(arrival(A, **KEPT), large)
    machine.after(Deliver({"m": "c", "id": A, "cid": 1, "t": int(M.CALL_COMPLETION), "r": success(reference)}), Operate(Verb.KILL, A))
    machine.after(again(1), Operate(Verb.PURGE, A))
    assert [ref.id for ref in blob_refs(machine.journal(B))] == [reference.id, reference.id]


COMMANDS: list[tuple[Any, set[int]]] = [
    (sleep(7, 5), {7}),
    (call(7), {7, 8}),
    (run(300), {300}),
    (output(), set()),
    (set_state("n", b"v"), set()),
    ((M.GET_PROMISE_COMMAND, messages.GetPromiseCommand(key="k", result_completion_id=2**31)), {2**31}),
    ((M.ONE_WAY_CALL_COMMAND, messages.OneWayCallCommand(service_name="S", invocation_id_notification_idx=9, invoke_time=2**40)), {9}),
    ((M.COMPLETE_PROMISE_COMMAND, messages.CompletePromiseCommand(key="k", result_completion_id=3)), {3}),
]


@pytest.mark.parametrize(("command", "found"), COMMANDS)
def test_what_completes_a_command_is_read_from_its_bytes(command: tuple[int, Any], found: set[int]) -> None:
    type_, message = command
    assert restart.completion_ids(frames.encode(type_, message.SerializeToString())) == found


# ---- Where


def test_a_restart_of_a_prefix_is_pinned_to_where_it_is_sent_in_the_version_of_its_journal() -> None:
    machine = finished(Machine(view=view_with(min_protocol_version=5, max_protocol_version=7, protocol_version=7)))
    machine.after(again(1))
    assert (machine.invocation(B)[model.DEPLOYMENT], machine.invocation(B)[model.VERSION]) == (ELSEWHERE, 6)


@pytest.mark.parametrize(
    ("wanted", "pinned"), [(pinning.LATEST, None), (ELSEWHERE, ELSEWHERE), (DEPLOYMENT, DEPLOYMENT), (None, DEPLOYMENT)]
)
def test_a_restart_from_the_input_is_pinned_when_a_deployment_was_asked_for(wanted: str | None, pinned: str | None) -> None:
    machine = finished(Machine(view=view_with(protocol_version=5))).after(again(0, wanted))
    assert machine.invocation(B).get(model.DEPLOYMENT) == pinned
    assert machine.invocation(B).get(model.VERSION) == {ELSEWHERE: 5, DEPLOYMENT: 6, None: None}[pinned]


@pytest.mark.parametrize(("wanted", "found"), [("dp_1unknown", Operated.NO_DEPLOYMENT), (ELSEWHERE, Operated.NO_VERSION)])
def test_a_deployment_that_cannot_replay_the_prefix_is_refused(wanted: str, found: Operated) -> None:
    machine = finished(Machine(view=view_with(min_protocol_version=7, max_protocol_version=7)))
    assert machine.after(again(1, wanted)).said is found
    assert machine.invocation(B) is None


def test_a_new_version_may_run_the_input() -> None:
    machine = finished(Machine(view=view_with(min_protocol_version=7, max_protocol_version=7))).after(again())
    assert machine.said is Operated.APPLIED


def test_random_numbers_go_on_with_the_journal() -> None:
    machine = finished(Machine()).after(
        again(1), response(B, Ended(), output(), known=3), again(1, old=B, new=named(3)), again(0, new=named(4))
    )
    seeds = [_seed(machine, invocation) for invocation in (named(3), named(4))]
    fresh = Machine().after(arrival(A))
    assert seeds[0] == _seed(fresh, A) != seeds[1]


def _seed(machine: Machine, invocation: str) -> int:
    seed: int = machine.within(lambda tx: snapshot(tx, invocation)).start.random_seed
    return seed


def test_children_of_the_new_one_are_not_those_of_the_old_one() -> None:
    machine = Machine().after(arrival(A, **KEPT), response(A, LONG, call(1)), Operate(Verb.KILL, A), again())
    machine.after(response(B, LONG, call(1)))
    children = [types(machine.journal(invocation)).index("CALL_INVOCATION_ID_COMPLETION") for invocation in (A, B)]
    assert machine.journal(A)[children[0]] != machine.journal(B)[children[1]]


def test_both_ids_belong_to_one_shard() -> None:
    elsewhere = str(ids.random_invocation_id(2**63, 1, bytes(10)))
    with pytest.raises(AssertionError):
        Machine().after(again(new=elsewhere))
