"""The sample services do what their documentation says, side effects counted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from handlers import cart, orders, reminders, signup

from holdfast.endpoint import Endpoint
from holdfast.protocol.messages import OneWayCallCommand, OutputCommand, SendSignalCommand, parse
from tests.sdk.tiny_runtime import CHILD, Journal, run_to_end

ORDER = {"id": "o1", "item": "teapot", "quantity": 2, "card": "4242", "street": "Main St 1"}


class Played:
    """A handler run to its end: its result or failure, and its journal."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        output = journal.output
        assert isinstance(output, OutputCommand)
        self.failure = (output.failure.code, output.failure.message) if output.HasField("failure") else None
        self.value: Any = json.loads(output.value.content) if output.value.content else None


@pytest.fixture
def effects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """The names of the side effects so far."""
    ledger = tmp_path / "ledger"
    monkeypatch.setenv("HOLDFAST_DEMO_LEDGER", str(ledger))
    return lambda: [json.loads(line)["effect"] for line in ledger.read_text().splitlines()] if ledger.exists() else []


def play(service: Any, handler: str, value: Any = None, *events: str, state: dict[bytes, bytes] | None = None) -> Played:
    """Runs a handler; `events` happen one by one when it waits."""
    journal = Journal(body=b"" if value is None else json.dumps(value).encode())
    journal.state.update(state or {})
    left = list(events)
    run_to_end(journal, Endpoint([service]), f"/invoke/{service.name}/{handler}", lambda journal: journal.happen(left.pop(0)))
    return Played(journal)


def test_an_order_is_taken_step_by_step(effects: Callable[[], list[str]]) -> None:
    played = play(orders.orders, "checkout", ORDER)
    assert played.value["total_cents"] == 4900
    assert effects() == ["stock.reserved", "payment.charged", "parcel.dispatched"]
    assert len(played.journal.responses) == 4
    survey = parse(played.journal.commands[-2].type, played.journal.commands[-2].body)
    assert isinstance(survey, OneWayCallCommand)
    assert (survey.service_name, survey.handler_name) == ("orders", "thank")


def test_an_order_that_cannot_be_delivered_is_undone_in_reverse(effects: Callable[[], list[str]]) -> None:
    played = play(orders.orders, "checkout", {**ORDER, "street": "Nowhere 1"})
    assert played.failure == (422, "cannot deliver to 'Nowhere 1'")
    assert effects() == ["stock.reserved", "payment.charged", "payment.refunded", "stock.released"]


def test_a_declined_card_leaves_nothing_reserved(effects: Callable[[], list[str]]) -> None:
    played = play(orders.orders, "checkout", {**ORDER, "card": "0000"})
    assert played.failure == (402, "the card was declined")
    assert effects()[-1] == "stock.released"
    assert "payment.charged" not in effects()


def test_a_senseless_order_touches_nothing(effects: Callable[[], list[str]]) -> None:
    assert play(orders.orders, "checkout", {**ORDER, "item": "tank"}).failure is not None
    assert effects() == []


def test_a_confirmed_sign_up_is_welcomed(effects: Callable[[], list[str]]) -> None:
    played = play(signup.signup, "run", {"email": "a@b.c"}, "promise 4")
    assert played.value == "active"
    assert effects() == ["account.created", "mail.confirmation", "mail.welcome"]
    assert played.journal.state[b"status"] == b'"active"'


def test_a_sign_up_nobody_confirms_expires(effects: Callable[[], list[str]]) -> None:
    played = play(signup.signup, "run", {"email": "a@b.c"}, "sleep 3")
    assert played.value == "expired"
    assert effects() == ["account.created", "mail.confirmation", "account.deleted"]


def test_a_cart_adds_up_and_is_handed_over_once(effects: Callable[[], list[str]]) -> None:
    cup = {"sku": "cup", "quantity": 2, "price_cents": 690}
    first = play(cart.cart, "add", cup)
    second = play(cart.cart, "add", cup, state=first.journal.state)
    assert second.value == {"lines": [{**cup, "quantity": 4}], "total_cents": 2760}
    bought = play(cart.cart, "checkout", state=second.journal.state)
    assert bought.value["total_cents"] == 2760
    assert bought.journal.state == {}
    assert effects() == ["cart.handed_over"]
    assert play(cart.cart, "checkout").failure == (409, "the cart is empty")


def test_a_reminder_is_sent_later_and_can_be_called_off(effects: Callable[[], list[str]]) -> None:
    played = play(reminders.reminders, "schedule", {"to": "+41", "text": "cake"})
    assert played.value == CHILD
    called_off = play(reminders.reminders, "call_off", CHILD)
    signal = parse(called_off.journal.commands[1].type, called_off.journal.commands[1].body)
    assert isinstance(signal, SendSignalCommand)
    assert (signal.target_invocation_id, signal.idx) == (CHILD, 1)
    assert effects() == []
    play(reminders.reminders, "deliver", {"to": "+41", "text": "cake"})
    assert effects() == ["sms.sent"]
