"""What models, tools and conversations exchange; independent of any provider, because it is what the journal keeps."""

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class ToolCall:
    """What the model asks for. `id` is the provider's, and answers refer to it."""

    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class ToolResult:
    """What came of it; an error is told to the model like any other result."""

    call_id: str
    content: str
    is_error: bool = False


@dataclass(frozen=True)
class Message:
    """One of a conversation. The assistant's may hold calls; the user's that follows then holds their results."""

    role: Literal["user", "assistant"]
    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    results: tuple[ToolResult, ...] = ()


@dataclass(frozen=True)
class Reply:
    """What a model said, and what it costs in tokens, read and written."""

    message: Message
    tokens: int
