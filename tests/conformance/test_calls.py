"""Handlers call, send to and attach to each other; arguments, headers and failures arrive unchanged."""

import time

import httpx

from tests.conformance.client import Deployment, until


def test_a_service_calls_a_service(services: Deployment) -> None:
    assert services.result("Calls/call_service", {"name": "ann"}) == "hello ann"


def test_a_service_calls_an_object(services: Deployment) -> None:
    key = services.effects.fresh()
    assert services.result("Calls/call_object", {"key": key, "by": 3}) == 3
    assert services.result("Calls/call_object", {"key": key, "by": 4}) == 7


def test_a_service_calls_a_workflow(services: Deployment) -> None:
    key = services.effects.fresh()
    result = services.result("Calls/call_workflow", {"key": key, "effect": key})
    assert result == {"answer": "yes", "runs": 1}


def test_a_handler_calls_itself_to_any_depth(services: Deployment) -> None:
    assert services.result("Calls/call_self", {"depth": 5}) == 5


def test_calls_run_side_by_side(services: Deployment) -> None:
    assert services.result("Calls/call_many", {"n": 5}) == [f"hello {n}" for n in range(5)]


def test_a_call_by_name_carries_raw_bytes(services: Deployment) -> None:
    assert services.result("Calls/call_generic") == '"hello generic"'


def test_the_callee_sees_exactly_the_callers_headers(services: Deployment) -> None:
    headers = services.result("Calls/call_with_header", {"value": "v1"}, x_outer="not forwarded")
    assert headers == {"x-from-caller": "v1"}


def test_two_calls_with_one_idempotency_key_are_one_invocation(services: Deployment) -> None:
    effect = services.effects.fresh()
    told = services.result("Calls/call_idempotent", {"effect": effect, "key": effect})
    assert told == {"same": True, "results": ["hello twice", "hello twice"]}
    assert services.effects.count(effect) == 1


def test_an_idempotency_key_means_the_same_to_handlers_and_to_the_ingress(services: Deployment) -> None:
    effect = services.effects.fresh()
    services.result("Calls/call_idempotent", {"effect": effect, "key": effect})
    body = {"name": "someone else", "effect": effect}
    assert services.result("Calls/greet", body, idempotency_key=effect) == "hello twice"
    assert services.effects.count(effect) == 1


def test_the_callees_terminal_error_reaches_the_caller(services: Deployment) -> None:
    told = services.result("Calls/call_failing", {"message": "no stock", "code": 410})
    assert told == {"message": "no stock", "code": 410, "metadata": {}}


def test_an_uncaught_error_of_the_callee_becomes_the_callers(services: Deployment) -> None:
    answer = services.call("Calls/pass_on_failure", {"message": "sold out", "code": 410})
    assert answer.status_code == 410
    told = answer.json()
    assert (told["code"], told["message"], told["source"]) == (410, "sold out", "invocation")


def test_private_handlers_can_be_called_by_handlers(services: Deployment) -> None:
    assert services.result("Calls/call_hidden") == ["secret", "internal"]


def test_private_handlers_cannot_be_called_from_outside(services: Deployment) -> None:
    for path in ("Hidden/secret", "Calls/internal"):
        answer = services.call(path)
        assert answer.status_code == 400
        assert answer.json()["source"] == "ingress"


def test_a_call_to_an_unknown_service_is_retried_not_failed(services: Deployment) -> None:
    sent = services.send("Calls/call_missing")
    assert services.failure(sent.invocation_id)
    services.operate(sent.invocation_id, "kill")


def test_a_send_starts_an_invocation_and_tells_its_id(services: Deployment) -> None:
    effect = services.effects.fresh()
    child = services.result("Calls/send", {"effect": effect})
    assert services.attached(child) == "hello sent"
    assert services.effects.count(effect) == 1


def test_a_delayed_send_starts_when_it_is_due(services: Deployment) -> None:
    effect, started_at = services.effects.fresh(), time.monotonic()
    child = services.result("Calls/send_delayed", {"effect": effect, "ms": 300})
    assert services.attached(child) == "hello later"
    assert time.monotonic() - started_at >= 0.3
    assert services.effects.count(effect) == 1


def test_a_delayed_send_outlives_its_sender(services: Deployment) -> None:
    effect = services.effects.fresh()
    child = services.result("Calls/send_delayed", {"effect": effect, "ms": 60_000})
    services.becomes(child, "scheduled")
    assert services.operate(child, "cancel").status_code == httpx.codes.OK
    until(lambda: services.status(child) in (None, "completed"), "the scheduled child to be gone")
    assert services.effects.count(effect) == 0


def test_sends_to_one_object_keep_their_order(services: Deployment) -> None:
    key = services.effects.fresh()
    assert services.result("Calls/send_in_order", {"key": key, "n": 8}) == list(range(8))


def test_a_handler_attaches_to_a_running_invocation(services: Deployment) -> None:
    target = services.send("Timers/sleep", {"ms": 100}).invocation_id
    assert services.result("Calls/attach", {"id": target}) == {"result": "slept"}


def test_a_handler_attaches_to_a_finished_invocation(services: Deployment) -> None:
    target = services.send("Calls/greet", {"name": "done"}).invocation_id
    services.attached(target)
    assert services.result("Calls/attach", {"id": target}) == {"result": "hello done"}


def test_attaching_to_an_unknown_invocation_is_a_terminal_404(services: Deployment) -> None:
    told = services.result("Calls/attach", {"id": "inv_1kAYmJKIpZgV5K884MdgOAowlgG6NwgvR4"})
    assert told == {"message": "not found", "code": 404}
