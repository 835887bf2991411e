"""What the client asks and when it repeats it, against a server that answers as told."""

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from holdfast import (
    AsyncClient,
    Client,
    Context,
    IngressError,
    ObjectContext,
    RetryPolicy,
    Service,
    SharedWorkflowContext,
    TerminalError,
    VirtualObject,
    Workflow,
    WorkflowContext,
)
from holdfast.client import Sent
from tests.support.ports import free_port

mail, carts, signup = Service("mail"), VirtualObject("carts"), Workflow("signup")


@mail.handler
async def post(ctx: Context) -> str:
    raise NotImplementedError


@carts.handler
async def add(ctx: ObjectContext, number: int) -> str:
    raise NotImplementedError


@signup.main
async def run(ctx: WorkflowContext) -> str:
    raise NotImplementedError


@signup.handler
async def confirm(ctx: SharedWorkflowContext) -> str:
    raise NotImplementedError


QUICKLY = RetryPolicy(initial_interval=timedelta(milliseconds=1), max_attempts=3)


class Ingress(ThreadingHTTPServer):
    """Answers with the statuses of a script, then 200; `source` labels the errors."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Reply)
        self.script: list[int] = []
        self.source = "ingress"
        self.seen: list[tuple[str, str]] = []
        self.methods: list[str] = []
        self.bodies: list[bytes] = []

    @property
    def client(self) -> Client:
        return Client(f"http://127.0.0.1:{self.server_port}/mounted", retry=QUICKLY, headers={"authorization": "token"})


class Reply(BaseHTTPRequestHandler):
    server: Ingress

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers.get("content-length", 0))))
        self.server.methods.append(self.command)
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


BY_KEYS: list[tuple[Any, dict[str, str], str]] = [
    (run, {"key": "u/1"}, "GET /restate/workflow/signup/u%2F1/{}"),
    ("signup/run", {"key": "u1"}, "GET /restate/workflow/signup/u1/{}"),
    (post, {"idempotency_key": "a.b"}, "GET /restate/invocation/mail/post/a.b/{}"),
    ("mail/post", {"idempotency_key": "i"}, "GET /restate/invocation/mail/post/i/{}"),
    (add, {"key": "ä", "idempotency_key": "i"}, "GET /restate/invocation/carts/%C3%A4/add/i/{}"),
    (confirm, {"key": "u1", "idempotency_key": "i"}, "GET /restate/invocation/signup/u1/confirm/i/{}"),
    (post, {"idempotency_key": ".."}, "POST /restate/{}"),
    (add, {"key": "k", "idempotency_key": "a/b c"}, "POST /restate/{}"),
]


@pytest.mark.parametrize(("target", "call", "route"), BY_KEYS)
async def test_results_are_asked_for_by_what_the_call_was_made_with(ingress: Ingress, target: Any, call: Any, route: str) -> None:
    awaited = AsyncClient(f"http://127.0.0.1:{ingress.server_port}/mounted")
    for verb, answer in (
        ("attach", ingress.client.attach(target, **call)),
        ("output", ingress.client.output(target, **call)),
        ("attach", await awaited.attach(target, **call)),
        ("output", await awaited.output(target, **call)),
    ):
        assert answer == "done"
        method, _, path = route.format(verb).partition(" ")
        assert (ingress.methods.pop(0), ingress.seen.pop(0)[0]) == (method, f"/mounted{path}")


def test_an_idempotency_key_that_no_path_can_carry_travels_in_a_body(ingress: Ingress) -> None:
    ingress.client.attach(add, key="k", idempotency_key="a/b c")
    ingress.client.output("mail/post", str, idempotency_key="ü")
    wanted = {"target": "idempotentInvocation", "service": "carts", "key": "k", "handler": "add", "idempotencyKey": "a/b c"}
    assert json.loads(ingress.bodies[0]) == wanted
    assert json.loads(ingress.bodies[1]) == {**wanted, "service": "mail", "key": None, "handler": "post", "idempotencyKey": "ü"}


@pytest.mark.parametrize(
    ("arguments", "call", "error", "message"),
    [
        ((run,), {}, ValueError, "signup/run needs key="),
        ((run,), {"key": "k", "idempotency_key": "i"}, ValueError, "signup/run runs once per key; drop idempotency_key='i'"),
        ((confirm,), {"key": "k"}, ValueError, "can be called many times; give the idempotency_key= of the call .* by its main handler"),
        ((add,), {"idempotency_key": "i"}, ValueError, "carts/add needs key="),
        ((post,), {}, ValueError, "mail/post can be called many times; give the idempotency_key="),
        ((post,), {"key": "k", "idempotency_key": "i"}, ValueError, "plain service, which has no keys; drop key='k'"),
        ((post,), {"idempotency_key": ""}, ValueError, "idempotency_key is empty"),
        ((post, str), {"idempotency_key": "i"}, TypeError, "mail/post says what it returns, found <class 'str'> beside it"),
        (("mail/post",), {}, ValueError, "which call of 'mail/post'"),
        (("inv_1",), {"key": "k"}, TypeError, "the id 'inv_1' names its invocation alone, found key='k' beside it; drop it"),
        ((Sent("inv_1", False, post.output),), {"key": "k", "idempotency_key": "i"}, TypeError, "what send returned .* drop them"),
        ((signup,), {"key": "k"}, TypeError, "expected a handler object or 'service/handler', found <workflow signup>"),
    ],
)
def test_what_names_no_invocation_is_refused(arguments: Any, call: Any, error: type[Exception], message: str) -> None:
    client: Any = Client("http://127.0.0.1:1", retry=None)
    for ask in (client.attach, client.output):
        with pytest.raises(error, match=message):
            ask(*arguments, **call)
