"""The SDK end to end under the official server and under ours: async handlers and plain ones, over HTTP/1.1 and as a Lambda."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdfast import AsyncClient, Client, IngressError, TerminalError
from tests.conformance.client import until
from tests.conformance.servers import KINDS, Server, answers, free_port
from tests.conformance.toolbox import ROOT
from tests.sdk import ledger, live_async, live_sync
from tests.support.lambda_service import FunctionSpec, LambdaServiceProcess

pytestmark = pytest.mark.conformance


class Stage:
    """The server, and the services registered with it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.http = httpx.Client(base_url=server.ingress_url, timeout=30)

    def call(self, path: str, body: Any = None, **options: Any) -> Any:
        answer = self.raw(path, body, **options)
        assert answer.status_code == 200, answer.text
        return answer.json() if answer.content else None

    def raw(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        if body is None:
            return self.http.post(path, **options)
        return self.http.post(path, json=body, **options)

    def send(self, path: str, body: Any) -> str:
        answer = self.http.post(f"{path}/send", json=body)
        assert answer.status_code in (200, 202), answer.text
        return str(answer.json()["invocationId"])

    def attach(self, id: str) -> httpx.Response:
        return self.http.get(f"/restate/invocation/{id}/attach")

    def cancel(self, id: str) -> None:
        httpx.patch(f"{self.server.admin_url}/invocations/{id}/cancel").raise_for_status()


@pytest.fixture(scope="module", params=["restate http", "restate lambda", "holdfast http", "holdfast lambda"])
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The services behind one transport, registered with a server of their own."""
    folder = tmp_path_factory.mktemp("live")
    kind, transport = request.param.split()
    with ExitStack() as stack:
        functions = stack.enter_context(LambdaServiceProcess(free_port()))
        server = KINDS[kind](folder, functions.url)
        server.command()  # skips when the binary is not installed
        stack.enter_context(pytest.MonkeyPatch.context()).setenv("LEDGER", str(folder / "ledger"))
        variables = {"LEDGER": str(folder / "ledger"), "PYTHONPATH": os.pathsep.join([str(ROOT / "sdk"), str(ROOT)])}
        if transport == "http":
            deployment = stack.enter_context(served_over_http(folder, variables))
        else:
            spec = FunctionSpec("live", str(ROOT), handler="tests.sdk.live_async.handler", environment=variables)
            functions.add(spec)
            deployment = {"arn": spec.arn}
        stack.callback(server.stop)
        server.start()
        server.register(deployment)
        yield Stage(server)


@contextmanager
def served_over_http(folder: Path, variables: dict[str, str]) -> Iterator[dict[str, object]]:
    """The ASGI application under uvicorn; how to register it."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "tests.sdk.live_async:app", "--port", str(port), "--log-level", "warning"]
    with (folder / "services.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **variables}, stdout=log, stderr=log)
    try:
        until(lambda: answers(f"http://127.0.0.1:{port}/health"), "the services to answer")
        yield {"uri": f"http://127.0.0.1:{port}", "use_http_11": True}
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(params=["async", "sync"])
def service(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def tag() -> str:
    return uuid.uuid4().hex


def noted_with(tag: str) -> str | None:
    """What follows the tag in the line that was noted with it."""
    path = Path(os.environ["LEDGER"])
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.removeprefix(f"{tag} ") for line in lines if line.startswith(f"{tag} ")), None)


def test_each_step_is_executed_once(stage: Stage, service: str, tag: str) -> None:
    assert stage.call(f"/{service}/steps", tag) == [f"done {tag}-1", f"done {tag}-2", "three"]
    assert [ledger.noted(f"{tag}-1"), ledger.noted(f"{tag}-2")] == [1, 1]


def test_values_keep_their_types(stage: Stage, service: str) -> None:
    order = {"id": "o1", "items": ["a", "b"]}
    assert stage.call(f"/{service}/typed", order) == {"order": order, "total": 2}
    answer = stage.http.post(f"/{service}/binary", content=b"\x00\xff", headers={"content-type": "application/octet-stream"})
    assert (answer.content, answer.headers["content-type"]) == (b"\xff\x00", "application/octet-stream")


def test_bad_input_is_the_callers_error(stage: Stage, service: str) -> None:
    answer = stage.raw(f"/{service}/typed", {"id": "o1"})
    assert answer.status_code == 400
    assert "missing items" in answer.text


def test_a_run_is_retried_until_it_succeeds(stage: Stage, service: str, tag: str) -> None:
    assert stage.call(f"/{service}/retried", tag) == f"done {tag}"
    assert ledger.noted(tag) == 3


def test_an_exhausted_run_is_a_terminal_error_in_the_handler(stage: Stage, service: str, tag: str) -> None:
    assert stage.call(f"/{service}/exhausted", tag) == f"gave up: ValueError: {tag} is not ready"
    assert ledger.noted(tag) == 3


def test_a_failing_handler_is_retried_without_repeating_its_steps(stage: Stage, service: str, tag: str) -> None:
    assert stage.call(f"/{service}/unstable", tag) == "stable"
    assert (ledger.noted(f"{tag}-before"), ledger.noted(f"{tag}-outside")) == (1, 3)


def test_a_terminal_error_reaches_the_caller(stage: Stage, service: str) -> None:
    answer = stage.raw(f"/{service}/refused", "x")
    assert (answer.status_code, answer.json()["message"]) == (418, "never")


def test_a_sleep_lasts(stage: Stage, service: str, tag: str) -> None:
    assert stage.call(f"/{service}/nap", tag) == "slept"


def test_calls_sends_and_attach(stage: Stage, service: str, tag: str) -> None:
    assert stage.call(f"/{service}/calls", tag) == [5, 418, 5]


def test_runs_in_parallel_and_map(stage: Stage, service: str, tag: str) -> None:
    assert stage.call(f"/{service}/parallel", tag) == [f"done {tag}-a", f"done {tag}-b", [1, 2, 3]]
    assert [ledger.noted(f"{tag}-a"), ledger.noted(f"{tag}-b")] == [1, 1]


def test_the_quicker_timer_wins(stage: Stage, service: str, tag: str) -> None:
    assert stage.call(f"/{service}/race", tag) == ["quick", 1, 0]


def test_a_deadline_passes(stage: Stage, service: str, tag: str) -> None:
    assert stage.call(f"/{service}/deadline", tag) == "late"
    assert ledger.noted(f"{tag}-late") == 1


def test_a_cancelled_saga_is_undone_in_reverse_and_cancels_its_child(stage: Stage, service: str, tag: str) -> None:
    id = stage.send(f"/{service}/undone", tag)
    until(lambda: ledger.noted(f"{tag}-do-2"), "the second step")
    stage.cancel(id)
    assert stage.attach(id).status_code == 409
    until(lambda: ledger.noted(f"{tag}-child-cancelled"), "the child to be cancelled")
    lines = [line for line in Path(os.environ["LEDGER"]).read_text().splitlines() if line.startswith(tag)]
    assert [line.removeprefix(f"{tag}-") for line in lines if "child" not in line] == [
        "do-1",
        "do-2",
        "undo-2",
        "undo-1",
        "cancelled",
    ]


def test_an_awakeable_is_resolved_from_outside(stage: Stage, service: str, tag: str) -> None:
    id = stage.send(f"/{service}/answered", tag)
    awakeable = until(lambda: noted_with(tag), "the awakeable id")
    stage.raw(f"/restate/awakeables/{awakeable}/resolve", {"id": "o", "items": []}).raise_for_status()
    assert stage.attach(id).json() == {"id": "o", "items": []}


def test_an_awakeable_is_rejected_from_outside(stage: Stage, service: str, tag: str) -> None:
    id = stage.send(f"/{service}/answered", tag)
    awakeable = until(lambda: noted_with(tag), "the awakeable id")
    stage.http.post(f"/restate/awakeables/{awakeable}/reject", content=b"no", headers={"content-type": "text/plain"}).raise_for_status()
    assert stage.attach(id).status_code == 500


def test_signals_arrive_in_order(stage: Stage, service: str, tag: str) -> None:
    id = stage.send(f"/{service}/told", tag)
    assert until(lambda: noted_with(tag), "the invocation id") == id
    stage.call(f"/{service}/tell", id)
    assert stage.attach(id).json() == [0, 1, 2]


def test_an_object_keeps_its_state(stage: Stage, service: str, tag: str) -> None:
    assert [stage.call(f"/{service}_counter/{tag}/add", number) for number in (2, 3)] == [2, 5]
    assert stage.call(f"/{service}_counter/{tag}/count") == 5
    assert stage.call(f"/{service}_counter/{tag}/reset") == ["count"]
    assert stage.call(f"/{service}_counter/{tag}/count") == 0


def test_a_workflow_waits_for_its_promise(stage: Stage, service: str, tag: str) -> None:
    id = stage.send(f"/{service}_signup/{tag}/run", "Ann")
    until(lambda: stage.call(f"/{service}_signup/{tag}/status") == "waiting", "the workflow to wait")
    assert stage.call(f"/{service}_signup/{tag}/confirm", "yes") is None
    assert stage.attach(id).json() == "Ann yes"
    answer = stage.raw(f"/{service}_signup/{tag}/confirm", "again")
    assert (answer.status_code, answer.json()["message"]) == (409, "promise was already completed")
    assert stage.call(f"/{service}_signup/{tag}/status") == "confirmed"


def test_the_client_speaks_types(stage: Stage, tag: str) -> None:
    client = Client(stage.server.ingress_url)
    receipt = client.call(live_async.typed, live_async.Order("o", ["a"]))
    assert receipt == live_async.Receipt(live_async.Order("o", ["a"]), 1)
    assert client.call(live_sync.add, 2, key=f"{tag}/ä b") == 2
    assert client.call(live_async.binary, b"ab") == b"ba"
    assert client.call(live_async.count, key=tag) == 0
    with pytest.raises(TerminalError, match="never") as failure:
        client.call(live_async.refused, "x")
    assert failure.value.code == 418
    with pytest.raises(IngressError, match="'nobody' not found"):
        client.call("nobody/here")


def test_the_client_sends_attaches_and_answers_awakeables(stage: Stage, tag: str) -> None:
    client = Client(stage.server.ingress_url)
    sent = client.send(live_async.answered, tag, idempotency_key=tag)
    assert client.send(live_async.answered, tag, idempotency_key=tag)[:2] == (sent.invocation_id, True)
    with pytest.raises(IngressError) as early:
        client.output(sent)
    assert early.value.status == 470
    awakeable = until(lambda: noted_with(tag), "the awakeable id")
    client.resolve_awakeable(awakeable, live_async.Order("o", []))
    assert client.attach(sent) == client.output(sent) == live_async.Order("o", [])
    rejected = client.send(live_async.answered, f"{tag}-2", delay=live_async.MOMENT)
    client.reject_awakeable(until(lambda: noted_with(f"{tag}-2"), "the awakeable id"), "no")
    with pytest.raises(TerminalError, match="no"):
        client.attach(rejected)


async def test_the_async_client(stage: Stage, tag: str) -> None:
    client = AsyncClient(stage.server.ingress_url)
    assert await client.call(live_async.add, 2, key=tag) == 2
    sent = await client.send(live_async.add, 3, key=tag)
    assert await client.attach(sent) == 5
