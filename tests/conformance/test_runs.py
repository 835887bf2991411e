"""Side effects are recorded once, retried by their own policy, and never repeated by a replay."""

from tests.conformance.client import Deployment


def test_a_recorded_side_effect_happens_once(services: Deployment) -> None:
    effect = services.effects.fresh()
    assert services.result("Runs/once", {"effect": effect}) == 1
    assert services.effects.count(effect) == 1


def test_later_steps_do_not_repeat_earlier_ones(services: Deployment) -> None:
    effect = services.effects.fresh()
    assert services.result("Runs/three", {"effect": effect}) == [1, 1, 1]
    assert [services.effects.count(f"{effect}-{n}") for n in range(3)] == [1, 1, 1]


def test_parallel_side_effects_all_happen(services: Deployment) -> None:
    effect = services.effects.fresh()
    assert services.result("Runs/parallel", {"effect": effect}) == [1, 1, 1]
    assert [services.effects.count(f"{effect}-{n}") for n in range(3)] == [1, 1, 1]


def test_a_failing_side_effect_is_retried_until_it_succeeds(services: Deployment) -> None:
    effect = services.effects.fresh()
    body = {"effect": effect, "failures": 2, "attempts": 5}
    assert services.result("Runs/flaky", body) == {"succeeded": 3}
    assert services.effects.count(effect) == 3


def test_an_exhausted_side_effect_becomes_a_terminal_error(services: Deployment) -> None:
    effect = services.effects.fresh()
    body = {"effect": effect, "failures": 100, "attempts": 3}
    result = services.result("Runs/flaky", body)
    assert "failure 3" in result["exhausted"]
    assert result["code"] == 500
    assert services.effects.count(effect) == 3


def test_a_terminal_error_inside_a_side_effect_is_not_retried(services: Deployment) -> None:
    effect = services.effects.fresh()
    assert services.result("Runs/terminal", {"effect": effect}) == {"message": "refused inside", "code": 418}
    assert services.effects.count(effect) == 1
