"""What is over runs again, from its input or from the middle; journals may go before results; what waits may be moved."""

import pytest

from tests.conformance.client import Deployment

# Entries of `Runs/three`: the input, three runs each with its result behind it, the output.
FIRST_RUN, SECOND_RUN, OUTPUT = 1, 3, 7


def counts(services: Deployment, effect: str) -> list[int]:
    return [services.effects.count(f"{effect}-{number}") for number in range(3)]


def three_steps(services: Deployment) -> tuple[str, str]:
    """Effect name and id of a finished invocation of three steps."""
    effect = services.effects.fresh()
    answer = services.call("Runs/three", {"effect": effect})
    assert answer.json() == [1, 1, 1]
    return effect, answer.headers["x-restate-id"]


def restarted(services: Deployment, invocation: str, query: str = "") -> str:
    answer = services.operate(invocation, f"restart-as-new{query}")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["new_invocation_id"])


def test_a_restart_does_everything_again_under_another_id(services: Deployment) -> None:
    effect, invocation = three_steps(services)
    again = restarted(services, invocation)
    assert again != invocation
    assert services.attached(again) == [2, 2, 2]
    assert services.attached(invocation) == [1, 1, 1]
    assert counts(services, effect) == [2, 2, 2]


@pytest.mark.parametrize(
    ("entry", "result"), [(FIRST_RUN, [1, 2, 2]), (FIRST_RUN + 1, [1, 2, 2]), (SECOND_RUN, [1, 1, 2]), (OUTPUT, [1, 1, 1])]
)
def test_a_restart_from_the_middle_repeats_only_what_comes_behind(services: Deployment, entry: int, result: list[int]) -> None:
    effect, invocation = three_steps(services)
    again = restarted(services, invocation, f"?from={entry}")
    assert services.attached(again) == result
    assert counts(services, effect) == result


def test_there_is_no_entry_behind_the_last(services: Deployment) -> None:
    _, invocation = three_steps(services)
    answer = services.operate(invocation, f"restart-as-new?from={OUTPUT + 1}")
    assert (answer.status_code, "without respective Completions" in answer.json()["message"]) == (400, True)


def test_what_was_killed_in_a_wait_restarts_from_before_it(services: Deployment) -> None:
    effect = services.effects.fresh()
    invocation = services.send("Timers/between", {"effect": effect, "ms": 3_600_000}).invocation_id
    services.becomes(invocation, "suspended")
    assert services.operate(invocation, "restart-as-new").status_code == 409
    services.operate(invocation, "kill")
    services.becomes(invocation, "completed")
    sleep = 5  # the input, two runs with their results, the sleep
    assert services.operate(invocation, f"restart-as-new?from={sleep}").status_code == 400
    again = restarted(services, invocation, f"?from={sleep - 1}")
    services.becomes(again, "suspended")
    assert services.effects.count(f"{effect}-ready") == 1
    services.operate(again, "kill")


def test_signals_of_the_prefix_come_along(services: Deployment) -> None:
    note = services.effects.fresh()
    invocation = services.send("Awakeables/wait", {"note": note}).invocation_id
    awakeable = services.effects.note(note)
    services.becomes(invocation, "suspended")  # the run is noted before its result is stored, and the signal is to come behind it
    services.resolve(awakeable, "yes")
    result = services.attached(invocation)
    signal = 3  # the input, a run with its result, the signal
    assert services.attached(restarted(services, invocation, f"?from={signal}")) == result
    without = restarted(services, invocation, f"?from={signal - 1}")
    services.becomes(without, "suspended")
    services.operate(without, "kill")


def test_a_restarted_object_handler_waits_for_its_key(services: Deployment) -> None:
    key, note = services.effects.fresh(), services.effects.fresh()
    first = services.call(f"Counter/{key}/add", {"by": 2})
    services.send(f"Counter/{key}/hold", {"note": note})
    awakeable = services.effects.note(note)
    again = restarted(services, first.headers["x-restate-id"])
    services.becomes(again, "pending")
    services.resolve(awakeable, "go on")
    services.attached(again)
    assert services.result(f"Counter/{key}/value") == 2 * first.json()


def test_a_workflow_is_not_restarted(services: Deployment) -> None:
    answer = services.call(f"Flow/{services.effects.fresh()}/peek")
    assert services.operate(answer.headers["x-restate-id"], "restart-as-new").status_code == 422


def test_a_purged_journal_leaves_the_result(services: Deployment) -> None:
    _, invocation = three_steps(services)
    for _ in range(2):
        assert services.operate(invocation, "purge-journal").status_code == 200
    assert services.attached(invocation) == [1, 1, 1]
    assert services.operate(invocation, "restart-as-new").status_code == 410


def test_what_waits_is_moved_and_goes_on(services: Deployment) -> None:
    note = services.effects.fresh()
    invocation = services.send("Awakeables/wait", {"note": note}).invocation_id
    awakeable = services.effects.note(note)
    services.becomes(invocation, "suspended")
    unknown = services.operate(invocation, "resume?deployment=dp_10q3ABR8ZpLsF9H5oGUUHXb")
    assert (unknown.status_code, "deployment was not found" in unknown.json()["message"]) == (400, True)
    assert services.operate(invocation, "resume?deployment=latest").status_code == 200
    services.resolve(awakeable, "yes")
    assert services.attached(invocation)


@pytest.mark.holdfast_only
def test_a_restart_from_the_middle_draws_the_same_random_numbers(services: Deployment) -> None:
    answer = services.call("Payloads/random", {"note": services.effects.fresh()})
    assert services.attached(restarted(services, answer.headers["x-restate-id"], "?from=2")) == answer.json()
