"""The official CLI in the daily work of an operator. What it asks for is in http-api §4.4 and §8."""

import json

import pytest

from tests.conformance.client import Deployment, until
from tests.conformance.official_cli import Cli, editor


@pytest.fixture(params=["python-http1"])
def transport(request: pytest.FixtureRequest) -> str:
    """What serves the handlers makes no difference here."""
    return str(request.param)


@pytest.fixture
def cli(services: Deployment) -> Cli:
    return Cli(services.server)


def held(services: Deployment, key: str) -> tuple[str, str]:
    """(invocation that holds the key, invocation that waits for it)."""
    note = services.effects.fresh()
    holder = services.send(f"Counter/{key}/hold", {"note": note}).invocation_id
    services.effects.note(note)
    services.becomes(holder, "suspended")
    return holder, services.send(f"Counter/{key}/add", {"by": 1}).invocation_id


def test_listing_with_every_filter(services: Deployment, cli: Cli) -> None:
    key = services.effects.fresh()
    holder, waiting = held(services, key)
    service = f"{services.prefix}Counter"
    try:
        for words, found in (
            (["--service", service, "--key", key], {holder, waiting}),
            (["--service", service, "--key", key, "--handler", "hold"], {holder}),
            (["--key", key, "--status", "pending"], {waiting}),
            (["--key", key, "--status", "suspended,paused"], {holder}),
            (["--key", key, "--virtual-objects-only"], {holder, waiting}),
            (["--key", key, "--all", "--oldest-first"], {holder, waiting}),
            (["--key", key, "--zombie"], set()),
        ):
            shown = cli("invocations", "list", *words)
            assert {name for name in (holder, waiting) if name in shown} == found, (words, shown)
    finally:
        services.operate(holder, "kill")


def test_describing_what_an_invocation_did(services: Deployment, cli: Cli) -> None:
    name = services.effects.fresh()
    services.result("Calls/call_object", {"key": name, "by": 2}, idempotency_key=name)
    listed = cli("invocations", "list", "--all", "--handler", "call_object", "--limit", "1")
    parent = listed.split("inv_", 1)[1].split()[0]
    shown = cli("invocations", "describe", f"inv_{parent}")
    for expected in ("Command: Input", "Command: Call", "Notification: CallInvocationId", "Notification: Call", "Command: Output"):
        assert expected in shown
    assert f"{services.prefix}Counter/{name}/add" in shown


def test_pausing_and_resuming(services: Deployment, cli: Cli) -> None:
    effect = services.effects.fresh()
    failing = services.send("Errors/retry_after", {"effect": effect, "failures": 1, "ms": 3_600_000}).invocation_id
    services.becomes(failing, "backing-off")
    assert "Paused 1" in cli("invocations", "pause", failing)
    services.becomes(failing, "paused")
    assert failing in cli("invocations", "list", "--status", "paused")
    assert "Resumed 1" in cli("invocations", "resume", failing)
    assert services.attached(failing) == 2


def test_killing_and_purging(services: Deployment, cli: Cli) -> None:
    key = services.effects.fresh()
    holder, _ = held(services, key)
    assert "Killed 1" in cli("invocations", "kill", f"{services.prefix}Counter/{key}/hold")
    services.becomes(holder, "completed")
    assert "killed" in cli("invocations", "describe", holder)
    assert "Purged 1" in cli("invocations", "purge", holder)
    until(lambda: services.status(holder) is None, "the record to be gone")


def test_cancelling_by_id_and_by_target(services: Deployment, cli: Cli) -> None:
    waiting = [waits(services) for _ in range(2)]
    assert "Cancelled 1" in cli("invocations", "cancel", waiting[0])
    shown = cli("invocations", "cancel", f"{services.prefix}Cancels/wait")
    assert waiting[1] in shown
    for invocation in waiting:
        assert services.attach(invocation).status_code == 409
    assert "[409] cancelled" in cli("invocations", "describe", waiting[0])


