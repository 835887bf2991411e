"""What CloudFormation makes of an expanded template and parameters: which resources are created, with conditions decided.

Rules: `Fn::If` becomes the branch that is taken, and what is AWS::NoValue vanishes; `Ref` and `Fn::GetAtt` of resources stay, because
their values are not known before the deployment; references of parameters become their values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

NOTHING: Final = object()
PSEUDO: Final = {
    "AWS::Partition": "aws",
    "AWS::Region": "us-east-1",
    "AWS::AccountId": "123456789012",
    "AWS::StackName": "holdfast",
    "AWS::URLSuffix": "amazonaws.com",
    "AWS::StackId": "arn:aws:cloudformation:us-east-1:123456789012:stack/holdfast/1",
    "AWS::NoValue": NOTHING,
}


@dataclass
class Stack:
    """`resources`: name -> the resource as it is created. `outputs`: name -> value. `refused`: the assertions of its rules that fail."""

    resources: dict[str, dict[str, Any]]
    outputs: dict[str, Any]
    refused: list[str]

    def only(self, kind: str) -> dict[str, Any]:
        """The properties of the one resource of a type."""
        (found,) = self.of(kind).values()
        return found

    def of(self, kind: str) -> dict[str, dict[str, Any]]:
        return {name: item.get("Properties", {}) for name, item in self.resources.items() if item["Type"] == kind}


class Resolver:
    def __init__(self, template: Mapping[str, Any], given: Mapping[str, str]) -> None:
        self._template = template
        declared = template.get("Parameters", {})
        unknown = given.keys() - declared.keys()
        assert not unknown, f"the template has no parameters {unknown}"
        self._values = {**PSEUDO, **{name: given.get(name, item.get("Default")) for name, item in declared.items()}}
        missing = [name for name, value in self._values.items() if value is None]
        assert not missing, f"parameters without a value: {missing}"
        patterns = {name: item["AllowedPattern"] for name, item in declared.items() if "AllowedPattern" in item}
        refused = [declared[name]["ConstraintDescription"] for name, one in patterns.items() if not re.search(one, str(self._values[name]))]
        assert not refused, refused

    def stack(self) -> Stack:
        made = {name: item for name, item in self._template["Resources"].items() if self._wanted(item)}
        outputs = {name: item for name, item in self._template.get("Outputs", {}).items() if self._wanted(item)}
        rules = self._template.get("Rules", {}).values()
        broken = [rule for rule in rules if "RuleCondition" not in rule or self._true(rule["RuleCondition"])]
        refused = [one["AssertDescription"] for rule in broken for one in rule["Assertions"] if not self._true(one["Assert"])]
        return Stack(
            {name: self._value(item) for name, item in made.items()},
            {name: self._value(item["Value"]) for name, item in outputs.items()},
            refused,
        )

    def _wanted(self, item: Mapping[str, Any]) -> bool:
        return "Condition" not in item or self._condition(item["Condition"])

    def _condition(self, name: str) -> bool:
        return self._true(self._template["Conditions"][name])

    def _true(self, test: Any) -> bool:
        (kind, of), *rest = test.items()
        assert not rest
        match kind:
            case "Fn::Equals":
                return str(self._value(of[0])) == str(self._value(of[1]))
            case "Fn::Not":
                return not self._true(of[0])
            case "Fn::And":
                return all(map(self._true, of))
            case "Fn::Or":
                return any(map(self._true, of))
            case "Fn::Contains":
                return self._value(of[1]) in self._value(of[0])
            case "Condition":
                return self._condition(of)
        raise AssertionError(f"unknown condition {kind}")

    def _value(self, value: Any) -> Any:
        match value:
            case {"Fn::If": [condition, yes, no]}:
                return self._value(yes if self._condition(condition) else no)
            case {"Ref": name} if name in self._values:
                return self._values[name]
            case {"Fn::Sub": str(text)}:
                return {"Fn::Sub": self._filled(text)} if "${" in self._filled(text) else self._filled(text)
            case dict():
                pairs = {name: self._value(item) for name, item in value.items()}
                return {name: item for name, item in pairs.items() if item is not NOTHING}
            case list():
                return [item for item in map(self._value, value) if item is not NOTHING]
        return value

    def _filled(self, text: str) -> str:
        for name, value in self._values.items():
            text = text.replace(f"${{{name}}}", str(value))
        return text


def references(value: Any) -> Iterator[str]:
    """Names of the resources that a resolved value refers to."""
    match value:
        case {"Ref": str(name)}:
            yield name
        case {"Fn::GetAtt": [str(name), *_]}:
            yield name
        case {"Fn::GetAtt": str(name)}:
            yield name.split(".")[0]
        case {"Fn::Sub": str(text)}:
            yield from (part.split("}")[0].split(".")[0] for part in text.split("${")[1:] if not part.startswith("!"))
        case dict():
            for item in value.values():
                yield from references(item)
        case list():
            for item in value:
                yield from references(item)


def needs(resource: Mapping[str, Any]) -> set[str]:
    """What is made before this resource."""
    depends = resource.get("DependsOn", [])
    return {*references(resource.get("Properties", {})), *([depends] if isinstance(depends, str) else depends)}


def order(resources: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """In which they can be created. Raises ValueError, which names those that wait for each other."""
    waiting = {name: needs(resource) & resources.keys() for name, resource in resources.items()}
    done: list[str] = []
    while waiting:
        ready = sorted(name for name, before in waiting.items() if before <= set(done))
        if not ready:
            raise ValueError(f"these wait for each other: {sorted(waiting)}")
        done += ready
        for name in ready:
            del waiting[name]
    return done
