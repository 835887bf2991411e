"""Lambda endpoints against real runtime processes behind a local Invoke front, and against a scripted service."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast_runtime.adapters import lambda_envelope
from holdfast_runtime.adapters.aws_lambda import LambdaEndpoint
from holdfast_runtime.adapters.system import SystemClock
from holdfast_runtime.ports.endpoint import EndpointFailure, EndpointRequest, EndpointResponse, LambdaAddress, Refusal
from holdfast_runtime.ports.outcomes import failure_of
from tests.adapters.raw_server import Peer, raw_server
from tests.support.lambda_service import Fault, FunctionSpec, LambdaServiceProcess
from tests.support.ports import free_port

FUNCTIONS = Path(__file__).parent / "functions"
VECTORS = Path(__file__).parents[1] / "golden" / "vectors"
CONTENT_TYPE = "application/vnd.restate.invocation.v6"


def arn(name: str, region: str = "us-east-1") -> str:
    return f"arn:aws:lambda:{region}:123456789012:function:{name}:1"


def asking(how: str, body: bytes = b"frames") -> EndpointRequest:
    return EndpointRequest("POST", f"/invoke/Raw/{how}", {"content-type": CONTENT_TYPE}, body)


@pytest.fixture(scope="module")
def service() -> Iterator[LambdaServiceProcess]:
    with LambdaServiceProcess(free_port()) as service:
        for name in ("raw", "killed", "one", "hanging"):
            service.add(FunctionSpec(name, str(FUNCTIONS), "raw.handler", timeout_s=60))
        service.add(FunctionSpec("short", str(FUNCTIONS), "raw.handler", timeout_s=0.5))
        service.add(FunctionSpec("official", str(FUNCTIONS), "official.app"))
        yield service


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    monkeypatch.delenv("AWS_PROFILE", raising=False)


@pytest.fixture
async def endpoint(service: LambdaServiceProcess, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LambdaEndpoint]:
    """Finds the service the way every AWS client does."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", service.url)
    endpoint = LambdaEndpoint(SystemClock())
    yield endpoint
    await endpoint.close()


async def ask(endpoint: LambdaEndpoint, how: str, function: str = "raw", timeout_s: float = 30) -> EndpointResponse:
    return await endpoint.request(LambdaAddress(arn(function)), asking(how), timeout_s=timeout_s)


async def test_the_official_sdk_is_discovered_and_invoked(endpoint: LambdaEndpoint) -> None:
    vector: dict[str, Any] = json.loads((VECTORS / "02-invoke-plain.json").read_text())
    recorded = vector["exchanges"][0]
    accept = "application/vnd.restate.endpointmanifest.v3+json, application/vnd.restate.endpointmanifest.v4+json"
    address = LambdaAddress(arn("official"))
    manifest = await endpoint.request(address, EndpointRequest("GET", "/discover", {"accept": accept}, b""), timeout_s=60)
    assert (manifest.status, manifest.headers["content-type"]) == (200, accept.split(", ")[1])
    assert [found["name"] for found in json.loads(manifest.body)["services"]] == ["Demo"]

    request = recorded["request"]
    invocation = EndpointRequest("POST", request["path"], request["headers"], bytes.fromhex(request["body_hex"]))
    response = await endpoint.request(address, invocation, timeout_s=60)
    assert response.status == 200
    assert failure_of(response, CONTENT_TYPE, now_ms=0) is None
    assert response.body.hex() == recorded["response"]["body_hex"]


async def test_the_event_has_exactly_the_members_sdks_need(endpoint: LambdaEndpoint) -> None:
    response = await ask(endpoint, "event")
    assert response.headers == {"content-type": "text/json"}
    assert json.loads(response.body) == {
        "path": "/invoke/Raw/event",
        "httpMethod": "POST",
        "headers": {"content-type": CONTENT_TYPE},
        "body": "ZnJhbWVz",
        "isBase64Encoded": True,
    }


async def test_lists_and_numbers_as_header_values(endpoint: LambdaEndpoint) -> None:
    response = await ask(endpoint, "rust")
    assert (response.status, response.body) == (200, b"answer")
    assert response.headers == {"content-type": CONTENT_TYPE, "x-number": "7"}


async def test_large_journals_travel_compressed_both_ways(endpoint: LambdaEndpoint) -> None:
    address = LambdaAddress(arn("raw"), compression="zstd")
    frames = bytes(range(256)) * 4 * 20_000  # 20 MB
    response = await endpoint.request(address, asking("zstd", frames), timeout_s=60)
    assert response.body == frames
    assert response.headers == {"content-type": CONTENT_TYPE, "x-was": "zstd"}


