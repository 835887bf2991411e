"""The Lambda entry point: envelopes, what is handed to Powertools, and what a cold start costs."""

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aws_lambda_powertools import Logger, Metrics

from holdfast import Context, Service, sync
from holdfast.aws import lambda_handler
from holdfast.protocol.frames import split
from holdfast.protocol.messages import MessageType
from tests.golden.summary import load
from tests.sdk.captured_services import services
from tests.sdk.test_vectors import comparable
from tests.sdk.tiny_runtime import INVOCATION, Journal

ROOT = Path(__file__).parents[2]
VECTOR = load("50-lambda-envelope")
COLD_START_BUDGET_S = 0.1  # processor time of the imports on top of Lambda's own, modules compiled as in a package


def event(path: str, body: bytes, **headers: str) -> dict[str, Any]:
    return {
        "path": path,
        "httpMethod": "POST",
        "headers": {"content-type": "application/vnd.restate.invocation.v6", **headers},
        "body": base64.b64encode(body).decode(),
        "isBase64Encoded": True,
    }


def test_the_captured_envelopes_are_answered_alike() -> None:
    handler = lambda_handler(*services())
    found = handler(VECTOR["invocation"]["event"], None)
    expected = VECTOR["invocation"]["result"]
    assert found["statusCode"] == expected["statusCode"]
    assert found["headers"]["content-type"] == expected["headers"]["content-type"]
    assert comparable(base64.b64decode(found["body"])) == comparable(base64.b64decode(expected["body"]))

    found = handler(VECTOR["discovery"]["event"], None)
    assert found["headers"]["content-type"] == VECTOR["discovery"]["result"]["headers"]["content-type"]
    names = [service["name"] for service in json.loads(base64.b64decode(found["body"]))["services"]]
    assert names == ["Demo", "Counter", "Approval", "TsDemo", "Legacy"]


def test_another_event_is_told_apart() -> None:
    with pytest.raises(ValueError, match=r"expected an invocation envelope .* found the members Records"):
        lambda_handler(*services())({"Records": []}, None)


def test_log_lines_and_metrics_carry_the_invocation(capsys: pytest.CaptureFixture[str]) -> None:
    service = Service("s")

    @service.handler
    async def asynchronous(ctx: Context) -> None:
        ctx.logger.info("async %s", "line", extra={"order_id": "o1"})

    @service.handler
    def plain(ctx: sync.Context) -> None:
        ctx.logger.info("plain line")

    logger = Logger(service="demo", level="INFO", stream=sys.stdout)
    metrics = Metrics(namespace="Holdfast", service="demo")
    handler = lambda_handler(service, logger=logger, metrics=metrics)
    for name in ("asynchronous", "plain"):
        handler(event(f"/invoke/s/{name}", Journal().request(), **{"x-restate-invocation-id": str(INVOCATION)}), None)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    logged = [line for line in lines if "message" in line]
    assert [line["message"] for line in logged] == ["async line", "plain line"]
    assert all(line["invocation_id"] == line["correlation_id"] == str(INVOCATION) for line in logged)
    assert (logged[0]["service"], logged[0]["handler"], logged[0]["attempt"]) == ("s", "asynchronous", 1)
    assert logged[0]["order_id"] == "o1"
    measured = [line for line in lines if "_aws" in line]
    assert [line["ColdStarts"] for line in measured] == [[1.0], [0.0]]
    assert [line["NewEntries"] for line in measured] == [[1.0], [1.0]]


def test_a_replaying_handler_is_silent() -> None:
    service = Service("s")
    messages: list[str] = []

    class Recorder:
        info: Any = None

        def isEnabledFor(self, level: int) -> bool:
            return True

        def log(self, level: int, message: str, *args: object, **kwargs: Any) -> None:
            messages.append(message)

    @service.handler
    def steps(ctx: sync.Context) -> None:
        ctx.logger.info("began")
        ctx.run(lambda: 1)
        ctx.logger.info("did one")
        ctx.run(lambda: 2)
        ctx.logger.info("did two")

    handler = lambda_handler(service, logger=Recorder())
    journal = Journal()
    while journal.output is None:
        answer = handler(event("/invoke/s/steps", journal.request()), None)
        journal.take(base64.b64decode(answer["body"]))
    assert len(journal.responses) == 3
    assert messages == ["began", "did one", "did two"]


def test_the_loop_outlives_invocations() -> None:
    import asyncio

    loops = []
    service = Service("s")

    @service.handler
    async def handler(ctx: Context) -> None:
        loops.append(asyncio.get_running_loop())

    entry = lambda_handler(service)
    for _ in range(2):
        body = base64.b64decode(entry(event("/invoke/s/handler", Journal().request()), None)["body"])
        assert [frame.type for frame in split(body)] == [MessageType.OUTPUT_COMMAND, MessageType.END]
    assert loops[0] is loops[1]


def test_importing_is_quick(tmp_path: Path) -> None:
    heavy = ("pydantic", "boto3", "cryptography", "asyncio", "holdfast_runtime")
    measure = f"""
import awslambdaric.bootstrap, sys, time
before, began = set(sys.modules), time.process_time()
import holdfast, holdfast.aws
print(time.process_time() - began)
print([name for name in {heavy} if name in set(sys.modules) - before])
"""
    variables = {"PYTHONPATH": str(ROOT / "sdk"), "PYTHONPYCACHEPREFIX": str(tmp_path), "PATH": ""}
    taken: list[float] = []
    # Neighbours on the processor only add to it, so the least of many counts; on a machine at rest the second is within the budget.
    while len(taken) < 30 and min(taken, default=COLD_START_BUDGET_S) >= COLD_START_BUDGET_S:
        run = subprocess.run([sys.executable, "-c", measure], env=variables, capture_output=True, text=True, check=True).stdout
        seconds, loaded = run.splitlines()
        assert loaded == "[]"
        taken.append(float(seconds))
    assert min(taken) < COLD_START_BUDGET_S
