"""While a deployment rolls, processes of two versions talk to each other: what one does not know does not matter to the other."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

import pytest

from holdfast_runtime.adapters.memory import memory_store
from holdfast_runtime.coordinator import requests
from holdfast_runtime.engine.events import Arrival, Arrive, Arrived, Restart, Seen, Verb
from holdfast_runtime.engine.operations import decode, encode
from tests.coordinator.replica import Replica

ARRIVE = Arrive("inv", ["Counter", "add", "k", "exclusive"], [1, 2], 5, 6, [], execute_at=7, idempotency_key="i", request=b"r", minted_at=8)
RESTART = Restart("inv", "new", b"r", 3, upto=2, deployment="dp")


def over_the_network(request: requests.Request) -> Any:
    return decode(encode(request))


def newer(request: requests.Request) -> Any:
    """The same from a process that knows a field more, of the request and of the event."""
    later = over_the_network(request)
    later["priority"] = 1
    if "event" in later:
        later["event"]["colour"] = "blue"
    return later


def older(request: requests.Request, *unknown: str) -> Any:
    """The same from a process that did not know these fields yet."""
    before = over_the_network(request)
    for name in unknown:
        before.pop(name, None)
        before.get("event", {}).pop(name, None)
    return before


def required(event: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(event) if field.default is MISSING and field.default_factory is MISSING)


def test_an_arrival_of_a_newer_and_of_an_older_process() -> None:
    sent = requests.arrive(ARRIVE, wait=True)
    assert requests.parse_arrive(over_the_network(sent)) == ARRIVE
    assert requests.parse_arrive(newer(sent)) == ARRIVE
    found = requests.parse_arrive(older(sent, "minted_at", "fresh"))
    assert (found.minted_at, found.fresh, found.idempotency_key) == (None, False, "i")


def test_a_restart_of_a_newer_and_of_an_older_process() -> None:
    sent = requests.restart(RESTART)
    assert requests.parse_restart(over_the_network(sent)) == RESTART
    assert requests.parse_restart(newer(sent)) == RESTART
    assert requests.parse_restart(older(sent, "upto", "deployment")) == Restart("inv", "new", b"r", 3)


def test_an_operation_of_a_newer_and_of_an_older_process() -> None:
    sent = requests.operate(Verb.RESUME, "inv", b"r", "dp")
    assert requests.parse_operate(newer(sent), in_flight=True).deployment == "dp"
    assert requests.parse_operate(older(sent, "deployment"), in_flight=True).deployment is None
    with pytest.raises(requests.NotUnderstood, match="polish"):
        requests.parse_operate({**sent, "verb": "polish"}, in_flight=False)


def test_replies_of_a_newer_and_of_an_older_process() -> None:
    arrived = requests.arrived(Arrived(Arrival.KNOWN, [0, b"x"], 5, 6))
    assert requests.parse_arrived(newer(arrived)) == Arrived(Arrival.KNOWN, [0, b"x"], 5, 6)
    assert requests.parse_arrived(older(arrived, "execute_at")) == Arrived(Arrival.KNOWN, [0, b"x"], 5)
    seen = requests.seen(Seen(True, [0, b"x"], 5, ["S", "h", None, "x"]))
    assert requests.parse_seen(newer(seen)) == Seen(True, [0, b"x"], 5, ["S", "h", None, "x"])
    assert requests.parse_seen(older(seen, "target")) == Seen(True, [0, b"x"], 5)


def test_what_an_older_process_may_leave_out_has_a_default() -> None:
    """So that a field added later cannot break the conversation: the ones without were there from the start, and there are no more."""
    assert required(Arrive) == ("invocation", "target", "entry", "retention_ms", "journal_retention_ms", "source")
    assert required(Restart) == ("invocation", "new_invocation", "request", "minted_at")


async def test_a_request_nobody_here_knows_yet_is_answered_and_asked_again_elsewhere() -> None:
    replica = Replica(memory_store(48))
    await replica.start()
    try:
        reply = await replica.node.serve_peer({"shard": 0, "ask": "levitate"})
        assert reply == {"error": "not understood"}
        assert await replica.add("k", 1) == 1
    finally:
        await replica.stop()
