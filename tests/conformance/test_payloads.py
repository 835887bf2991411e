"""Bodies and headers arrive byte for byte, small and large, and handlers say what they accept."""

import json
import random

import pytest

from tests.conformance.client import Deployment

MEGABYTE = 1_000_000
BINARY = {"content-type": "application/octet-stream"}


def test_raw_bytes_come_back_unchanged(services: Deployment) -> None:
    body = bytes(range(256)) + b"\r\n\x00"
    answer = services.request("POST", f"/{services.prefix}Payloads/bytes", content=body, headers=BINARY)
    assert answer.status_code == 200
    assert answer.content == body
    assert answer.headers["content-type"] == "application/octet-stream"


def test_raw_bytes_pass_through_calls_and_side_effects(services: Deployment) -> None:
    body = bytes(range(256))
    for handler in ("bytes_through_a_call", "bytes_through_a_run"):
        answer = services.request("POST", f"/{services.prefix}Payloads/{handler}", content=body, headers=BINARY)
        assert (answer.status_code, answer.content) == (200, body), handler


def test_a_large_payload_goes_in_and_out(services: Deployment) -> None:
    body = random.Random(1).randbytes(2 * MEGABYTE)
    answer = services.request("POST", f"/{services.prefix}Payloads/bytes", content=body, headers=BINARY)
    assert answer.status_code == 200
    assert answer.content == body


def test_a_large_payload_passes_through_a_call(services: Deployment) -> None:
    # Each of the two invocations carries it in and out, and over Lambda in base64 within 6 MB.
    body = random.Random(2).randbytes(1 * MEGABYTE)
    answer = services.request("POST", f"/{services.prefix}Payloads/bytes_through_a_call", content=body, headers=BINARY)
    assert answer.status_code == 200
    assert answer.content == body


def test_a_payload_too_large_for_lambda_is_a_visible_failure(services: Deployment, transport: str) -> None:
    if not transport.endswith("-lambda"):
        pytest.skip("only Lambda has this limit")
    body = random.Random(3).randbytes(5 * MEGABYTE)  # 6.7 MB in base64
    path = f"/{services.prefix}Payloads/bytes/send"
    sent = services.request("POST", path, content=body, headers=BINARY).json()["invocationId"]
    assert services.failure(sent)
    assert services.output(sent).status_code == 470
    services.operate(sent, "kill")


def test_json_of_every_shape_comes_back(services: Deployment) -> None:
    shapes: list[object] = [{}, [], "é\u2028", 0, 1.5, True, {"deep": [{"x": None}]}]
    for value in shapes:
        assert services.result("Payloads/json", value) == value


def test_a_handler_without_input_and_output_answers_nothing(services: Deployment) -> None:
    answer = services.request("POST", f"/{services.prefix}Payloads/nothing")
    assert (answer.status_code, answer.content) == (200, b"")


def test_a_handler_without_input_refuses_one(services: Deployment) -> None:
    answer = services.call("Payloads/nothing", {"unexpected": True})
    assert answer.status_code == 400
    assert answer.json()["source"] == "ingress"


def test_a_wrong_content_type_is_refused(services: Deployment) -> None:
    headers = {"content-type": "text/plain"}
    answer = services.request("POST", f"/{services.prefix}Calls/greet", content="hi", headers=headers)
    assert answer.status_code == 400
    assert answer.json()["source"] == "ingress"
    assert "text/plain" in answer.json()["message"]


def test_the_handler_sees_the_clients_headers(services: Deployment) -> None:
    headers = services.result("Payloads/headers", {}, x_custom="Value", authorization="Bearer t", idempotency_key="k")
    assert headers["x-custom"] == "Value"
    assert headers["authorization"] == "Bearer t"
    assert headers["content-type"] == "application/json"
    assert headers["x-restate-ingress-path"] == f"/{services.prefix}Payloads/headers"
    assert "idempotency-key" not in headers
    assert "host" not in headers


def test_the_handler_knows_its_invocation_id(services: Deployment) -> None:
    answer = services.call("Payloads/invocation_id")
    assert json.loads(answer.content) == answer.headers["x-restate-id"]


def test_randomness_is_the_same_in_every_attempt(services: Deployment) -> None:
    note = services.effects.fresh()
    assert services.result("Payloads/random", {"note": note}) == services.effects.note(note)


def test_a_get_calls_a_handler_too(services: Deployment) -> None:
    answer = services.request("GET", f"/{services.prefix}Payloads/nothing")
    assert answer.status_code == 200
