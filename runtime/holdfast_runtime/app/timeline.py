"""A journal as people read it: one line per command, with what came of it; signals where they arrived."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from holdfast.protocol import messages
from holdfast.protocol.messages import MessageType

MAX_SHOWN: Final = 60  # characters of a value; --json has all of it
FIRST_AWAKEABLE: Final = 17
CANCEL: Final = 1
WAITING: Final = "waiting"

_WORDS: Final = {
    MessageType.INPUT_COMMAND: "input",
    MessageType.OUTPUT_COMMAND: "output",
    MessageType.GET_LAZY_STATE_COMMAND: "get state",
    MessageType.GET_EAGER_STATE_COMMAND: "get state",
    MessageType.SET_STATE_COMMAND: "set state",
    MessageType.CLEAR_STATE_COMMAND: "clear state",
    MessageType.CLEAR_ALL_STATE_COMMAND: "clear all state",
    MessageType.GET_LAZY_STATE_KEYS_COMMAND: "state keys",
    MessageType.GET_EAGER_STATE_KEYS_COMMAND: "state keys",
    MessageType.GET_PROMISE_COMMAND: "await promise",
    MessageType.PEEK_PROMISE_COMMAND: "peek promise",
    MessageType.COMPLETE_PROMISE_COMMAND: "complete promise",
    MessageType.SLEEP_COMMAND: "sleep",
    MessageType.CALL_COMMAND: "call",
    MessageType.ONE_WAY_CALL_COMMAND: "send",
    MessageType.SEND_SIGNAL_COMMAND: "send signal",
    MessageType.RUN_COMMAND: "run",
}


@dataclass(frozen=True, slots=True)
class Step:
    """index: of the command or signal in the journal. outcome: what is known of its result, `waiting`, or empty when it has none."""

    index: int
    kind: str
    subject: str
    outcome: str
    failed: bool = False


def steps(journal: Sequence[Mapping[str, Any]]) -> list[Step]:
    """The rows of `describe`'s journal, completions joined to their commands."""
    parsed = [(row["index"], *_parse(row)) for row in journal]
    completions = {
        message.completion_id: message
        for _, type_, message in parsed
        if messages.is_notification(type_) and message.WhichOneof("id") == "completion_id"
    }
    found = []
    for index, type_, message in parsed:
        if not messages.is_notification(type_):
            found.append(_command(index, type_, message, completions))
        elif message.WhichOneof("id") != "completion_id":
            found.append(_signal(index, message))
    return found


def _parse(row: Mapping[str, Any]) -> tuple[MessageType, Any]:
    type_ = MessageType[row["type"]]
    return type_, messages.parse(type_, base64.b64decode(row["raw"]))


def _command(index: int, type_: MessageType, message: Any, completions: Mapping[int, Any]) -> Step:
    kind = _WORDS.get(type_) or type_.name.removesuffix("_COMMAND").lower().replace("_", " ")
    subject = _subject(type_, message)
    if hasattr(message, "result_completion_id"):
        completion = completions.get(message.result_completion_id)
        if completion is None:
            return Step(index, kind, subject, WAITING)
        return Step(index, kind, subject, *_outcome(completion, "result"))
    for oneof in ("result", "completion"):
        if oneof in message.DESCRIPTOR.oneofs_by_name:
            return Step(index, kind, subject, *_outcome(message, oneof))
    if hasattr(message, "value") and message.HasField("value"):
        return Step(index, kind, subject, _value(message.value))
    return Step(index, kind, subject, _text(message.parameter) if type_ is MessageType.ONE_WAY_CALL_COMMAND else "")


def _subject(type_: MessageType, message: Any) -> str:
    match type_:
        case MessageType.CALL_COMMAND | MessageType.ONE_WAY_CALL_COMMAND:
            return "/".join(part for part in (message.service_name, message.key, message.handler_name) if part)
        case MessageType.SLEEP_COMMAND:
            from holdfast_runtime.app.output import moment

            return f"until {moment(message.wake_up_time)}"
        case MessageType.SEND_SIGNAL_COMMAND:
            name = message.name if message.WhichOneof("signal_id") == "name" else f"#{message.idx}"
            return f"{name} to {message.target_invocation_id}"
    for field in ("key", "awakeable_id", "invocation_id", "name"):
        value = getattr(message, field, "")
        if value:
            return _text(value) if isinstance(value, bytes) else str(value)
    return ""


def _signal(index: int, message: Any) -> Step:
    if message.WhichOneof("id") == "name":
        kind, subject = "signal", message.name
    elif message.idx == CANCEL:
        return Step(index, "cancel", "", "asked to cancel")
    else:
        kind, subject = ("awakeable", f"#{message.idx}") if message.idx >= FIRST_AWAKEABLE else ("signal", f"#{message.idx}")
    return Step(index, kind, subject, *_outcome(message, "result"))


def _outcome(message: Any, oneof: str) -> tuple[str, bool]:
    """Text, and whether it is a failure."""
    which = message.WhichOneof(oneof)
    if which is None or which == "void":
        return "done" if which is None else "nothing", False
    value = getattr(message, which)
    if which.endswith("failure"):
        return f"[{value.code}] {value.message}", True
    if which == "invocation_id":
        return str(value), False
    if which == "state_keys":
        return ", ".join(key.decode("utf-8", "replace") for key in value.keys) or "none", False
    return _value(value), False


def _value(value: Any) -> str:
    return _text(value.content) if hasattr(value, "content") else ", ".join(map(_text, value.keys))


def _text(content: bytes) -> str:
    if not content:
        return ""
    try:
        text = content[: MAX_SHOWN * 4].decode()
    except UnicodeDecodeError:
        text = content[: MAX_SHOWN * 4].decode("utf-8", "replace")
        if "\ufffd" in text[:-1]:
            return f"{len(content)} bytes"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}… ({len(content)} bytes)"
