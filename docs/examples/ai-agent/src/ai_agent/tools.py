"""What the model may use. A tool that is `dangerous` waits for a person's yes before it is executed.

Rules: what a model asks for is not to be trusted: unknown tools and wrong arguments are told to it as errors, never raised.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from holdfast import TerminalError

from ai_agent import shop
from ai_agent.records import ToolCall, ToolResult


@dataclass(frozen=True)
class Tool:
    """`execute` takes the arguments and an id by which a repeated request is recognised."""

    description: str
    arguments: dict[str, type[str] | type[int]]
    execute: Callable[[dict[str, Any], str], object]
    dangerous: bool = False

    @property
    def json_schema(self) -> dict[str, Any]:
        """Of its arguments, as all providers take it."""
        kinds = {str: "string", int: "integer"}
        properties = {name: {"type": kinds[kind]} for name, kind in self.arguments.items()}
        return {"type": "object", "properties": properties, "required": list(self.arguments)}


TOOLS: Final = {
    "find_order": Tool(
        "Looks an order up: what was bought, and for how many cents.",
        {"order_id": str},
        lambda found, _: shop.find_order(found["order_id"]),
    ),
    "track_parcel": Tool(
        "Tells where the parcel of an order is.",
        {"order_id": str},
        lambda found, _: shop.track_parcel(found["order_id"]),
    ),
    "refund": Tool(
        "Pays an order's price back. A colleague has to approve it.",
        {"order_id": str, "cents": int},
        lambda found, request_id: shop.refund(found["order_id"], found["cents"], request_id),
        dangerous=True,
    ),
}


def is_dangerous(call: ToolCall) -> bool:
    return call.name in TOOLS and TOOLS[call.name].dangerous


def execute(call: ToolCall, request_id: str) -> ToolResult:
    """Called through `ctx.run`. What may pass (the network is down) is raised and so retried; what will not is the model's to know."""
    problem = wrong(call)
    if problem:
        return ToolResult(call.id, problem, is_error=True)
    try:
        return ToolResult(call.id, json.dumps(TOOLS[call.name].execute(call.arguments, request_id)))
    except TerminalError as refused:
        return ToolResult(call.id, str(refused), is_error=True)


def wrong(call: ToolCall) -> str:
    """What is wrong with a call, for the model to read; empty when nothing is."""
    tool = TOOLS.get(call.name)
    if tool is None:
        return f"There is no tool '{call.name}'; there are {', '.join(TOOLS)}."
    for name, kind in tool.arguments.items():
        if type(call.arguments.get(name)) is not kind:
            return f"Expected {name} of type {kind.__name__}, found {call.arguments.get(name)!r}."
    unknown = call.arguments.keys() - tool.arguments.keys()
    return f"Unknown arguments: {', '.join(sorted(unknown))}." if unknown else ""
