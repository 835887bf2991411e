"""The server is killed in the middle of everything; on the same store all of it completes, nothing twice."""

from functools import partial

import httpx
import pytest

from tests.conformance.client import Deployment, until


def test_everything_in_flight_survives_a_killed_server(services: Deployment) -> None:
    effects = services.effects
    name = effects.fresh()

    sleeping = services.send("Timers/between", {"effect": f"{name}-sleep", "ms": 1_000})
    awaiting = services.send("Awakeables/wait", {"note": f"{name}-awakeable"})
    awakeable = effects.note(f"{name}-awakeable")
    running = services.send("Runs/gated", {"effect": f"{name}-run", "gate": name})
    holder = services.send(f"Counter/{name}/hold", {"note": f"{name}-hold"})
    held = effects.note(f"{name}-hold")
    queued = [services.send(f"Counter/{name}/append", {"value": n}) for n in range(3)]
    delayed = services.send("Calls/greet", {"name": "delayed", "effect": f"{name}-delayed"}, delay="800ms")
    flow = services.send(f"Flow/{name}/run", {"effect": f"{name}-flow"})
    parent = services.send("Cancels/parent", {"effect": f"{name}-child"})
    for started in (f"{name}-sleep-ready", f"{name}-run", f"{name}-flow-ready", f"{name}-child-ready"):
        until(partial(effects.count, started), started)

    services.server.restart()

    effects.open(name)
    assert services.resolve(awakeable, "after the crash").status_code == 202
    assert services.resolve(held, "free").status_code == 202
    services.result(f"Flow/{name}/approve", {"value": "ok"})
    services.operate(parent.invocation_id, "cancel")

    assert services.attached(sleeping.invocation_id) == [1, 1]
    assert services.attached(awaiting.invocation_id) == {"value": "after the crash"}
    assert services.attached(holder.invocation_id) == "free"
    assert services.attached(queued[-1].invocation_id) == [0, 1, 2]
    assert services.attached(delayed.invocation_id) == "hello delayed"
    assert services.attached(flow.invocation_id) == {"answer": "ok", "runs": 1}
    assert services.attach(parent.invocation_id).status_code == 409

    # The closure that was under way may run a second time; the steps around it may not.
    interrupted = services.attached(running.invocation_id)
    assert (interrupted["before"], interrupted["after"]) == (1, 1)
    assert effects.count(f"{name}-run") in (1, 2)
    for once in (
        "sleep-before",
        "sleep-after",
        "delayed",
        "flow",
        "run-before",
        "run-after",
        "child-started",
    ):
        assert effects.count(f"{name}-{once}") == 1, once
    until(lambda: effects.count(f"{name}-child-undone"), "the child to clean up behind its parent's back")
    assert effects.count(f"{name}-child-undone") == 1


def test_results_and_state_survive_a_killed_server(services: Deployment) -> None:
    name = services.effects.fresh()
    services.result(f"Counter/{name}/add", {"by": 5})
    body = {"name": "kept", "effect": name}
    first = services.call("Calls/greet", body, idempotency_key=name)

    services.server.restart()

    assert services.result(f"Counter/{name}/add", {"by": 1}) == 6
    again = services.call("Calls/greet", body, idempotency_key=name)
    assert again.json() == "hello kept"
    assert again.headers["x-restate-id"] == first.headers["x-restate-id"]
    assert services.effects.count(name) == 1


def test_an_acknowledged_send_survives_a_kill_right_after_it(services: Deployment) -> None:
    name = services.effects.fresh()
    sent = [services.send("Calls/greet", {"name": str(n), "effect": f"{name}-{n}"}) for n in range(10)]
    services.server.restart()
    assert [services.attached(one.invocation_id) for one in sent] == [f"hello {n}" for n in range(10)]


def test_a_waiting_caller_loses_its_connection_and_finds_the_result(services: Deployment) -> None:
    name = services.effects.fresh()
    services.send("Runs/gated", {"effect": name, "gate": name}, idempotency_key=name)
    until(lambda: services.effects.count(name), "the run to begin")
    services.server.kill()
    with pytest.raises(httpx.TransportError):
        services.call("Runs/gated", {"effect": name, "gate": name}, idempotency_key=name)
    services.server.start()
    services.effects.open(name)
    result = services.result("Runs/gated", {"effect": name, "gate": name}, idempotency_key=name)
    assert (result["before"], result["after"]) == (1, 1)
