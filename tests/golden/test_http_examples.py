"""Captured exchanges with the reference server (http-api, Appendix A), replayed against our surfaces.

What decides an answer is either the surface itself (routes, checks, ids, shapes) or the coordinator. For the second
kind the coordinator is told the outcome of the example, so that everything else about the answer is still compared:
status, which headers are there, content-types, JSON members, texts. Ids and instants vary, except where an id is a
pure function of its coordinates. Each example that is not replayed is listed below with the reason.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from holdfast.protocol.ids import InvocationId
from holdfast_runtime.adapters.memory import memory_store
from holdfast_runtime.adapters.system import SystemEntropy
from holdfast_runtime.coordinator.deployments import Deployments
from holdfast_runtime.coordinator.front import Done, Failed, NotFound, NotReady, RegisterDeployment, Success
from holdfast_runtime.engine.registry import Address, HttpAddress, HttpVersion, LambdaAddress
from holdfast_runtime.ports.endpoint import EndpointFailure, EndpointRequest, EndpointResponse
from holdfast_runtime.surfaces.admin import AdminSettings, admin_app
from holdfast_runtime.surfaces.ingress import Ingress, IngressSettings
from holdfast_runtime.surfaces.server import Listener, serve
from tests.support import fixture_services
from tests.surfaces.conftest import no_addresses
from tests.surfaces.endpoints import SdkEndpoint
from tests.surfaces.fakes import FakeFront
from tests.surfaces.http import Answer, Http
from tests.surfaces.test_deployments import VirtualClock, manifest, says, service

FOLDER = Path(__file__).parent / "http_examples"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))

# Not replayed, and why.
NOT_REPLAYED: Mapping[str, str] = {
    "ingress-error-overloaded": "needs two calls in flight: test_ingress has it",
    "ingress-error-patched-private": "PATCH /services is not served yet",
    "ingress-error-send-delay-bare-number": "on purpose: a bare number is milliseconds here, an official client sends it",
    "admin-deployments-register-protocol-too-old": "the message names the versions spoken, ours are 5 to 6",
    "admin-deployments-register-h2-against-http11": "the retries take two seconds: test_deployments has it",
    "admin-deployments-register-admin-404": "the message repeats the foreign server's headers: test_deployments has it",
    "admin-deployments-register-not-restate-endpoint": "the message repeats the foreign server's headers: test_deployments has it",
    "admin-invocations-purge-journal-completed": "purge-journal is not served yet",
    "admin-invocations-purge-journal-paused": "purge-journal is not served yet",
    "admin-invocations-purge-journal-running": "purge-journal is not served yet",
    "admin-invocations-purge-journal-suspended": "purge-journal is not served yet",
    "admin-invocations-resume-paused-latest": "resume on another deployment is not served yet",
    "admin-invocations-resume-suspended-latest": "resume on another deployment is not served yet",
    "admin-invocations-resume-with-deployment-running": "resume on another deployment is not served yet",
}
NOT_REPLAYED_PREFIXES: Mapping[str, str] = {"admin-invocations-restart-": "restart-as-new is not served yet"}

INGRESS = [name for name in NAMES if name.startswith("ingress-") and name not in NOT_REPLAYED]
ADMIN = [
    name for name in NAMES if name.startswith("admin-") and name not in NOT_REPLAYED and not name.startswith(tuple(NOT_REPLAYED_PREFIXES))
]


@dataclass(frozen=True)
class Example:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None
    answer: Answer


def load(name: str) -> Example:
    document = json.loads((FOLDER / f"{name}.json").read_text())
    request, response = document["request"], document["response"]
    body = request["body"]
    if isinstance(body, dict) and "length" in body:
        body = '"' + "a" * (body["length"] - 2) + '"'
    return Example(
        request["method"],
        request["path"],
        request["headers"],
        octets(body),
        Answer(response["status"], response["headers"], octets(response["body"]) or b""),
    )


def octets(body: Any) -> bytes | None:
    if body is None:
        return None
    return base64.b64decode(body["base64"]) if isinstance(body, dict) else body.encode()


def test_every_example_is_replayed_or_has_a_reason() -> None:
    assert len(NAMES) == 220
    unknown = (set(NOT_REPLAYED)) - set(NAMES)
    assert not unknown
    assert len(INGRESS) + len(ADMIN) >= 190


# ---- Comparing

VARYING_HEADERS = {"date", "content-length", "idempotency-expires", "location", "connection"}
_VARYING = re.compile(r"inv_1[0-9a-zA-Z]{33}|dp_1[0-9a-zA-Z]{22}|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*(?:Z|\+00:00)")
# Free texts of other libraries, behind what we reproduce.
_FOREIGN = re.compile(r"(as JSON: |target type: [a-z_]+: |h2 pool connection error: ).*")


def check(example: Example, answer: Answer, *, exact_id: bool = False) -> None:
    expected = example.answer
    assert answer.status == expected.status, answer
    present = set(answer.headers) - {"date", "connection"}
    wanted = set(expected.headers) - {"date", "connection"}
    if "content-length" in present and not answer.body:
        wanted.add("content-length")  # the reference sometimes leaves out a zero
    assert present == wanted, (present, wanted)
    for name in wanted - VARYING_HEADERS:
        if name == "x-restate-id" and not exact_id:
            continue
        assert answer.headers[name] == expected.headers[name], name
    for name in ("idempotency-expires", "location"):
        if name in expected.headers:
            assert normal(answer.headers[name]) == normal(expected.headers[name])
    assert comparable(answer.body, exact_id) == comparable(expected.body, exact_id)


def comparable(body: bytes, exact_id: bool) -> Any:
    try:
        return ordered(json.loads(body), exact_id)
    except ValueError:
        return normal(body.decode("latin-1"))


def ordered(value: Any, exact_id: bool) -> Any:
    """Arrays of services, handlers and deployments have no order; what varies becomes a placeholder."""
    if isinstance(value, dict):
        left_out = ("features", "holdfast_version", "metadata_cluster_health")
        return {key: ordered(item, exact_id) for key, item in value.items() if key not in left_out}
    if isinstance(value, list):
        return sorted((ordered(item, exact_id) for item in value), key=lambda item: json.dumps(item, sort_keys=True))
    return normal(value) if isinstance(value, str) and not exact_id else value


def normal(text: str) -> str:
    return _FOREIGN.sub(r"\1...", _VARYING.sub("<varies>", text))


# ---- Ingress

FIXTURE = "http://127.0.0.1:21010/"


async def front_with(endpoint: Any, *registrations: RegisterDeployment) -> FakeFront:
    deployments = Deployments(memory_store(1).registry, endpoint, VirtualClock(), SystemEntropy(), resolver=no_addresses)
    for registration in registrations:
        await deployments.register(registration)
    return FakeFront(deployments)


def tell(front: FakeFront, example: Example) -> None:
    """The coordinator's part of an ingress example."""
    answer = example.answer
    source = answer.headers.get("x-restate-error-source")
    expires = answer.headers.get("idempotency-expires")
    expires_at_ms = None if expires is None else round(datetime.fromisoformat(expires).timestamp() * 1000)
    if source == "invocation":
        failed = answer.json()
        front.outcome = Failed(failed["code"], failed["message"], failed.get("metadata", {}), expires_at_ms)
        if failed["message"] == "not found":
            front.outcome = NotFound()
    elif answer.status == 470:
        front.outcome = NotReady()
    elif source == "ingress" and answer.json()["message"] == "invocation not found":
        front.outcome = NotFound()
    elif source is None and answer.status == 200:
        front.outcome = Success(answer.body, expires_at_ms)
    elif answer.status == 202 and answer.body:
        accepted = answer.json()
        front.accepted_new = accepted["status"] == "Accepted"
        if "executionTime" in accepted:
            at = datetime.fromisoformat(accepted["executionTime"].replace("000000Z", "+00:00"))
            front.execution_time_ms = round(at.timestamp() * 1000)


