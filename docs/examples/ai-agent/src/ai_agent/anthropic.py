"""Anthropic's Messages API over plain HTTP; a provider's own package would do as well, with its retries turned off."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import httpx
from holdfast import RetryableError, TerminalError

from ai_agent.models import INSTRUCTIONS, MAX_ANSWER_TOKENS
from ai_agent.records import Message, Reply, ToolCall
from ai_agent.tools import TOOLS

API: Final = "https://api.anthropic.com"
# What may pass: timed out, too many requests, and everything from 500 on (529 is "overloaded"). The same request gets any other again.
PASSING: Final = frozenset({408, 409, 429})


class AnthropicModel:
    """One connection pool for all conversations that this process works on."""

    def __init__(self, name: str, key: str, url: str = API) -> None:
        self.name = name
        headers = {"x-api-key": key, "anthropic-version": "2023-06-01"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=httpx.Timeout(50, connect=5))  # the function itself has 60 s

    def complete(self, messages: Sequence[Message]) -> Reply:
        tools = [{"name": name, "description": tool.description, "input_schema": tool.json_schema} for name, tool in TOOLS.items()]
        answer = self._http.post(
            "/v1/messages",
            json={
                "model": self.name,
                "max_tokens": MAX_ANSWER_TOKENS,
                "system": INSTRUCTIONS,
                "messages": [written(message) for message in messages],
                "tools": tools,
            },
        )
        if answer.status_code in PASSING or answer.status_code >= 500:
            raise RetryableError(f"{answer.status_code}: {answer.text[:500]}", retry_after=retry_after(answer))
        if answer.status_code != 200:
            raise TerminalError(f"the model's provider refuses the request: {answer.status_code} {answer.text[:500]}", code=502)
        found: dict[str, Any] = answer.json()
        return Reply(read(found["content"]), found["usage"]["input_tokens"] + found["usage"]["output_tokens"])


def retry_after(answer: httpx.Response) -> timedelta | None:
    """What the provider asks for, in seconds; None leaves it to the retry policy."""
    asked = answer.headers.get("retry-after", "")
    return timedelta(seconds=int(asked)) if asked.isdigit() else None


def written(message: Message) -> dict[str, Any]:
    """A message as the API takes it; text must not be empty there."""
    content: list[dict[str, Any]] = [{"type": "text", "text": message.text}] if message.text else []
    content += [{"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments} for call in message.calls]
    for result in message.results:
        block = {"type": "tool_result", "tool_use_id": result.call_id, "content": result.content, "is_error": result.is_error}
        content.append(block)
    return {"role": message.role, "content": content}


def read(content: list[dict[str, Any]]) -> Message:
    """Blocks of other kinds (thinking) are left out; an empty message would be refused when it comes back in the next request."""
    text = "".join(block["text"] for block in content if block["type"] == "text")
    uses = [block for block in content if block["type"] == "tool_use"]
    return Message(
        "assistant", text or ("" if uses else "(no answer)"), tuple(ToolCall(use["id"], use["name"], use["input"]) for use in uses)
    )
