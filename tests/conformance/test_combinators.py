"""Waiting for several results at once: all, the first, the first success, all outcomes, or a timeout."""

from tests.conformance.client import Deployment


def test_all_results_are_collected_in_order(services: Deployment) -> None:
    assert services.result("Combine/all") == ["hello a", "b", "slept"]


def test_the_first_result_wins(services: Deployment) -> None:
    assert services.result("Combine/first") == ["fast", "hello fast"]


def test_the_first_success_wins_over_an_earlier_failure(services: Deployment) -> None:
    assert services.result("Combine/any") == "slept"


def test_failures_and_successes_are_collected(services: Deployment) -> None:
    assert services.result("Combine/settled") == ["bad", "hello good"]


def test_a_timeout_ends_the_waiting(services: Deployment) -> None:
    assert services.result("Combine/timeout", {"ms": 30}) == "timeout"