def is_derived(example: Example) -> bool:
    """Whether the id is a pure function of the request, so that it must be the very same."""
    headers = {name.lower() for name in example.headers}
    path = example.path.partition("?")[0]
    return (
        "idempotency-key" in headers
        or path.startswith(("/restate/invocation/", "/restate/workflow/", "/restate/lookup", "/restate/attach"))
        or path.endswith(("/run", "/run/send"))
    )


@pytest.mark.parametrize("name", INGRESS)
async def test_ingress(name: str) -> None:
    example = load(name)
    front = await front_with(SdkEndpoint({FIXTURE: fixture_services.app}), RegisterDeployment(uri=FIXTURE))
    tell(front, example)
    if not is_derived(example) and "x-restate-id" in example.answer.headers:
        front.next_id = InvocationId.parse(example.answer.headers["x-restate-id"])
    server = await serve(Ingress(front, IngressSettings(max_body_bytes=1 << 20)), Listener(grace_s=1))
    try:
        answer = await Http(server.url).request(example.method, example.path, example.headers, example.body)
    finally:
        await server.close()
    check(example, answer, exact_id=True)
    if name == "ingress-call-headers-seen-by-handler":
        seen = dict(front.asked[-1][1].headers)
        assert seen == example.answer.json()


# ---- Admin

