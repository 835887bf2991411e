"""Functions that die, are throttled or lose their answer: the invocation goes on, its recorded steps stay."""

from functools import partial

import pytest

from tests.conformance.client import Deployment, until
from tests.support.lambda_service import Fault, LambdaServiceProcess


@pytest.fixture(params=["python-lambda", "typescript-lambda"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_function_killed_in_the_middle_of_a_step_starts_that_step_again(
    services: Deployment, functions: LambdaServiceProcess, transport: str
) -> None:
    name = services.effects.fresh()
    sent = services.send("Runs/gated", {"effect": name, "gate": name})
    until(partial(services.effects.count, name), "the step to begin")
    assert functions.kill(transport) >= 1
    assert services.failure(sent.invocation_id)
    services.effects.open(name)
    assert services.attached(sent.invocation_id) == {"before": 1, "during": 2, "after": 1}


def test_a_lost_answer_costs_one_repeated_step(services: Deployment, functions: LambdaServiceProcess, transport: str) -> None:
    name = services.effects.fresh()
    functions.inject(transport, Fault(lose_reply=True))
    assert services.result("Runs/once", {"effect": name}) == 2
    assert services.effects.count(name) == 2


def test_a_throttled_function_is_tried_again(services: Deployment, functions: LambdaServiceProcess, transport: str) -> None:
    functions.limit_concurrency(transport, 0)
    try:
        sent = services.send("Calls/greet", {"name": "patient"})
        assert services.failure(sent.invocation_id)
    finally:
        functions.limit_concurrency(transport, 20)
    assert services.attached(sent.invocation_id) == "hello patient"


@pytest.mark.holdfast_only
def test_many_share_a_function_with_room_for_two(services: Deployment, functions: LambdaServiceProcess, transport: str) -> None:
    """Each is one invocation of the function and one attempt, however often there was no room."""
    functions.limit_concurrency(transport, 2)
    before = functions.counters(transport)
    try:
        sent = [services.send("Calls/greet", {"name": str(number)}).invocation_id for number in range(40)]
        assert [services.attached(invocation_id) for invocation_id in sent] == [f"hello {number}" for number in range(40)]
    finally:
        functions.limit_concurrency(transport, 20)
    after = functions.counters(transport)
    assert after.invocations - before.invocations == 40
    assert after.throttles - before.throttles < 80


def test_nothing_runs_while_everything_waits(services: Deployment, functions: LambdaServiceProcess, transport: str) -> None:
    note = services.effects.fresh()
    sent = services.send("Awakeables/wait", {"note": note})
    awakeable = services.effects.note(note)
    services.becomes(sent.invocation_id, "suspended")
    before = functions.counters(transport).invocations
    services.resolve(awakeable, 1)
    assert services.attached(sent.invocation_id) == {"value": 1}
    assert functions.counters(transport).invocations == before + 1


@pytest.mark.holdfast_only
def test_a_caught_cancel_does_not_make_later_waits_spin(services: Deployment, functions: LambdaServiceProcess, transport: str) -> None:
    effect = services.effects.fresh()
    sent = services.send("Cancels/compensate", {"effect": effect})
    until(partial(services.effects.count, f"{effect}-ready"), "the wait to begin")
    services.becomes(sent.invocation_id, "suspended")
    before = functions.counters(transport).invocations
    services.operate(sent.invocation_id, "cancel")
    assert services.attached(sent.invocation_id) == {"compensated": 409}
    # Woken by the cancel, the sleep, the call (which itself takes two attempts and wakes once), the second sleep.
    assert functions.counters(transport).invocations - before <= 7
