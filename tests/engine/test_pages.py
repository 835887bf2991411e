"""Pages split before they grow: queues, journals, state, outboxes, timers (storage design §5)."""

from __future__ import annotations

import pytest

from holdfast_runtime.engine import journal, key_state, model, object_queue, outbox, timers
from holdfast_runtime.engine.effects import SendMessages, StartAttempt
from holdfast_runtime.engine.events import AttemptFailed, Ended, MessagesAcknowledged, MessagesReceived, Operate, Verb
from holdfast_runtime.engine.model import Status
from holdfast_runtime.engine.operations import encode
from holdfast_runtime.engine.payload import success

from .machine import NOW, Machine, arrival, named, output, response, set_state

SMALL = 64 * 1024


@pytest.fixture
def machine() -> Machine:
    return Machine()


def largest(machine: Machine) -> int:
    return max(len(encode(page.document)) for page in machine.pages.values() if page.document is not None)


def test_a_key_is_passed_on_in_order_of_arrival_through_full_queue_pages(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "QUEUE_PAGE", 5)
    invocations = [named(number, "k") for number in range(30)]
    machine.after(*(arrival(invocation, "Object", "write", "k") for invocation in invocations))
    assert len(machine.page("K/Object/k")[model.QUEUE]) == 5
    assert machine.page(model.queue_page("Object", "k", 3)) is not None
    machine.after(Operate(Verb.CANCEL, invocations[3]), Operate(Verb.CANCEL, invocations[17]))
    order = []
    for _ in range(28):
        holder = machine.page("K/Object/k")[model.LOCK]
        order.append(holder)
        machine.after(response(holder, Ended(), output()))
    assert order == [invocation for invocation in invocations if invocation not in (invocations[3], invocations[17])]
    assert machine.page("K/Object/k") is None
    assert all(machine.page(model.queue_page("Object", "k", number)) is None for number in range(8))


def test_the_key_stays_held_through_failures_and_pauses(machine: Machine) -> None:
    first, second = named(1, "k"), named(2, "k")
    machine.after(arrival(first, "Object", "write", "k"), arrival(second, "Object", "write", "k"))
    machine.after(response(first, AttemptFailed(500, "no")), Operate(Verb.PAUSE, first))
    assert (machine.status(first), machine.status(second)) == (Status.PAUSED, Status.QUEUED)
    machine.after(Operate(Verb.KILL, first))
    assert machine.status(second) is Status.RUNNING
    assert StartAttempt(second) in machine.effects


def test_a_journal_goes_on_in_pages_and_reads_back_whole(machine: Machine) -> None:
    invocation = named(1)
    machine.after(arrival(invocation))
    entries = [b"\x04\x11\x00\x00" + bytes([number]) * 3_000 for number in range(60)]

    for entry in entries:
        machine.within(lambda tx, entry=entry: journal.append(tx, invocation, tx.get(model.invocation_page(invocation)), entry))
    read = machine.within(lambda tx: list(journal.entries(tx, invocation, tx.get(model.invocation_page(invocation)), 1)))
    assert read == list(enumerate(entries, 1))
    assert len(machine.invocation(invocation)[model.PAGES]) == 3
    assert largest(machine) < SMALL


def test_large_state_spills_value_by_value_and_clears_away(machine: Machine) -> None:
    invocation = named(1, "k")
    values = {f"n{number}": bytes([number]) * 6_000 for number in range(8)}
    machine.after(arrival(invocation, "Object", "write", "k"))
    machine.after(response(invocation, AttemptFailed(500, "more"), *(set_state(name, value) for name, value in values.items())))
    found, complete = machine.within(lambda tx: key_state.read_all(tx, "Object", "k"))
    assert (dict(found), complete) == (values, True)
    assert len(machine.page("K/Object/k")[model.SPILLED]) == 6
    assert machine.within(lambda tx: key_state.read_all(tx, "Object", "k", limit=13_000))[1] is False
    machine.within(lambda tx: [key_state.remove(tx, "Object", "k", name) for name in values])  # type: ignore[func-returns-value]
    assert machine.within(lambda tx: key_state.read_all(tx, "Object", "k")) == ([], True)
    assert largest(machine) < SMALL


