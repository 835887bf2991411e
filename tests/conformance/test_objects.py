"""Virtual objects: state per key, eager or on demand; one exclusive handler at a time, in arrival order."""

import pytest

from tests.conformance.client import Deployment, until


@pytest.fixture(params=["Counter", "LazyCounter"])
def counter(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_state_is_kept_between_invocations(services: Deployment, counter: str) -> None:
    key = services.effects.fresh()
    assert [services.result(f"{counter}/{key}/add", {"by": n}) for n in (1, 2, 3)] == [1, 3, 6]
    assert services.result(f"{counter}/{key}/value") == 6


def test_state_belongs_to_one_key(services: Deployment, counter: str) -> None:
    key = services.effects.fresh()
    services.result(f"{counter}/{key}/add", {"by": 5})
    assert services.result(f"{counter}/{key}-other/value") is None


def test_an_invocation_sees_its_own_writes(services: Deployment, counter: str) -> None:
    key = services.effects.fresh()
    services.result(f"{counter}/{key}/add", {"by": 1})
    assert services.result(f"{counter}/{key}/rewrite") == [1, 10, 10, None, 20]
    assert services.result(f"{counter}/{key}/value") == 20


def test_state_keys_are_listed(services: Deployment, counter: str) -> None:
    key = services.effects.fresh()
    assert services.result(f"{counter}/{key}/keys") == []
    services.result(f"{counter}/{key}/put", {"b": 1, "a": {"deep": [None, "é"]}})
    assert services.result(f"{counter}/{key}/keys") == ["a", "b"]
    assert services.result(f"{counter}/{key}/fetch", {"name": "a"}) == {"deep": [None, "é"]}


def test_a_key_can_be_cleared(services: Deployment, counter: str) -> None:
    key = services.effects.fresh()
    services.result(f"{counter}/{key}/put", {"a": 1, "b": 2})
    assert services.result(f"{counter}/{key}/drop", {"name": "a"}) is None
    assert services.result(f"{counter}/{key}/keys") == ["b"]


def test_all_keys_can_be_cleared(services: Deployment, counter: str) -> None:
    key = services.effects.fresh()
    services.result(f"{counter}/{key}/put", {"a": 1, "b": 2})
    assert services.result(f"{counter}/{key}/drop_all") == []
    assert services.result(f"{counter}/{key}/keys") == []


@pytest.mark.parametrize(("written", "key"), [("plain", "plain"), ("a%2Fb%20c%C3%A9", "a/b cé"), ("x+y", "x+y"), ("%25", "%")])
def test_a_key_may_be_any_text(services: Deployment, written: str, key: str) -> None:
    assert services.result(f"Counter/{written}/key") == key


def test_a_second_exclusive_invocation_waits_for_the_first(services: Deployment) -> None:
    key = services.effects.fresh()
    holder = services.send(f"Counter/{key}/hold", {"note": key})
    awakeable = services.effects.note(key)
    waiting = services.send(f"Counter/{key}/add", {"by": 1})
    services.becomes(waiting.invocation_id, "pending")
    services.resolve(awakeable, "let go")
    assert services.attached(holder.invocation_id) == "let go"
    assert services.attached(waiting.invocation_id) == 1


def test_the_queue_of_a_key_is_first_come_first_served(services: Deployment) -> None:
    key = services.effects.fresh()
    services.send(f"Counter/{key}/hold", {"note": key})
    awakeable = services.effects.note(key)
    queued = [services.send(f"Counter/{key}/append", {"value": n}) for n in range(6)]
    services.resolve(awakeable, None)
    assert services.attached(queued[-1].invocation_id) == list(range(6))


def test_shared_handlers_do_not_wait(services: Deployment) -> None:
    key = services.effects.fresh()
    services.result(f"Counter/{key}/add", {"by": 2})
    holder = services.send(f"Counter/{key}/hold", {"note": key})
    awakeable = services.effects.note(key)
    assert services.result(f"Counter/{key}/value") == 2
    services.resolve(awakeable, None)
    services.attached(holder.invocation_id)


def test_keys_do_not_wait_for_each_other(services: Deployment) -> None:
    key = services.effects.fresh()
    services.send(f"Counter/{key}/hold", {"note": key})
    awakeable = services.effects.note(key)
    assert services.result(f"Counter/{key}-other/add", {"by": 1}) == 1
    services.resolve(awakeable, None)


def test_a_killed_holder_frees_its_key(services: Deployment) -> None:
    key = services.effects.fresh()
    holder = services.send(f"Counter/{key}/hold", {"note": key})
    services.effects.note(key)
    waiting = services.send(f"Counter/{key}/add", {"by": 1})
    services.operate(holder.invocation_id, "kill")
    assert services.attached(waiting.invocation_id) == 1


def test_a_cancelled_waiter_leaves_the_queue(services: Deployment) -> None:
    key = services.effects.fresh()
    services.send(f"Counter/{key}/hold", {"note": key})
    awakeable = services.effects.note(key)
    leaving = services.send(f"Counter/{key}/add", {"by": 100})
    staying = services.send(f"Counter/{key}/add", {"by": 1})
    services.becomes(leaving.invocation_id, "pending")
    services.operate(leaving.invocation_id, "cancel")
    until(lambda: services.status(leaving.invocation_id) in (None, "completed"), "the waiter to be gone")
    services.resolve(awakeable, None)
    assert services.attached(staying.invocation_id) == 1


def test_an_operator_can_write_state(services: Deployment) -> None:
    key = services.effects.fresh()
    services.result(f"Counter/{key}/add", {"by": 1})
    body = {"object_key": key, "new_state": {"total": list(b"41")}}
    answer = services.http.post(f"{services.server.admin_url}/services/{services.prefix}Counter/state", json=body)
    assert answer.status_code == 202
    until(lambda: services.result(f"Counter/{key}/value") == 41, "the written state to be seen")
    assert services.result(f"Counter/{key}/add", {"by": 1}) == 42
