"""Terminal errors are results; everything else is retried, by policy, until it succeeds, pauses or ends."""

import time

import pytest

from tests.conformance.client import Deployment, until


@pytest.mark.parametrize("code", [400, 404, 409, 418, 500, 503])
def test_a_terminal_error_is_the_answer(services: Deployment, code: int) -> None:
    answer = services.call("Errors/terminal", {"message": "no such luck", "code": code})
    assert answer.status_code == code
    told = answer.json()
    assert (told["code"], told["message"], told["source"]) == (code, "no such luck", "invocation")
    assert answer.headers["x-restate-error-source"] == "invocation"
    assert answer.headers["x-restate-id"].startswith("inv_1")


def test_a_failing_attempt_is_retried_from_where_it_was(services: Deployment) -> None:
    effect = services.effects.fresh()
    assert services.result("Errors/flaky", {"effect": effect, "failures": 3}) == {"before": 1, "attempts": 4}
    assert services.effects.count(f"{effect}-before") == 1


def test_the_handler_says_when_to_retry(services: Deployment) -> None:
    effect, started_at = services.effects.fresh(), time.monotonic()
    assert services.result("Errors/retry_after", {"effect": effect, "failures": 2, "ms": 150}) == 3
    assert time.monotonic() - started_at >= 0.3


def test_exhausted_attempts_can_end_the_invocation(services: Deployment) -> None:
    effect = services.effects.fresh()
    answer = services.call("Errors/killed_after_two", {"effect": effect})
    assert answer.status_code == 500
    assert "last words" in answer.json()["message"]
    assert answer.json()["source"] == "invocation"
    assert services.effects.count(effect) == 2


def test_exhausted_attempts_can_pause_the_invocation(services: Deployment) -> None:
    effect = services.effects.fresh()
    sent = services.send("Errors/paused_after_two", {"effect": effect, "flag": effect})
    services.becomes(sent.invocation_id, "paused")
    assert services.effects.count(effect) == 2
    services.effects.raise_flag(effect)
    assert services.operate(sent.invocation_id, "resume").status_code == 200
    assert services.attached(sent.invocation_id) == 3


def test_an_operator_pauses_and_resumes_a_failing_invocation(services: Deployment) -> None:
    effect = services.effects.fresh()
    sent = services.send("Errors/retry_after", {"effect": effect, "failures": 1, "ms": 60_000})
    services.becomes(sent.invocation_id, "backing-off")
    assert services.operate(sent.invocation_id, "pause").status_code in (200, 202)
    services.becomes(sent.invocation_id, "paused")
    assert services.operate(sent.invocation_id, "resume").status_code == 200
    assert services.attached(sent.invocation_id) == 2


def test_a_failure_is_visible_while_it_is_retried(services: Deployment) -> None:
    effect = services.effects.fresh()
    sent = services.send("Errors/retry_after", {"effect": effect, "failures": 1, "ms": 60_000})
    assert "later" in services.failure(sent.invocation_id)
    services.operate(sent.invocation_id, "kill")


def test_changed_code_is_a_visible_failure_and_healed_by_the_right_code(services: Deployment) -> None:
    name = services.effects.fresh()
    sent = services.send("Drift/act", {"flag": name, "effect": name, "note": name})
    awakeable = services.effects.note(name)
    if services.server.kind == "restate" and services.prefix == "TypescriptH2C":
        services.server.restart()  # a stream the official server keeps open would not be replayed
    else:
        services.becomes(sent.invocation_id, "suspended")
    services.effects.raise_flag(name)
    services.resolve(awakeable, "done")
    assert "570" in services.failure(sent.invocation_id)
    services.effects.lower_flag(name)
    assert services.attached(sent.invocation_id) == "done"
    assert services.effects.count(name) == 1


def test_metadata_of_a_terminal_error_arrives(services: Deployment) -> None:
    body = {"message": "with details", "code": 409, "metadata": {"a": "1", "b": "é"}}
    answer = services.call("Errors/terminal", body)
    assert answer.status_code == 409
    assert answer.json()["metadata"] == {"a": "1", "b": "é"}
    told = services.result("Calls/call_failing", body)
    assert told["metadata"] == {"a": "1", "b": "é"}


def test_retries_go_on_while_other_invocations_of_the_service_work(services: Deployment) -> None:
    effect = services.effects.fresh()
    failing = services.send("Errors/flaky", {"effect": effect, "failures": 6})
    assert services.call("Errors/terminal", {"message": "m", "code": 400}).status_code == 400
    assert services.attached(failing.invocation_id)["attempts"] == 7
    until(lambda: services.effects.count(effect) == 7, "seven attempts")
