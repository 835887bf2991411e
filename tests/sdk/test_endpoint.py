"""Routes, discovery, versions and request identity of an endpoint."""

import json
from datetime import timedelta
from typing import Any

import pytest

from holdfast import Context, ObjectContext, RetryPolicy, Service, VirtualObject, Workflow, WorkflowContext
from holdfast.endpoint import SERVER, Endpoint
from holdfast.identity import parse_key, verifier
from holdfast.protocol.manifest import manifest_content_type, parse_manifest
from tests.golden.summary import load
from tests.sdk.tiny_runtime import Journal

DAY = timedelta(days=1)
V6 = {"content-type": "application/vnd.restate.invocation.v6"}


def everything_said() -> list[Any]:
    """Every option the manifest can carry."""
    retry = RetryPolicy(initial_interval=timedelta(0), factor=1.5, max_interval=DAY, max_attempts=3, on_max_attempts="kill")
    service = Service(
        "s",
        retry=retry,
        inactivity_timeout=timedelta(seconds=1),
        abort_timeout=timedelta(seconds=2),
        journal_retention=timedelta(0),
        idempotency_retention=2 * DAY,
        lazy_state=False,
        private=True,
        documentation="What it is.",
        metadata={"team": "a"},
    )

    @service.handler(retry=RetryPolicy(on_max_attempts="pause"), accept="text/*", content_type="text/plain")
    async def said(ctx: Context, value: bytes) -> bytes:
        """What it does."""
        return value

    carts, signup = VirtualObject("o"), Workflow("w")

    @carts.handler(lazy_state=True)
    async def add(ctx: ObjectContext, number: int) -> None: ...

    @signup.main(workflow_retention=3 * DAY)
    async def run(ctx: WorkflowContext) -> str:
        return ""

    return [service, carts, signup]


async def discovered(accept: str, services: list[Any]) -> tuple[int, dict[str, str], bytes]:
    return await Endpoint(services).handle("GET", "/prefix/discover", {"Accept": accept}, b"")


async def test_discovery_says_every_option() -> None:
    status, headers, body = await discovered(f"text/html, {manifest_content_type(3)}, {manifest_content_type(4)}", everything_said())
    assert (status, headers["content-type"], headers["x-restate-server"]) == (200, manifest_content_type(4), SERVER)
    assert json.loads(body)["services"][0] == {
        "name": "s",
        "ty": "SERVICE",
        "handlers": [
            {
                "name": "said",
                "input": {"required": False, "contentType": "text/*"},
                "output": {"contentType": "text/plain", "setContentTypeIfEmpty": False},
                "documentation": "What it does.",
                "retryPolicyOnMaxAttempts": "PAUSE",
            }
        ],
        "documentation": "What it is.",
        "metadata": {"team": "a"},
        "inactivityTimeout": 1000,
        "abortTimeout": 2000,
        "journalRetention": 0,
        "idempotencyRetention": 172_800_000,
        "enableLazyState": False,
        "ingressPrivate": True,
        "retryPolicyInitialInterval": 0,
        "retryPolicyMaxInterval": 86_400_000,
        "retryPolicyMaxAttempts": 3,
        "retryPolicyExponentiationFactor": 1.5,
        "retryPolicyOnMaxAttempts": "KILL",
    }
    manifest = parse_manifest(body)
    assert (manifest.min_protocol_version, manifest.max_protocol_version) == (5, 6)
    assert [handler.type for service in manifest.services for handler in service.handlers] == [None, "EXCLUSIVE", "WORKFLOW"]
    assert manifest.services[2].handlers[0].workflow_completion_retention_ms == 3 * 86_400_000


async def test_discovery_speaks_older_manifests_when_the_options_allow() -> None:
    plain = Service("s")

    @plain.handler
    async def handler(ctx: Context) -> None: ...

    for version in (2, 3):
        status, headers, _ = await discovered(manifest_content_type(version), [plain])
        assert (status, headers["content-type"]) == (200, manifest_content_type(version))
    status, _, body = await discovered(manifest_content_type(3), everything_said())
    assert status == 500
    assert b"remove the option or upgrade the server" in body
    assert (await discovered("*/*", [plain]))[0] == 415


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/any/prefix/health", {}, 200),
        ("GET", "/", {}, 404),
        ("GET", "/invoke/s/handler", V6, 404),
        ("POST", "/invoke/s/handler", {"content-type": "application/json"}, 415),
        ("POST", "/invoke/s/handler", {"content-type": "application/vnd.restate.invocation.v4"}, 415),
        ("POST", "/invoke/s/handler", {"content-type": "application/vnd.restate.invocation.v7"}, 415),
        ("POST", "/invoke/s/other", V6, 404),
        ("POST", "/invoke/other/handler", V6, 404),
        ("POST", "/invoke/s/handler", V6, 400),
    ],
)
async def test_what_is_not_served_is_told_by_status(method: str, path: str, headers: dict[str, str], status: int) -> None:
    service = Service("s")

    @service.handler
    async def handler(ctx: Context) -> None: ...

    assert (await Endpoint([service]).handle(method, path, headers, b"torn"))[0] == status


async def test_any_prefix_leads_to_the_handler() -> None:
    service = Service("s")

    @service.handler
    async def handler(ctx: Context) -> str:
        return ctx.request.service

    status, headers, body = await Endpoint([service]).handle("POST", "/a/b/invoke/s/handler", V6, Journal().request())
    assert (status, headers["content-type"]) == (200, V6["content-type"])
    assert b'"s"' in body


VECTOR = load("61-request-identity")


@pytest.mark.parametrize("request_", VECTOR["signed_requests"], ids=lambda item: item["path"])
def test_captured_signatures_hold_for_their_path_and_time_only(request_: dict[str, Any]) -> None:
    now = request_["jwt_claims"]["iat"]

    def problem(at: float = now, path: str = request_["path"], changes: dict[str, str] | None = None) -> str | None:
        verify = verifier([VECTOR["identity_key"]], clock=lambda: at)
        return verify(path, request_["headers"] | (changes or {}))

    assert problem() is None
    assert "not valid now" in str(problem(at=now + 61))
    assert "not valid now" in str(problem(at=now - 61))
    assert "the request for '/invoke/a/b'" in str(problem(path="/invoke/a/b"))
    assert "unsigned requests are refused" in str(problem(changes={"x-restate-signature-scheme": "unsigned"}))
    token = request_["headers"]["x-restate-jwt-v1"]
    swapped = token[:-2] + ("AA" if token[-2:] != "AA" else "BB")
    assert "not signed by a configured key" in str(problem(changes={"x-restate-jwt-v1": swapped}))
    assert "not a JWT" in str(problem(changes={"x-restate-jwt-v1": "nonsense"}))


async def test_unsigned_requests_are_refused_once_keys_are_configured() -> None:
    service = Service("s")

    @service.handler
    async def handler(ctx: Context) -> None: ...

    endpoint = Endpoint([service], identity_keys=[VECTOR["identity_key"]])
    assert (await endpoint.handle("POST", "/invoke/s/handler", V6, Journal().request()))[0] == 401
    assert (await endpoint.handle("GET", "/discover", {"accept": manifest_content_type(4)}, b""))[0] == 401
    assert (await endpoint.handle("GET", "/health", {}, b""))[0] == 200


def test_keys_are_checked_at_once() -> None:
    assert parse_key(VECTOR["identity_key"]).public_bytes_raw().hex() == VECTOR["public_key_hex"]
    for text in ("nonsense", "publickeyv1_0OIl", "publickeyv1_abc"):
        with pytest.raises(ValueError, match="an identity key is publickeyv1_"):
            parse_key(text)
