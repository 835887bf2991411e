"""The official clients and the official CLI find in a server what they expect."""

import json
import os
import re
import subprocess

import pytest
import restate

from tests.conformance import toolbox
from tests.conformance.client import Deployment, until


@pytest.fixture(params=["python-http1"])
def transport(request: pytest.FixtureRequest) -> str:
    """What serves the handlers makes no difference here."""
    return str(request.param)


def test_the_typescript_client(services: Deployment) -> None:
    name = services.effects.fresh()
    client = toolbox.MODULES / "@restatedev" / "restate-sdk-clients" / "dist" / "index.js"
    process = subprocess.Popen(
        [str(toolbox.node()), "client.mjs"],
        cwd=toolbox.SERVICES / "typescript",
        env={
            **os.environ,
            "INGRESS_URL": services.server.ingress_url,
            "CONFORMANCE_PREFIX": services.prefix,
            "CONFORMANCE_CLIENT": str(client),
            "NAME": name,
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    noted = services.effects.folder / f"{name}.note"
    until(lambda: noted.exists() or process.poll() is not None, "the awakeable, or the end of the client")
    shown, errors = process.communicate(noted.read_text() if noted.exists() else "", timeout=30)
    assert process.returncode == 0, errors
    assert json.loads(shown) == {
        "call": f"hello {name}",
        "idempotent": [1, 1],
        "object": [2, 5, f"{name}/ü"],
        "send": ["Accepted", "hello later"],
        "workflow": ["Accepted", False, {"answer": "yes", "runs": 1}, True],
        "failure": [418, "as it must"],
        "awakeable": {"value": {"some": "thing"}},
    }


async def test_the_python_client(services: Deployment) -> None:
    name = services.effects.fresh()
    typed = {"Content-Type": "application/json"}  # a call by name does not say what it carries
    async with restate.create_client(services.server.ingress_url, headers=typed) as client:
        parameter = json.dumps({"name": name, "effect": name}).encode()
        service = services.prefix + "Calls"
        for _ in range(2):
            answer = await client.generic_call(service, "greet", parameter, idempotency_key=name)
            assert json.loads(answer) == f"hello {name}"
        counter = services.prefix + "Counter"
        assert await client.generic_call(counter, "add", b'{"by": 2}', key=name) == b"2"
        sent = await client.generic_send(service, "greet", parameter)
        assert services.attached(sent.invocation_id) == f"hello {name}"
    assert services.effects.count(name) == 2


def cli(services: Deployment, *words: str) -> str:
    """What the official CLI prints, without colours; it must succeed."""
    found = sorted((toolbox.MODULES / "@restatedev").glob("restate-linux-*/bin/restate"))
    if not found:
        pytest.skip(f"the official CLI is not installed; install it with `{toolbox.SETUP}`")
    addresses = {"RESTATE_ADMIN_URL": services.server.admin_url, "RESTATE_INGRESS_URL": services.server.ingress_url}
    shown = subprocess.run(
        [str(found[0]), "--yes", *words],
        env={**os.environ, **addresses, "RESTATE_CLI_CONFIG_HOME": str(services.server.folder), "NO_COLOR": "1"},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.stdout + shown.stderr)


def test_the_cli_lists_services_and_deployments(services: Deployment) -> None:
    assert f"{services.prefix}Counter" in cli(services, "services", "list")
    assert f"{services.prefix}Counter" in cli(services, "deployments", "list")
    assert "rewrite" in cli(services, "services", "describe", f"{services.prefix}Counter")


def test_the_cli_shows_and_cancels_an_invocation(services: Deployment) -> None:
    effect = services.effects.fresh()
    sent = services.send("Cancels/wait", {"effect": effect})
    until(lambda: services.effects.count(f"{effect}-ready"), "the wait to begin")
    assert sent.invocation_id in cli(services, "invocations", "list")
    assert "wait" in cli(services, "invocations", "describe", sent.invocation_id)
    cli(services, "invocations", "cancel", sent.invocation_id)
    assert services.attach(sent.invocation_id).status_code == 409


def test_the_cli_shows_and_changes_state(services: Deployment) -> None:
    key = services.effects.fresh()
    services.result(f"Counter/{key}/add", {"by": 7})
    service = f"{services.prefix}Counter"
    assert "7" in cli(services, "state", "get", service, key)
    cli(services, "state", "clear", f"{service}/{key}")
    until(lambda: services.result(f"Counter/{key}/keys") == [], "the state to be cleared")