def test_messages_wait_in_pages_until_they_are_acknowledged() -> None:
    machine = Machine(shards=2)
    target = {"m": "k", "id": str(named(2**63 + 5))}
    for number in range(1, 201):
        machine.within(lambda tx: outbox.send(tx, target))
        assert machine.effects == [SendMessages(1, number)]
    machine.after(MessagesAcknowledged(1, 100))
    assert machine.page(model.outbox_page(0, 1)) == {"n": 200, "a": 100}
    assert machine.page(model.messages_page(0, 1, 63)) is None
    assert sorted(machine.page(model.messages_page(0, 1, 101))) == list(range(101, 128))
    machine.after(MessagesAcknowledged(1, 50))  # late
    assert machine.page(model.outbox_page(0, 1))["a"] == 100
    machine.after(MessagesAcknowledged(1, 200))
    assert all(machine.page(model.messages_page(0, 1, number)) is None for number in (101, 130, 200))


def test_messages_are_applied_once_and_in_order(machine: Machine) -> None:
    invocation = named(1)
    machine.after(arrival(invocation))
    signals = [(number, {"m": "s", "id": invocation, "sig": "n", "r": success(str(number).encode())}) for number in range(1, 5)]
    assert machine.after(MessagesReceived(1, signals[:2])).said == 2
    assert machine.after(MessagesReceived(1, signals[:3])).said == 3  # the first two again
    assert machine.after(MessagesReceived(1, [(9, signals[0][1])])).said == 3  # a gap
    assert machine.after(MessagesReceived(2, signals[:1])).said == 1  # another channel counts for itself
    assert machine.invocation(invocation)[model.LENGTH] == 5


def test_nothing_overtakes_what_waits_in_the_queue_to_oneself(machine: Machine) -> None:
    invocation = named(1)
    machine.after(arrival(invocation))
    signal = {"m": "s", "id": invocation, "sig": "n", "r": success(b"")}
    machine.within(lambda tx: outbox.enqueue(tx, signal, 0))
    machine.within(lambda tx: outbox.send(tx, signal))
    assert machine.invocation(invocation)[model.LENGTH] == 1
    assert machine.page(model.outbox_page(0, 0))["n"] == 2


def test_timers_fill_one_page_after_the_other_and_leave_none_behind(machine: Machine) -> None:
    invocation, count = named(1), model.TIMERS_PER_PAGE + 10
    machine.after(arrival(invocation))
    hour = (NOW + 1_000) // model.HOUR_MS

    def add(tx: object) -> None:
        for number in range(count):
            timers.add(tx, invocation, completion_id=number, at=NOW + 1_000, kind=timers.SLEEP)  # type: ignore[arg-type]

    machine.within(add)
    assert [len(machine.page(model.timer_page(0, hour, number))) for number in (0, 1)] == [model.TIMERS_PER_PAGE, 10]
    machine.now = (hour + 1) * model.HOUR_MS
    for number in (0, 1):
        for key in list(machine.page(model.timer_page(0, hour, number))):
            machine.within(lambda tx, key=key, number=number: timers.take(tx, hour, number, key))
    assert machine.page(model.timer_index(0)) in (None, {})
    assert machine.invocation(invocation)[model.TIMERS] == {}


def test_a_key_without_anything_has_no_page(machine: Machine) -> None:
    assert machine.within(lambda tx: object_queue.enter(tx, "Object", "k", named(1, "k"))) is True
    machine.within(lambda tx: object_queue.leave(tx, "Object", "k", named(1, "k")))
    assert machine.page("K/Object/k") is None
