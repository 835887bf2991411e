"""What Powertools writes for an attempt in a real Lambda runtime process: log lines, metrics in the log, traces to the X-Ray daemon."""

import base64
import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.sdk.tiny_runtime import INVOCATION, Journal
from tests.support.lambda_service import FunctionSpec, LambdaServiceProcess
from tests.support.ports import free_port

TRACE = "1-5759e988-bd862e3fe1be46a994272793"
PARENT = "53995c3f42cd8ad8"
PATIENCE_S = 60.0


class Daemon:
    """The X-Ray daemon, as far as a function knows it: a UDP port."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(PATIENCE_S)
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"

    def take(self, count: int) -> list[dict[str, Any]]:
        """So many segment documents."""
        return [json.loads(self._socket.recv(65536).partition(b"\n")[2]) for _ in range(count)]

    def nothing_waits(self) -> bool:
        self._socket.setblocking(False)
        try:
            self._socket.recv(65536)
        except BlockingIOError:
            return True
        finally:
            self._socket.settimeout(PATIENCE_S)
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    daemon = Daemon()
    yield daemon
    daemon.close()


@pytest.fixture(scope="module")
def functions() -> Iterator[LambdaServiceProcess]:
    with LambdaServiceProcess(free_port()) as service:
        yield service


def played(functions: LambdaServiceProcess, daemon: Daemon, name: str, entry: str, handler: str) -> list[dict[str, Any]]:
    """Runs the handler to its end in one execution environment; every JSON line of its log."""
    spec = FunctionSpec(
        name,
        ".",
        handler=f"tests.sdk.powertools_function.{entry}",
        environment={"AWS_XRAY_DAEMON_ADDRESS": daemon.address, "PYTHONPATH": "sdk:."},
        trace_id=f"Root={TRACE};Parent={PARENT};Sampled=1",
    )
    functions.add(spec)
    journal = Journal()
    for _ in range(3):
        event = {
            "path": f"/invoke/watched/{handler}",
            "httpMethod": "POST",
            "headers": {"content-type": "application/vnd.restate.invocation.v6", "x-restate-invocation-id": str(INVOCATION)},
            "body": base64.b64encode(journal.request()).decode(),
            "isBase64Encoded": True,
        }
        answer = httpx.post(f"{functions.url}/2015-03-31/functions/{name}/invocations", json=event, timeout=PATIENCE_S).json()
        assert answer.get("statusCode") == 200, answer
        journal.take(base64.b64decode(answer["body"]))
    assert journal.output is not None, functions.log(name)
    return [json.loads(line) for line in functions.log(name) if line.startswith("{")]


@pytest.mark.parametrize("handler", ["flowing", "plain"])
def test_each_attempt_is_logged_measured_and_traced(functions: LambdaServiceProcess, daemon: Daemon, handler: str) -> None:
    lines = played(functions, daemon, handler, "asked", handler)

    logged = [line for line in lines if "message" in line]
    assert [line["message"] for line in logged] == ["began", "did one", "did two"]  # three attempts, nothing twice
    for line in logged:
        assert line["correlation_id"] == line["invocation_id"] == str(INVOCATION)
        assert (line["level"], line["service"], line["handler"], line["attempt"]) == ("INFO", "watched", handler, 1)
        assert line["xray_trace_id"] == TRACE
    assert logged[0]["order_id"] == "o1"
    assert "order_id" not in logged[1]
    assert logged[0].get("shop") == ("bern" if handler == "plain" else None)

    measured = [line for line in lines if "_aws" in line]
    assert [[line[name] for name in ("Attempts", "ReplayedEntries", "NewEntries", "ColdStarts")] for line in measured] == [
        [[1.0], [0.0], [2.0], [1.0]],  # the first run and its result
        [[1.0], [2.0], [2.0], [0.0]],  # the second
        [[1.0], [4.0], [1.0], [0.0]],  # the output
    ]
    for line in measured:
        assert (line["service"], line["service_handler"]) == ("shop", f"watched/{handler}")
        (about,) = line["_aws"]["CloudWatchMetrics"]
        assert about["Namespace"] == "Shop"
        assert sorted(about["Dimensions"][0]) == ["service", "service_handler"]
        assert {metric["Unit"] for metric in about["Metrics"]} == {"Count"}

    traced = daemon.take(3)
    for number, subsegment in enumerate(traced):
        assert (subsegment["name"], subsegment["type"]) == (f"## watched/{handler}", "subsegment")
        assert (subsegment["trace_id"], subsegment["parent_id"]) == (TRACE, PARENT)
        assert subsegment["annotations"] == {
            "invocation_id": str(INVOCATION),
            "handler": f"watched/{handler}",
            "attempt": 1,
            "replayed_entries": 2 * number,
            "new_entries": 1 if number == 2 else 2,
            "cold_start": number == 0,
        }


def test_nothing_is_written_that_was_not_asked_for(functions: LambdaServiceProcess, daemon: Daemon) -> None:
    lines = played(functions, daemon, "silent", "silent", "flowing")
    assert lines == []
    assert daemon.nothing_waits()
