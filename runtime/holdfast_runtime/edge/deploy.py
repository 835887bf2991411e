"""What CloudFormation asks for while a stack is created or updated: setting the table up, and registering function versions.

A custom resource with the property `Action`:

    setup       Shards, Bucket?     the table, made by the template, gets its records; safe to repeat
    register    FunctionArn, AssumeRoleArn?, Force?, Concurrency?   a coordinator is asked through the inbox queue, so that no network
                                    path to it is needed; done when new work goes to the function, or, with Force: "true", when what it
                                    serves has been read anew; failed when that is not so in time

A known function is registered anew, too, when the resource comes to it while later ones have its services, as CloudFormation does after a
deployment that failed elsewhere; and when it is to have another Concurrency. Deleting does nothing: the table is kept or deleted by the
template, and a version that is pinned by running invocations stays registered.
Configuration: HOLDFAST_STORE (`dynamodb://table`), HOLDFAST_INBOX_QUEUE_URL.
"""

from __future__ import annotations

import json
import logging
import os
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import boto3

from holdfast_runtime.adapters.dynamodb_setup import Setup
from holdfast_runtime.adapters.dynamodb_table import DynamoDbTable
from holdfast_runtime.adapters.system import SystemClock
from holdfast_runtime.coordinator import registry_document
from holdfast_runtime.coordinator.registry_document import StoredDeployment
from holdfast_runtime.edge.table import TableReader
from holdfast_runtime.engine.registry import CONCURRENCY, LambdaAddress
from holdfast_runtime.ports import inbox
from holdfast_runtime.ports.inbox import Register
from holdfast_runtime.ports.store import StoreBroken

log = logging.getLogger("holdfast.edge")

POLL_S: Final = 2.0
SETTLING_S: Final = 5.0  # between tries to set up
SETTLING_TRIES: Final = 13  # a minute; permissions that are missing then are missing for good
MARGIN_MS: Final = 20_000  # of the function's time, kept for telling CloudFormation
LATEST_MS: Final = 40_000  # before we give up nobody begins to register any more: it takes a while, and clocks differ
ANSWER_TIMEOUT_S: Final = 10
REASON_CHARS: Final = 500  # an answer of more than 4096 bytes counts as none, and one character may take six


class DeployFailed(Exception):
    """The text is shown as the reason of the failed resource."""


@dataclass(frozen=True, slots=True)
class Done:
    """`physical_id`: what CloudFormation calls the resource; a change of it would delete the former one, which does nothing."""

    physical_id: str
    data: dict[str, str]


def handler(event: dict[str, Any], context: Any) -> None:
    """Whatever happens, CloudFormation is told: it would wait for an hour otherwise."""
    physical_id = event.get("PhysicalResourceId") or "holdfast"
    status, reason, data = "SUCCESS", "", {}
    try:
        if event["RequestType"] != "Delete":
            done = _act(event, context.get_remaining_time_in_millis)
            physical_id, data = done.physical_id, done.data
    except DeployFailed as problem:
        status, reason = "FAILED", str(problem)
    except Exception as problem:
        log.exception("deploy.failed")
        status, reason = "FAILED", f"{type(problem).__name__}: {problem}"
    _answer(event, {"Status": status, "Reason": reason[:REASON_CHARS], "PhysicalResourceId": physical_id, "Data": data})


def _act(event: dict[str, Any], remaining_ms: Callable[[], int]) -> Done:
    properties: dict[str, Any] = event["ResourceProperties"]
    match properties.get("Action"):
        case "setup":
            return set_up(_table(), int(properties["Shards"]), properties.get("Bucket") or None)
        case "register":
            before = event.get("OldResourceProperties", {}).get("FunctionArn")
            wanted = replace(_wanted(properties), until_ms=SystemClock().now_ms() + max(0, remaining_ms() - MARGIN_MS - LATEST_MS))
            return register(_table(), wanted, lambda: remaining_ms() > MARGIN_MS, takes_over=before != properties["FunctionArn"])
    raise DeployFailed(f"expected Action 'setup' or 'register', found {properties.get('Action')!r}")


