"""How to call each handler, as lines to copy into a shell."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from holdfast import discovery
from holdfast.protocol.manifest import HandlerManifest, ServiceType
from holdfast.service import ServiceBase

MAX_DEPTH: Final = 6  # of an example; types may contain themselves
_EXAMPLES: Final[Mapping[str, Any]] = {"string": "text", "integer": 1, "number": 1.5, "boolean": True, "null": None}
KINDS: Final = {
    ServiceType.SERVICE: "service",
    ServiceType.VIRTUAL_OBJECT: "virtual object",
    ServiceType.WORKFLOW: "workflow",
}


@dataclass(frozen=True, slots=True)
class CallLine:
    service: str
    kind: str
    handler: str
    command: str


def call_lines(services: Sequence[ServiceBase], ingress_url: str) -> Iterator[CallLine]:
    """One per handler that may be called from outside."""
    for service in discovery.manifest(list(services)).services:
        for handler in service.handlers:
            if service.ingress_private or handler.ingress_private:
                continue
            key = "" if service.type is ServiceType.SERVICE else "my-key/"
            url = f"{ingress_url.rstrip('/')}/{service.name}/{key}{handler.name}"
            yield CallLine(service.name, KINDS[service.type], handler.name, _curl(url, handler))


def _curl(url: str, handler: HandlerManifest) -> str:
    given = handler.input
    if given is not None and given.content_type in (None, "*/*"):
        return f"curl -X POST {url}"  # takes no argument
    if given is not None and given.content_type != "application/json":
        return f"curl {url} -H 'content-type: {given.content_type}' --data-binary @FILE"
    schema = given.json_schema if given is not None else None
    return f"curl {url} --json {shlex.quote(json.dumps(example(schema), ensure_ascii=False))}"


def example(schema: Any) -> Any:
    """Some value that fits a JSON schema as the SDK writes them."""
    return _example(schema, schema.get("$defs", {}) if isinstance(schema, dict) else {}, MAX_DEPTH)


def _example(schema: Any, definitions: Mapping[str, Any], depth: int) -> Any:
    if not isinstance(schema, dict) or depth == 0:
        return {}
    if "$ref" in schema:
        return _example(definitions.get(str(schema["$ref"]).rpartition("/")[2]), definitions, depth - 1)
    for given in ("default", "const"):
        if schema.get(given) is not None:
            return schema[given]
    for listed in ("examples", "enum"):
        if schema.get(listed):
            return schema[listed][0]
    for choice in ("anyOf", "oneOf", "allOf"):
        if schema.get(choice):
            return _example(schema[choice][0], definitions, depth - 1)
    type_ = schema.get("type")
    if isinstance(type_, list):
        type_ = type_[0]
    if type_ == "array":
        return [_example(schema["items"], definitions, depth - 1)] if isinstance(schema.get("items"), dict) else []
    if type_ == "object" or "properties" in schema:
        wanted = schema.get("required", list(schema.get("properties", {})))
        return {name: _example(part, definitions, depth - 1) for name, part in schema.get("properties", {}).items() if name in wanted}
    return _EXAMPLES.get(str(type_), {})
