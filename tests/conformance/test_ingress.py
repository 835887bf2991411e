"""The front door: sends, delays, idempotency, attach and output in all their forms, and refusals."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.conformance.client import Deployment, until

UNKNOWN = "inv_1kAYmJKIpZgV5K884MdgOAowlgG6NwgvR4"


def test_a_send_is_accepted_and_its_result_attached_to(services: Deployment) -> None:
    sent = services.send("Calls/greet", {"name": "bob"})
    assert sent.status == "Accepted"
    assert sent.invocation_id.startswith("inv_1")
    assert len(sent.invocation_id) == 38
    answer = services.attach(sent.invocation_id)
    assert answer.json() == "hello bob"
    assert answer.headers["x-restate-id"] == sent.invocation_id


def test_a_delayed_send_tells_its_time_and_starts_then(services: Deployment) -> None:
    effect, started_at = services.effects.fresh(), time.monotonic()
    sent = services.send("Calls/greet", {"name": "late", "effect": effect}, delay="300ms")
    assert sent.execution_time is not None
    assert sent.execution_time.endswith("Z")
    assert services.output(sent.invocation_id).status_code == 470
    assert services.attached(sent.invocation_id) == "hello late"
    assert time.monotonic() - started_at >= 0.3
    assert services.effects.count(effect) == 1


@pytest.mark.parametrize("delay", ["PT0.1S", "100ms", "1 ms"])
def test_delays_are_written_in_several_ways(services: Deployment, delay: str) -> None:
    sent = services.send("Calls/greet", {"name": "late"}, delay=delay)
    assert services.attached(sent.invocation_id) == "hello late"


@pytest.mark.parametrize("delay", ["", "-1s", "soon", "1mo"])
def test_a_delay_that_is_none_is_refused(services: Deployment, delay: str) -> None:
    path = f"/{services.prefix}Calls/greet/send"
    answer = services.request("POST", path, params={"delay": delay}, json={"name": "x"})
    assert answer.status_code == 400
    assert answer.json()["source"] == "ingress"


def test_a_call_takes_no_delay(services: Deployment) -> None:
    path = f"/{services.prefix}Calls/greet"
    answer = services.request("POST", path, params={"delay": "1s"}, json={"name": "x"})
    assert answer.status_code == 400


def test_an_idempotent_call_runs_once(services: Deployment) -> None:
    effect = services.effects.fresh()
    body = {"name": "once", "effect": effect}
    first = services.call("Calls/greet", body, idempotency_key=effect)
    again = services.call("Calls/greet", {"name": "ignored", "effect": effect}, idempotency_key=effect)
    assert first.json() == again.json() == "hello once"
    assert first.headers["x-restate-id"] == again.headers["x-restate-id"]
    assert "idempotency-expires" not in first.headers
    assert "idempotency-expires" in again.headers
    assert services.effects.count(effect) == 1


def test_idempotent_calls_at_the_same_time_are_one(services: Deployment) -> None:
    effect = services.effects.fresh()
    body = {"effect": effect, "ms": 100}
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(services.result, "Timers/between", body, idempotency_key=effect) for _ in range(8)]
    assert [call.result() for call in calls] == [[1, 1]] * 8
    assert services.effects.count(f"{effect}-before") == 1


def test_an_idempotent_failure_is_kept_too(services: Deployment) -> None:
    key, body = services.effects.fresh(), {"message": "kept", "code": 422}
    first = services.call("Errors/terminal", body, idempotency_key=key)
    again = services.call("Errors/terminal", {"message": "other", "code": 400}, idempotency_key=key)
    assert first.status_code == again.status_code == 422
    assert again.json()["message"] == "kept"


def test_an_idempotent_send_is_accepted_once(services: Deployment) -> None:
    effect = services.effects.fresh()
    body = {"name": "s", "effect": effect}
    first = services.send("Calls/greet", body, idempotency_key=effect)
    again = services.send("Calls/greet", body, idempotency_key=effect)
    assert (first.status, again.status) == ("Accepted", "PreviouslyAccepted")
    assert first.invocation_id == again.invocation_id
    assert services.attached(first.invocation_id) == "hello s"
    assert services.effects.count(effect) == 1


def test_an_idempotency_key_belongs_to_one_handler(services: Deployment) -> None:
    key = services.effects.fresh()
    greeted = services.call("Calls/greet", {"name": "x"}, idempotency_key=key)
    echoed = services.call("Payloads/json", {"name": "x"}, idempotency_key=key)
    assert greeted.json() == "hello x"
    assert echoed.json() == {"name": "x"}


def test_an_idempotency_key_belongs_to_one_object_key(services: Deployment) -> None:
    key = services.effects.fresh()
    for name in (key, key + "-other"):
        for _ in range(2):
            assert services.result(f"Counter/{name}/add", {"by": 1}, idempotency_key=key) == 1


def test_a_result_is_found_by_idempotency_key(services: Deployment) -> None:
    key = services.effects.fresh()
    address = f"/restate/invocation/{services.prefix}Runs/gated/{key}"
    services.send("Runs/gated", {"effect": key, "gate": key}, idempotency_key=key)
    assert services.request("GET", f"{address}/output").status_code == 470
    services.effects.open(key)
    result = {"before": 1, "during": 1, "after": 1}
    assert services.request("GET", f"{address}/attach").json() == result
    assert services.request("GET", f"{address}/output").json() == result


def test_a_result_of_an_object_is_found_by_idempotency_key(services: Deployment) -> None:
    key = services.effects.fresh()
    services.result(f"Counter/{key}/add", {"by": 2}, idempotency_key=key)
    address = f"/restate/invocation/{services.prefix}Counter/{key}/add/{key}"
    assert services.request("GET", f"{address}/output").json() == 2
    assert services.request("GET", f"{address}/attach").json() == 2


def test_a_result_is_found_by_a_target_in_the_body(services: Deployment) -> None:
    key = services.effects.fresh()
    sent = services.send("Calls/greet", {"name": "t"}, idempotency_key=key)
    target = {
        "target": "idempotentInvocation",
        "service": f"{services.prefix}Calls",
        "handler": "greet",
        "idempotencyKey": key,
    }
    looked_up = services.request("POST", "/restate/lookup", json=target)
    assert looked_up.json() == {"invocationId": sent.invocation_id}
    assert services.request("POST", "/restate/attach", json=target).json() == "hello t"
    assert services.request("POST", "/restate/output", json=target).json() == "hello t"


def test_the_output_of_a_call_without_idempotency_key_is_kept(services: Deployment) -> None:
    answer = services.call("Calls/greet", {"name": "kept"})
    output = services.output(answer.headers["x-restate-id"])
    assert (output.status_code, output.json()) == (200, "hello kept")


def test_output_before_the_end_is_470(services: Deployment) -> None:
    sent = services.send("Timers/sleep", {"ms": 60_000})
    answer = services.output(sent.invocation_id)
    assert answer.status_code == 470
    assert answer.json()["source"] == "ingress"
    services.operate(sent.invocation_id, "kill")


def test_output_of_an_unknown_invocation_is_404(services: Deployment) -> None:
    answer = services.output(UNKNOWN)
    assert answer.status_code == 404
    assert answer.json() == {"code": 404, "message": "invocation not found", "source": "ingress"}


def test_attach_to_an_unknown_invocation_is_404(services: Deployment) -> None:
    answer = services.attach(UNKNOWN)
    assert answer.status_code == 404
    assert answer.json() == {"code": 404, "message": "not found", "source": "invocation"}


def test_a_malformed_invocation_id_is_400(services: Deployment) -> None:
    for answer in (services.attach("nonsense"), services.output("nonsense")):
        assert answer.status_code == 400
        assert answer.json()["source"] == "ingress"


@pytest.mark.parametrize("path", ["Absent/handler", "Calls/absent", "Counter/key/absent"])
def test_what_does_not_exist_is_404(services: Deployment, path: str) -> None:
    answer = services.call(path)
    assert answer.status_code == 404
    assert answer.json()["source"] == "ingress"
    assert answer.headers["x-restate-error-source"] == "ingress"


@pytest.mark.parametrize("path", ["Calls", "Calls/greet/extra/parts", "Counter/add"])
def test_a_path_of_the_wrong_shape_is_400(services: Deployment, path: str) -> None:
    answer = services.call(path)
    assert answer.status_code == 400
    assert answer.json()["source"] == "ingress"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_other_methods_are_405(services: Deployment, method: str) -> None:
    answer = services.request(method, f"/{services.prefix}Calls/greet", json={})
    assert answer.status_code == 405


def test_the_newer_spelling_of_the_paths_works(services: Deployment) -> None:
    called = services.request("POST", f"/restate/call/{services.prefix}Calls/greet", json={"name": "n"})
    assert called.json() == "hello n"
    sent = services.request("POST", f"/restate/send/{services.prefix}Calls/greet", json={"name": "n"})
    assert sent.status_code == 202
    ident = sent.json()["invocationId"]
    assert services.request("GET", f"/restate/attach/{ident}").json() == "hello n"
    assert services.request("GET", f"/restate/output/{ident}").json() == "hello n"


def test_a_caller_that_goes_away_changes_nothing(services: Deployment) -> None:
    effect = services.effects.fresh()
    body, headers = {"effect": effect, "gate": effect}, {"idempotency-key": effect}
    path = f"/{services.prefix}Runs/gated"
    with pytest.raises(Exception, match="timed out"):
        services.request("POST", path, json=body, headers=headers, timeout=httpx.Timeout(60, read=0.5))
    until(lambda: services.effects.count(effect), "the run to begin")
    services.effects.open(effect)
    result = {"before": 1, "during": 1, "after": 1}
    assert services.result("Runs/gated", body, idempotency_key=effect) == result


def test_a_purged_result_is_forgotten(services: Deployment) -> None:
    effect = services.effects.fresh()
    body = {"name": "p", "effect": effect}
    ident = services.call("Calls/greet", body, idempotency_key=effect).headers["x-restate-id"]
    until(lambda: services.operate(ident, "purge").status_code == 200, "the purge")
    until(lambda: services.output(ident).status_code == 404, "the result to be gone")
    services.result("Calls/greet", body, idempotency_key=effect)
    assert services.effects.count(effect) == 2


def test_health_lists_the_services(services: Deployment) -> None:
    answer = services.request("GET", "/restate/health")
    assert f"{services.prefix}Calls" in answer.json()["services"]
