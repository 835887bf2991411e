"""Manifests: what is accepted, the texts of what is refused, and which version may say what."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.protocol.errors import ProtocolError
from holdfast.protocol.manifest import (
    MANIFEST_ACCEPT,
    EndpointManifest,
    HandlerManifest,
    HandlerType,
    InputRule,
    ManifestError,
    OnMaxAttempts,
    OutputRule,
    ProtocolMode,
    ServiceManifest,
    ServiceType,
    dump_manifest,
    manifest_content_type,
    manifest_version_of,
    negotiate_manifest,
    parse_manifest,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def endpoint(*services: dict[str, Any], **members: Any) -> dict[str, Any]:
    document = {
        "protocolMode": "REQUEST_RESPONSE",
        "minProtocolVersion": 5,
        "maxProtocolVersion": 6,
        "services": list(services),
    }
    return document | members


def service(*handlers: dict[str, Any], ty: str = "SERVICE", name: str = "Orders", **members: Any) -> dict[str, Any]:
    return {"name": name, "ty": ty, "handlers": list(handlers), **members}


def handler(name: str = "place", **members: Any) -> dict[str, Any]:
    return {"name": name, **members}


def only_handler(document: dict[str, Any]) -> HandlerManifest:
    (found,) = parse_manifest(document).services[0].handlers
    return found


FULL = EndpointManifest(
    protocol_mode=ProtocolMode.REQUEST_RESPONSE,
    min_protocol_version=5,
    max_protocol_version=6,
    lambda_compression="zstd",
    services=(
        ServiceManifest(
            name="Approval",
            type=ServiceType.WORKFLOW,
            documentation="approves",
            metadata={"team": "core"},
            inactivity_timeout_ms=1,
            abort_timeout_ms=2,
            journal_retention_ms=3,
            idempotency_retention_ms=0,
            enable_lazy_state=False,
            ingress_private=True,
            retry_initial_interval_ms=4,
            retry_max_interval_ms=5,
            retry_max_attempts=6,
            retry_exponentiation_factor=1.5,
            retry_on_max_attempts=OnMaxAttempts.KILL,
            handlers=(
                HandlerManifest(
                    name="run",
                    type=HandlerType.WORKFLOW,
                    input=InputRule(required=True, content_type="application/*", json_schema={"type": "string"}),
                    output=OutputRule(content_type="text/plain; charset=utf-8", set_content_type_if_empty=True),
                    workflow_completion_retention_ms=7,
                ),
                HandlerManifest(name="status", type=HandlerType.SHARED, input=InputRule(), enable_lazy_state=True),
            ),
        ),
    ),
)


def test_everything_set_round_trips_through_json() -> None:
    assert parse_manifest(json.dumps(dump_manifest(FULL, 4))) == FULL
    assert parse_manifest(json.dumps(dump_manifest(FULL, 4)).encode()) == FULL


def test_unknown_members_are_tolerated() -> None:
    document = endpoint(service(handler(new={"a": 1}), another=[1]), more=2)
    assert parse_manifest(document) == parse_manifest(endpoint(service(handler())))


def test_absent_settings_stay_none_and_zero_stays_zero() -> None:
    found = only_handler(endpoint(service(handler(journalRetention=0, abortTimeout=None))))
    assert found.journal_retention_ms == 0
    assert found.abort_timeout_ms is None
    assert found.input is None
    assert only_handler(endpoint(service(handler(input={})))).input == InputRule()


@pytest.mark.parametrize(
    ("service_type", "declared", "expected"),
    [
        ("SERVICE", None, None),
        ("SERVICE", "SHARED", None),
        ("VIRTUAL_OBJECT", None, HandlerType.EXCLUSIVE),
        ("VIRTUAL_OBJECT", "EXCLUSIVE", HandlerType.EXCLUSIVE),
        ("VIRTUAL_OBJECT", "SHARED", HandlerType.SHARED),
        ("WORKFLOW", "WORKFLOW", HandlerType.WORKFLOW),
    ],
)
def test_handler_types(service_type: str, declared: str | None, expected: HandlerType | None) -> None:
    assert only_handler(endpoint(service(handler(ty=declared), ty=service_type))).type is expected


def test_a_workflow_handler_without_type_is_shared() -> None:
    document = endpoint(service(handler("run", ty="WORKFLOW"), handler("status"), ty="WORKFLOW"))
    workflow = parse_manifest(document).services[0]
    assert [found.type for found in workflow.handlers] == [HandlerType.WORKFLOW, HandlerType.SHARED]
    assert workflow.handler("status") is workflow.handlers[1]
    assert workflow.handler("missing") is None


REFUSED = [
    (
        endpoint(service(handler(ty="EXCLUSIVE"))),
        400,
        "invalid combination of service type and handler type '(Service, Some(Exclusive))'",
    ),
    (
        endpoint(service(handler(ty="WORKFLOW"), ty="VIRTUAL_OBJECT")),
        400,
        "invalid combination of service type and handler type '(VirtualObject, Some(Workflow))'",
    ),
    (
        endpoint(service(name="RestateThing")),
        400,
        "[META0005] cannot insert/modify service 'RestateThing' as it contains a reserved name",
    ),
    (
        endpoint(service(name="OpenAPI")),
        400,
        "[META0005] cannot insert/modify service 'OpenAPI' as it contains a reserved name",
    ),
    (
        endpoint(service(handler(workflowCompletionRetention=1))),
        400,
        "place sets the workflow_completion_retention, but it's not a WORKFLOW handler",
    ),
    (
        endpoint(service(handler(ty="WORKFLOW", idempotencyRetention=1), ty="WORKFLOW")),
        400,
        "place sets the idempotency_retention, but it's a WORKFLOW handler",
    ),
    (
        endpoint(service(handler(ingressPrivate=False), ingressPrivate=True)),
        400,
        "The service Orders is private, but the place is explicitly set as public. ",
    ),
    (
        endpoint(service(handler(input={"contentType": "json"}))),
        400,
        "the handler 'place' input content-type is not valid: ",
    ),
    (
        endpoint(service(handler(output={"jsonSchema": 7}))),
        400,
        "the json schema for Orders/place output is invalid: ",
    ),
    (endpoint(service(handler(), handler())), 400, "service 'Orders' lists handler 'place' twice"),
    (endpoint(service(), service()), 400, "the manifest lists service 'Orders' twice"),
    (endpoint(service(handler(), ty="WORKFLOW")), 400, "workflow 'Orders' must have exactly one handler"),
    (b"<html>", 500, "received a bad response from the SDK that cannot be decoded: "),
    (b"[" * 100_000, 500, "received a bad response from the SDK that cannot be decoded: "),
    (b"\xff", 500, "received a bad response from the SDK that cannot be decoded: "),
    ({}, 500, "received a bad response from the SDK that cannot be decoded: missing field `protocolMode`"),
    (
        [],
        500,
        "received a bad response from the SDK that cannot be decoded: the manifest: expected an object",
    ),
]


@pytest.mark.parametrize(("document", "code", "text"), REFUSED)
def test_refusals_say_what_the_reference_says(document: Any, code: int, text: str) -> None:
    with pytest.raises(ManifestError) as raised:
        parse_manifest(document)
    assert str(raised.value).startswith(text)
    assert raised.value.code == code
    assert raised.value.restate_code == ("META0005" if "META0005" in text else None)


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (endpoint(protocolMode="BOTH"), "protocolMode: unknown variant `BOTH`"),
        (endpoint(minProtocolVersion="5"), "minProtocolVersion: expected an integer, found a string"),
        (endpoint(minProtocolVersion=7), "minProtocolVersion 7 is above maxProtocolVersion 6"),
        (endpoint(services=None), "services: expected an array, found nothing"),
        (endpoint(lambdaCompression="gzip"), "unknown variant `gzip`"),
        (endpoint(service(ty="ACTOR")), "unknown variant `ACTOR`"),
        (endpoint(service(name="9lives")), "service name '9lives' does not match"),
        (endpoint(service(handler("a-b"))), "handler name 'a-b' does not match"),
        (endpoint(service(handler(abortTimeout=-1))), "abortTimeout: expected a non-negative integer"),
        (endpoint(service(handler(abortTimeout=True))), "abortTimeout: expected a non-negative integer"),
        (endpoint(service(retryPolicyExponentiationFactor=float("nan"))), "expected a number"),
        (endpoint(service(handler(metadata={"a": 1}))), "metadata: expected an object of strings"),
        (endpoint(service(handler(retryPolicyOnMaxAttempts="STOP"))), "expected one of PAUSE, KILL"),
    ],
)
def test_what_does_not_decode_names_the_member(document: dict[str, Any], text: str) -> None:
    with pytest.raises(ManifestError) as raised:
        parse_manifest(document)
    assert text in str(raised.value)
    assert raised.value.code == 500


@given(
    json_values,
    st.sampled_from(["services", "protocolMode", "ty", "handlers", "name", "input", "metadata", None]),
)
def test_any_json_parses_or_raises_manifest_error(value: Any, place: str | None) -> None:
    document: Any = endpoint(service(handler()))
    if place is None:
        document = value
    elif place in ("services", "protocolMode"):
        document[place] = value
    elif place in ("ty", "handlers", "name"):
        document["services"][0][place] = value
    else:
        document["services"][0]["handlers"][0][place] = value
    try:
        parse_manifest(document)
    except ProtocolError as error:
        assert isinstance(error, ManifestError)


@pytest.mark.parametrize(
    ("options", "needed"),
    [({"documentation": "x"}, 2), ({"abort_timeout_ms": 1}, 3), ({"retry_max_attempts": 3}, 4)],
)
def test_an_option_needs_the_version_that_brought_it(options: dict[str, Any], needed: int) -> None:
    manifest = EndpointManifest(
        protocol_mode=ProtocolMode.REQUEST_RESPONSE,
        min_protocol_version=5,
        max_protocol_version=6,
        services=(ServiceManifest(name="Orders", type=ServiceType.SERVICE, handlers=(HandlerManifest(name="place", **options),)),),
        lambda_compression="zstd",
    )
    for version in range(1, 5):
        if version < needed:
            with pytest.raises(ManifestError, match=f"Orders/place' sets .* manifest v{needed} introduced"):
                dump_manifest(manifest, version)
        else:
            document = dump_manifest(manifest, version)
            assert ("lambdaCompression" in document) is (version >= 4)
            assert parse_manifest(document).services == manifest.services


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (MANIFEST_ACCEPT, 4),
        (f"{manifest_content_type(2)}, {manifest_content_type(3)};q=0.5", 3),
        (manifest_content_type(1), None),
        (f"{manifest_content_type(9)},{manifest_content_type(2)}", 2),
        ("*/*", None),
        ("", None),
        (None, None),
    ],
)
def test_the_newest_common_manifest_version_is_written(accept: str | None, expected: int | None) -> None:
    assert negotiate_manifest(accept) == expected


def test_manifest_content_types() -> None:
    assert manifest_version_of(manifest_content_type(3)) == 3
    assert manifest_version_of(manifest_content_type(3) + "; charset=utf-8") == 3
    assert manifest_version_of("application/json") is None
    assert manifest_version_of(None) is None
