"""Awakeables and named signals: results that come from outside or from other handlers."""

from tests.conformance.client import Deployment


def waiting(services: Deployment, path: str = "Awakeables/wait") -> tuple[str, str]:
    """Invocation id and what it noted: its awakeables."""
    note = services.effects.fresh()
    sent = services.send(path, {"note": note})
    return sent.invocation_id, services.effects.note(note)


def test_an_awakeable_is_resolved_from_outside(services: Deployment) -> None:
    invocation, awakeable = waiting(services)
    assert services.resolve(awakeable, {"deep": ["é", 1]}).status_code == 202
    assert services.attached(invocation) == {"value": {"deep": ["é", 1]}}


def test_an_awakeable_is_rejected_from_outside(services: Deployment) -> None:
    invocation, awakeable = waiting(services)
    assert services.reject(awakeable, "no, thanks").status_code == 202
    assert services.attached(invocation) == {"message": "no, thanks", "code": 500}


def test_an_awakeable_is_resolved_by_another_handler(services: Deployment) -> None:
    invocation, awakeable = waiting(services)
    assert services.result("Awakeables/resolve", {"id": awakeable, "value": 7}) == "resolved"
    assert services.attached(invocation) == {"value": 7}


def test_an_awakeable_is_rejected_by_another_handler(services: Deployment) -> None:
    invocation, awakeable = waiting(services)
    assert services.result("Awakeables/reject", {"id": awakeable, "reason": "inner no"}) == "rejected"
    assert services.attached(invocation) == {"message": "inner no", "code": 500}


def test_the_first_completion_of_an_awakeable_counts(services: Deployment) -> None:
    invocation, awakeable = waiting(services)
    services.resolve(awakeable, "first")
    assert services.resolve(awakeable, "second").status_code == 202
    assert services.attached(invocation) == {"value": "first"}


def test_two_awakeables_may_be_completed_in_any_order(services: Deployment) -> None:
    invocation, noted = waiting(services, "Awakeables/wait_for_two")
    first, second = noted.split()
    services.resolve(second, "second")
    services.resolve(first, "first")
    assert services.attached(invocation) == ["first", "second"]


def test_the_short_spelling_of_the_path_works_too(services: Deployment) -> None:
    invocation, awakeable = waiting(services)
    answer = services.request("POST", f"/restate/a/{awakeable}/resolve", json="short")
    assert answer.status_code == 202
    assert services.attached(invocation) == {"value": "short"}


def test_a_malformed_awakeable_is_refused(services: Deployment) -> None:
    answer = services.resolve("not-an-awakeable", 1)
    assert answer.status_code == 400
    assert answer.json()["source"] == "ingress"


def test_an_awakeable_of_a_finished_invocation_is_accepted_and_ignored(services: Deployment) -> None:
    invocation, awakeable = waiting(services)
    services.resolve(awakeable, 1)
    services.attached(invocation)
    assert services.resolve(awakeable, 2).status_code == 202
    assert services.attached(invocation) == {"value": 1}


def test_a_named_signal_reaches_its_waiter(services: Deployment) -> None:
    sent = services.send("Signals/wait", {"name": "go", "times": 1})
    services.becomes(sent.invocation_id, "running", "suspended")
    services.result("Signals/resolve", {"id": sent.invocation_id, "name": "go", "value": "now"})
    assert services.attached(sent.invocation_id) == ["now"]


def test_signals_of_one_name_queue_up(services: Deployment) -> None:
    sent = services.send("Signals/wait", {"name": "go", "times": 3})
    services.becomes(sent.invocation_id, "running", "suspended")
    for value in ("a", "b"):
        services.result("Signals/resolve", {"id": sent.invocation_id, "name": "go", "value": value})
    services.result("Signals/reject", {"id": sent.invocation_id, "name": "go", "reason": "stop"})
    assert services.attached(sent.invocation_id) == ["a", "b", "rejected: stop"]


def test_a_signal_of_another_name_is_not_taken(services: Deployment) -> None:
    sent = services.send("Signals/wait", {"name": "go", "times": 1})
    services.becomes(sent.invocation_id, "running", "suspended")
    services.result("Signals/resolve", {"id": sent.invocation_id, "name": "other", "value": "wrong"})
    services.result("Signals/resolve", {"id": sent.invocation_id, "name": "go", "value": "right"})
    assert services.attached(sent.invocation_id) == ["right"]
