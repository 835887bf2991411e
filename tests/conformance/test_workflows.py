"""Workflows run once per key and talk to the outside through durable promises and shared handlers."""

from tests.conformance.client import Deployment


def started(services: Deployment) -> tuple[str, str]:
    """Key and invocation id of a run that waits for its approval."""
    key = services.effects.fresh()
    return key, services.send(f"Flow/{key}/run", {"effect": key}).invocation_id


def address(services: Deployment, key: str, what: str) -> str:
    return f"/restate/workflow/{services.prefix}Flow/{key}/{what}"


def test_a_promise_resolved_by_a_shared_handler_ends_the_run(services: Deployment) -> None:
    key, run = started(services)
    assert services.result(f"Flow/{key}/approve", {"value": "yes"}) == "approved"
    assert services.attached(run) == {"answer": "yes", "runs": 1}


def test_a_rejected_promise_fails_the_run(services: Deployment) -> None:
    key, run = started(services)
    assert services.result(f"Flow/{key}/reject", {"reason": "too dear"}) == "rejected"
    answer = services.attach(run)
    assert answer.status_code == 500
    assert answer.json()["message"] == "too dear"
    assert answer.json()["source"] == "invocation"


def test_a_promise_can_be_resolved_before_the_run_starts(services: Deployment) -> None:
    key = services.effects.fresh()
    services.result(f"Flow/{key}/approve", {"value": "early"})
    assert services.result(f"Flow/{key}/run", {"effect": key}) == {"answer": "early", "runs": 1}


def test_peeking_never_waits(services: Deployment) -> None:
    key, run = started(services)
    assert services.result(f"Flow/{key}/peek") is None
    services.result(f"Flow/{key}/approve", {"value": "seen"})
    assert services.result(f"Flow/{key}/peek") == "seen"
    services.attached(run)


def test_a_promise_is_completed_once(services: Deployment) -> None:
    key, run = started(services)
    services.result(f"Flow/{key}/approve", {"value": "first"})
    again = services.call(f"Flow/{key}/approve", {"value": "second"})
    assert again.status_code == 409
    assert again.json()["message"] == "promise was already completed"
    assert services.attached(run)["answer"] == "first"


def test_any_number_of_handlers_wait_for_one_promise(services: Deployment) -> None:
    key, run = started(services)
    waiters = [services.send(f"Flow/{key}/wait").invocation_id for _ in range(3)]
    services.result(f"Flow/{key}/approve", {"value": "all"})
    assert [services.attached(waiter) for waiter in waiters] == ["all"] * 3
    services.attached(run)


def test_shared_handlers_read_the_runs_state(services: Deployment) -> None:
    key, run = started(services)
    assert services.result(f"Flow/{key}/stage") in (None, "waiting")
    services.result(f"Flow/{key}/approve", {"value": "ok"})
    services.attached(run)
    assert services.result(f"Flow/{key}/stage") == "done"


def test_a_second_send_of_a_run_is_the_same_invocation(services: Deployment) -> None:
    key, run = started(services)
    again = services.send(f"Flow/{key}/run", {"effect": key})
    assert (again.invocation_id, again.status) == (run, "PreviouslyAccepted")
    services.result(f"Flow/{key}/approve", {"value": "ok"})
    services.attached(run)
    assert services.send(f"Flow/{key}/run", {"effect": key}).status == "PreviouslyAccepted"
    assert services.effects.count(key) == 1


def test_a_second_call_of_a_run_is_refused(services: Deployment) -> None:
    key, run = started(services)
    answer = services.call(f"Flow/{key}/run", {"effect": key})
    assert answer.status_code == 409
    assert answer.json()["message"] == "the workflow method was already invoked"
    assert answer.json()["source"] == "invocation"
    services.result(f"Flow/{key}/approve", {"value": "ok"})
    services.attached(run)


def test_a_run_is_attached_to_by_its_key(services: Deployment) -> None:
    key, run = started(services)
    output = services.request("GET", address(services, key, "output"))
    assert output.status_code == 470
    services.result(f"Flow/{key}/approve", {"value": "ok"})
    attached = services.request("GET", address(services, key, "attach"))
    assert attached.json() == {"answer": "ok", "runs": 1}
    assert attached.headers["x-restate-id"] == run
    assert services.request("GET", address(services, key, "output")).json() == attached.json()


def test_an_unknown_run_has_no_output(services: Deployment) -> None:
    answer = services.request("GET", address(services, services.effects.fresh(), "output"))
    assert answer.status_code == 404
    assert answer.json()["source"] == "ingress"


def test_a_run_takes_no_idempotency_key(services: Deployment) -> None:
    answer = services.call(f"Flow/{services.effects.fresh()}/run", {"effect": "x"}, idempotency_key="k")
    assert answer.status_code == 400
    assert answer.json()["source"] == "ingress"


def test_two_workflows_of_different_keys_do_not_share_promises(services: Deployment) -> None:
    one, run_one = started(services)
    two, run_two = started(services)
    services.result(f"Flow/{two}/approve", {"value": "two"})
    assert services.attached(run_two)["answer"] == "two"
    assert services.output(run_one).status_code == 470
    services.result(f"Flow/{one}/approve", {"value": "one"})
    assert services.attached(run_one)["answer"] == "one"
