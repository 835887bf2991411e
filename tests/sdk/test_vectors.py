"""Recorded requests in, recorded responses out: the SDK does what the official ones did under the official server.

Left out of the comparison: labels, times, error texts, the spelling of JSON, and the order inside a suspension.
"""

import json
import re
from typing import Any

import pytest
from google.protobuf.message import Message

from holdfast.endpoint import Endpoint
from holdfast.protocol.frames import split
from holdfast.protocol.messages import (
    Error,
    GetEagerStateKeysCommand,
    OneWayCallCommand,
    OutputCommand,
    ProposeRunCompletion,
    SleepCommand,
    Suspension,
    parse,
)
from tests.golden.summary import load, names
from tests.sdk.captured_services import services

_UUID = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# Handlers in these are made of raw frames, which no SDK exposes (targets of attach), or speak version 7, or
# exercise the transport.
LEFT_OUT = ("01", "29", "33", "34", "35", "36", "37", "38", "40", "41", "42", "43", "44", "45", "50", "51", "60", "61")
PLAYED = [name for name in names() if not name.startswith(LEFT_OUT)]


def test_most_vectors_are_played() -> None:
    assert len(PLAYED) == 31


@pytest.mark.parametrize("name", PLAYED)
async def test_the_sdk_answers_as_captured(name: str) -> None:
    endpoint = Endpoint(services())
    for exchange in load(name)["exchanges"]:
        request = exchange["request"]
        if "decoded" not in request:
            continue
        method, path = request["request_line"].split()[:2] if "request_line" in request else ("POST", request["path"])
        status, headers, body = await endpoint.handle(method, path, request["headers"], bytes.fromhex(request["body_hex"]))
        place = f"exchange {exchange['n']}"
        assert status == 200, (place, body)
        assert headers["content-type"] == {key.lower(): value for key, value in request["headers"].items()}["content-type"]
        recorded = bytes.fromhex(exchange["response"]["body_hex"])
        assert comparable(body) == comparable(recorded), place


def comparable(body: bytes) -> list[Any]:
    """The frames of a response without what may differ."""
    found = []
    for frame in split(body):
        message = parse(frame.type, frame.body)
        found.append((frame.type, _normalised(message)))
    return found


def _normalised(message: Message) -> Any:
    match message:
        case SleepCommand():
            message.wake_up_time = min(message.wake_up_time, 1)
        case OneWayCallCommand():
            message.invoke_time = min(message.invoke_time, 1)
        case Error():
            return message.code, message.related_command_type, message.next_retry_delay
        case Suspension():
            return set(message.waiting_completions), set(message.waiting_signals), set(message.waiting_named_signals)
        case GetEagerStateKeysCommand():
            return sorted(message.value.keys)
        case ProposeRunCompletion() if message.HasField("failure"):
            message.failure.message = ""
        case OutputCommand() if message.HasField("value") and message.value.content:
            return json.loads(_UUID.sub(b"a-uuid", message.value.content))
    if "name" in message.DESCRIPTOR.fields_by_name:
        message.ClearField("name")
    return str(message)
