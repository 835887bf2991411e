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


# What a cold start pays for, beside Python itself: how long that takes is for bench/bench_cold_start.py to say.
CORE = {
    *("holdfast", "holdfast._attempt", "holdfast._misuse", "holdfast._pending", "holdfast.aws", "holdfast.endpoint", "holdfast.errors"),
    *("holdfast.logs", "holdfast.options", "holdfast.serde", "holdfast.service", "holdfast.protocol"),
    *(f"holdfast.protocol.{name}" for name in ("arrivals", "awaiting", "classes", "errors", "frames", "ids", "machine", "messages")),
    *(f"holdfast.protocol.{name}" for name in ("outcomes", "records", "replay", "request", "versions", "wire_pb2")),
}
ASYNC = {"holdfast._calls", "holdfast._drive", "holdfast._futures", "holdfast._recorded", "holdfast.context"}
PLAIN = {"holdfast._calls", "holdfast._drive_sync", "holdfast._recorded", "holdfast._starter", "holdfast._sync_futures", "holdfast.sync"}
PROTOBUF = 12  # modules of it, and of its namespace package; through its front door they are 40
PYTHON = 90  # modules of the standard library that the bare interpreter has not loaded: 72 of Python 3.11; asyncio has 60 more


@pytest.mark.parametrize(
    ("entry", "more"),
    [
        ("", set()),
        ("from holdfast import Context\nasync def h(ctx: Context) -> None: ...", ASYNC),
        ("from holdfast.sync import Context\ndef h(ctx: Context) -> None: ...", PLAIN),
    ],
    ids=["nothing", "async", "plain"],
)
def test_a_function_loads_what_it_needs(entry: str, more: set[str]) -> None:
    program = f"""
import sys
before = set(sys.modules)
import holdfast, holdfast.aws
{entry}
if {entry!r}:
    from holdfast import Service
    service = Service("s")
    service.handler(h)
    holdfast.aws.lambda_handler(service)
print(*sorted(set(sys.modules) - before))
"""
    variables = {"PYTHONPATH": str(ROOT / "sdk"), "PATH": ""}
    run = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    packages = {name.partition(".")[0] for name in loaded}
    assert {name for name in loaded if name.startswith("holdfast")} == CORE | more
    assert packages - sys.stdlib_module_names == {"holdfast", "google"}
    assert len([name for name in loaded if name.startswith("google")]) <= PROTOBUF
    if more != ASYNC:
        assert len([name for name in loaded if name.partition(".")[0] in sys.stdlib_module_names]) <= PYTHON
        assert not {"asyncio", "concurrent", "hashlib", "http", "socket", "ssl", "urllib"} & packages