def waits(services: Deployment) -> str:
    """The id of an invocation that waits until it is cancelled."""
    effect = services.effects.fresh()
    sent = services.send("Cancels/wait", {"effect": effect})
    until(lambda: services.effects.count(f"{effect}-ready"), "the wait to begin")
    return sent.invocation_id


def test_starting_again_what_is_over(services: Deployment, cli: Cli) -> None:
    name = services.effects.fresh()
    first = services.send("Calls/greet", {"name": name, "effect": name}).invocation_id
    assert services.attached(first) == f"hello {name}"
    shown = cli("invocations", "restart-as-new", first)
    assert "Restarted 1" in shown
    (second,) = {word for word in shown.split() if word.startswith("inv_")} - {first}
    assert services.attached(second) == f"hello {name}"
    assert services.effects.count(name) == 2


def test_resuming_on_the_latest_deployment(services: Deployment, cli: Cli) -> None:
    key = services.effects.fresh()
    holder, _ = held(services, key)
    try:
        cli("invocations", "pause", holder)
        services.becomes(holder, "paused", "suspended")  # the reference lets a suspended one be
        assert "Resumed 1" in cli("invocations", "resume", holder, "--deployment", "latest")
        services.becomes(holder, "suspended")
    finally:
        services.operate(holder, "kill")


def test_looking_at_and_changing_the_state_of_a_key(services: Deployment, cli: Cli) -> None:
    key, service = services.effects.fresh(), f"{services.prefix}Counter"
    services.result(f"Counter/{key}/add", {"by": 7})
    assert [line.split() for line in cli("state", "get", service, key).splitlines() if "total" in line] == [["total", "7"]]
    changes = editor(services.server.folder, f"state-{key}", "sed -i 's/7/8/' \"$1\"")
    assert "Successfully submitted" in cli("state", "edit", service, key, editor=changes)
    until(lambda: services.result(f"Counter/{key}/value") == 8, "the edit to be applied")
    assert "Successfully submitted" in cli("state", "patch", service, key, "--patch", '[{"op": "replace", "path": "/total", "value": 9}]')
    until(lambda: services.result(f"Counter/{key}/value") == 9, "the patch to be applied")
    assert "Enqueued successfully" in cli("state", "clear", f"{service}/{key}")
    until(lambda: services.result(f"Counter/{key}/keys") == [], "the state to be cleared")


def test_the_status_of_services_and_deployments(services: Deployment, cli: Cli) -> None:
    key = services.effects.fresh()
    holder, _ = held(services, key)
    try:
        shown = cli("services", "status", f"{services.prefix}Counter")
        (line,) = [line for line in shown.splitlines() if line.strip().startswith(key)]
        assert holder in line
        assert "(suspended)" in line
        assert line.split()[1] == "1"  # waits
        assert services.prefix in cli("services", "status")
        rows = [line for line in cli("deployments", "list", "--extra").splitlines() if "Active" in line]
        described = [cli("deployments", "describe", "dp_" + row.split("dp_", 1)[1].split()[0], "--extra") for row in rows]
        assert any("hold" in text and services.prefix in text for text in described)  # other tests may have registered more
    finally:
        services.operate(holder, "kill")


def test_any_statement(services: Deployment, cli: Cli) -> None:
    key = services.effects.fresh()
    services.result(f"Counter/{key}/add", {"by": 7})
    service = f"{services.prefix}Counter"
    shown = cli("sql", f"SELECT * FROM state WHERE service_name = '{service}' AND service_key = '{key}'")
    assert [word for word in ("total", "7", key) if word not in shown] == []
    assert "1 rows" in shown
    as_json = cli("sql", "--json", f"SELECT key, value_utf8 FROM state WHERE service_name = '{service}' AND service_key = '{key}'")
    assert json.JSONDecoder().raw_decode(as_json)[0] == [{"key": "total", "value_utf8": "7"}]
    joined = f"SELECT i.status FROM sys_invocation i JOIN state s ON s.service_key = i.target_service_key WHERE s.service_key = '{key}'"
    assert "completed" in cli("sql", joined)
    assert "No rules" in cli("rules", "list")
    assert "No virtual queues" in cli("vqueues", "list")
