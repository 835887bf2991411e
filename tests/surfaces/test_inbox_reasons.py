"""Why a message is refused goes to the log, and what it says does not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast_runtime.engine.registry import EMPTY
from holdfast_runtime.ports.inbox import MessageMalformed, Received, decode
from holdfast_runtime.surfaces.inbox_events import events

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"holdfast": SECRET, "wake": {}}, "found a text of 6 characters"),
        ({"holdfast": 2, "wake": {}}, "found 2: sent by another version"),
        ({"holdfast": 1, "invoke": SECRET}, 'expected an object as "invoke", found a text of 6 characters'),
        ({"holdfast": 1, "invoke": {"id": "i", "service": "s", "handler": "h", "headers": [[SECRET]], "body": ""}}, "found a list of 1"),
        ({"holdfast": 1, "resolve": {"awakeable": "a", "value": f"not base64 {SECRET}"}}, "base64"),
        ({"Records": [{"eventSource": "aws:s3", "token": SECRET}]}, "found an object with eventSource, token"),
        ({"password": SECRET}, "found an object with password"),
        ([SECRET], "found a list of 1"),
        (None, "found null"),
        (4711, "found a number"),
    ],
)
def test_reasons_tell_shapes_and_no_contents(document: Any, words: str) -> None:
    with pytest.raises(MessageMalformed) as refused:
        if decode(document) is None:
            events(Received("m1", "r", json.dumps(document), {}, 1), document, [], EMPTY)
    assert words in str(refused.value)
    assert SECRET not in str(refused.value)
    assert "4711" not in str(refused.value)
