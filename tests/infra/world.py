"""A stack on loopback: a table, a queue, a coordinator that is started when it is wanted, and the functions of the template."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import boto3
from botocore.config import Config

from holdfast_runtime.adapters.dynamodb_models import TableItem, bound
from holdfast_runtime.adapters.dynamodb_table import DynamoDbTable
from holdfast_runtime.adapters.system import SystemClock
from holdfast_runtime.app.runtime import Runtime, RuntimeConfig
from holdfast_runtime.surfaces.inbox import InboxDrain
from holdfast_runtime.surfaces.server import Listener
from tests.infra.story import HANDLERS, Invoke
from tests.support.lambda_service import FunctionSpec, LambdaServiceProcess
from tests.support.sqs import HurriedInbox

BOUND_S: Final = 240.0
ARN: Final = "arn:aws:lambda:us-east-1:123456789012:function:{name}:1"


def lambda_client(url: str) -> Any:
    patient = Config(read_timeout=900, retries={"total_max_attempts": 1})
    return boto3.client("lambda", endpoint_url=url, region_name="us-east-1", config=patient)


def invoking(url: str) -> Invoke:
    """Invokes at an endpoint of Lambda, by logical name."""
    client = lambda_client(url)

    def invoke(name: str, event: Any) -> Any:
        reply = client.invoke(FunctionName=name, Payload=json.dumps(event).encode())
        result = json.loads(reply["Payload"].read() or b"null")
        assert "FunctionError" not in reply, (name, result)
        return result

    return invoke


def add_functions(service: LambdaServiceProcess, folder_of: Mapping[str, str], environment: Mapping[str, str]) -> None:
    """folder_of: logical name -> where its package is."""
    for name, handler in HANDLERS.items():
        if name in folder_of:
            service.add(FunctionSpec(name, folder_of[name], handler, timeout_s=BOUND_S, environment=environment))


def new_stack(name: str) -> dict[str, str]:
    """Table, empty, and queue as the template makes them; the variables of the front door and of deployments."""
    bound(TableItem, name, "us-east-1").create_table(wait=True)
    queue = boto3.client("sqs").create_queue(QueueName=name)["QueueUrl"]
    return {"HOLDFAST_STORE": f"dynamodb://{name}", "HOLDFAST_INBOX_QUEUE_URL": queue}


@asynccontextmanager
async def coordinator(variables: Mapping[str, str]) -> AsyncIterator[Runtime]:
    """One that takes messages from the queue."""
    runtime = Runtime(RuntimeConfig(DynamoDbTable.parse(variables["HOLDFAST_STORE"]), Listener(port=0), Listener(port=0)))
    await runtime.start()
    queue = HurriedInbox(variables["HOLDFAST_INBOX_QUEUE_URL"])
    await queue.open()
    drain = InboxDrain(runtime.coordinator, queue, SystemClock())
    drain.start()
    try:
        yield runtime
    finally:
        await drain.close()
        await queue.close()
        await runtime.stop()
