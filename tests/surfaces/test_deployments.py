"""Registration: which addresses and manifests are accepted, what a revision is, and that racing processes agree."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from holdfast.protocol.manifest import ServiceType
from holdfast_runtime.adapters.memory import memory_store
from holdfast_runtime.adapters.system import SystemEntropy
from holdfast_runtime.coordinator import registry_document
from holdfast_runtime.coordinator.addresses import dump_address, identity, load_address, shown
from holdfast_runtime.coordinator.deployments import Deployments
from holdfast_runtime.coordinator.front import RegisterDeployment, RegistrationError
from holdfast_runtime.coordinator.registry_document import DefaultSettings
from holdfast_runtime.engine.registry import (
    DAY_MS,
    Address,
    HandlerKind,
    HttpAddress,
    HttpVersion,
    InProcessAddress,
    LambdaAddress,
    OnMaxAttempts,
    RetryPolicy,
)
from holdfast_runtime.ports.endpoint import EndpointFailure, EndpointResponse
from holdfast_runtime.ports.forbidden import is_forbidden
from holdfast_runtime.ports.store import Registry
from tests.surfaces.conftest import no_addresses
from tests.surfaces.endpoints import MANIFEST_V4, ToldEndpoint

Json = dict[str, Any]


@dataclass
class VirtualClock:
    """Sleeping moves it."""

    now: float = 1_795_291_447.669

    def now_ms(self) -> int:
        return round(self.now * 1000)

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def manifest(*services: Json, low: int = 5, high: int = 7, **more: Any) -> Json:
    return {
        "protocolMode": "REQUEST_RESPONSE",
        "minProtocolVersion": low,
        "maxProtocolVersion": high,
        "services": list(services),
        **more,
    }


def service(name: str = "Greeter", ty: str = "SERVICE", handlers: list[Json] | None = None, **more: Any) -> Json:
    return {"name": name, "ty": ty, "handlers": handlers if handlers is not None else [{"name": "greet"}], **more}


def says(document: Any, status: int = 200, content_type: str = MANIFEST_V4) -> EndpointResponse:
    return EndpointResponse(status, {"content-type": content_type, "x-restate-server": "sdk/1"}, json.dumps(document).encode())


class Setup:
    """Deployments over a registry that may be shared, and an endpoint answering `self.answer`."""

    def __init__(self, registry: Registry | None = None) -> None:
        self.registry = registry or memory_store(1).registry
        self.answer: EndpointResponse | EndpointFailure = says(manifest(service()))
        self.endpoint = ToldEndpoint(self._respond)
        self.clock = VirtualClock()
        self.entropy = SystemEntropy()
        self.deployments = Deployments(self.registry, self.endpoint, self.clock, self.entropy, DefaultSettings(), resolver=no_addresses)

    def _respond(self, address: Address) -> EndpointResponse:
        if isinstance(self.answer, EndpointFailure):
            raise self.answer
        return self.answer

    async def refused(self, request: RegisterDeployment) -> RegistrationError:
        with pytest.raises(RegistrationError) as caught:
            await self.deployments.register(request)
        assert self.deployments.view.deployments == {}
        return caught.value


HTTP = RegisterDeployment(uri="http://127.0.0.1:9080")
ARN = "arn:aws:lambda:eu-central-1:123456789012:function:my-fn:1"


async def test_a_registered_service_is_active_with_revision_1_and_survives_a_restart() -> None:
    setup = Setup()
    done = await setup.deployments.register(HTTP)
    assert done.created
    assert done.deployment.id.startswith("dp_1")
    assert len(done.deployment.id) == 26
    assert done.deployment.address == HttpAddress("http://127.0.0.1:9080/", HttpVersion.HTTP_2)
    assert done.deployment.protocol_version == 6
    again = Setup(setup.registry)
    view = await again.deployments.load()
    assert view == setup.deployments.view
    assert view.services["Greeter"].revision == 1
    assert view.deployment_of("Greeter") == done.deployment


async def test_a_known_address_is_left_alone_without_force_and_not_even_asked() -> None:
    setup = Setup()
    first = await setup.deployments.register(HTTP)
    again = await setup.deployments.register(RegisterDeployment(uri="https://127.0.0.1:9080/"))
    assert not again.created
    assert again.deployment == first.deployment
    assert len(setup.endpoint.asked) == 1


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9080/base", "http://127.0.0.1:9080/base/", "http://127.0.0.1:9081/"])
async def test_authority_and_path_make_the_deployment(uri: str) -> None:
    setup = Setup()
    first = await setup.deployments.register(HTTP)
    second = await setup.deployments.register(RegisterDeployment(uri=uri))
    assert second.created
    assert second.deployment.id != first.deployment.id
    assert second.services[0].revision == 2
    assert setup.deployments.view.services["Greeter"].deployment_id == second.deployment.id


async def test_force_keeps_the_id_replaces_the_services_and_counts_a_revision() -> None:
    setup = Setup()
    first = await setup.deployments.register(HTTP)
    setup.clock.now += 10
    setup.answer = says(manifest(service(ty="VIRTUAL_OBJECT"), service("Other")))
    second = await setup.deployments.register(RegisterDeployment(uri=HTTP.uri, force=True))
    assert not second.created
    assert second.deployment.id == first.deployment.id
    assert second.deployment.created_at_ms == first.deployment.created_at_ms + 10_000
    assert {item.name: item.revision for item in second.services} == {"Greeter": 2, "Other": 1}
    setup.answer = says(manifest(service("Other")))
    await setup.deployments.register(RegisterDeployment(uri=HTTP.uri, force=True))
    assert set(setup.deployments.view.services) == {"Other"}


async def test_changing_the_type_of_a_service_needs_permission() -> None:
    setup = Setup()
    await setup.deployments.register(HTTP)
    setup.answer = says(manifest(service(ty="VIRTUAL_OBJECT")))
    other = "http://127.0.0.1:9081"
    with pytest.raises(RegistrationError) as caught:
        await setup.deployments.register(RegisterDeployment(uri=other, dry_run=True))
    assert (caught.value.status, caught.value.restate_code) == (409, "META0006")
    assert str(caught.value).startswith(
        "[META0006] detected a new service revision for 'Greeter' changing the service type from previous revision."
    )
    await setup.deployments.register(RegisterDeployment(uri=other, breaking=True))
    assert setup.deployments.view.services["Greeter"].type is ServiceType.VIRTUAL_OBJECT


async def test_removing_the_newest_revision_brings_back_the_older_one() -> None:
    setup = Setup()
    old = await setup.deployments.register(HTTP)
    new = await setup.deployments.register(RegisterDeployment(uri="http://127.0.0.1:9081"))
    assert await setup.deployments.remove(new.deployment.id)
    assert setup.deployments.view.services["Greeter"].deployment_id == old.deployment.id
    assert not await setup.deployments.remove(new.deployment.id)
    assert await setup.deployments.remove(old.deployment.id)
    assert setup.deployments.view.services == {}


async def test_a_dry_run_answers_like_the_real_thing_and_stores_nothing() -> None:
    setup = Setup()
    done = await setup.deployments.register(RegisterDeployment(uri=HTTP.uri, dry_run=True))
    assert done.created
    assert done.services[0].revision == 1
    assert setup.deployments.view.deployments == {}


async def test_a_lambda_function_is_identified_by_its_arn_and_announces_compression() -> None:
    setup = Setup()
    setup.answer = says(manifest(service(), lambdaCompression="zstd"))
    request = RegisterDeployment(arn=ARN, assume_role_arn="arn:aws:iam::1:role/r", additional_headers={"x": "y"})
    done = await setup.deployments.register(request)
    assert done.deployment.address == LambdaAddress(ARN, "arn:aws:iam::1:role/r", "zstd", {"x": "y"})
    assert not (await setup.deployments.register(RegisterDeployment(arn=ARN))).created


async def test_processes_that_race_end_with_both_deployments() -> None:
    setups = [Setup()]
    setups += [Setup(setups[0].registry) for _ in range(4)]
    await asyncio.gather(
        *(setup.deployments.register(RegisterDeployment(uri=f"http://127.0.0.1:{9000 + number}")) for number, setup in enumerate(setups))
    )
    views = [await setup.deployments.refresh() for setup in setups]
    assert all(view == views[0] for view in views)
    revisions = [item.services["Greeter"].revision for item in views[0].deployments.values()]
    assert sorted(revisions) == [1, 2, 3, 4, 5]


async def test_handlers_in_this_process_keep_their_id_and_count_only_real_changes() -> None:
    setup = Setup()
    first = await setup.deployments.register_in_process("app")
    same = await setup.deployments.register_in_process("app")
    assert (same.created, same.services[0].revision) == (False, 1)
    setup.answer = says(manifest(service(ty="WORKFLOW", handlers=[{"name": "run", "ty": "WORKFLOW"}])))
    changed = await setup.deployments.register_in_process("app")
    assert changed.deployment.id == first.deployment.id
    assert changed.services[0].revision == 2
    assert changed.services[0].handlers["run"].kind is HandlerKind.RUN


async def test_settings_are_layered_handler_service_default() -> None:
    setup = Setup()
    setup.answer = says(
        manifest(
            service(
                ty="VIRTUAL_OBJECT",
                handlers=[
                    {"name": "own", "ty": "EXCLUSIVE", "abortTimeout": 1, "retryPolicyMaxAttempts": 0, "ingressPrivate": True},
                    {"name": "inherits", "ty": "SHARED"},
                ],
                abortTimeout=7000,
                journalRetention=0,
                enableLazyState=True,
                retryPolicyExponentiationFactor=1.5,
                retryPolicyOnMaxAttempts="KILL",
            )
        )
    )
    (revision,) = (await setup.deployments.register(HTTP)).services
    own, inherits = revision.handlers["own"], revision.handlers["inherits"]
    assert (own.kind, own.public, own.abort_timeout_ms) == (HandlerKind.EXCLUSIVE, False, 1)
    assert own.retry == RetryPolicy(500, 1.5, 60_000, 1, OnMaxAttempts.KILL)
    assert (inherits.kind, inherits.public, inherits.abort_timeout_ms) == (HandlerKind.SHARED, True, 7000)
    assert (inherits.journal_retention_ms, inherits.idempotency_retention_ms) == (0, DAY_MS)
    assert (inherits.lazy_state, inherits.retry.max_attempts) == (True, 70)


# ---- Refusals

REQUESTS: Mapping[str, tuple[RegisterDeployment, str]] = {
    "relative": (RegisterDeployment(uri="/foo"), "The provided uri /foo is not absolute, only absolute URIs can be used."),
    "no scheme": (RegisterDeployment(uri="localhost:9080"), "The provided uri localhost:9080 is not absolute"),
    "scheme": (RegisterDeployment(uri="ftp://h/"), "expected a URI starting with http:// or https://, found ftp://h/"),
    "query": (RegisterDeployment(uri="http://h/?a=1"), "expected a URI without query and fragment"),
    "port": (RegisterDeployment(uri="http://h:99999/"), "Port out of range"),
    "arn": (RegisterDeployment(arn="nope"), "expected arn:aws:lambda:<region>"),
    "unqualified": (RegisterDeployment(arn=ARN.removesuffix(":1")), "A qualified ARN needs a version or alias suffix."),
    "metadata": (RegisterDeployment(uri="http://169.254.169.254/latest"), "link-local or metadata address"),
    "ecs": (RegisterDeployment(uri="http://169.254.170.2/"), "link-local or metadata address"),
    "mapped": (RegisterDeployment(uri="http://[::ffff:169.254.169.254]/"), "link-local or metadata address"),
    "ipv6": (RegisterDeployment(uri="http://[fd00:ec2::254]/"), "link-local or metadata address"),
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_an_address_that_cannot_be_one_is_refused_before_anything_is_asked(name: str) -> None:
    request, reason = REQUESTS[name]
    setup = Setup()
    refused = await setup.refused(request)
    assert refused.status == 400
    assert reason in str(refused)
    assert setup.endpoint.asked == []


def test_messages_name_an_address_without_its_password() -> None:
    assert shown(HttpAddress("http://me:secret@h:1/a", HttpVersion.HTTP_2, {})) == "http://h:1/a"


async def test_a_name_that_resolves_to_a_metadata_service_is_refused() -> None:
    async def rebound(host: str) -> list[str]:
        return ["10.0.0.1", "169.254.169.254"]

    setup = Setup()
    setup.deployments = Deployments(setup.registry, setup.endpoint, setup.clock, SystemEntropy(), resolver=rebound)
    assert "169.254.169.254" in str(await setup.refused(RegisterDeployment(uri="http://innocent.example/")))


@pytest.mark.parametrize(
    ("address", "forbidden"),
    [
        ("169.254.0.1", True),
        ("fe80::1%eth0", True),
        ("fd00:ec2::254", True),
        ("::ffff:169.254.169.254", True),  # mapped
        ("::169.254.169.254", True),  # compatible
        ("2002:a9fe:a9fe::1", True),  # 6to4
        ("64:ff9b::a9fe:a9fe", True),  # NAT64
        ("2001:0:a9fe:a9fe::5601:5601", True),  # Teredo, whose client's address is inverted
        ("64:ff9b::a00:1", False),
        ("127.0.0.1", False),
        ("10.0.0.1", False),
        ("::1", False),
        ("name", False),
    ],
)
def test_forbidden_addresses(address: str, forbidden: bool) -> None:
    assert is_forbidden(address) is forbidden


def plain(name: str, **more: Any) -> Json:
    return {"name": name, **more}


ANSWERS: Mapping[str, tuple[EndpointResponse | EndpointFailure, int, str | None, str]] = {
    "404": (says({}, 404), 500, "META0003", "[META0003] [META0003] got status code '404'. Make sure the provided URI"),
    "400": (says({}, 400), 500, "META0003", "[META0003] [META0003] got status code '400 Bad Request'. Response headers: {"),
    "old": (
        says(manifest(service(), low=1, high=3)),
        500,
        "META0012",
        "[META0012] [META0012] unsupported service protocol versions: [1, 3]. Supported versions by this runtime are [5, 6].",
    ),
    "content-type": (
        says(manifest(), content_type="application/json"),
        500,
        "META0013",
        '[META0013] [META0013] received a bad response from the SDK: Bad content type header: "application/json". Expected',
    ),
    "no manifest": (says([]), 500, None, "received a bad response from the SDK that cannot be decoded: "),
    "reserved": (
        says(manifest(service("RestateThing"))),
        400,
        "META0005",
        "[META0005] cannot insert/modify service 'RestateThing' as it contains a reserved name",
    ),
    "handler type": (
        says(manifest(service(handlers=[plain("h", ty="EXCLUSIVE")]))),
        400,
        None,
        "invalid combination of service type and handler type '(Service, Some(Exclusive))'",
    ),
    "retention": (
        says(manifest(service(handlers=[plain("h", workflowCompletionRetention=1)]))),
        400,
        None,
        "h sets the workflow_completion_retention, but it's not a WORKFLOW handler",
    ),
    "workflow retention": (
        says(manifest(service(ty="WORKFLOW", handlers=[plain("run", ty="WORKFLOW", idempotencyRetention=1)]))),
        400,
        None,
        "run sets the idempotency_retention, but it's a WORKFLOW handler",
    ),
    "input schema": (
        says(manifest(service(handlers=[plain("h", input={"contentType": "application/json", "jsonSchema": 7})]))),
        400,
        None,
        "the json schema for Greeter/h input is invalid: ",
    ),
    "output schema": (
        says(manifest(service(handlers=[plain("h", output={"contentType": "application/json", "jsonSchema": []})]))),
        400,
        None,
        "the json schema for Greeter/h output is invalid: ",
    ),
    "broken schema": (
        says(manifest(service(handlers=[plain("h", output={"contentType": "application/json", "jsonSchema": {"type": "strin"}})]))),
        400,
        None,
        "the json schema for Greeter/h output is invalid: $.type: expected one of array, boolean,",
    ),
    "input content-type": (
        says(manifest(service(handlers=[plain("h", input={"contentType": "nonsense"})]))),
        400,
        None,
        "the handler 'h' input content-type is not valid: ",
    ),
    "output content-type": (
        says(manifest(service(handlers=[plain("h", output={"contentType": "a b/c"})]))),
        400,
        None,
        "the handler 'h' output content-type is not valid: ",
    ),
    "newer manifest": (
        says(manifest(service()), content_type=MANIFEST_V4.replace("v4", "v5")),
        500,
        "META0013",
        "[META0013] [META0013] received a bad response from the SDK: Bad content type header",
    ),
    "no content-type": (
        EndpointResponse(200, {}, b"{}"),
        500,
        "META0013",
        '[META0013] [META0013] received a bad response from the SDK: Bad content type header: ""',
    ),
    "no mode": (
        says({name: value for name, value in manifest(service()).items() if name != "protocolMode"}),
        500,
        None,
        "received a bad response from the SDK that cannot be decoded: missing field `protocolMode`",
    ),
    "wrong member": (
        says(manifest(service(abortTimeout="1s"))),
        500,
        None,
        "received a bad response from the SDK that cannot be decoded: service 'Greeter': abortTimeout: expected a non-negative integer",
    ),
    "500": (says({}, 500), 500, "META0003", "[META0003] [META0003] got status code '500 Internal Server Error'."),
    "private": (
        says(manifest(service(handlers=[plain("h", ingressPrivate=False)], ingressPrivate=True))),
        400,
        None,
        "The service Greeter is private, but the h is explicitly set as public.",
    ),
    "silent": (
        EndpointFailure("Connection refused"),
        500,
        "META0003",
        "[META0003] [META0003] error when calling 'http://127.0.0.1:9080/': C",
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_endpoint_that_cannot_serve_is_refused_with_the_known_words(name: str) -> None:
    answer, status, code, message = ANSWERS[name]
    setup = Setup()
    setup.answer = answer
    refused = await setup.refused(HTTP)
    assert (refused.status, refused.restate_code) == (status, code)
    assert str(refused).startswith(message)


@pytest.mark.parametrize("version", [1, 2, 3, 4])
async def test_every_manifest_version_is_read_with_whatever_members_it_has(version: int) -> None:
    setup = Setup()
    content = manifest(service(documentation="d", retryPolicyMaxAttempts=3, future=[1], handlers=[plain("h", novelty={})]), news="x")
    setup.answer = says(content, content_type=MANIFEST_V4.replace("v4", f"v{version}") + "; charset=utf-8")
    done = await setup.deployments.register(HTTP)
    assert done.services[0].documentation == "d"
    assert done.services[0].handlers["h"].retry.max_attempts == 3


async def test_headers_tell_endpoints_apart_where_the_operator_says_so() -> None:
    setup = Setup()
    settings = DefaultSettings(routing_headers=("x-version",))
    routed = Deployments(setup.registry, setup.endpoint, setup.clock, setup.entropy, settings, resolver=no_addresses)

    async def registered(**headers: str) -> str:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return (await routed.register(RegisterDeployment(uri=HTTP.uri, additional_headers=names))).deployment.id

    plain_one, blue, green = await registered(), await registered(X_Version="blue"), await registered(x_version="green")
    assert len({plain_one, blue, green}) == 3
    assert await registered(x_version="blue", other="ignored") == blue
    assert await registered(other="ignored") == plain_one


async def test_streaming_lambda_functions_are_refused() -> None:
    setup = Setup()
    setup.answer = says({**manifest(service()), "protocolMode": "BIDI_STREAM"})
    refused = await setup.refused(RegisterDeployment(arn=ARN))
    assert (refused.status, refused.restate_code) == (500, "META0015")


async def test_an_endpoint_speaking_only_http_1_is_named_as_such() -> None:
    setup = Setup()

    def only_http11(address: Address) -> EndpointResponse:
        if isinstance(address, HttpAddress) and address.http_version is HttpVersion.HTTP_2:
            raise EndpointFailure("connection closed")
        return says(manifest(service()))

    setup.endpoint.respond = only_http11
    refused = await setup.refused(HTTP)
    assert refused.restate_code == "META0014"
    assert "consider discovery with --use-http1.1." in str(refused)
    assert (await setup.deployments.register(RegisterDeployment(uri=HTTP.uri, use_http_11=True))).created


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_passing_trouble_is_waited_out_for_about_two_seconds(status: int) -> None:
    setup = Setup()
    begun = setup.clock.now
    answers = iter([says({}, status), EndpointFailure("refused"), says(manifest(service()))])

    def respond(address: Address) -> EndpointResponse:
        answer = next(answers)
        if isinstance(answer, EndpointFailure):
            raise answer
        return answer

    setup.endpoint.respond = respond
    assert (await setup.deployments.register(HTTP)).created
    assert 0 < setup.clock.now - begun < 2

    setup = Setup()
    setup.answer = says({}, status)
    refused = await setup.refused(HTTP)
    assert refused.restate_code == "META0003"
    assert 1 < setup.clock.now - begun < 2.5


# ---- The document

ADDRESSES: list[Address] = [
    HttpAddress("https://h/base", HttpVersion.HTTP_1_1, {"x-api-key": "s"}),
    LambdaAddress(ARN, None, "zstd", {}),
    LambdaAddress(ARN, "arn:aws:iam::1:role/r", None, {"a": "b"}),
    InProcessAddress("app"),
]


@pytest.mark.parametrize("address", ADDRESSES, ids=str)
def test_addresses_survive_the_document(address: Address) -> None:
    assert load_address(json.loads(json.dumps(dump_address(address)))) == address


def test_identity_ignores_scheme_headers_and_role_only() -> None:
    assert identity(HttpAddress("http://H:1/")) == identity(HttpAddress("https://h:1/", additional_headers={"a": "b"}))
    assert identity(HttpAddress("http://h/b")) != identity(HttpAddress("http://h/b/"))
    assert identity(InProcessAddress("a")) != identity(InProcessAddress("b"))


async def test_members_we_do_not_know_yet_are_kept() -> None:
    setup = Setup()
    setup.answer = says(manifest(service(future={"a": [1]}), novelty=True))
    await setup.deployments.register(HTTP)
    _, document = await setup.registry.load("deployments")
    (stored,) = registry_document.load(document).values()
    assert stored.manifest["novelty"] is True
    assert stored.manifest["services"][0]["future"] == {"a": [1]}
    assert registry_document.dump(registry_document.load(document)) == document


def test_a_document_of_a_newer_program_is_refused() -> None:
    import zlib

    with pytest.raises(ValueError, match="has format 2, this version reads 1"):
        registry_document.load(zlib.compress(b'{"format":2}'))
