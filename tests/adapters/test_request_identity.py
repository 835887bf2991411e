"""Request identity: what a key file may hold, what a token says, and that SDKs believe it and nothing else."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from holdfast import Context, ObjectContext, Service, VirtualObject, asgi
from holdfast.endpoint import Endpoint as SdkEndpoint
from holdfast.identity import parse_key, verifier
from holdfast_runtime.adapters.endpoints import Endpoints
from holdfast_runtime.adapters.request_identity import MAX_KEPT, REUSED_S, RequestIdentity, base58, load_identity
from holdfast_runtime.adapters.system import SystemClock
from holdfast_runtime.app.runtime import IdentityKeyUnusable, Runtime, RuntimeConfig
from holdfast_runtime.ports.endpoint import Address, EndpointRequest, HttpAddress, HttpVersion, LambdaAddress
from holdfast_runtime.surfaces.server import Listener, serve
from tests.conformance.endpoints import TRANSPORTS, Endpoint
from tests.support.lambda_service import LambdaServiceProcess
from tests.support.ports import free_port
from tests.surfaces.http import Http
from tests.surfaces.test_deployments import VirtualClock

VECTORS = Path(__file__).parents[1] / "golden" / "vectors"
RECORDED = json.loads((VECTORS / "61-request-identity.json").read_text())
DISCOVER = EndpointRequest(
    "GET", "/discover", {"accept": ", ".join(f"application/vnd.restate.endpointmanifest.v{n}+json" for n in (2, 3, 4))}, b""
)


def pem(key: Any, encryption: Any = None) -> bytes:
    content: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
    return content


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("identity") / "identity.pem"
    file.write_bytes(pem(Ed25519PrivateKey.generate()))
    return file


@pytest.fixture
def identity(key_file: Path) -> RequestIdentity:
    return load_identity(key_file, SystemClock())


# ---- The key


def test_the_public_key_is_written_as_sdks_read_it(identity: RequestIdentity) -> None:
    assert identity.public_key.startswith("publickeyv1_")
    assert base58(parse_key(identity.public_key).public_bytes_raw()) == identity.public_key.removeprefix("publickeyv1_")
    recorded = bytes.fromhex(RECORDED["public_key_hex"])
    assert f"publickeyv1_{base58(recorded)}" == RECORDED["identity_key"]
    assert base58(b"\0\0\1") == "112"


WRONG: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, r"cannot be read from .*: No such file or directory"),
    "empty": (b"", r"expected an Ed25519 private key, PKCS#8 in PEM, in .*, found something else; make one with `openssl genpkey"),
    "text": (b"publickeyv1_E6oLts2W6tS4rsY5c4QaW13kLPu5J5sV4iBXh1qd7zTW", r"expected an Ed25519 private key, PKCS#8 in PEM"),
    "another kind": (pem(generate_private_key(65537, 2048)), r"found one of another kind \(RSA\); make one with"),
    "encrypted": (pem(Ed25519PrivateKey.generate(), BestAvailableEncryption(b"x")), r"is encrypted; expected one without a password"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_key_that_cannot_be_used_is_said_before_anything_starts(name: str, tmp_path: Path) -> None:
    content, message = WRONG[name]
    file = tmp_path / "identity.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_identity(file, SystemClock())
    store, local = tmp_path / "store.sqlite", Listener(port=0)
    with pytest.raises(IdentityKeyUnusable, match=message):
        await Runtime(RuntimeConfig(store, local, local, request_identity_private_key_pem_file=file)).start()
    assert not store.exists()


# ---- The token


def parts(headers: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    head, claims, _ = headers["x-restate-jwt-v1"].split(".")
    decoded = [json.loads(base64.urlsafe_b64decode(part + "==")) for part in (head, claims)]
    return decoded[0], decoded[1]


@pytest.mark.parametrize("recorded", RECORDED["signed_requests"], ids=lambda item: item["path"])
def test_tokens_say_what_captured_ones_say(recorded: dict[str, Any]) -> None:
    clock = VirtualClock(now=recorded["jwt_claims"]["iat"] + 0.7)
    key = Ed25519PrivateKey.generate()
    identity = RequestIdentity(key, clock)
    given = {name: value for name, value in recorded["headers"].items() if name == "x-restate-service-key"}
    signed = identity.signed(EndpointRequest(recorded["method"], recorded["path"], given, b"body"))
    assert set(signed.headers) == set(recorded["headers"])
    assert signed.headers["x-restate-signature-scheme"] == "v1"
    head, claims = parts(signed.headers)
    assert head == {**recorded["jwt_header"], "kid": identity.public_key}
    assert claims == recorded["jwt_claims"]
    content, _, signature = signed.headers["x-restate-jwt-v1"].rpartition(".")
    public: Ed25519PublicKey = key.public_key()
    public.verify(base64.urlsafe_b64decode(signature + "=="), content.encode())
    assert verifier([identity.public_key], clock.monotonic)(recorded["path"], signed.headers) is None


def test_keys_are_signed_as_they_are_not_as_they_are_escaped(identity: RequestIdentity) -> None:
    assert parts(identity.headers("/invoke/S/h", "a%2Fb%20%C3%A9"))[1]["sub"] == "a/b é"
    assert parts(identity.headers("/invoke/S/h", ""))[1]["sub"] == ""
    assert "sub" not in parts(identity.headers("/invoke/S/h", None))[1]


def test_a_token_is_reused_for_its_path_and_key_while_it_is_fresh() -> None:
    clock = VirtualClock()
    identity = RequestIdentity(Ed25519PrivateKey.generate(), clock)
    verify = verifier([identity.public_key], clock.monotonic)
    first = identity.headers("/invoke/S/h", "k")
    clock.now += REUSED_S - 1
    assert identity.headers("/invoke/S/h", "k") is first
    assert verify("/invoke/S/h", first) is None
    assert identity.headers("/invoke/S/h", None) is not first
    assert identity.headers("/invoke/S/other", "k") is not first
    clock.now += 2
    second = identity.headers("/invoke/S/h", "k")
    assert second != first
    clock.now -= 3600  # a clock that is set back: the kept token is not valid there
    assert verify("/invoke/S/h", identity.headers("/invoke/S/h", "k")) is None


def test_kept_tokens_stay_few() -> None:
    identity = RequestIdentity(Ed25519PrivateKey.generate(), VirtualClock())
    for number in range(MAX_KEPT + 10):
        identity.headers("/invoke/S/h", f"k{number}")
    assert len(identity._kept) <= MAX_KEPT


# ---- Official SDKs


@pytest.fixture(scope="module")
def functions() -> Iterator[LambdaServiceProcess]:
    with LambdaServiceProcess(free_port()) as service:
        yield service


@pytest.fixture(scope="module", params=TRANSPORTS)
def official(
    request: pytest.FixtureRequest, key_file: Path, functions: LambdaServiceProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Endpoint]:
    kind = TRANSPORTS[request.param]

    class Trusting(kind):  # type: ignore[valid-type, misc]
        """The same, for one runtime alone."""

        def variables(self) -> dict[str, str]:
            return {**super().variables(), "CONFORMANCE_IDENTITY_KEY": load_identity(key_file, SystemClock()).public_key}

    endpoint: Endpoint = Trusting(tmp_path_factory.mktemp("effects"), functions)
    endpoint.start()
    yield endpoint
    endpoint.stop()


def addresses(endpoint: Endpoint) -> list[Address]:
    deployment = endpoint.deployment
    if "arn" in deployment:
        return [LambdaAddress(deployment["arn"])]
    versions = [HttpVersion.HTTP_1_1] if deployment["use_http_11"] else [HttpVersion.HTTP_2]
    if endpoint.name == "python-http1":
        versions.append(HttpVersion.HTTP_2)  # its server speaks both
    return [HttpAddress(deployment["uri"], version) for version in versions]


@pytest.fixture
async def endpoints(functions: LambdaServiceProcess, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Endpoints]:
    monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", functions.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    endpoints = Endpoints(SystemClock())
    yield endpoints
    await endpoints.close()


async def test_an_official_sdk_answers_its_runtime_and_nobody_else(
    official: Endpoint, endpoints: Endpoints, identity: RequestIdentity
) -> None:
    stranger = RequestIdentity(Ed25519PrivateKey.generate(), SystemClock())
    recorded = json.loads((VECTORS / "02-invoke-plain.json").read_text())["exchanges"][0]["request"]
    call = EndpointRequest("POST", f"/invoke/{official.prefix}Hidden/secret", recorded["headers"], bytes.fromhex(recorded["body_hex"]))
    for address in addresses(official):
        for request in (DISCOVER, call):
            statuses = {}
            for name, signer in (("signed", identity), ("by a stranger", stranger), ("unsigned", None)):
                endpoints.identity = signer
                statuses[name] = (await endpoints.request(address, request, timeout_s=60)).status
            endpoints.identity = None
            moved = EndpointRequest(request.method, request.path, {**request.headers, **identity.headers("/invoke/Other/h", None)}, b"")
            statuses["for another path"] = (await endpoints.request(address, moved, timeout_s=60)).status
            assert statuses == {"signed": 200, "by a stranger": 401, "unsigned": 401, "for another path": 401}, (address, request.path)


async def test_a_server_with_a_key_works_with_official_sdks(
    official: Endpoint, functions: LambdaServiceProcess, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", functions.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    local = Listener(port=0, grace_s=1)
    runtime = Runtime(RuntimeConfig(None, local, local, request_identity_private_key_pem_file=key_file))
    await runtime.start()
    try:
        registered = await Http(runtime.admin_url).post("/deployments", official.deployment)
        assert registered.status == 201, registered
        for total in (2, 4):
            added = await Http(runtime.ingress_url).post(f"/{official.prefix}Counter/a%2Fb/add", {"by": 2})
            assert (added.status, added.json()) == (200, total)
    finally:
        await runtime.stop()


# ---- A whole server

shop, cart = Service("Shop"), VirtualObject("Cart")


@shop.handler
async def greet(ctx: Context, name: str) -> str:
    return f"hello {name}"


@cart.handler
async def add(ctx: ObjectContext, item: str) -> str:
    return f"{ctx.key}: {item}"


@pytest.mark.parametrize("base", ["", "/base/path"])
@pytest.mark.parametrize("use_http_11", [True, False])
async def test_a_server_with_a_key_serves_endpoints_that_demand_it(key_file: Path, use_http_11: bool, base: str) -> None:
    local = Listener(port=0, grace_s=1)
    runtime = Runtime(RuntimeConfig(None, local, local, request_identity_private_key_pem_file=key_file))
    await runtime.start()
    unsigned = Runtime(RuntimeConfig(None, local, local))
    await unsigned.start()
    assert runtime.public_key is not None
    trusting = await serve(asgi.app(shop, cart, identity_keys=[runtime.public_key]), local)
    try:
        deployment = {"uri": f"{trusting.url.rstrip('/')}{base}", "use_http_11": use_http_11}
        registered = await Http(runtime.admin_url).post("/deployments", deployment)
        assert registered.status == 201, registered
        assert (await Http(runtime.ingress_url).post("/Shop/greet", "you")).json() == "hello you"
        assert (await Http(runtime.ingress_url).post("/Cart/a%2Fb/add", "pen")).json() == "a/b: pen"
        refused = await Http(unsigned.admin_url).post("/deployments", deployment)
        assert (refused.status, refused.json()["restate_code"]) == (500, "META0003")
        assert "401" in refused.json()["message"]
    finally:
        await trusting.close()
        await unsigned.stop()
        await runtime.stop()


async def test_handlers_of_this_process_get_it_too(key_file: Path) -> None:
    local = Listener(port=0, grace_s=1)
    runtime = Runtime(RuntimeConfig(None, local, local, request_identity_private_key_pem_file=key_file))
    trusting = SdkEndpoint([shop], identity_keys=[load_identity(key_file, SystemClock()).public_key])
    await runtime.start({"app": trusting.handle})
    try:
        assert (await Http(runtime.ingress_url).post("/Shop/greet", "you")).json() == "hello you"
    finally:
        await runtime.stop()