def _wanted(properties: dict[str, Any]) -> Register:
    """CloudFormation makes texts of all values."""
    arn, concurrency = properties.get("FunctionArn"), properties.get("Concurrency") or None
    if not arn:
        raise DeployFailed("expected FunctionArn, the ARN of a version or alias, found nothing")
    if concurrency is not None and not (str(concurrency).isdigit() and 0 < int(concurrency) < 1_000_000):
        raise DeployFailed(f"expected a whole number above 0 as Concurrency, found {concurrency!r}")
    force = str(properties.get("Force")).lower() == "true"
    return Register(arn, properties.get("AssumeRoleArn") or None, force, int(concurrency) if concurrency is not None else None)


def set_up(table: DynamoDbTable, shards: int, bucket: str | None, *, pause: Callable[[float], None] = time.sleep) -> Done:
    """Raises StoreBroken. Permissions were made a moment ago in a new stack, and take a while until they are known everywhere."""
    for tries_left in reversed(range(SETTLING_TRIES)):
        try:
            for step in Setup(table, SystemClock()).init(shards, bucket):
                log.info("deploy.setup", extra={"step": step})
            break
        except StoreBroken as problem:
            if "AccessDenied" not in str(problem) or not tries_left:
                raise
            log.warning("deploy.not_allowed_yet", extra={"error": str(problem)})
            pause(SETTLING_S)
    return Done(f"setup-{table.name}", {})


def register(
    table: DynamoDbTable,
    wanted: Register,
    time_left: Callable[[], bool],
    *,
    takes_over: bool = False,
    pause: Callable[[float], None] = time.sleep,
) -> Done:
    """Raises DeployFailed.

    takes_over: new work is to go to the function, also when it is known and later ones have its services.

    Whoever calls a second time, because the first call was lost or its answer was, waits for an effect of its own: forced twice is the
    same as once.
    """
    reader = TableReader(table)
    before, stands = _deployment(reader, wanted, newest=takes_over)
    if before is not None and not stands:
        wanted = replace(wanted, force=True)
    if before is None or wanted.force:
        boto3.client("sqs").send_message(QueueUrl=os.environ["HOLDFAST_INBOX_QUEUE_URL"], MessageBody=inbox.encode(wanted))
    while (found := _deployment(reader, wanted)[0]) is None or (wanted.force and found == before):
        if not time_left():
            what = f"{wanted.arn} anew" if before is not None else wanted.arn
            raise DeployFailed(
                f"no coordinator has registered {what} in time; is one running? Its log says 'inbox.refused' with the reason "
                "when the function cannot be discovered or its services are refused"
            )
        pause(POLL_S)
    return Done(found.id, {"DeploymentId": found.id})


def _deployment(reader: TableReader, wanted: Register, *, newest: bool = False) -> tuple[StoredDeployment | None, bool]:
    """It, with the time of its last registration; whether it has the concurrency that is wanted and, where that matters, all new work."""
    version, document = reader.registry(registry_document.DOCUMENT)
    stored = registry_document.load(document)
    found = next((item for item in stored.values() if isinstance(item.address, LambdaAddress) and item.address.arn == wanted.arn), None)
    if found is None:
        return None, False
    active = registry_document.snapshot(version, stored, registry_document.DefaultSettings()).services
    serves = all(name in active and active[name].deployment_id == found.id for name in found.revisions)
    limited = wanted.concurrency is None or found.metadata.get(CONCURRENCY) == str(wanted.concurrency)
    return found, limited and (serves or not newest)


def _table() -> DynamoDbTable:
    return DynamoDbTable.parse(os.environ["HOLDFAST_STORE"])


def _answer(event: dict[str, Any], answer: dict[str, Any]) -> None:
    same = {name: event[name] for name in ("StackId", "RequestId", "LogicalResourceId")}
    body = json.dumps({**same, **answer}).encode()
    request = urllib.request.Request(event["ResponseURL"], data=body, method="PUT", headers={"content-type": ""})
    urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_S).close()
