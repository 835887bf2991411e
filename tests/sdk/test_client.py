"""When the client repeats a request, against a server that fails as told."""

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from holdfast import Client, IngressError, RetryPolicy, TerminalError
from tests.conformance.servers import free_port

QUICKLY = RetryPolicy(initial_interval=timedelta(milliseconds=1), max_attempts=3)


class Ingress(ThreadingHTTPServer):
    """Answers with the statuses of a script, then 200; `source` labels the errors."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Reply)
        self.script: list[int] = []
        self.source = "ingress"
        self.seen: list[tuple[str, str]] = []

    @property
    def client(self) -> Client:
        return Client(f"http://127.0.0.1:{self.server_port}/mounted", retry=QUICKLY, headers={"authorization": "token"})


class Reply(BaseHTTPRequestHandler):
    server: Ingress

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.seen.append((self.path, self.headers.get("authorization", "")))
        status = self.server.script.pop(0) if self.server.script else 200
        if status == 0:
            self.connection.close()
            return
        body = b'"done"' if status == 200 else json.dumps({"code": status, "message": "no"}).encode()
        self.send_response(status)
        self.send_header("x-restate-error-source", self.server.source)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def ingress() -> Iterator[Ingress]:
    with Ingress() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize("failure", [500, 503, 0])
def test_an_uncertain_failure_is_repeated_with_an_idempotency_key_only(ingress: Ingress, failure: int) -> None:
    ingress.script = [failure, failure]
    assert ingress.client.call("s/h", idempotency_key="k") == "done"
    assert len(ingress.seen) == 3
    ingress.script = [failure]
    with pytest.raises(IngressError):
        ingress.client.call("s/h")
    assert len(ingress.seen) == 4


def test_a_request_that_was_turned_away_is_always_repeated(ingress: Ingress) -> None:
    ingress.script = [429]
    assert ingress.client.call("s/h") == "done"
    assert ingress.seen == [("/mounted/s/h", "token")] * 2


def test_the_outcome_of_an_invocation_is_never_repeated(ingress: Ingress) -> None:
    ingress.source, ingress.script = "invocation", [503]
    with pytest.raises(TerminalError) as failure:
        ingress.client.call("s/h", idempotency_key="k")
    assert failure.value.code == 503
    assert len(ingress.seen) == 1


def test_repeating_ends(ingress: Ingress) -> None:
    ingress.script = [503] * 9
    with pytest.raises(IngressError, match="503: no"):
        ingress.client.attach("inv_1")
    assert len(ingress.seen) == 3


def test_an_unreachable_ingress_is_named() -> None:
    port = free_port()
    with pytest.raises(IngressError, match=f"cannot reach http://127.0.0.1:{port}"):
        Client(f"http://127.0.0.1:{port}", retry=QUICKLY).call("s/h")
    with pytest.raises(ValueError, match="base_url must be http"):
        Client("localhost:8080")


def test_requests_are_signed_when_asked(ingress: Ingress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    client = Client(f"http://127.0.0.1:{ingress.server_port}", auth="iam", region="eu-west-1")
    assert client.call("s/h", {"a": 1}) == "done"
    assert "AWS4-HMAC-SHA256 Credential=AKID/" in ingress.seen[0][1]
    assert "/eu-west-1/execute-api/aws4_request" in ingress.seen[0][1]
