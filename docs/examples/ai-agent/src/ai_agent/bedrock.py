"""Amazon Bedrock, by its Converse API, which is the same for all models there.

boto3 is on Lambda already. Its own retries are off: Holdfast's are kept in the journal, and wait without a running function.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final, Protocol, cast

from holdfast import TerminalError

from ai_agent.models import INSTRUCTIONS, MAX_ANSWER_TOKENS
from ai_agent.records import Message, Reply, ToolCall
from ai_agent.tools import TOOLS

# Errors that the same request gets again; all others (throttled, not ready, timed out, no connection) may pass.
FINAL: Final = frozenset({"ValidationException", "AccessDeniedException", "ResourceNotFoundException"})


class Converse(Protocol):
    """What is used of boto3's client."""

    def converse(self, **request: Any) -> dict[str, Any]: ...


class BedrockModel:
    """`model_id`: a model, an inference profile, or its ARN; the function's role needs bedrock:InvokeModel for it."""

    def __init__(self, model_id: str, client: Converse | None = None) -> None:
        self.model_id = model_id
        self._given = client

    @cached_property
    def client(self) -> Converse:
        """Made when it is first needed: importing boto3 and loading its models takes longer than anything else in a cold start."""
        if self._given is not None:
            return self._given
        import boto3  # pyright: ignore[reportMissingTypeStubs]
        from botocore.config import Config  # pyright: ignore[reportMissingTypeStubs]

        settings = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=50)  # the function itself has 60 s
        return cast(Converse, boto3.client("bedrock-runtime", config=settings))  # pyright: ignore[reportUnknownMemberType]

    def complete(self, messages: Sequence[Message]) -> Reply:
        from botocore.exceptions import ClientError  # pyright: ignore[reportMissingTypeStubs]

        try:
            answer = self.client.converse(
                modelId=self.model_id,
                system=[{"text": INSTRUCTIONS}],
                messages=[written(message) for message in messages],
                toolConfig={"tools": [specification(name) for name in TOOLS]},
                inferenceConfig={"maxTokens": MAX_ANSWER_TOKENS},
            )
        except ClientError as error:
            code = cast(str, error.response.get("Error", {}).get("Code", ""))  # pyright: ignore
            if code in FINAL:
                raise TerminalError(f"Bedrock refuses the request: {error}", code=502) from error
            raise
        usage = answer["usage"]
        return Reply(read(answer["output"]["message"]), usage["inputTokens"] + usage["outputTokens"])


def specification(name: str) -> dict[str, Any]:
    tool = TOOLS[name]
    return {"toolSpec": {"name": name, "description": tool.description, "inputSchema": {"json": tool.json_schema}}}


def written(message: Message) -> dict[str, Any]:
    """A message as Converse takes it; text must not be empty there."""
    content: list[dict[str, Any]] = [{"text": message.text}] if message.text else []
    content += [{"toolUse": {"toolUseId": call.id, "name": call.name, "input": call.arguments}} for call in message.calls]
    for result in message.results:
        status = "error" if result.is_error else "success"
        content.append({"toolResult": {"toolUseId": result.call_id, "content": [{"text": result.content}], "status": status}})
    return {"role": message.role, "content": content}


def read(message: dict[str, Any]) -> Message:
    """Blocks of other kinds (reasoning) are left out; an empty message would be refused when it comes back in the next request."""
    text = "".join(block["text"] for block in message["content"] if "text" in block)
    uses = [block["toolUse"] for block in message["content"] if "toolUse" in block]
    return Message(
        "assistant", text or ("" if uses else "(no answer)"), tuple(ToolCall(use["toolUseId"], use["name"], use["input"]) for use in uses)
    )
