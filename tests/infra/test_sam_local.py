"""`sam local`: every event in a container, and a coordinator on this machine whose functions run in containers.

Containers reach this machine at the address of Docker's bridge, so table, queue and CloudFormation's ear are bound there.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

import pytest

from holdfast_runtime.app.runtime import Runtime
from holdfast_runtime.coordinator.front import NewInvocation, Success, Target
from tests.infra import make_events, story
from tests.infra.conftest import ROOT, tool
from tests.infra.long import HERE, IMAGE, SAM_VARIABLES, built, docker, sam, wanted  # noqa: F401
from tests.infra.make_events import ORDER
from tests.infra.story import HANDLERS, CloudFormation, Invoke
from tests.infra.world import ARN, BOUND_S, coordinator, invoking, new_stack
from tests.support.dynamodb import BINARY, aws_at, new_table_name
from tests.support.ports import free_port

pytestmark = wanted
SAM: Final = ("--skip-pull-image", "--invoke-image", IMAGE, "--parameter-overrides", HERE)


def until_open(host: str, port: int, process: subprocess.Popen[Any]) -> None:
    deadline = time.monotonic() + 120
    while True:
        with socket.socket() as probe:
            if probe.connect_ex((host, port)) == 0:
                return
        assert process.poll() is None and time.monotonic() < deadline, f"nothing answers at {host}:{port}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def bridge() -> str:
    """The address of this machine that containers see."""
    docker()
    wanted = "{{range .IPAM.Config}}{{.Subnet}} {{end}}"
    done = subprocess.run(["docker", "network", "inspect", "bridge", "-f", wanted], check=True, capture_output=True, text=True)
    return str(next(ip_network(done.stdout.split()[0]).hosts()))


@pytest.fixture(scope="module")
def variables(bridge: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Of the functions: table, queue, and where they are."""
    if not BINARY.exists():
        pytest.skip("no DynamoDB emulator; python tests/conformance/setup.py installs it")
    table, queue = free_port(), free_port()
    commands = [
        [str(BINARY), "serve", "--host", bridge, "--port", str(table)],
        [sys.executable, "-m", "moto.server", "-H", bridge, "-p", str(queue)],
    ]
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for command in commands]
    try:
        for process, port in zip(processes, (table, queue), strict=True):
            until_open(bridge, port, process)
        urls = {"dynamodb": f"http://{bridge}:{table}", "sqs": f"http://{bridge}:{queue}"}
        with aws_at(**urls):
            endpoints = {f"AWS_ENDPOINT_URL_{name.upper()}": url for name, url in urls.items()}
            yield {**new_stack(new_table_name()), **endpoints}
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def overriding(variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file for --env-vars. Only variables that the template declares reach a function, so endpoints are declared, empty or not."""
    path = tmp_path_factory.mktemp("env") / "env.json"
    path.write_text(json.dumps({"Parameters": variables}))
    return path


@pytest.fixture(scope="module")
def template(built: Path, variables: dict[str, str]) -> Path:  # noqa: F811
    """The built template, with what it must declare for the emulators to be found."""
    lines: list[str] = []
    for line in (built / "template.yaml").read_text().splitlines():
        lines.append(line)
        if line.strip() == "Variables:":
            indent = " " * (len(line) - len(line.lstrip()) + 2)
            lines += [f"{indent}{name}: set" for name in variables if name.startswith("AWS_")]
    path = built / "local.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def lambda_url(template: Path, overriding: Path) -> Iterator[str]:
    """`sam local start-lambda`."""
    port = free_port()
    command: list[str | Path] = [
        tool("sam", "sam"),
        "local",
        "start-lambda",
        "-t",
        template,
        "--port",
        str(port),
        "--warm-containers",
        "LAZY",
        *SAM,
    ]
    with (template.parent / "sam.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--env-vars", overriding], stdout=log, stderr=log, cwd=ROOT, env=os.environ | SAM_VARIABLES, start_new_session=True
        )
    try:
        until_open("127.0.0.1", port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def by_hand(template: Path, overriding: Path, folder: Path) -> Invoke:
    """Each event with a `sam local invoke` of its own."""

    def invoke(name: str, event: Any) -> Any:
        (folder / "event.json").write_text(json.dumps(event))
        done = sam("local", "invoke", name, "-t", template, "-e", folder / "event.json", "--env-vars", overriding, *SAM)
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "null")
        assert not (isinstance(result, dict) and "errorType" in result), (name, result)
        return result

    return invoke


async def _ordered(runtime: Runtime, order_id: str) -> str:
    """The id that an order made by the handler carries."""
    body = json.dumps({**ORDER, "id": order_id}).encode()
    request = NewInvocation(Target("orders", "checkout"), body, [("content-type", "application/json")])
    outcome = await runtime.coordinator.call(runtime.coordinator.mint(request), request)
    assert isinstance(outcome, Success), outcome
    return str(json.loads(outcome.value)["order_id"])


@pytest.mark.parametrize("way", ["start-lambda", "invoke"])
async def test_every_event_in_containers_then_orders(
    way: str,
    lambda_url: str,
    template: Path,
    overriding: Path,
    bridge: str,
    variables: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    invoke = invoking(lambda_url) if way == "start-lambda" else by_hand(template, overriding, tmp_path)
    cloudformation = CloudFormation(bridge)
    monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", lambda_url)
    for service in make_events.INVOKED:
        await asyncio.to_thread(story.check_discovery, invoke, service)
        await asyncio.to_thread(story.check_first_attempt, invoke, service)
    answer = await asyncio.to_thread(cloudformation.ask, invoke, "deploy-setup")
    assert answer["Status"] == "SUCCESS", answer
    async with coordinator(variables) as runtime:
        arn = ARN.format(name="OrdersFunction")
        asked = asyncio.to_thread(cloudformation.ask, invoke, "deploy-register", FunctionArn=arn)
        answer = await asyncio.wait_for(asked, BOUND_S)
        assert answer["Status"] == "SUCCESS", answer
        # Several at once: one container serves the function, and attempts queue before it.
        wanted = [f"o{number}" for number in range(1, 7)]
        outcomes = await asyncio.wait_for(asyncio.gather(*(_ordered(runtime, order_id) for order_id in wanted)), BOUND_S)
        assert outcomes == wanted
    await asyncio.to_thread(story.check_health, invoke)
    await asyncio.to_thread(story.check_sends, invoke)
    answer = await asyncio.to_thread(cloudformation.ask, invoke, "deploy-delete")
    assert answer["Status"] == "SUCCESS", answer
    cloudformation.close()
    assert HANDLERS.keys() == {story.function_of(name) for name in make_events.events()}
