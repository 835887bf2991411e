"""Against a real HTTP server on this machine that answers as Anthropic's API does."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from holdfast import TerminalError
from holdfast.testing import TestRuntime

from ai_agent import models
from ai_agent.anthropic import AnthropicModel
from ai_agent.conversation import conversations, say
from ai_agent.records import Message, Reply, ToolCall, ToolResult


@dataclass
class Provider:
    """Gives the answers in their order, and keeps what it was asked."""

    url: str
    answers: list[tuple[int, dict[str, Any]]] = field(default_factory=list[tuple[int, dict[str, Any]]])
    asked: list[tuple[dict[str, str], dict[str, Any]]] = field(default_factory=list[tuple[dict[str, str], dict[str, Any]]])


@pytest.fixture
def provider() -> Iterator[Provider]:
    class Api(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            found.asked.append(({name.lower(): value for name, value in self.headers.items()}, body))
            status, answer = found.answers.pop(0)
            content = json.dumps(answer).encode()
            self.send_response(status if self.path == "/v1/messages" else 404)
            if status == 429:
                self.send_header("retry-after", "7")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    found = Provider(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def answered(*content: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return 200, {"type": "message", "role": "assistant", "content": content, "usage": {"input_tokens": 100, "output_tokens": 20}}


OVERLOADED = (529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
THROTTLED = (429, {"type": "error", "error": {"type": "rate_limit_error", "message": "slower"}})


def test_a_conversation_there_and_back(provider: Provider) -> None:
    provider.answers = [answered({"type": "tool_use", "id": "t2", "name": "track_parcel", "input": {"order_id": "o1"}})]
    call, result = ToolCall("t1", "find_order", {"order_id": "o1"}), ToolResult("t1", "none", is_error=True)
    said = [Message("user", "Where is o1?"), Message("assistant", "One moment.", (call,)), Message("user", results=(result,))]
    reply = AnthropicModel("some-model", "secret", provider.url).complete(said)
    assert reply == Reply(Message("assistant", "", (ToolCall("t2", "track_parcel", {"order_id": "o1"}),)), 120)

    ((headers, body),) = provider.asked
    assert (headers["x-api-key"], headers["anthropic-version"], body["model"]) == ("secret", "2023-06-01", "some-model")
    assert body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "Where is o1?"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "One moment."},
                {"type": "tool_use", "id": "t1", "name": "find_order", "input": {"order_id": "o1"}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "none", "is_error": True}]},
    ]
    assert body["tools"][0]["input_schema"]["required"] == ["order_id"]


@pytest.mark.holdfast(conversations)
async def test_retries_wait_as_long_as_the_provider_asks(
    holdfast_runtime: TestRuntime, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "MODEL", AnthropicModel("some-model", "secret", provider.url))
    provider.answers = [OVERLOADED, THROTTLED, answered({"type": "text", "text": "Hello."})]
    began = holdfast_runtime.now()
    assert await holdfast_runtime.call(say, "hi", key="ann") == "Hello."
    assert holdfast_runtime.now() - began == timedelta(seconds=1 + 7)
    assert len(provider.asked) == 3  # each of them billed or not by the provider, and none repeated by replay


def test_an_empty_answer_can_be_sent_back(provider: Provider) -> None:
    provider.answers = [answered(), answered({"type": "text", "text": "Hello."})]
    model, said = AnthropicModel("some-model", "secret", provider.url), [Message("user", "hi")]
    said += [model.complete(said).message, Message("user", "and?")]
    assert model.complete(said).message.text == "Hello."
    assert all(message["content"] for message in provider.asked[1][1]["messages"])


def test_what_is_refused_for_good_is_not_retried(provider: Provider) -> None:
    provider.answers = [(400, {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long"}})]
    with pytest.raises(TerminalError, match="prompt is too long"):
        AnthropicModel("some-model", "secret", provider.url).complete([Message("user", "hi")])
