"""An operator's edit of a key's state: once, however often its request is delivered."""

from __future__ import annotations

from holdfast_runtime.engine import key_state, model
from holdfast_runtime.engine.events import EditState, Forget
from holdfast_runtime.engine.payload import Payload
from tests.engine.machine import Machine


def edit(request: bytes, **values: bytes) -> EditState:
    return EditState("Counter", "k", sorted(values.items()), None, request)


def state(machine: Machine) -> dict[str, Payload]:
    found: dict[str, Payload] = {}
    machine.within(lambda tx: found.update(key_state.read_all(tx, "Counter", "k")[0]))
    return found


def test_a_request_that_comes_late_undoes_nothing() -> None:
    machine = Machine().after(edit(b"one", total=b"1"), edit(b"two", total=b"2"), edit(b"one", total=b"1"))
    assert state(machine) == {"total": b"2"}


def test_it_is_known_although_the_key_was_gone_meanwhile() -> None:
    machine = Machine().after(edit(b"one"), edit(b"two", total=b"2"), edit(b"one"))
    assert state(machine) == {"total": b"2"}


def test_another_request_for_the_same_is_another_edit() -> None:
    machine = Machine().after(edit(b"one", total=b"1"), edit(b"two", total=b"2"), edit(b"three", total=b"1"))
    assert state(machine) == {"total": b"1"}


def test_of_a_version_that_knows_no_requests_each_delivery_counts() -> None:
    machine = Machine().after(edit(b"", total=b"1"), edit(b"two", total=b"2"), edit(b"", total=b"1"))
    assert state(machine) == {"total": b"1"}


def test_it_is_forgotten_when_nobody_repeats_it_any_more() -> None:
    machine = Machine().after(edit(b"one"))
    assert any("/recent/" in page_id for page_id, page in machine.pages.items() if page.document)
    machine.now += model.RECENT_MS + 120_000
    machine.after(Forget())
    assert not any("/recent/" in page_id for page_id, page in machine.pages.items() if page.document)
