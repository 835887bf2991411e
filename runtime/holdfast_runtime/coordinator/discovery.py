"""Asking an endpoint what it serves, and every way that can go wrong (http-api §2.5, §3.1)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final

from holdfast.protocol.json_schema import schema_problem
from holdfast.protocol.manifest import (
    MANIFEST_ACCEPT,
    MAX_MANIFEST_VERSION,
    EndpointManifest,
    ManifestError,
    ProtocolMode,
    manifest_version_of,
    parse_manifest,
)
from holdfast.protocol.versions import MAX_VERSION, MIN_VERSION, select_version
from holdfast_runtime.coordinator.addresses import shown
from holdfast_runtime.coordinator.front import RegistrationError
from holdfast_runtime.engine.registry import Address, HttpAddress, HttpVersion, LambdaAddress
from holdfast_runtime.ports.endpoint import Endpoint, EndpointFailure, EndpointRequest, EndpointResponse
from holdfast_runtime.ports.system import Clock

RETRY_FOR_S: Final = 2.0
FIRST_PAUSE_S: Final = 0.1
GLANCE_S: Final = 5.0  # to learn which HTTP an endpoint speaks that has just been called
MAX_MANIFEST_BYTES: Final = 4 * 1024 * 1024
MAX_SHOWN_BODY: Final = 1000  # of a foreign answer, in messages
MANIFEST_VERSIONS: Final = range(1, MAX_MANIFEST_VERSION + 1)  # those asked for; they only add members, so one parser reads all
TRANSIENT: Final = frozenset({408, 429, 500, 502, 503, 504})

REQUEST: Final = EndpointRequest("GET", "/discover", {"accept": MANIFEST_ACCEPT}, b"")


@dataclass(frozen=True, slots=True)
class Discovered:
    """What the endpoint said. `document` is its manifest as sent, parsed as JSON but otherwise untouched."""

    document: Mapping[str, Any]
    manifest: EndpointManifest
    sdk_version: str | None
    protocol_version: int


async def discover(endpoint: Endpoint, address: Address, clock: Clock, *, timeout_s: float) -> Discovered:
    """timeout_s: of one try. Raises RegistrationError with the status and code the reference gives."""
    response = await _ask(endpoint, address, clock, timeout_s)
    if not 200 <= response.status < 300:
        raise _bad_status(response)
    return _understand(address, response)


async def _ask(endpoint: Endpoint, address: Address, clock: Clock, timeout_s: float) -> EndpointResponse:
    """The last answer, whatever its status; raises RegistrationError when there was none."""
    deadline, pause = clock.monotonic() + RETRY_FOR_S, FIRST_PAUSE_S
    while True:
        failure: EndpointFailure | None = None
        try:
            response = await endpoint.request(address, REQUEST, timeout_s=timeout_s)
        except EndpointFailure as error:
            failure = error
        if failure is None and response.status not in TRANSIENT:
            return response
        if clock.monotonic() + pause >= deadline:
            break
        await clock.sleep(pause)
        pause *= 2
    if failure is None:
        return response
    if await _speaks_only_http11(endpoint, address):
        raise _coded(
            "META0014",
            f"error when calling '{shown(address)}': server possibly supports only HTTP1.1, consider discovery with --use-http1.1.",
        )
    reason = str(failure)
    called = reason if reason.startswith("error when calling ") else f"error when calling '{shown(address)}': {reason}"
    raise _coded("META0003", called)


async def _speaks_only_http11(endpoint: Endpoint, address: Address) -> bool:
    """Whether an endpoint that did not understand HTTP/2 answers to HTTP/1.1."""
    if not isinstance(address, HttpAddress) or address.http_version is HttpVersion.HTTP_1_1:
        return False
    try:
        await endpoint.request(replace(address, http_version=HttpVersion.HTTP_1_1), REQUEST, timeout_s=GLANCE_S)
    except EndpointFailure:
        return False
    return True


def _understand(address: Address, response: EndpointResponse) -> Discovered:
    content_type = response.headers.get("content-type", "")
    if manifest_version_of(content_type) not in MANIFEST_VERSIONS:
        raise _coded(
            "META0013",
            f'received a bad response from the SDK: Bad content type header: "{content_type}". Expected one of \'"{MANIFEST_ACCEPT}"\'',
        )
    if response.broken is not None or len(response.body) > MAX_MANIFEST_BYTES:
        reason = response.broken or f"its {len(response.body)} bytes are above {MAX_MANIFEST_BYTES}"
        raise _coded("META0013", f"received a bad response from the SDK: the manifest is unusable: {reason}")
    try:
        manifest = parse_manifest(response.body)
        document = json.loads(response.body)
    except ManifestError as error:
        raise RegistrationError(str(error), status=error.code, restate_code=error.restate_code) from error
    _refuse_broken_schemas(manifest)
    low, high = manifest.min_protocol_version, manifest.max_protocol_version
    version = select_version(low, high)
    if version is None:
        raise _coded(
            "META0012",
            f"unsupported service protocol versions: [{low}, {high}]. Supported versions by this runtime are "
            f"[{MIN_VERSION}, {MAX_VERSION}]. Please upgrade the SDK and try registering again.",
        )
    if isinstance(address, LambdaAddress) and manifest.protocol_mode is ProtocolMode.BIDI_STREAM:
        raise _coded(
            "META0015",
            "Lambda functions cannot stream in both directions: the endpoint announced BIDI_STREAM, "
            "expected REQUEST_RESPONSE. Serve the SDK with its Lambda handler.",
        )
    return Discovered(document, manifest, response.headers.get("x-restate-server"), version)


def _refuse_broken_schemas(manifest: EndpointManifest) -> None:
    """Asked here and not by the parser, which also reads what was registered before: a new rule must not lock that out."""
    for service in manifest.services:
        for handler in service.handlers:
            for side, rule in (("input", handler.input), ("output", handler.output)):
                schema = rule.json_schema if rule is not None else None
                problem = schema_problem(schema) if schema is not None else None
                if problem is not None:
                    message = f"the json schema for {service.name}/{handler.name} {side} is invalid: {problem}"
                    raise RegistrationError(message, status=400)


def _bad_status(response: EndpointResponse) -> RegistrationError:
    try:
        phrase = f"{response.status} {HTTPStatus(response.status).phrase}"
    except ValueError:
        phrase = str(response.status)
    hint = ""
    if response.status == 404:
        phrase = "404"
        hint = "Make sure the provided URI has the correct path where the Restate SDK endpoint is mounted. "
    body = response.body[:MAX_SHOWN_BODY].decode("utf-8", "replace")
    return _coded(
        "META0003",
        f"got status code '{phrase}'. {hint}Response headers: {json.dumps(dict(response.headers))}. Body: {body}",
    )


def _coded(code: str, message: str) -> RegistrationError:
    """Discovery errors carry their code twice; clients have seen it so."""
    return RegistrationError(f"[{code}] [{code}] {message}", status=500, restate_code=code)