ARN = "arn:aws:lambda:eu-central-1:123456789012:function:my-fn:1"
VERSIONED = service(
    "ApiVersioned",
    "VIRTUAL_OBJECT",
    [
        {
            "name": "a",
            "ty": "EXCLUSIVE",
            "input": {},
            "output": {"contentType": "application/json", "jsonSchema": {"type": "string"}},
        }
    ],
)
TYPED = {
    "input": {"required": True, "contentType": "application/json"},
    "output": {"contentType": "application/json"},
}


def bidi(document: dict[str, Any]) -> EndpointResponse:
    answer = says({**document, "protocolMode": "BIDI_STREAM"})
    return EndpointResponse(200, {**answer.headers, "x-restate-server": "restate-sdk-python/1.3.0"}, answer.body)


def anonymous() -> EndpointResponse:
    """An endpoint that does not say which SDK it is."""
    answer = says(manifest(service("ApiDisc", handlers=[{"name": "greet", **TYPED}])))
    return EndpointResponse(200, {"content-type": answer.headers["content-type"]}, answer.body)


def lambda_function() -> EndpointResponse:
    document = manifest(service("ApiLambdaSvc", handlers=[{"name": "greet", **TYPED}], inactivityTimeout=5000), lambdaCompression="zstd")
    answer = says(document)
    return EndpointResponse(200, {**answer.headers, "x-restate-server": "restate-sdk-fake/0.0.1"}, answer.body)


# What answers at the one address that the examples use for endpoints made for the occasion.
SPECIAL: Mapping[str, EndpointResponse | EndpointFailure] = {
    "admin-deployments-register-bad-discovery-content-type": says(manifest(), content_type="application/json"),
    "admin-deployments-register-bad-handler-type": says(manifest(service(handlers=[{"name": "h", "ty": "EXCLUSIVE"}]))),
    "admin-deployments-register-reserved-name": says(manifest(service("RestateThing"))),
}

AT = {port: RegisterDeployment(uri=f"http://127.0.0.1:{port}/") for port in (21010, 21011, 21012, 21013, 21020)}
NEWER = RegisterDeployment(uri="http://127.0.0.1:21012/", metadata={"git": "abc"}, additional_headers={"x-api-key": "secret"})
LAMBDA = RegisterDeployment(
    arn=ARN,
    assume_role_arn="arn:aws:iam::123456789012:role/invoker",
    additional_headers={"x-env": "prod"},
    metadata={"git.commit": "abc"},
)

