"""What an endpoint offers: records of the discovery manifest, parsed and written (service protocol §5.4,
§5.5).

Rules: unknown members are tolerated; durations are integer milliseconds or None; a member that is absent
stays None, so that handler, service and default settings can be layered later; a manifest that breaks a rule
is refused as a whole. Error texts are those of the reference (HTTP surfaces §2.5), because users search for
them.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from math import isfinite
from typing import Any, Final

from holdfast.protocol.errors import ProtocolError

MIN_MANIFEST_VERSION: Final = 2  # v1 lacks what every supported SDK sends; official SDKs answer 415 to it alone
MAX_MANIFEST_VERSION: Final = 4

_SERVICE_NAME: Final = re.compile(r"([a-zA-Z]|_[a-zA-Z0-9])[a-zA-Z0-9._-]*")
_HANDLER_NAME: Final = re.compile(r"([a-zA-Z]|_[a-zA-Z0-9])[a-zA-Z0-9_]*")
_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_CONTENT_TYPE: Final = re.compile(rf"\s*{_WORD}/{_WORD}\s*(;.*)?")
_MANIFEST_TYPE: Final = re.compile(r"application/vnd\.restate\.endpointmanifest\.v([1-9][0-9]*)\+json")


def manifest_content_type(version: int) -> str:
    """The content type of a manifest in this version."""
    return f"application/vnd.restate.endpointmanifest.v{version}+json"


# What a coordinator offers: v1 too, as the reference does.
MANIFEST_ACCEPT: Final = ", ".join(manifest_content_type(version) for version in range(1, 5))


class ManifestError(ProtocolError):
    """A broken rule. `code`: HTTP status of the admin answer; `restate_code`: META code or None."""

    def __init__(self, message: str, *, code: int = 400, restate_code: str | None = None) -> None:
        super().__init__(f"[{restate_code}] {message}" if restate_code else message, code=code)
        self.restate_code = restate_code


class ProtocolMode(StrEnum):
    """Whether the endpoint can stream both ways."""

    BIDI_STREAM = "BIDI_STREAM"
    REQUEST_RESPONSE = "REQUEST_RESPONSE"


class ServiceType(StrEnum):
    """Kinds of services."""

    SERVICE = "SERVICE"
    VIRTUAL_OBJECT = "VIRTUAL_OBJECT"
    WORKFLOW = "WORKFLOW"


class HandlerType(StrEnum):
    """Kinds of handlers of objects and workflows; handlers of plain services have none."""

    EXCLUSIVE = "EXCLUSIVE"
    SHARED = "SHARED"
    WORKFLOW = "WORKFLOW"


class OnMaxAttempts(StrEnum):
    """What happens when the retry policy gives up."""

    PAUSE = "PAUSE"
    KILL = "KILL"


@dataclass(frozen=True, slots=True)
class InputRule:
    """What the ingress demands of a request. A handler without any rule accepts any body."""

    required: bool | None = None
    content_type: str | None = None
    json_schema: Any = None


@dataclass(frozen=True, slots=True)
class OutputRule:
    """How the ingress labels the response. A handler without any rule answers `application/json`."""

    content_type: str | None = None
    set_content_type_if_empty: bool | None = None
    json_schema: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings of services and handlers; None means not set. `_ms` are milliseconds."""

    documentation: str | None = None
    metadata: Mapping[str, str] | None = None
    inactivity_timeout_ms: int | None = None
    abort_timeout_ms: int | None = None
    journal_retention_ms: int | None = None
    idempotency_retention_ms: int | None = None
    enable_lazy_state: bool | None = None
    ingress_private: bool | None = None
    retry_initial_interval_ms: int | None = None
    retry_max_interval_ms: int | None = None
    retry_max_attempts: int | None = None
    retry_exponentiation_factor: float | None = None
    retry_on_max_attempts: OnMaxAttempts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerManifest(Options):
    """One handler. `type` is None exactly for handlers of plain services."""

    name: str
    type: HandlerType | None = None
    input: InputRule | None = None
    output: OutputRule | None = None
    workflow_completion_retention_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceManifest(Options):
    """One service and its handlers."""

    name: str
    type: ServiceType
    handlers: tuple[HandlerManifest, ...] = ()

    def handler(self, name: str) -> HandlerManifest | None:
        """The handler of this name, or None."""
        return next((handler for handler in self.handlers if handler.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointManifest:
    """Everything an endpoint offers."""

    protocol_mode: ProtocolMode
    min_protocol_version: int
    max_protocol_version: int
    services: tuple[ServiceManifest, ...] = ()
    lambda_compression: str | None = None  # "zstd" is the only one defined


# ---- Tables: member, attribute, kind, manifest version that added it

_OPTION_MEMBERS: Final = (
    ("documentation", "documentation", "string", 2),
    ("metadata", "metadata", "strings", 2),
    ("inactivityTimeout", "inactivity_timeout_ms", "count", 3),
    ("abortTimeout", "abort_timeout_ms", "count", 3),
    ("journalRetention", "journal_retention_ms", "count", 3),
    ("idempotencyRetention", "idempotency_retention_ms", "count", 3),
    ("enableLazyState", "enable_lazy_state", "bool", 3),
    ("ingressPrivate", "ingress_private", "bool", 3),
    ("retryPolicyInitialInterval", "retry_initial_interval_ms", "count", 4),
    ("retryPolicyMaxInterval", "retry_max_interval_ms", "count", 4),
    ("retryPolicyMaxAttempts", "retry_max_attempts", "count", 4),
    ("retryPolicyExponentiationFactor", "retry_exponentiation_factor", "number", 4),
    ("retryPolicyOnMaxAttempts", "retry_on_max_attempts", "on_max_attempts", 4),
)
_HANDLER_MEMBERS: Final = (
    *_OPTION_MEMBERS,
    ("workflowCompletionRetention", "workflow_completion_retention_ms", "count", 3),
)
_INPUT_MEMBERS: Final = (
    ("required", "required", "bool", 1),
    ("contentType", "content_type", "string", 1),
    ("jsonSchema", "json_schema", "any", 1),
)
_OUTPUT_MEMBERS: Final = (
    ("contentType", "content_type", "string", 1),
    ("setContentTypeIfEmpty", "set_content_type_if_empty", "bool", 1),
    ("jsonSchema", "json_schema", "any", 1),
)
_Members = tuple[tuple[str, str, str, int], ...]


# ---- Parsing


def parse_manifest(document: bytes | str | Mapping[str, Any]) -> EndpointManifest:
    """The manifest an endpoint answered. Raises ManifestError: code 500 undecodable, 400 against a rule."""
    if isinstance(document, bytes | str):
        try:
            document = json.loads(document)
        except (ValueError, RecursionError) as error:
            raise _undecodable(f"expected a JSON object, found {error}") from error
    endpoint = _object(document, "the manifest")
    if "protocolMode" not in endpoint or endpoint["protocolMode"] is None:
        raise _undecodable("missing field `protocolMode`, expected BIDI_STREAM or REQUEST_RESPONSE")
    low, high = (_required_int(endpoint, member) for member in ("minProtocolVersion", "maxProtocolVersion"))
    if low > high:
        raise _undecodable(f"minProtocolVersion {low} is above maxProtocolVersion {high}")
    compression = _value(endpoint.get("lambdaCompression"), "string", "lambdaCompression")
    if compression not in (None, "zstd"):
        raise _undecodable(f"lambdaCompression: unknown variant `{compression}`, expected `zstd`")
    services = tuple(_service(item) for item in _array(endpoint, "services", "the manifest"))
    _unique([service.name for service in services], "service", "the manifest")
    return EndpointManifest(
        protocol_mode=_enum(ProtocolMode, endpoint["protocolMode"], "protocolMode"),
        min_protocol_version=low,
        max_protocol_version=high,
        services=services,
        lambda_compression=compression,
    )


def _service(document: Any) -> ServiceManifest:
    members = _object(document, "a service")
    name = _required_string(members, "name", "a service")
    where = f"service '{name}'"
    if not _SERVICE_NAME.fullmatch(name):
        raise _undecodable(f"service name '{name}' does not match {_SERVICE_NAME.pattern}")
    if name.lower().startswith("restate") or name.lower() == "openapi":
        raise ManifestError(f"cannot insert/modify service '{name}' as it contains a reserved name", restate_code="META0005")
    service_type = _enum(ServiceType, members.get("ty"), f"{where}: ty")
    options = _read(members, _OPTION_MEMBERS, where)
    handlers = tuple(_handler(item, name, service_type) for item in _array(members, "handlers", where))
    _unique([handler.name for handler in handlers], "handler", where)
    service = ServiceManifest(name=name, type=service_type, handlers=handlers, **options)
    _check_service(service)
    return service


def _handler(document: Any, service: str, service_type: ServiceType) -> HandlerManifest:
    members = _object(document, f"a handler of service '{service}'")
    name = _required_string(members, "name", f"a handler of service '{service}'")
    where = f"handler '{service}/{name}'"
    if not _HANDLER_NAME.fullmatch(name):
        raise _undecodable(f"handler name '{name}' does not match {_HANDLER_NAME.pattern}")
    declared = members.get("ty")
    handler = HandlerManifest(
        name=name,
        type=_handler_type(service_type, None if declared is None else _enum(HandlerType, declared, f"{where}: ty")),
        input=_rule(InputRule, members.get("input"), _INPUT_MEMBERS, f"{where}: input"),
        output=_rule(OutputRule, members.get("output"), _OUTPUT_MEMBERS, f"{where}: output"),
        **_read(members, _HANDLER_MEMBERS, where),
    )
    _check_handler(handler, service)
    return handler


def _handler_type(service_type: ServiceType, declared: HandlerType | None) -> HandlerType | None:
    """The kind of a handler; an absent one means exclusive on objects and shared on workflows."""
    match service_type, declared:
        case ServiceType.SERVICE, None | HandlerType.SHARED:
            return None
        case ServiceType.VIRTUAL_OBJECT, None | HandlerType.EXCLUSIVE:
            return HandlerType.EXCLUSIVE
        case (ServiceType.VIRTUAL_OBJECT, HandlerType.SHARED) | (
            ServiceType.WORKFLOW,
            None | HandlerType.SHARED,
        ):
            return HandlerType.SHARED
        case ServiceType.WORKFLOW, HandlerType.WORKFLOW:
            return HandlerType.WORKFLOW
    kind = "None" if declared is None else f"Some({_words(declared)})"
    raise ManifestError(f"invalid combination of service type and handler type '({_words(service_type)}, {kind})'")


def _check_handler(handler: HandlerManifest, service: str) -> None:
    is_run = handler.type is HandlerType.WORKFLOW
    if handler.workflow_completion_retention_ms is not None and not is_run:
        raise ManifestError(f"{handler.name} sets the workflow_completion_retention, but it's not a WORKFLOW handler")
    if handler.idempotency_retention_ms is not None and is_run:
        raise ManifestError(f"{handler.name} sets the idempotency_retention, but it's a WORKFLOW handler")
    for side, rule in (("input", handler.input), ("output", handler.output)):
        if rule is None:
            continue
        if rule.content_type is not None and not _CONTENT_TYPE.fullmatch(rule.content_type):
            raise ManifestError(
                f"the handler '{handler.name}' {side} content-type is not valid: expected type/subtype, found '{rule.content_type}'"
            )
        if rule.json_schema is not None and not isinstance(rule.json_schema, dict | bool):
            raise ManifestError(
                f"the json schema for {service}/{handler.name} {side} is invalid: "
                f"expected an object or a boolean, found {_kind(rule.json_schema)}"
            )


def _check_service(service: ServiceManifest) -> None:
    if service.ingress_private:
        for handler in service.handlers:
            if handler.ingress_private is False:
                raise ManifestError(
                    f"The service {service.name} is private, but the {handler.name} is explicitly "
                    "set as public. "
                    "This is not supported. Please make the service public, and hide the individual handlers"
                )
    if service.type is ServiceType.WORKFLOW:
        runs = [handler.name for handler in service.handlers if handler.type is HandlerType.WORKFLOW]
        if len(runs) != 1:
            raise ManifestError(
                f"workflow '{service.name}' must have exactly one handler of type WORKFLOW, "
                f"found {', '.join(runs) or 'none'}; mark the main handler and only it"
            )


def _rule(record: Any, document: Any, table: _Members, where: str) -> Any:
    if document is None:
        return None
    return record(**_read(_object(document, where), table, where))


def _read(members: Mapping[str, Any], table: _Members, where: str) -> dict[str, Any]:
    return {
        attribute: _value(members[member], kind, f"{where}: {member}")
        for member, attribute, kind, _ in table
        if members.get(member) is not None
    }


def _value(value: Any, kind: str, where: str) -> Any:
    """`value` when it is of this kind; raises ManifestError otherwise. None passes."""
    match kind, value:
        case (_, None) | ("any", _) | ("bool", bool()) | ("string", str()):
            return value
        case "count", int() if not isinstance(value, bool) and value >= 0:
            return value
        case "count", float() if value >= 0 and value.is_integer():
            return int(value)
        case "number", int() | float() if not isinstance(value, bool) and isfinite(value):
            return float(value)
        case "strings", dict() if all(isinstance(item, str) for item in value.values()):
            return dict(value)
        case "on_max_attempts", str():
            return _enum(OnMaxAttempts, value, where)
    expected = {
        "count": "a non-negative integer",
        "strings": "an object of strings",
        "on_max_attempts": "PAUSE or KILL",
    }.get(kind, f"a {kind}")
    raise _undecodable(f"{where}: expected {expected}, found {_kind(value)} {value!r:.60}")


def _enum(kind: Any, value: Any, where: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        allowed = ", ".join(member.value for member in kind)
        raise _undecodable(f"{where}: unknown variant `{value}`, expected one of {allowed}") from None


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _undecodable(f"{where}: expected an object, found {_kind(value)}")
    return value


def _array(members: Mapping[str, Any], member: str, where: str) -> list[Any]:
    value = members.get(member)
    if not isinstance(value, list | tuple):
        raise _undecodable(f"{where}: {member}: expected an array, found {_kind(value)}")
    return list(value)


def _required_string(members: Mapping[str, Any], member: str, where: str) -> str:
    value = members.get(member)
    if not isinstance(value, str):
        raise _undecodable(f"{where}: {member}: expected a string, found {_kind(value)}")
    return value


def _required_int(members: Mapping[str, Any], member: str) -> int:
    value = members.get(member)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _undecodable(f"{member}: expected an integer, found {_kind(value)}")
    return value


def _unique(names: list[str], what: str, where: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ManifestError(f"{where} lists {what} '{name}' twice; names must be unique")
        seen.add(name)


def _undecodable(reason: str) -> ManifestError:
    return ManifestError(
        f"received a bad response from the SDK that cannot be decoded: {reason}. Upgrade the SDK, or correct the endpoint",
        code=500,
    )


def _kind(value: Any) -> str:
    return {
        type(None): "nothing",
        bool: "a boolean",
        int: "an integer",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "an object",
    }.get(type(value), type(value).__name__)


def _words(member: Enum) -> str:
    """VIRTUAL_OBJECT -> VirtualObject, as the reference prints it."""
    return "".join(word.capitalize() for word in member.value.split("_"))


# ---- Writing and negotiating


def dump_manifest(manifest: EndpointManifest, version: int) -> dict[str, Any]:
    """The JSON object of a manifest, with only the members of this version.

    Raises ManifestError naming the option that needs a newer version. Compression is left out silently below
    v4: it is an offer, not a demand.
    """
    document: dict[str, Any] = {
        "protocolMode": manifest.protocol_mode.value,
        "minProtocolVersion": manifest.min_protocol_version,
        "maxProtocolVersion": manifest.max_protocol_version,
        "services": [_dump_service(service, version) for service in manifest.services],
    }
    if manifest.lambda_compression is not None and version >= 4:
        document["lambdaCompression"] = manifest.lambda_compression
    return document


def _dump_service(service: ServiceManifest, version: int) -> dict[str, Any]:
    return {
        "name": service.name,
        "ty": service.type.value,
        "handlers": [_dump_handler(handler, service.name, version) for handler in service.handlers],
        **_write(service, _OPTION_MEMBERS, version, f"service '{service.name}'"),
    }


def _dump_handler(handler: HandlerManifest, service: str, version: int) -> dict[str, Any]:
    where = f"handler '{service}/{handler.name}'"
    document: dict[str, Any] = {"name": handler.name}
    if handler.type is not None:
        document["ty"] = handler.type.value
    if handler.input is not None:
        document["input"] = _write(handler.input, _INPUT_MEMBERS, version, where)
    if handler.output is not None:
        document["output"] = _write(handler.output, _OUTPUT_MEMBERS, version, where)
    return document | _write(handler, _HANDLER_MEMBERS, version, where)


def _write(record: object, table: _Members, version: int, where: str) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for member, attribute, _, since in table:
        value = getattr(record, attribute)
        if value is None:
            continue
        if since > version:
            raise ManifestError(
                f"{where} sets {attribute}, which manifest v{since} introduced, but the caller "
                f"asked for v{version}; "
                "remove the option or upgrade the server",
                code=500,
            )
        document[member] = value.value if isinstance(value, Enum) else value
    return document


def negotiate_manifest(accept_header: str | None) -> int | None:
    """The newest manifest version of an accept header that the SDK can write; None means answer 415."""
    versions = (manifest_version_of(part) for part in (accept_header or "").split(","))
    spoken = [v for v in versions if v is not None and MIN_MANIFEST_VERSION <= v <= MAX_MANIFEST_VERSION]
    return max(spoken, default=None)


def manifest_version_of(content_type: str | None) -> int | None:
    """The manifest version a content type names, or None when it names none."""
    match = _MANIFEST_TYPE.fullmatch((content_type or "").partition(";")[0].strip().lower())
    return int(match[1]) if match else None