async def test_a_retry_after_comes_back(endpoint: LambdaEndpoint) -> None:
    response = await ask(endpoint, "unavailable")
    failure = failure_of(response, CONTENT_TYPE, now_ms=0)
    assert failure is not None
    assert (failure.code, failure.error_code, failure.retry_after_ms) == (503, "RT0023", 1000)


@pytest.mark.parametrize(
    ("how", "error_code", "message"),
    [
        ("boom", "RT0006", "the Lambda function failed: ValueError: boom"),
        ("leave", "RT0006", "exit status 3"),
        ("big", "RT0019", "return less at once"),
        ("text", "RT0012", 'it is not an object.* It returned: "hello"'),
        ("nothing", "RT0012", "it is not an object"),
        ("not_base64", "RT0012", "body is not base64"),
        ("not_zstd", "RT0012", "content-encoding zstd but is not"),
        ("unknown_name", "RT0006", "KeyError"),
    ],
)
async def test_functions_that_fail(endpoint: LambdaEndpoint, how: str, error_code: str, message: str) -> None:
    with pytest.raises(EndpointFailure, match=message) as failure:
        await ask(endpoint, how)
    assert failure.value.error_code == error_code
    assert failure.value.refusal is None


async def test_a_function_over_its_own_time(endpoint: LambdaEndpoint) -> None:
    with pytest.raises(EndpointFailure, match=r"timed out after 0\.50 seconds.*raise the function's timeout"):
        await ask(endpoint, "hang", "short")


async def test_our_own_time_is_over(endpoint: LambdaEndpoint, service: LambdaServiceProcess) -> None:
    late = r"function:hanging:1': no complete response within 0\.3 s"
    await ask(endpoint, "event", "hanging")  # so that the time of the next one is spent in the function, not on a connection
    with pytest.raises(EndpointFailure, match=late) as failure:
        await ask(endpoint, "hang", "hanging", timeout_s=0.3)
    service.kill("hanging")
    assert failure.value.error_code == "RT0001"


async def test_a_killed_process_is_a_failed_attempt_and_the_next_one_works(endpoint: LambdaEndpoint, service: LambdaServiceProcess) -> None:
    await ask(endpoint, "event", "killed")
    service.inject("killed", Fault(kill_after_ms=20))
    with pytest.raises(EndpointFailure, match="Runtime exited"):
        await ask(endpoint, "hang", "killed")
    assert (await ask(endpoint, "event", "killed")).status == 200


async def test_throttling_says_that_nothing_was_started(endpoint: LambdaEndpoint, service: LambdaServiceProcess) -> None:
    service.limit_concurrency("one", 0)
    with pytest.raises(EndpointFailure, match=r"429 TooManyRequestsException: Rate Exceeded\.") as failure:
        await ask(endpoint, "event", "one")
    assert failure.value.refusal is Refusal.LIMIT
    assert (failure.value.code, failure.value.error_code) == (429, "RT0023")


async def test_an_unknown_function(endpoint: LambdaEndpoint) -> None:
    with pytest.raises(EndpointFailure, match="register a new deployment") as failure:
        await ask(endpoint, "event", "nobody")
    assert (failure.value.code, failure.value.refusal) == (404, None)


async def test_the_services_own_size_limit(endpoint: LambdaEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lambda_envelope, "MAX_EVENT_BYTES", 100_000_000)
    with pytest.raises(EndpointFailure, match=r"RequestTooLargeException.*the limit is 6291456 bytes") as failure:
        await endpoint.request(LambdaAddress(arn("raw")), asking("event", bytes(5_000_000)), timeout_s=60)
    assert failure.value.error_code == "RT0019"


async def test_many_at_once_share_the_pool(endpoint: LambdaEndpoint) -> None:
    responses = await asyncio.gather(*(ask(endpoint, "rust") for _ in range(12)))
    assert {response.body for response in responses} == {b"answer"}


