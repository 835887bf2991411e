"""The official clients find in a server what they expect. What they send is in http-api §9."""

import json
import os
import subprocess
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import restate
from restate.client_types import HttpError

from tests.conformance import toolbox
from tests.conformance.client import Deployment, until

Json = dict[str, Any]


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
    noted = [services.effects.folder / f"{note}.note" for note in (name, f"{name}-rejected")]
    until(lambda: all(note.exists() for note in noted) or process.poll() is not None, "the awakeables, or the end of the client")
    shown, errors = process.communicate("\n".join(note.read_text() for note in noted if note.exists()), timeout=30)
    assert process.returncode == 0, errors
    assert json.loads(shown) == {
        "call": f"hello {name}",
        "idempotent": [1, 1],
        "object": [2, 5, f"{name}/ü"],
        "send": ["Accepted", "hello later"],
        "workflow": ["Accepted", False, {"answer": "yes", "runs": 1}, True],
        "failure": [418, "as it must"],
        "notRetried": [503, 1],
        "generic": f"hello {name}",
        "objectSend": ["Accepted", 9],
        "scoped": [400, "ingress"],
        "awakeables": [{"value": {"some": "thing"}}, {"message": "not this one", "code": 500}],
    }


def handlers(prefix: str) -> SimpleNamespace:
    """The services as a caller of the Python client declares them; nothing here runs."""
    calls, counter, flow, errors = (
        restate.Service(f"{prefix}Calls"),
        restate.VirtualObject(f"{prefix}Counter"),
        restate.Workflow(f"{prefix}Flow"),
        restate.Service(f"{prefix}Errors"),
    )

    @calls.handler()
    async def greet(ctx: restate.Context, request: Json) -> str:
        raise NotImplementedError

    @counter.handler()
    async def add(ctx: restate.ObjectContext, request: Json) -> int:
        raise NotImplementedError

    @counter.handler()
    async def key(ctx: restate.ObjectContext, request: Json) -> str:
        raise NotImplementedError

    @flow.main()
    async def run(ctx: restate.WorkflowContext, request: Json) -> Json:
        raise NotImplementedError

    @flow.handler()
    async def approve(ctx: restate.WorkflowSharedContext, request: Json) -> Any:
        raise NotImplementedError

    @errors.handler()
    async def terminal(ctx: restate.Context, request: Json) -> Any:
        raise NotImplementedError

    return SimpleNamespace(greet=greet, add=add, key=key, run=run, approve=approve, terminal=terminal)


async def test_the_python_client(services: Deployment) -> None:
    name, declared = services.effects.fresh(), handlers(services.prefix)
    async with restate.create_client(services.server.ingress_url) as client:
        for _ in range(2):
            assert await client.service_call(declared.greet, {"name": name, "effect": name}, idempotency_key=name) == f"hello {name}"
        assert services.effects.count(name) == 1
        sent = await client.service_send(declared.greet, {"name": "later"})
        assert services.attached(sent.invocation_id) == "hello later"
        key = f"{name} ü+%"  # not escaped by the client itself, but by its HTTP library
        assert await client.object_call(declared.add, key=key, arg={"by": 2}) == 2
        sent = await client.object_send(declared.add, key=key, arg={"by": 3})
        assert services.attached(sent.invocation_id) == 5
        assert await client.object_call(declared.key, key=f"{name} ü", arg={}) == f"{name} ü"
        flow = await client.workflow_send(declared.run, key=name, arg={"effect": f"{name}-flow"})
        await client.workflow_call(declared.approve, key=name, arg={"value": "yes"})
        assert services.attached(flow.invocation_id) == {"answer": "yes", "runs": 1}
        with pytest.raises(HttpError) as failed:
            await client.service_call(declared.terminal, {"message": "as it must", "code": 418})
        assert failed.value.status_code == 418
        with pytest.raises(HttpError) as refused:
            await client.scope(name).service_call(declared.greet, {"name": name})  # flow control is off
        assert refused.value.status_code == 400


@pytest.mark.holdfast_only
async def test_the_python_client_sends_later(services: Deployment) -> None:
    """It writes the delay as a bare number of milliseconds, which the reference refuses."""
    async with restate.create_client(services.server.ingress_url) as client:
        sent = await client.service_send(handlers(services.prefix).greet, {"name": "later"}, send_delay=timedelta(milliseconds=20))
    assert services.attached(sent.invocation_id) == "hello later"


async def test_the_python_client_by_name(services: Deployment) -> None:
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