# What is registered before the request; the default is the main set.
BEFORE: Mapping[str, tuple[RegisterDeployment, ...]] = {
    "admin-deployments-register-http": (),
    "admin-deployments-register-http-dry-run": (),
    "admin-deployments-register-lambda": (),
    "admin-deployments-register-new-revision": (AT[21020], AT[21011]),
    "admin-deployments-list": (AT[21010], AT[21020], AT[21011], AT[21012], AT[21013]),
    "admin-deployments-get": (AT[21020], AT[21011], AT[21012]),
    "admin-deployments-get-lambda": (LAMBDA,),
    "admin-deployments-list-lambda": (LAMBDA,),
    "admin-deployments-delete-force": (AT[21013],),
    "admin-deployments-delete-force-false": (AT[21013],),
    "admin-deployments-delete-no-force": (AT[21013],),
    "admin-services-list": (AT[21010], AT[21020], AT[21011], NEWER),
}
# Ids in the paths of examples -> the address they name.
NAMED = {
    "dp_10q3ABR8ZpLsF9H5oGUUHXb": "http://127.0.0.1:21013/",
    "dp_12Xuhq1iDn0qyMPNcS9wUEx": "http://127.0.0.1:21012/",
    "dp_11lCPObCrTV36v7VS1p2e5P": "http://127.0.0.1:21012/",
    "dp_12EiOeIzbeCDs5are2jHbSF": ARN,
}
# What the coordinator found for the operation in the state the example is named after.
FOUND: Mapping[tuple[str, str], Done] = {
    **{("cancel", state): Done.APPLIED for state in ("pending", "scheduled")},
    **{("cancel", state): Done.ACCEPTED for state in ("running", "suspended", "paused")},
    **{("purge", state): Done.NOT_COMPLETED for state in ("paused", "pending", "running", "suspended")},
    **{("pause", state): Done.ACCEPTED for state in ("running", "backing-off")},
    **{("pause", state): Done.NOT_RUNNING for state in ("pending", "scheduled")},
    **{("resume", state): Done.NOT_STARTED for state in ("pending", "scheduled")},
    **{(operation, "completed"): Done.ALREADY_COMPLETED for operation in ("cancel", "kill", "pause", "resume")},
    **{(operation, "not-found"): Done.NOT_FOUND for operation in ("cancel", "kill", "purge")},
}


class Endpoints(SdkEndpoint):
    """The fixture services over HTTP/2, and what was made for the occasion."""

    def __init__(self, name: str) -> None:
        versioned = bidi(manifest(VERSIONED))
        super().__init__(
            {
                FIXTURE: fixture_services.app,
                **{f"http://127.0.0.1:{port}/": versioned for port in (21011, 21012, 21013, 21020)},
                "http://127.0.0.1:21195/": SPECIAL.get(name, anonymous()),
                ARN: lambda_function(),
                "http://127.0.0.1:21999/": EndpointFailure("h2 pool connection error: refused"),
            }
        )

    async def request(self, address: Address, request: EndpointRequest, *, timeout_s: float) -> EndpointResponse:
        assert isinstance(address, LambdaAddress | HttpAddress)
        assert not isinstance(address, HttpAddress) or isinstance(address.http_version, HttpVersion)
        return await super().request(address, request, timeout_s=timeout_s)


def renamed(path: str, front: FakeFront) -> str:
    """The path with ids of the example's deployments replaced by ours."""
    for old, address in NAMED.items():
        for deployment in front.registry.deployments.values():
            theirs = deployment.address
            if address in (getattr(theirs, "uri", None), getattr(theirs, "arn", None)):
                path = path.replace(old, deployment.id)
    return path


@pytest.mark.parametrize("name", ADMIN)
async def test_admin(name: str) -> None:
    example = load(name)
    front = await front_with(Endpoints(name), *BEFORE.get(name, (AT[21010],)))
    if "invocations-" in name:
        operation, _, state = name.removeprefix("admin-invocations-").partition("-")
        front.done = FOUND.get((operation, state), Done.APPLIED)
    if name == "admin-deployments-list":
        removed = next(item.id for item in front.registry.deployments.values() if "21020" in str(item.address))
        await front.deployments.remove(removed)
    settings = AdminSettings(ingress_url="http://127.0.0.1:8080/", cluster_name="localcluster")
    server = await serve(admin_app(front, settings), Listener(grace_s=1))
    try:
        path = renamed(example.path, front)
        answer = await Http(server.url).request(example.method, path, example.headers, example.body)
    finally:
        await server.close()
    check(example, answer)
