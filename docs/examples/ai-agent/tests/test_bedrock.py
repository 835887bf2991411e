"""What goes to Bedrock and comes back, checked by botocore's own description of the service: nothing is sent."""

from typing import Any, cast

import boto3  # pyright: ignore[reportMissingTypeStubs]
import pytest
from botocore.exceptions import ClientError  # pyright: ignore[reportMissingTypeStubs]
from botocore.stub import ANY, Stubber  # pyright: ignore[reportMissingTypeStubs]
from holdfast import TerminalError

from ai_agent.bedrock import BedrockModel, Converse
from ai_agent.records import Message, Reply, ToolCall, ToolResult

CALL = ToolCall("t1", "find_order", {"order_id": "o1"})
ASKED = [
    Message("user", "Where is o1?"),
    Message("assistant", "Let me see.", (CALL,)),
    Message("user", results=(ToolResult("t1", '"with the neighbour"'), ToolResult("t2", "no such tool", is_error=True))),
]


@pytest.fixture
def client() -> Any:
    make = cast(Any, boto3).client
    return make("bedrock-runtime", region_name="us-east-1", aws_access_key_id="testing", aws_secret_access_key="testing")


def stubbed(client: Any) -> Any:
    return Stubber(client)


def test_a_conversation_there_and_back(client: Any) -> None:
    model = BedrockModel("us.amazon.nova-pro-v1:0", cast(Converse, client))
    blocks = [{"text": "One moment."}, {"toolUse": {"toolUseId": "t3", "name": "track_parcel", "input": {"order_id": "o1"}}}]
    answer = {
        "output": {"message": {"role": "assistant", "content": blocks}},
        "stopReason": "tool_use",
        "usage": {"inputTokens": 120, "outputTokens": 30, "totalTokens": 150},
        "metrics": {"latencyMs": 400},
    }
    sent = {
        "modelId": "us.amazon.nova-pro-v1:0",
        "system": [{"text": ANY}],
        "messages": [
            {"role": "user", "content": [{"text": "Where is o1?"}]},
            {
                "role": "assistant",
                "content": [
                    {"text": "Let me see."},
                    {"toolUse": {"toolUseId": "t1", "name": "find_order", "input": {"order_id": "o1"}}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"toolResult": {"toolUseId": "t1", "content": [{"text": '"with the neighbour"'}], "status": "success"}},
                    {"toolResult": {"toolUseId": "t2", "content": [{"text": "no such tool"}], "status": "error"}},
                ],
            },
        ],
        "toolConfig": ANY,
        "inferenceConfig": {"maxTokens": 1_024},
    }
    with stubbed(client) as bedrock:
        bedrock.add_response("converse", answer, sent)
        reply = model.complete(ASKED)
        bedrock.assert_no_pending_responses()
    call = ToolCall("t3", "track_parcel", {"order_id": "o1"})
    assert reply == Reply(Message("assistant", "One moment.", (call,)), 150)


@pytest.mark.parametrize(
    ("code", "raised"),
    [("ValidationException", TerminalError), ("AccessDeniedException", TerminalError), ("ThrottlingException", ClientError)],
)
def test_what_is_refused_for_good_is_not_retried(client: Any, code: str, raised: type[Exception]) -> None:
    with stubbed(client) as bedrock:
        bedrock.add_client_error("converse", code, "no")
        with pytest.raises(raised):
            BedrockModel("m", cast(Converse, client)).complete(ASKED)


def test_the_client_leaves_retries_to_holdfast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    made = cast(Any, BedrockModel("m").client)
    assert made.meta.config.retries["total_max_attempts"] == 1
