"""What the functions of the template answer to the files in `events/`: told once, for `awslambdaric` and for `sam local`."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Final

from holdfast.protocol.frames import split
from holdfast.protocol.messages import MessageType
from tests.infra.make_events import FOLDER, INVOKED

FUNCTIONS: Final = {
    "orders": "OrdersFunction",
    "signup": "SignupFunction",
    "cart": "CartFunction",
    "reminders": "RemindersFunction",
    "edge": "EdgeFunction",
    "deploy": "DeployFunction",
}
HANDLERS: Final = {
    **{f"{service.capitalize()}Function": f"handlers.{service}.handler" for service in INVOKED},
    "EdgeFunction": "holdfast_runtime.edge.app.handler",
    "DeployFunction": "holdfast_runtime.edge.deploy.handler",
}
# What the first attempt of each sample asks for, as far as it gets without an answer.
FIRST_STEPS: Final = {
    "orders": MessageType.RUN_COMMAND,
    "signup": MessageType.SET_STATE_COMMAND,
    "cart": MessageType.SET_STATE_COMMAND,
    "reminders": MessageType.ONE_WAY_CALL_COMMAND,
}
SENDS: Final = ("edge-http-api", "edge-rest-api", "edge-function-url")
Invoke = Callable[[str, Any], Any]  # (logical name of the function, event) -> what it returns


def load(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text())


def function_of(event: str) -> str:
    return FUNCTIONS[event.split("-")[0]]


def body_of(answer: dict[str, Any]) -> bytes:
    return base64.b64decode(answer["body"]) if answer.get("isBase64Encoded") else answer["body"].encode()


def check_discovery(invoke: Invoke, service: str) -> None:
    answer = invoke(FUNCTIONS[service], load(f"{service}-discover"))
    assert answer["statusCode"] == 200, answer
    assert [found["name"] for found in json.loads(body_of(answer))["services"]] == [service]


def check_first_attempt(invoke: Invoke, service: str) -> None:
    answer = invoke(FUNCTIONS[service], load(f"{service}-invoke"))
    assert answer["statusCode"] == 200, answer
    asked = [frame.type for frame in split(body_of(answer))]
    assert FIRST_STEPS[service] in asked, asked
    assert MessageType.ERROR not in asked


def check_health(invoke: Invoke) -> None:
    assert invoke("EdgeFunction", load("edge-health"))["statusCode"] == 200


def check_sends(invoke: Invoke) -> None:
    """Needs a table in which `orders` is registered, and a queue."""
    for name in SENDS:
        answer = invoke("EdgeFunction", load(name))
        assert answer["statusCode"] == 202, (name, answer)
        accepted = json.loads(body_of(answer))
        assert accepted["status"] == "Accepted"
        assert accepted["invocationId"].startswith("inv_")


class CloudFormation:
    """Takes the answers of custom resources. `host`: under which the functions reach this machine."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.answers: list[dict[str, Any]] = []
        answers = self.answers

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                answers.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self._host = host
        self._server = HTTPServer((host, 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def ask(self, invoke: Invoke, name: str, **properties: str) -> dict[str, Any]:
        """The answer to `events/<name>.json` with these properties."""
        event = load(name)
        event["ResponseURL"] = f"http://{self._host}:{self._server.server_port}/answer"
        event["ResourceProperties"] |= properties
        invoke("DeployFunction", event)
        answer = self.answers.pop()
        assert answer["RequestId"] == event["RequestId"]
        return answer

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
