"""The Lambda envelope against captured traffic, and what cannot be sent or read."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import zstandard

from holdfast_runtime.adapters import lambda_envelope
from holdfast_runtime.adapters.http_exchange import DEFAULT_LIMITS, Limits
from holdfast_runtime.adapters.lambda_envelope import event_of, function_failure, response_of
from holdfast_runtime.ports.endpoint import EndpointFailure, EndpointRequest, LambdaAddress

VECTORS = Path(__file__).parents[1] / "golden" / "vectors"
ARN = "arn:aws:lambda:eu-central-1:123456789012:function:demo:1"
ADDRESS = LambdaAddress(ARN)
ZSTD = LambdaAddress(ARN, compression="zstd")


def vector(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((VECTORS / f"{name}.json").read_text())
    return loaded


@pytest.mark.parametrize(("part", "address"), [("discovery", ADDRESS), ("invocation", ZSTD)])
def test_the_event_is_the_captured_one(part: str, address: LambdaAddress) -> None:
    expected = vector("50-lambda-envelope")[part]["event"]
    headers = {name: value for name, value in expected["headers"].items() if name != "accept-encoding"}
    body = base64.b64decode(expected["body"])
    request = EndpointRequest(expected["httpMethod"], expected["path"], headers, body)
    event = event_of(address, request)
    assert json.loads(event) == expected
    assert list(json.loads(event)) == list(expected)


@pytest.mark.parametrize("part", ["discovery", "invocation"])
def test_the_result_is_read(part: str) -> None:
    result = vector("50-lambda-envelope")[part]["result"]
    response = response_of(json.dumps(result).encode())
    assert (response.status, response.headers) == (200, result["headers"])
    assert response.body == base64.b64decode(result["body"])


def test_a_function_error_is_a_failed_attempt() -> None:
    captured = vector("37-lambda-function-error")["exchanges"][0]["response"]
    failure = function_failure(json.dumps(captured["payload"]).encode())
    assert str(failure) == "the Lambda function failed: X: boom"
    assert (failure.code, failure.error_code, failure.refusal) == (500, "RT0006", None)


def test_a_function_that_was_killed_was_most_likely_out_of_memory() -> None:
    error = {"errorType": "Runtime.ExitError", "errorMessage": "RequestId: 1 Error: Runtime exited with error: signal: killed"}
    assert str(function_failure(json.dumps(error).encode())).endswith("it was most likely out of memory: raise the function's memory")


def test_compressed_answers_are_decompressed() -> None:
    for exchange in vector("29-large-payload-zstd")["exchanges"]:
        captured = exchange["response"]
        body = base64.b64encode(bytes.fromhex(captured["body_hex"])).decode()
        result = {"statusCode": 200, "headers": captured["headers"], "body": body, "isBase64Encoded": True}
        response = response_of(json.dumps(result).encode())
        assert "content-encoding" not in response.headers
        frames = sum(8 + frame["length"] for frame in captured["decoded"])
        assert len(response.body) == frames


def test_a_captured_compressed_request_is_made_the_same_way() -> None:
    request = vector("29-large-payload-zstd")["exchanges"][1]["request"]
    frames = lambda_envelope.decompress(bytes.fromhex(request["body_hex"]))
    assert len(frames) >= DEFAULT_LIMITS.compress_from_bytes
    plain = {name: value for name, value in request["headers"].items() if not name.endswith("-encoding")}
    event = json.loads(event_of(ZSTD, EndpointRequest("POST", request["path"], plain, frames)))
    assert event["headers"] == request["headers"]
    assert lambda_envelope.decompress(base64.b64decode(event["body"])) == frames


@pytest.mark.parametrize("limit", [4 * 1024 * 1024, 1024])
@pytest.mark.parametrize(("below", "encoding"), [(1, None), (0, "zstd")])
def test_compression_starts_at_the_limit(limit: int, below: int, encoding: str | None) -> None:
    limits = DEFAULT_LIMITS if limit == DEFAULT_LIMITS.compress_from_bytes else Limits(compress_from_bytes=limit)
    event = json.loads(event_of(ZSTD, EndpointRequest("POST", "/invoke/D/h", {}, bytes(limit - below)), limits))
    assert event["headers"]["accept-encoding"] == "zstd"
    assert event["headers"].get("content-encoding") == encoding


def test_deployment_headers_travel_in_lower_case_and_do_not_win() -> None:
    address = LambdaAddress(ARN, additional_headers={"X-Env": "prod", "Content-Type": "mine"})
    event = json.loads(event_of(address, EndpointRequest("POST", "/invoke/D/h", {"content-type": "x/y"}, b"1")))
    assert event["headers"] == {"x-env": "prod", "content-type": "x/y"}


def test_what_fits_only_compressed_is_compressed_whatever_the_setting_says() -> None:
    body = _noise(1_000_000) * 5  # its base64 is too large, and four fifths of it are said twice
    event = event_of(ZSTD, EndpointRequest("POST", "/invoke/D/h", {}, body), Limits(compress_from_bytes=64 * 1024 * 1024))
    assert json.loads(event)["headers"]["content-encoding"] == "zstd"


def test_a_journal_that_cannot_fit_is_refused_with_advice() -> None:
    incompressible = zstandard.ZstdCompressor(level=1).compress(bytes(range(256))) * 0 + _noise(5_000_000)
    for address in (ADDRESS, ZSTD):
        with pytest.raises(EndpointFailure) as failure:
            event_of(address, EndpointRequest("POST", "/invoke/D/h", {}, incompressible))
        assert (failure.value.code, failure.value.error_code) == (413, "RT0003")
        assert "are 5000000 bytes" in str(failure.value)
        assert "the limit is 6291456" in str(failure.value)
        assert ("announces zstd" in str(failure.value)) == (address is ADDRESS)


@pytest.mark.parametrize(
    ("payload", "what"),
    [
        (b"<html>", "it is not JSON"),
        (b"null", "it is not an object"),
        (b'{"errorMessage": "x"}', "statusCode is None"),
        (b'{"statusCode": true}', "statusCode is True"),
        (b'{"statusCode": 200, "headers": []}', "^ok$"),
        (b'{"statusCode": 200, "headers": "x"}', "headers is not an object"),
        (b'{"statusCode": 200, "body": {"a": 1}}', "body is not a string"),
        (b'{"statusCode": 200, "body": "%%%", "isBase64Encoded": true}', "body is not base64"),
    ],
)
def test_results_that_are_not_results(payload: bytes, what: str) -> None:
    if what == "^ok$":  # an empty list is no headers
        assert response_of(payload).headers == {}
        return
    with pytest.raises(EndpointFailure, match=what) as failure:
        response_of(payload)
    assert failure.value.error_code == "RT0012"


def test_a_small_body_that_stands_for_too_much_is_refused() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(50_000_000))
    with pytest.raises(EndpointFailure, match="after decompression") as failure:
        lambda_envelope.decompress(bomb, 3_000_000)
    assert failure.value.error_code == "RT0003"


def _noise(size: int) -> bytes:
    """Bytes without pattern, the same in every run."""
    import random

    return random.Random(1).randbytes(size)
