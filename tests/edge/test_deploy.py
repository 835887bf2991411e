"""What CloudFormation asks for: the table is set up, function versions are registered through the queue, and it always gets an answer."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest

from holdfast_runtime.adapters.dynamodb import open_dynamodb_store
from holdfast_runtime.adapters.dynamodb_models import TableItem, bound
from holdfast_runtime.adapters.dynamodb_table import DynamoDbTable
from holdfast_runtime.adapters.sqs import SqsInbox
from holdfast_runtime.adapters.system import SystemClock
from holdfast_runtime.app.runtime import Runtime, RuntimeConfig
from holdfast_runtime.coordinator import registry_document
from holdfast_runtime.coordinator.registry_document import StoredDeployment
from holdfast_runtime.edge import deploy
from holdfast_runtime.engine.registry import LambdaAddress
from holdfast_runtime.ports.store import StoreBroken
from holdfast_runtime.surfaces.inbox import InboxDrain
from holdfast_runtime.surfaces.server import Listener
from tests.support.dynamodb import aws_at, new_table_name
from tests.support.lambda_service import FunctionSpec, LambdaServiceProcess
from tests.support.ports import free_port
from tests.support.sqs import HurriedInbox

ROOT = Path(__file__).resolve().parents[2]
BOUND_S = 240.0
SERVICE: dict[str, Any] = {"name": "orders", "ty": "SERVICE", "handlers": [{"name": "checkout"}]}


class CloudFormation:
    """Where answers are put."""

    def __init__(self) -> None:
        self.answers: list[dict[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                outer.answers.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def ask(self, kind: str = "Create", before: str | None = None, *, remaining_ms: int = 1_000_000, **properties: str) -> dict[str, Any]:
        """before: the function that an update comes from."""

        class Context:
            def get_remaining_time_in_millis(self) -> int:
                return remaining_ms

        event = {
            "RequestType": kind,
            "StackId": "stack",
            "RequestId": "request",
            "LogicalResourceId": "Thing",
            "ResponseURL": f"http://127.0.0.1:{self._server.server_port}/answer",
            "ResourceProperties": {"ServiceToken": "arn", **properties},
        }
        if kind == "Update":
            event["OldResourceProperties"] = {**properties, **({} if before is None else {"FunctionArn": before})}
        deploy.handler(event, Context())
        return self.answers.pop()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def cloudformation() -> Iterator[CloudFormation]:
    service = CloudFormation()
    yield service
    service.close()


@pytest.fixture
def table(dynamodb_url: str, moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """As the template makes it, with a queue."""
    with aws_at(dynamodb=dynamodb_url, sqs=moto_url):
        name = new_table_name()
        bound(TableItem, name, "us-east-1").create_table(wait=True)
        queue = boto3.client("sqs").create_queue(QueueName=name)["QueueUrl"]
        monkeypatch.setenv("HOLDFAST_STORE", f"dynamodb://{name}")
        monkeypatch.setenv("HOLDFAST_INBOX_QUEUE_URL", queue)
        yield name


def test_a_table_is_set_up_once(table: str, cloudformation: CloudFormation) -> None:
    for kind in ("Create", "Update"):
        answer = cloudformation.ask(kind, Action="setup", Shards="2")
        assert answer["Status"] == "SUCCESS", answer
        assert answer["PhysicalResourceId"] == f"setup-{table}"
        assert {name: answer[name] for name in ("StackId", "RequestId", "LogicalResourceId")} == {
            "StackId": "stack",
            "RequestId": "request",
            "LogicalResourceId": "Thing",
        }


def test_another_number_of_shards_is_refused(table: str, cloudformation: CloudFormation) -> None:
    cloudformation.ask(Action="setup", Shards="2")
    answer = cloudformation.ask("Update", Action="setup", Shards="4")
    assert answer["Status"] == "FAILED"
    assert "fixed when it was set up" in answer["Reason"]


@pytest.mark.parametrize("refusals", [2, 99])
def test_permissions_of_a_new_stack_are_waited_for(table: str, refusals: int) -> None:
    """They take effect late; in the end their lack is an error."""
    pauses: list[float] = []
    with refusing(os.environ["AWS_ENDPOINT_URL_DYNAMODB"]) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_DYNAMODB", proxy.url)
        proxy.refuse = refusals
        if refusals == 2:
            assert deploy.set_up(DynamoDbTable(table), 2, None, pause=pauses.append).physical_id == f"setup-{table}"
            assert len(pauses) == 2
        else:
            with pytest.raises(StoreBroken, match="AccessDenied"):
                deploy.set_up(DynamoDbTable(table), 2, None, pause=pauses.append)
            assert sum(pauses) == 60


class Refusing:
    """DynamoDB, but the first so many requests are refused as IAM does."""

    def __init__(self, behind: str) -> None:
        self.refuse = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if outer.refuse:
                    outer.refuse -= 1
                    status, found = 400, b'{"__type": "com.amazon.coral.service#AccessDeniedException", "Message": "not authorized"}'
                else:
                    request = urllib.request.Request(behind, data=body, headers=dict(self.headers), method="POST")
                    try:
                        with urllib.request.urlopen(request, timeout=60) as answer:
                            status, found = answer.status, answer.read()
                    except urllib.error.HTTPError as refused:
                        status, found = refused.code, refused.read()
                self.send_response(status)
                self.send_header("content-type", "application/x-amz-json-1.0")
                self.send_header("content-length", str(len(found)))
                self.end_headers()
                self.wfile.write(found)

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def refusing(behind: str) -> Iterator[Refusing]:
    proxy = Refusing(behind)
    threading.Thread(target=proxy.server.serve_forever, daemon=True).start()
    yield proxy
    proxy.server.shutdown()
    proxy.server.server_close()


def test_deleting_changes_nothing(cloudformation: CloudFormation) -> None:
    assert cloudformation.ask("Delete", Action="setup")["Status"] == "SUCCESS"


def test_an_unknown_action_is_refused(cloudformation: CloudFormation) -> None:
    answer = cloudformation.ask(Action="dance")
    assert (answer["Status"], answer["Reason"]) == ("FAILED", "expected Action 'setup' or 'register', found 'dance'")


def test_nobody_registers_in_time(table: str, cloudformation: CloudFormation) -> None:
    cloudformation.ask(Action="setup", Shards="1")
    arn = "arn:aws:lambda:us-east-1:123456789012:function:orders:1"
    answer = cloudformation.ask(Action="register", FunctionArn=arn, remaining_ms=0)
    assert answer["Status"] == "FAILED"
    assert "is one running" in answer["Reason"]


def test_a_forced_registration_that_nobody_does_fails(table: str, cloudformation: CloudFormation) -> None:
    """Although the function is known: what it serves now was not read."""
    cloudformation.ask(Action="setup", Shards="1")
    arn = "arn:aws:lambda:us-east-1:123456789012:function:orders:1"
    asyncio.run(_registered(table, arn))
    known = cloudformation.ask(Action="register", FunctionArn=arn, remaining_ms=0)
    assert known["Status"] == "SUCCESS"
    answer = cloudformation.ask("Update", Action="register", FunctionArn=arn, Force="true", remaining_ms=0)
    assert answer["Status"] == "FAILED"
    assert "has registered arn:aws:lambda:us-east-1:123456789012:function:orders:1 anew in time" in answer["Reason"]


def test_who_comes_back_to_a_version_wants_new_work_to_go_to_it(table: str, cloudformation: CloudFormation) -> None:
    """As CloudFormation does when a deployment fails elsewhere: being known is not enough, a later version has its services."""
    cloudformation.ask(Action="setup", Shards="1")
    older, later = (f"arn:aws:lambda:us-east-1:123456789012:function:orders:{version}" for version in (1, 2))
    asyncio.run(_registered(table, older, later))
    same = cloudformation.ask("Update", older, Action="register", FunctionArn=older, remaining_ms=0)
    assert (same["Status"], same["PhysicalResourceId"]) == ("SUCCESS", "dp_1"), "nothing has changed that concerns it"
    back = cloudformation.ask("Update", later, Action="register", FunctionArn=older, remaining_ms=0)
    assert (back["Status"], f"has registered {older} anew in time" in back["Reason"]) == ("FAILED", True)
    stays = cloudformation.ask("Update", older, Action="register", FunctionArn=later, remaining_ms=0)
    assert (stays["Status"], stays["PhysicalResourceId"]) == ("SUCCESS", "dp_2")


def test_another_concurrency_is_no_change_that_is_overlooked(table: str, cloudformation: CloudFormation) -> None:
    cloudformation.ask(Action="setup", Shards="1")
    arn = "arn:aws:lambda:us-east-1:123456789012:function:orders:1"
    asyncio.run(_registered(table, arn))
    answer = cloudformation.ask("Update", arn, Action="register", FunctionArn=arn, Concurrency="5", remaining_ms=0)
    assert (answer["Status"], "anew in time" in answer["Reason"]) == ("FAILED", True)


def test_an_answer_is_never_too_long_for_cloudformation(cloudformation: CloudFormation) -> None:
    answer = cloudformation.ask(Action="\N{SNOWMAN}" * 2_000)
    assert answer["Status"] == "FAILED"
    assert len(json.dumps(answer).encode()) < 4096 - 500  # its names are longer than those here


async def _registered(table: str, *arns: str) -> None:
    """In the registry, one after the other, without a coordinator."""
    held = await open_dynamodb_store(DynamoDbTable(table))
    manifest = {"protocolMode": "REQUEST_RESPONSE", "minProtocolVersion": 5, "maxProtocolVersion": 6, "services": [SERVICE]}
    stored = {
        f"dp_{number}": StoredDeployment(f"dp_{number}", LambdaAddress(arn), number, None, manifest, {SERVICE["name"]: number})
        for number, arn in enumerate(arns, 1)
    }
    version, _ = await held.store.registry.load(registry_document.DOCUMENT)
    assert await held.store.registry.store(registry_document.DOCUMENT, registry_document.dump(stored), expected_version=version)
    await held.close()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "expected FunctionArn"),
        ({"FunctionArn": "arn", "Concurrency": "many"}, "expected a whole number above 0 as Concurrency, found 'many'"),
        ({"FunctionArn": "arn", "Concurrency": "0"}, "expected a whole number above 0"),
    ],
)
def test_a_registration_that_says_too_little_is_refused(cloudformation: CloudFormation, given: dict[str, str], reason: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOLDFAST_STORE", "dynamodb://nowhere")
        answer = cloudformation.ask(**{"Action": "register", **given})  # type: ignore[arg-type]
    assert answer["Status"] == "FAILED"
    assert reason in answer["Reason"]


async def test_a_version_is_registered_by_a_coordinator_that_only_reads_the_queue(table: str, cloudformation: CloudFormation) -> None:
    await asyncio.to_thread(cloudformation.ask, Action="setup", Shards="1")
    with LambdaServiceProcess(free_port()) as service, pytest.MonkeyPatch.context() as patch:
        service.add(FunctionSpec("orders", str(ROOT), "handlers.orders.handler", timeout_s=60))
        patch.setenv("AWS_ENDPOINT_URL_LAMBDA", service.url)
        runtime = Runtime(RuntimeConfig(DynamoDbTable(table), Listener(port=0), Listener(port=0)))
        await runtime.start()
        queue: SqsInbox = HurriedInbox(os.environ["HOLDFAST_INBOX_QUEUE_URL"])
        await queue.open()
        drain = InboxDrain(runtime.coordinator, queue, SystemClock())
        drain.start()
        try:
            arn = "arn:aws:lambda:us-east-1:123456789012:function:orders:1"
            asked = asyncio.to_thread(cloudformation.ask, Action="register", FunctionArn=arn)
            answer = await asyncio.wait_for(asked, BOUND_S)
            assert answer["Status"] == "SUCCESS", answer
            (deployment,) = runtime.coordinator.registry.deployments.values()
            assert answer["Data"] == {"DeploymentId": deployment.id}
            assert answer["PhysicalResourceId"] == deployment.id
            assert "orders" in runtime.coordinator.registry.services

            # Again: without force nothing happens, with it the function is asked anew, and the answer waits for that.
            before = service.counters("orders").invocations
            again = asyncio.to_thread(cloudformation.ask, "Update", Action="register", FunctionArn=arn)
            assert (await asyncio.wait_for(again, BOUND_S))["Data"] == {"DeploymentId": deployment.id}
            assert service.counters("orders").invocations == before
            forced = asyncio.to_thread(cloudformation.ask, "Update", Action="register", FunctionArn=arn, Force="true", Concurrency="5")
            assert (await asyncio.wait_for(forced, BOUND_S))["Data"] == {"DeploymentId": deployment.id}
            (renewed,) = runtime.coordinator.registry.deployments.values()
            assert (renewed.id, renewed.metadata) == (deployment.id, {"holdfast.concurrency": "5"})
            assert service.counters("orders").invocations == before + 1
        finally:
            await drain.close()
            await queue.close()
            await runtime.stop()
