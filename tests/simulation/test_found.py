"""What the simulation has found, each as a test of its own. The same mistakes, made again, are in `mistakes.py`."""

from __future__ import annotations

from dataclasses import replace

from holdfast.protocol import messages
from holdfast.protocol.messages import MessageType as M
from holdfast_runtime.coordinator import flush
from holdfast_runtime.engine import model
from holdfast_runtime.engine.events import Arrival, AttemptFailed, Ended, Look, Operate, Seen, Verb
from holdfast_runtime.engine.payload import success
from holdfast_runtime.engine.transaction import Page
from tests.engine.machine import NOW, Machine, arrival, named, output, response

from .world import World


def call_plain() -> tuple[int, messages.OneWayCallCommand]:
    return M.ONE_WAY_CALL_COMMAND, messages.OneWayCallCommand(service_name="Plain", handler_name="run", invocation_id_notification_idx=1)


def test_the_children_of_an_ids_second_life_are_new() -> None:
    """Seed 36: they met the children of the first life, and waited for signals that had long been sent."""
    parent = named(1)
    machine = Machine()
    children = []
    for _ in range(2):
        machine.after(arrival(parent, retention_ms=0, idempotency_key="k"), response(parent, AttemptFailed(500, "no"), call_plain()))
        children.append(machine.invocation(parent)[model.JOURNAL][2])
        machine.after(response(parent, Ended(), output(), known=3))
        machine.now += 5
    assert children[0] != children[1]


def test_a_request_delivered_after_a_short_retention_does_not_run_again() -> None:
    """Seed 231: retention 5 s, and the network delivered the request again after 8 s."""
    invocation = named(1)
    request = arrival(invocation, retention_ms=5_000, request=b"r", minted_at=NOW)
    machine = Machine().after(request, response(invocation, Ended(), output()))
    machine.now += 8_000
    assert machine.after(replace(request, fresh=False)).said.result is not None
    machine.now += 60_000
    assert machine.after(replace(request, fresh=False)).said.result is not None
    machine.now += 180_000
    machine.within(lambda tx: tx.drop(model.invocation_page(invocation)))  # past its retention the store may delete it
    assert machine.after(replace(request, fresh=False)).said.arrival is Arrival.STALE


def test_the_store_keeps_a_finished_invocation_as_long_as_the_log_may_hold_it() -> None:
    """Seed 2: a page that was over was deleted, and recovery made a fragment of it from the log's last changes."""
    page = Page({model.EXPIRES_AT: NOW + 1}, 1, stored=True)
    deadline = flush._expires_at("I/x", page, NOW)
    assert deadline is not None
    assert deadline >= NOW + 48 * 3_600_000


def test_a_derived_request_delivered_after_a_short_retention_does_not_run_again() -> None:
    """Seed 71: its result was kept for 3 s, and the network delivered the request again after 8 s."""
    invocation = named(1)
    request = arrival(invocation, retention_ms=3_000, request=b"r", idempotency_key="k")
    machine = Machine().after(request, response(invocation, Ended(), output()))
    machine.now += 8_000
    assert machine.after(request).said.result is not None
    assert machine.after(Look(invocation, again=True)).said == Seen(False)
    machine.after(replace(request, request=b"another"))
    assert machine.said.result is None


def test_every_life_of_an_id_knows_its_request_again() -> None:
    """Only the first of several lives that ended within a minute did: the request of the second ran twice."""
    invocation, machine = named(1), Machine()
    for request in (b"one", b"two"):
        machine.after(arrival(invocation, retention_ms=0, request=request, idempotency_key="k"))
        machine.after(response(invocation, Ended(), output(request)))
    for request in (b"one", b"two"):
        again = machine.after(arrival(invocation, retention_ms=0, request=request, idempotency_key="k"))
        assert again.said.result == success(request)


def test_the_result_of_an_earlier_life_is_shown_to_nobody() -> None:
    """Seed 71: a workflow was cancelled before its start, ran when it was sent again, expired; who asked twice was told of the cancel."""
    invocation = named(1)
    machine = Machine().after(arrival(invocation, retention_ms=0, idempotency_key="k"), response(invocation, Ended(), output(b"first")))
    assert machine.after(Look(invocation, again=True)).said.result == success(b"first")
    machine.after(arrival(invocation, retention_ms=3_000, idempotency_key="k"), response(invocation, Ended(), output(b"second")))
    machine.after(Operate(Verb.PURGE, invocation))
    assert machine.after(Look(invocation, again=True)).said == Seen(False)


def test_worlds_that_once_failed() -> None:
    """An orphaned shard (4), colliding children (36), late arrivals (81), a take-over (140) and an output (191) without end."""
    for seed in (2, 4, 36, 81, 140, 191, 231):
        World(seed).play()
