"""Endpoints that answer wrongly, late or not at all: seen, retried, and nobody else's trouble."""

from collections.abc import Iterator

import pytest

from tests.conformance.client import Deployment, Effects, until
from tests.conformance.conftest import Fleet
from tests.conformance.raw_endpoint import HUGE, RETRY_AFTER_S, RawEndpoint
from tests.conformance.servers import Server


@pytest.fixture(scope="module")
def endpoint(shared_server: Server) -> Iterator[RawEndpoint]:
    with RawEndpoint() as endpoint:
        if not shared_server.alive:
            shared_server.start()
        shared_server.register(endpoint.deployment)
        yield endpoint


@pytest.fixture
def wild(server: Server, endpoint: RawEndpoint, effects: Effects) -> Iterator[Deployment]:
    """The misbehaving service: its handlers are called `Wild/<behaviour>`."""
    deployment = Deployment(server, "", effects)
    yield deployment
    deployment.http.close()


FAILING = [
    "wrong_bytes",
    "wrong_content_type",
    "nothing_at_all",
    "half_a_frame",
    "closes_before_the_answer",
    "closes_in_the_answer",
    "server_error",
    "not_found",
    "hangs",
]


@pytest.mark.parametrize("behaviour", FAILING)
def test_a_bad_answer_is_seen_and_retried_until_a_good_one(wild: Deployment, endpoint: RawEndpoint, behaviour: str) -> None:
    sent = wild.send(f"Wild/{behaviour}")
    assert wild.failure(sent.invocation_id)
    until(lambda: len(endpoint.attempts[sent.invocation_id]) >= 2, "a second attempt")
    assert wild.output(sent.invocation_id).status_code == 470
    endpoint.heal(sent.invocation_id)
    assert wild.attached(sent.invocation_id) == "healed"


def test_an_output_without_an_end_is_no_result(wild: Deployment, endpoint: RawEndpoint) -> None:
    sent = wild.send("Wild/no_end")
    assert wild.failure(sent.invocation_id)
    assert wild.output(sent.invocation_id).status_code == 470
    wild.operate(sent.invocation_id, "kill")


def test_an_answer_after_the_abort_timeout_does_not_count(wild: Deployment, endpoint: RawEndpoint) -> None:
    answer = wild.call("Wild/late")
    assert answer.json() == "in time"
    ident = answer.headers["x-restate-id"]
    until(lambda: ident in endpoint.answered_late, "the late answer")
    assert wild.output(ident).json() == "in time"


def test_retry_after_says_when_to_come_again(wild: Deployment, endpoint: RawEndpoint) -> None:
    sent = wild.send("Wild/busy")
    attempts = endpoint.attempts[sent.invocation_id]
    assert wild.failure(sent.invocation_id)
    endpoint.heal(sent.invocation_id)
    assert wild.attached(sent.invocation_id) == "healed"
    assert attempts[1] - attempts[0] >= RETRY_AFTER_S


def test_a_large_answer_is_taken(wild: Deployment, endpoint: RawEndpoint) -> None:
    answer = wild.call("Wild/huge")
    assert (answer.status_code, len(answer.content)) == (200, HUGE)


@pytest.mark.holdfast_only
def test_a_second_input_is_refused(wild: Deployment, endpoint: RawEndpoint) -> None:
    sent = wild.send("Wild/input_again")
    assert wild.failure(sent.invocation_id)
    assert wild.output(sent.invocation_id).status_code == 470
    wild.operate(sent.invocation_id, "kill")


def test_other_services_go_on_beside_failing_ones(wild: Deployment, endpoint: RawEndpoint, fleet: Fleet) -> None:
    failing = [wild.send(f"Wild/{behaviour}").invocation_id for behaviour in FAILING for _ in range(3)]
    services = fleet.deployment("python-http1")
    effect = services.effects.fresh()
    assert services.result("Runs/three", {"effect": effect}) == [1, 1, 1]
    assert services.result("Calls/call_many", {"n": 3}) == ["hello 0", "hello 1", "hello 2"]
    for invocation in failing:
        wild.operate(invocation, "kill")


def test_an_endpoint_that_is_gone_is_waited_for(server: Server, effects: Effects) -> None:
    with RawEndpoint() as endpoint:
        server.register(endpoint.deployment)
        wild = Deployment(server, "", effects)
    sent = wild.send("Wild/well")
    assert wild.failure(sent.invocation_id)
    wild.operate(sent.invocation_id, "kill")
    wild.http.close()


def test_an_address_where_nobody_listens_is_not_registered(server: Server) -> None:
    with RawEndpoint() as endpoint:
        gone = endpoint.deployment
    with pytest.raises(RuntimeError, match="META0003"):
        server.register(gone)
