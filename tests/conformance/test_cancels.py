"""Cancel lets handlers clean up, all the way down; kill does not ask."""

from dataclasses import dataclass
from functools import partial

import httpx

from tests.conformance.client import Deployment, until


def waiting(services: Deployment, handler: str) -> tuple[str, str]:
    """Effect name and id of an invocation that has started its (or its child's) endless wait."""
    effect = services.effects.fresh()
    sent = services.send(f"Cancels/{handler}", {"effect": effect})
    until(lambda: services.effects.count(f"{effect}-ready"), "the wait to begin")
    return effect, sent.invocation_id


def test_a_cancelled_handler_cleans_up_and_fails(services: Deployment) -> None:
    effect, invocation = waiting(services, "wait")
    assert services.operate(invocation, "cancel").status_code in (200, 202)
    answer = services.attach(invocation)
    assert answer.status_code == 409
    assert answer.json()["source"] == "invocation"
    assert services.effects.count(f"{effect}-undone") == 1


def test_a_cancelled_handler_may_compensate_with_waits_and_end_well(services: Deployment) -> None:
    effect, invocation = waiting(services, "compensate")
    services.operate(invocation, "cancel")
    assert services.attached(invocation) == {"compensated": 409}
    assert services.effects.count(f"{effect}-undone") == 1
    assert services.effects.count(f"{effect}-started") == 1


def test_a_cancel_reaches_the_called_child_first(services: Deployment) -> None:
    effect, parent = waiting(services, "parent")
    services.operate(parent, "cancel")
    assert services.attach(parent).status_code == 409
    until(lambda: services.effects.count(f"{effect}-undone"), "the child to clean up")
    assert services.effects.count(f"{effect}-undone") == 1


def test_a_handler_cancels_another_invocation(services: Deployment) -> None:
    effect, invocation = waiting(services, "wait")
    assert services.result("Cancels/cancel", {"id": invocation}) == "cancelled"
    assert services.attach(invocation).status_code == 409
    assert services.effects.count(f"{effect}-undone") == 1


def test_the_old_form_of_cancel_works(services: Deployment) -> None:
    effect, invocation = waiting(services, "wait")
    answer = httpx.delete(f"{services.server.admin_url}/invocations/{invocation}?mode=cancel")
    assert answer.status_code == 202
    assert services.attach(invocation).status_code == 409
    assert services.effects.count(f"{effect}-undone") == 1


def test_a_kill_ends_the_invocation_without_cleaning_up(services: Deployment) -> None:
    effect, invocation = waiting(services, "wait")
    assert services.operate(invocation, "kill").status_code == 200
    answer = services.attach(invocation)
    assert answer.status_code == 409
    assert answer.json()["message"] == "killed"
    assert answer.json()["source"] == "invocation"
    assert services.effects.count(f"{effect}-undone") == 0


@dataclass(frozen=True)
class Family:
    """A parent and its three children: one called, one sent, one sent for later."""

    effect: str
    parent: str
    called: str
    sent: str
    later: str


def family(services: Deployment) -> Family:
    """All of them waiting."""
    effect, note = services.effects.fresh(), services.effects.fresh()
    parent = services.send("Cancels/parent_of_three", {"effect": effect, "note": note}).invocation_id
    called, sent, later = services.effects.note(note).split()
    for child in ("called", "sent"):
        until(partial(services.effects.count, f"{effect}-{child}-ready"), f"the {child} child")
    return Family(effect, parent, called, sent, later)


def test_a_cancel_does_not_reach_children_that_were_only_sent(services: Deployment) -> None:
    them = family(services)
    services.operate(them.parent, "cancel")
    assert services.attach(them.parent).status_code == 409
    assert services.attach(them.called).status_code == 409
    assert services.effects.count(f"{them.effect}-called-undone") == 1
    assert services.status(them.sent) in ("running", "suspended")
    assert services.status(them.later) == "scheduled"
    for child in (them.sent, them.later):
        services.operate(child, "kill")


def test_a_kill_reaches_every_child(services: Deployment) -> None:
    them = family(services)
    services.operate(them.parent, "kill")
    for invocation in (them.parent, them.called, them.sent):
        assert services.attach(invocation).json()["message"] == "killed"
    until(lambda: services.status(them.later) in (None, "completed"), "the scheduled child to be gone")
    for child in ("called", "sent", "later"):
        assert services.effects.count(f"{them.effect}-{child}-undone") == 0


def test_operations_on_a_finished_invocation_are_refused(services: Deployment) -> None:
    finished = services.send("Calls/greet", {"name": "x"}).invocation_id
    services.attached(finished)
    for operation in ("cancel", "kill"):
        assert services.operate(finished, operation).status_code == 409


def test_operations_on_an_unknown_invocation_are_404(services: Deployment) -> None:
    for operation in ("cancel", "kill", "pause", "resume", "purge"):
        answer = services.operate("inv_1kAYmJKIpZgV5K884MdgOAowlgG6NwgvR4", operation)
        assert answer.status_code == 404, operation
        assert "message" in answer.json()


def test_operations_on_a_malformed_id_are_400(services: Deployment) -> None:
    for operation in ("cancel", "kill"):
        assert services.operate("nonsense", operation).status_code == 400


def test_a_waiting_caller_is_told_of_the_kill(services: Deployment) -> None:
    effect, invocation = waiting(services, "wait")
    assert services.output(invocation).status_code == 470
    services.operate(invocation, "kill")
    until(lambda: services.output(invocation).status_code == 409, "the output to be the kill")
    assert services.effects.count(f"{effect}-undone") == 0
