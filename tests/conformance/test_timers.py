"""Sleeps end when they are due, never earlier, and nothing before them happens again."""

import time

import pytest

from tests.conformance.client import Deployment


def test_a_sleep_lasts_at_least_its_time(services: Deployment) -> None:
    started_at = time.monotonic()
    assert services.result("Timers/sleep", {"ms": 150}) == "slept"
    assert time.monotonic() - started_at >= 0.15


def test_a_sleep_of_nothing_ends_at_once(services: Deployment) -> None:
    assert services.result("Timers/sleep", {"ms": 0}) == "slept"


def test_side_effects_around_a_sleep_happen_once(services: Deployment) -> None:
    effect = services.effects.fresh()
    assert services.result("Timers/between", {"effect": effect, "ms": 50}) == [1, 1]
    assert services.effects.count(f"{effect}-before") == 1
    assert services.effects.count(f"{effect}-after") == 1


def test_the_shorter_of_two_sleeps_wins(services: Deployment) -> None:
    assert services.result("Timers/race", {"ms": 30}) == "fast"


def test_a_sleeping_invocation_is_suspended(services: Deployment) -> None:
    if services.prefix == "TypescriptH2C" and services.server.kind == "restate":
        pytest.skip("the official server keeps a stream open for its inactivity timeout before it suspends")
    sent = services.send("Timers/sleep", {"ms": 60_000})
    services.becomes(sent.invocation_id, "suspended")
    services.operate(sent.invocation_id, "kill")
