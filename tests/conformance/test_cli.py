"""The official CLI in the daily work of an operator. What it asks for is in http-api §4.4 and §8."""

import pytest

from tests.conformance.client import Deployment, until
from tests.conformance.test_clients import cli


@pytest.fixture(params=["python-http1"])
def transport(request: pytest.FixtureRequest) -> str:
    """What serves the handlers makes no difference here."""
    return str(request.param)


def held(services: Deployment, key: str) -> tuple[str, str]:
    """(invocation that holds the key, invocation that waits for it)."""
    note = services.effects.fresh()
    holder = services.send(f"Counter/{key}/hold", {"note": note}).invocation_id
    services.effects.note(note)
    services.becomes(holder, "suspended")
    return holder, services.send(f"Counter/{key}/add", {"by": 1}).invocation_id


def test_listing_with_every_filter(services: Deployment) -> None:
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
            shown = cli(services, "invocations", "list", *words)
            assert {name for name in (holder, waiting) if name in shown} == found, (words, shown)
    finally:
        services.operate(holder, "kill")


def test_describing_what_an_invocation_did(services: Deployment) -> None:
    name = services.effects.fresh()
    services.result("Calls/call_object", {"key": name, "by": 2}, idempotency_key=name)
    listed = cli(services, "invocations", "list", "--all", "--handler", "call_object", "--limit", "1")
    parent = listed.split("inv_", 1)[1].split()[0]
    shown = cli(services, "invocations", "describe", f"inv_{parent}")
    for expected in ("Command: Input", "Command: Call", "Notification: CallInvocationId", "Notification: Call", "Command: Output"):
        assert expected in shown
    assert f"{services.prefix}Counter/{name}/add" in shown


def test_pausing_resuming_killing_and_purging(services: Deployment) -> None:
    key = services.effects.fresh()
    holder, _ = held(services, key)
    assert "Paused 1" in cli(services, "invocations", "pause", holder)
    assert holder in cli(services, "invocations", "list", "--status", "paused")
    assert "Resumed 1" in cli(services, "invocations", "resume", holder)
    services.becomes(holder, "suspended")
    assert "Killed 1" in cli(services, "invocations", "kill", f"{services.prefix}Counter/{key}/hold")
    services.becomes(holder, "completed")
    assert "killed" in cli(services, "invocations", "describe", holder)
    assert "Purged 1" in cli(services, "invocations", "purge", holder)
    until(lambda: services.status(holder) is None, "the record to be gone")


def test_the_status_of_services_and_deployments(services: Deployment) -> None:
    key = services.effects.fresh()
    holder, _ = held(services, key)
    try:
        shown = cli(services, "services", "status", f"{services.prefix}Counter")
        (line,) = [line for line in shown.splitlines() if line.strip().startswith(key)]
        assert holder in line
        assert "(suspended)" in line
        assert line.split()[1] == "1"  # waits
        assert services.prefix in cli(services, "services", "status")
        rows = [line for line in cli(services, "deployments", "list", "--extra").splitlines() if "Active" in line]
        described = [cli(services, "deployments", "describe", "dp_" + row.split("dp_", 1)[1].split()[0], "--extra") for row in rows]
        assert any("hold" in text and services.prefix in text for text in described)  # other tests may have registered more
    finally:
        services.operate(holder, "kill")


def test_any_statement(services: Deployment) -> None:
    key = services.effects.fresh()
    services.result(f"Counter/{key}/add", {"by": 7})
    service = f"{services.prefix}Counter"
    shown = cli(services, "sql", f"SELECT * FROM state WHERE service_name = '{service}' AND service_key = '{key}'")
    assert [word for word in ("total", "7", key) if word not in shown] == []
    assert "1 rows" in shown
    joined = f"SELECT i.status FROM sys_invocation i JOIN state s ON s.service_key = i.target_service_key WHERE s.service_key = '{key}'"
    assert "completed" in cli(services, "sql", joined)
    assert "No rules" in cli(services, "rules", "list")
    assert "No virtual queues" in cli(services, "vqueues", "list")
