"""What a dashboard shows, read from a resolved stack: the same for template and constructs, which spell it differently.

Rules: resources are named by their part in Holdfast, not by their logical id; a "." of a metric is the value above it; what a metric does
not say is its widget's. A reference to a resource without such a part is an error (KeyError).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tests.infra.resolving import Stack


def shown(stack: Stack) -> dict[str, Any]:
    """Title of a widget -> its place, and its metrics, or its query."""
    widgets = json.loads(text(stack.only("AWS::CloudWatch::Dashboard")["DashboardBody"], parts(stack)))["widgets"]
    found = {one["properties"]["title"]: widget(one) for one in widgets}
    assert len(found) == len(widgets), "each widget has a title of its own"
    return found


def widget(one: dict[str, Any]) -> dict[str, Any]:
    said = one["properties"]
    place = tuple(one[name] for name in ("x", "y", "width", "height"))
    same = {"type": one["type"], "place": place, "region": said["region"]}
    if one["type"] == "log":
        return {**same, "query": " ".join(said["query"].split())}
    return {**same, "metrics": list(metrics(said))}


def metrics(said: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], str, int, str]]:
    """(namespace, name, dimensions...), statistic, period in seconds, axis; in order, which is that of their colours."""
    above: list[str] = []
    for *names, last in said["metrics"]:
        names, own = (names, last) if isinstance(last, dict) else ([*names, last], {})
        above = [above[index] if name == "." else name for index, name in enumerate(names)]
        yield tuple(above), own.get("stat", said["stat"]), own.get("period", said["period"]), own.get("yAxis", "left")


def parts(stack: Stack) -> dict[str, str]:
    """Logical id -> its part in Holdfast."""
    kinds = {"AWS::DynamoDB::Table": "table", "AWS::ECS::Cluster": "cluster", "AWS::ECS::Service": "service"}
    found = {name: part for kind, part in kinds.items() for name in stack.of(kind)}
    found |= {name: "inbox" if "RedrivePolicy" in queue else "dead letters" for name, queue in stack.of("AWS::SQS::Queue").items()}
    (container,) = stack.only("AWS::ECS::TaskDefinition")["ContainerDefinitions"]
    return {**found, container["LogConfiguration"]["Options"]["awslogs-group"]["Ref"]: "log"}


def text(body: Any, named: dict[str, str]) -> str:
    """With each reference replaced by the part it refers to, e.g. "inbox.QueueName"."""
    match body:
        case str():
            return body
        case {"Fn::Join": [str(between), list(pieces)]}:
            return between.join(text(piece, named) for piece in pieces)
        case {"Fn::Sub": str(pattern)}:
            return re.sub(r"\$\{(\w+)((?:\.\w+)?)\}", lambda hit: named[hit[1]] + hit[2], pattern)
        case {"Ref": str(name)}:
            return named[name]
        case {"Fn::GetAtt": [str(name), str(attribute)]}:
            return f"{named[name]}.{attribute}"
    raise AssertionError(f"a dashboard is text and references; found {body!r}")