async def test_what_is_sent_to_the_service() -> None:
    """A session token is signed; the ARN's region is signed for; the whole ARN names the function."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            body = b'{"statusCode": 200}'
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

    async with raw_server(script) as server:
        endpoint = LambdaEndpoint(SystemClock(), endpoint_url=server.uri)
        await endpoint.request(LambdaAddress(arn("f", "eu-central-1")), asking("x"), timeout_s=60)
        await endpoint.close()
        head, _ = server.requests[0]
    lines = head.decode().split("\r\n")
    quoted = "arn%3Aaws%3Alambda%3Aeu-central-1%3A123456789012%3Afunction%3Af%3A1"
    assert lines[0] == f"POST /2015-03-31/functions/{quoted}/invocations HTTP/1.1"
    assert "x-amz-invocation-type: RequestResponse" in lines
    (authorization,) = (line for line in lines if line.startswith("authorization: "))
    assert "/eu-central-1/lambda/aws4_request, SignedHeaders=content-type;host;x-amz-date;x-amz-inv" in authorization


class MovingClock(SystemClock):
    ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms


class Roles:
    """STS: sessions of an hour, numbered."""

    def __init__(self, clock: MovingClock) -> None:
        self._clock = clock
        self.is_down = False
        self.asked = 0

    async def serve(self, peer: Peer) -> None:
        while True:
            _, body = await peer.request()
            assert b"Action=AssumeRole" in body
            assert b"ExternalId=outside" in body
            self.asked += 1
            if self.is_down:
                await peer.send(b"HTTP/1.1 503 F\r\ncontent-length: 0\r\n\r\n")
                continue
            answer = (
                "<AssumeRoleResponse xmlns='https://sts.amazonaws.com/doc/2011-06-15/'><AssumeRoleResult><Credentials>"
                f"<AccessKeyId>ASSUMED{self.asked}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"
                "<SessionToken>token</SessionToken><Expiration>"
                + (_iso(self._clock.now_ms() + 3_600_000))
                + "</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"
            ).encode()
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/xml\r\ncontent-length: %d\r\n\r\n%s" % (len(answer), answer))


ROLE = "arn:aws:iam::123456789012:role/invoker"


async def answering(peer: Peer) -> None:
    """A function that answers whatever it is asked."""
    while True:
        await peer.request()
        await peer.send(b'HTTP/1.1 200 OK\r\ncontent-length: 19\r\n\r\n{"statusCode": 200}')


async def test_a_role_is_assumed_once_and_again_before_it_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = MovingClock()
    sts = Roles(clock)

    async with raw_server(sts.serve) as roles, raw_server(answering) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", roles.uri)
        endpoint = LambdaEndpoint(clock, endpoint_url=server.uri, external_id="outside")
        address = LambdaAddress(arn("f"), assume_role_arn=ROLE)
        await asyncio.gather(*(endpoint.request(address, asking("x"), timeout_s=60) for _ in range(3)))
        assert sts.asked == 1
        clock.ahead_ms = 56 * 60 * 1000  # four minutes before the end
        await endpoint.request(address, asking("x"), timeout_s=60)
        assert sts.asked == 2
        await endpoint.close()
        heads = [head for head, _ in server.requests]
    assert all(b"x-amz-security-token: token" in head for head in heads)
    assert all(b"Credential=ASSUMED1/" in head for head in heads[:3])
    assert b"Credential=ASSUMED2/" in heads[3]


async def test_a_session_lasts_to_its_end_while_it_cannot_be_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = MovingClock()
    sts = Roles(clock)

    async with raw_server(sts.serve) as roles, raw_server(answering) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", roles.uri)
        endpoint = LambdaEndpoint(clock, endpoint_url=server.uri, external_id="outside")
        address = LambdaAddress(arn("f"), assume_role_arn=ROLE)
        await endpoint.request(address, asking("x"), timeout_s=60)
        clock.ahead_ms, sts.is_down = 56 * 60 * 1000, True
        await endpoint.request(address, asking("x"), timeout_s=60)
        asked = sts.asked
        await endpoint.request(address, asking("x"), timeout_s=60)  # does not wait for STS again
        assert sts.asked == asked
        clock.ahead_ms = 60 * 60 * 1000
        with pytest.raises(EndpointFailure, match="cannot be assumed"):
            await endpoint.request(address, asking("x"), timeout_s=60)
        await endpoint.close()
    assert all(b"Credential=ASSUMED1/" in head for head, _ in server.requests)


async def test_a_session_that_was_revoked_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = MovingClock()
    sts = Roles(clock)

    async def front(peer: Peer) -> None:
        while True:
            head, _ = await peer.request()
            if b"ASSUMED1" in head:
                await peer.send(b"HTTP/1.1 403 F\r\nx-amzn-errortype: ExpiredTokenException\r\ncontent-length: 0\r\n\r\n")
            else:
                await peer.send(b'HTTP/1.1 200 OK\r\ncontent-length: 19\r\n\r\n{"statusCode": 200}')

    async with raw_server(sts.serve) as roles, raw_server(front) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", roles.uri)
        endpoint = LambdaEndpoint(clock, endpoint_url=server.uri, external_id="outside")
        address = LambdaAddress(arn("f"), assume_role_arn=ROLE)
        for minutes in (0, 2):  # a session that has just begun was not revoked
            clock.ahead_ms = minutes * 60 * 1000
            with pytest.raises(EndpointFailure, match="ExpiredTokenException") as failure:
                await endpoint.request(address, asking("x"), timeout_s=60)
            assert failure.value.refusal is Refusal.TROUBLE
        assert sts.asked == 1
        assert (await endpoint.request(address, asking("x"), timeout_s=60)).status == 200
        await endpoint.close()


async def test_a_role_that_cannot_be_assumed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sts(peer: Peer) -> None:
        while True:
            await peer.request()
            body = b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>"
            await peer.send(b"HTTP/1.1 403 F\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

    async with raw_server(sts) as roles:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", roles.uri)
        endpoint = LambdaEndpoint(SystemClock(), endpoint_url="http://127.0.0.1:1")
        address = LambdaAddress(arn("f"), assume_role_arn="arn:aws:iam::123456789012:role/invoker")
        with pytest.raises(EndpointFailure, match=r"role/invoker cannot be assumed: .*AccessDenied.*trust policy") as failure:
            await endpoint.request(address, asking("x"), timeout_s=60)
        await endpoint.close()
    assert failure.value.refusal is Refusal.TROUBLE


async def test_without_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for variable in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(variable, str(tmp_path / "none"))
    endpoint = LambdaEndpoint(SystemClock(), endpoint_url="http://127.0.0.1:1")
    with pytest.raises(EndpointFailure, match="no AWS credentials found; give the coordinator a role") as failure:
        await endpoint.request(LambdaAddress(arn("f")), asking("x"), timeout_s=60)
    await endpoint.close()
    assert failure.value.refusal is Refusal.TROUBLE


async def test_without_a_way_to_the_service_no_function_was_started() -> None:
    endpoint = LambdaEndpoint(SystemClock(), endpoint_url="http://127.0.0.1:1")
    with pytest.raises(EndpointFailure, match="connect error: Connection refused") as failure:
        await endpoint.request(LambdaAddress(arn("f")), asking("x"), timeout_s=60)
    await endpoint.close()
    assert failure.value.refusal is Refusal.TROUBLE


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{", "closed by the peer in the middle of the response"),
        (b"HTTP/1.1 503 X\r\ncontent-length: 4\r\n\r\nbusy", "status 503 : busy"),
        (b"HTTP/1.1 403 X\r\nx-amzn-errortype: AccessDeniedException:http://i/\r\ncontent-length: 0\r\n\r\n", "allow"),
    ],
)
async def test_a_service_in_trouble(answer: bytes, message: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)

    async with raw_server(script) as server:
        endpoint = LambdaEndpoint(SystemClock(), endpoint_url=server.uri)
        with pytest.raises(EndpointFailure, match=message):
            await endpoint.request(LambdaAddress(arn("f")), asking("x"), timeout_s=60)
        await endpoint.close()


LIMIT, TROUBLE = Refusal.LIMIT, Refusal.TROUBLE


@pytest.mark.parametrize(
    ("status", "kind", "refusal"),
    [
        (429, "TooManyRequestsException", LIMIT),
        (429, "", LIMIT),
        (502, "EC2ThrottledException", LIMIT),
        (502, "ENILimitReachedException", LIMIT),
        (502, "SubnetIPAddressLimitReachedException", LIMIT),
        (400, "KMSThrottlingException", LIMIT),
        (500, "ServiceException", TROUBLE),
        (503, "", TROUBLE),
        (409, "ResourceConflictException", TROUBLE),
        (502, "ResourceNotReadyException", TROUBLE),
        (409, "SnapStartNotReadyException", TROUBLE),
        (502, "KMSAccessDeniedException", TROUBLE),
        (502, "KMSDisabledException", TROUBLE),
        (502, "InvalidZipFileException", None),
        (403, "AccessDeniedException", None),
        (404, "ResourceNotFoundException", None),
        (413, "RequestTooLargeException", None),
        (400, "InvalidRequestContentException", None),
    ],
)
async def test_what_is_no_attempt_because_the_function_was_not_started(status: int, kind: str, refusal: Refusal | None) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        body = b'{"Type": "User", "message": "no"}'
        head = f"HTTP/1.1 {status} X\r\nx-amzn-errortype: {kind}\r\nretry-after: 7\r\ncontent-length: {len(body)}\r\n\r\n"
        await peer.send(head.encode() + body)

    async with raw_server(script) as server:
        endpoint = LambdaEndpoint(SystemClock(), endpoint_url=server.uri)
        with pytest.raises(EndpointFailure) as failure:
            await endpoint.request(LambdaAddress(arn("f")), asking("x"), timeout_s=60)
        await endpoint.close()
    assert failure.value.refusal is refusal
    assert failure.value.retry_after_ms == (7000 if refusal is not None else None)


@pytest.mark.parametrize("text", ["demo", "arn:aws:lambda:us-east-1:1:function", "arn:aws:sqs:us-east-1:1:function:x:1"])
async def test_an_address_that_is_no_function(text: str) -> None:
    endpoint = LambdaEndpoint(SystemClock())
    with pytest.raises(EndpointFailure, match="expected a qualified function ARN"):
        await endpoint.request(LambdaAddress(text), asking("x"), timeout_s=60)
    await endpoint.close()


def _iso(moment_ms: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(moment_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
