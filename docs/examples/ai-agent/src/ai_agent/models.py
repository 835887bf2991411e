"""Which model answers, and the one that needs no key.

`AGENT_MODEL` is `scripted` (nothing is called), `bedrock:MODEL_ID` or `anthropic:MODEL_NAME`. It is read at import: what was
begun with one model may end with another, because the journal keeps what was said and not who said it.
"""

import json
import os
import re
from collections.abc import Sequence
from typing import Any, Protocol

from ai_agent.records import Message, Reply, ToolCall

INSTRUCTIONS = (
    "You help customers of a shop that sells crockery. Look things up with the tools instead of guessing. Ask for several things at"
    " once when they do not depend on each other. Offer a refund only when the customer asks for one."
)
MAX_ANSWER_TOKENS = 1_024


class Model(Protocol):
    """Raises TerminalError for what will never work; whatever else it raises is retried."""

    def complete(self, messages: Sequence[Message]) -> Reply: ...


class ScriptedModel:
    """Follows rules instead of thinking: looks up every order that is named, refunds when asked to, and says what it found."""

    def complete(self, messages: Sequence[Message]) -> Reply:
        start = max(index for index, message in enumerate(messages) if message.role == "user" and not message.results)
        asked, since = messages[start].text, messages[start + 1 :]
        calls = self.next_calls(asked, since)
        found = " ".join(result.content for message in since for result in message.results)
        text = "" if calls else found or "Which order is it about?"
        # The place in the conversation makes an id that no other call of it has.
        numbered = tuple(ToolCall(f"call-{len(messages)}-{index}", name, arguments) for index, (name, arguments) in enumerate(calls))
        return Reply(Message("assistant", text, numbered), tokens=20 + sum(len(message.text) for message in messages) // 4)

    def next_calls(self, asked: str, since: Sequence[Message]) -> list[tuple[str, dict[str, Any]]]:
        """Tools and their arguments; none when it is time to answer."""
        done = {call.name for message in since for call in message.calls}
        if not done:
            orders = sorted(set(re.findall(r"\bo\d+\b", asked)))
            return [(name, {"order_id": order}) for order in orders for name in ("find_order", "track_parcel")]
        if "refund" in asked and "refund" not in done:
            contents = [json.loads(result.content) for message in since for result in message.results if not result.is_error]
            return [("refund", {"order_id": found["order_id"], "cents": found["cents"]}) for found in contents if "cents" in found]
        return []


def chosen(name: str) -> Model:
    """The model of a name as in AGENT_MODEL."""
    provider, _, model = name.partition(":")
    if provider == "bedrock" and model:
        from ai_agent.bedrock import BedrockModel

        return BedrockModel(model)
    if provider == "anthropic" and model:
        from ai_agent.anthropic import AnthropicModel

        return AnthropicModel(model, os.environ["ANTHROPIC_API_KEY"])
    if name != "scripted":
        raise ValueError(f"AGENT_MODEL: expected scripted, bedrock:MODEL_ID or anthropic:MODEL_NAME, found '{name}'")
    return ScriptedModel()


MODEL = chosen(os.environ.get("AGENT_MODEL", "scripted"))


def complete(messages: Sequence[Message]) -> Reply:
    """What conversations call, through `ctx.run`."""
    return MODEL.complete(messages)
