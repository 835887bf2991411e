"""A Lambda function that answers in every way an SDK, a proxy or a broken deployment may; the handler's name says which."""

import base64
import json
import os
import time
from typing import Any

import zstandard

CONTENT_TYPE = "application/vnd.restate.invocation.v6"
HEADERS = {"content-type": CONTENT_TYPE}


def handler(event: dict[str, Any], context: Any) -> Any:
    return globals()[event["path"].rpartition("/")[2]](event)


def event(event: dict[str, Any]) -> dict[str, Any]:
    """The event itself, as text: no isBase64Encoded."""
    return {"statusCode": 200, "headers": {"Content-Type": "text/json"}, "body": json.dumps(event)}


def rust(event: dict[str, Any]) -> dict[str, Any]:
    return {
        "statusCode": 200,
        "statusDescription": "200 OK",
        "headers": {"Content-Type": [CONTENT_TYPE, "other"], "x-number": 7},
        "body": base64.b64encode(b"answer").decode(),
        "isBase64Encoded": True,
    }


def zstd(event: dict[str, Any]) -> dict[str, Any]:
    """The request's frames back, compressed, whatever they were."""
    body = base64.b64decode(event["body"])
    if event["headers"].get("content-encoding") == "zstd":
        body = zstandard.ZstdDecompressor().decompress(body)
    answer = zstandard.ZstdCompressor(level=3).compress(body)
    headers = {**HEADERS, "content-encoding": "zstd", "x-was": event["headers"].get("content-encoding", "plain")}
    return {
        "statusCode": 200,
        "headers": headers,
        "body": base64.b64encode(answer).decode(),
        "isBase64Encoded": True,
    }


def text(event: dict[str, Any]) -> str:
    return "hello"


def nothing(event: dict[str, Any]) -> None:
    return None


def not_base64(event: dict[str, Any]) -> dict[str, Any]:
    return {"statusCode": 200, "headers": HEADERS, "body": "%%%", "isBase64Encoded": True}


def not_zstd(event: dict[str, Any]) -> dict[str, Any]:
    headers = {**HEADERS, "content-encoding": "zstd"}
    return {"statusCode": 200, "headers": headers, "body": "AAAA", "isBase64Encoded": True}


def unavailable(event: dict[str, Any]) -> dict[str, Any]:
    return {"statusCode": 503, "headers": {**HEADERS, "retry-after": "1"}, "isBase64Encoded": None}


def boom(event: dict[str, Any]) -> None:
    raise ValueError("boom")


def leave(event: dict[str, Any]) -> None:
    os._exit(3)


def big(event: dict[str, Any]) -> dict[str, Any]:
    return {"statusCode": 200, "headers": HEADERS, "body": "A" * 7_000_000, "isBase64Encoded": True}


def hang(event: dict[str, Any]) -> None:
    time.sleep(60)
