import pytest

from ai_agent.anthropic import AnthropicModel
from ai_agent.bedrock import BedrockModel
from ai_agent.models import ScriptedModel, chosen


def test_models_are_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret")
    assert isinstance(chosen("scripted"), ScriptedModel)
    assert isinstance(chosen("anthropic:some-model"), AnthropicModel)
    bedrock = chosen("bedrock:us.amazon.nova-pro-v1:0")
    assert isinstance(bedrock, BedrockModel)
    assert bedrock.model_id == "us.amazon.nova-pro-v1:0"
    with pytest.raises(ValueError, match="expected scripted, bedrock:MODEL_ID or anthropic:MODEL_NAME, found 'bedrock:'"):
        chosen("bedrock:")
