"""A journal as people read it: one step per command, with what came of it; signals where they arrived.

Rules: a completion is joined to its command; what the cursor of the handler stands at is told by what the invocation awaits and by its
last failure; content is cut for columns, never in `content`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from holdfast.protocol import messages
from holdfast.protocol.awaiting import Awaiting, Combinator
from holdfast.protocol.messages import MessageType
from holdfast_runtime.app import ages

MAX_SHOWN: Final = 60  # characters of a value in a line
FIRST_AWAKEABLE: Final = 17
CANCEL: Final = 1
WAITING, DONE, FAILED = "waiting", "done", "failed"

_WORDS: Final = {
    MessageType.GET_LAZY_STATE_COMMAND: "get state",
    MessageType.GET_EAGER_STATE_COMMAND: "get state",
    MessageType.GET_LAZY_STATE_KEYS_COMMAND: "state keys",
    MessageType.GET_EAGER_STATE_KEYS_COMMAND: "state keys",
    MessageType.GET_PROMISE_COMMAND: "await promise",
    MessageType.ONE_WAY_CALL_COMMAND: "send",
    MessageType.ATTACH_INVOCATION_COMMAND: "attach",
    MessageType.GET_INVOCATION_OUTPUT_COMMAND: "get output",
    MessageType.CALL_INVOCATION_ID_COMPLETION: "",
}
_COMBINATORS: Final = {
    Combinator.FIRST_COMPLETED: "the first of",
    Combinator.FIRST_SUCCEEDED_OR_ALL_FAILED: "the first success of",
    Combinator.ALL_COMPLETED: "all of",
    Combinator.ALL_SUCCEEDED_OR_FIRST_FAILED: "all of",
}


@dataclass(frozen=True, slots=True)
class Step:
    """index: of the command or signal in the journal. command: its number among the commands, as failures name it; None of a signal.
    state: `done`, `failed` or `waiting`; empty for what has no result. outcome: of it, one line, cut. content: the payload, whole, and
    given: what a call was given; None when there is none. child: the invocation that was called. at_ms: when a sleep ends or a delayed
    send starts. took_ms: where it is known.
    """

    index: int
    kind: str
    subject: str = ""
    state: str = ""
    outcome: str = ""
    command: int | None = None
    completion: int | None = None
    child: str | None = None
    at_ms: int | None = None
    took_ms: int | None = None
    content: bytes | None = None
    given: bytes | None = None

    @property
    def failed(self) -> bool:
        return self.state == FAILED

    @property
    def title(self) -> str:
        """`call carts/tea/add`"""
        return f"{self.kind} {self.subject}".strip()

    def as_json(self) -> dict[str, Any]:
        """What is known; content as text where it is, else base64."""
        known = {name: value for name, value in asdict(self).items() if value not in (None, "") and name != "completion"}
        return {name: _as_json(value) if isinstance(value, bytes) else value for name, value in known.items()}


def steps(journal: Sequence[Mapping[str, Any]]) -> list[Step]:
    """The rows of `describe`'s journal, completions joined to their commands."""
    parsed = [(row["index"], *parse(row)) for row in journal]
    completions = {
        message.completion_id: (type_, message)
        for _, type_, message in parsed
        if messages.is_notification(type_) and message.WhichOneof("id") == "completion_id"
    }
    found, commands = [], 0
    for index, type_, message in parsed:
        if not messages.is_notification(type_):
            found.append(replace(_command(index, type_, message, completions), command=commands))
            commands += 1
        elif message.WhichOneof("id") != "completion_id":
            found.append(_signal(index, message))
    return found


def parse(row: Mapping[str, Any]) -> tuple[MessageType, Any]:
    type_ = MessageType[row["type"]]
    return type_, messages.parse(type_, base64.b64decode(row["raw"]))


def awaited(found: Mapping[str, Any], listed: Sequence[Step]) -> str | None:
    """What a suspended invocation waits for, in words. None: nothing that is known."""
    if not found.get("awaiting"):
        return None
    return _in_words(Awaiting.from_document(found["awaiting"]), found["id"], {step.completion: step for step in listed}) or None


def awaited_completions(found: Mapping[str, Any]) -> set[int]:
    if not found.get("awaiting"):
        return set()
    stack, ids = [Awaiting.from_document(found["awaiting"])], set[int]()
    while stack:
        node = stack.pop()
        ids |= set(node.completions)
        stack += node.children
    return ids


def _in_words(node: Awaiting, invocation_id: str, by_completion: Mapping[int | None, Step]) -> str:
    from holdfast.protocol.ids import InvocationId, awakeable_id

    parts = [by_completion[leaf].title if leaf in by_completion else f"result {leaf}" for leaf in node.completions]
    for index in node.signals:
        if index >= FIRST_AWAKEABLE:
            parts.append(f"awakeable {awakeable_id(InvocationId.parse(invocation_id), index)}")
        elif index != CANCEL:  # everything that waits can be cancelled
            parts.append(f"signal {index}")
    parts += [f"signal {name}" for name in node.names]
    nested = [_in_words(child, invocation_id, by_completion) for child in node.children]
    parts += [f"({text})" if len(node.children) > 1 or parts else text for text in nested if text]
    if len(parts) < 2:
        return "".join(parts)
    return f"{_COMBINATORS.get(node.combinator, 'any of')} {', '.join(parts)}"


# ---- Commands


def _command(index: int, type_: MessageType, message: Any, completions: Mapping[int, tuple[MessageType, Any]]) -> Step:
    kind = _WORDS.get(type_) or type_.name.removesuffix("_COMMAND").lower().replace("_", " ")
    step = Step(index, kind, _subject(type_, message))
    if type_ is MessageType.SLEEP_COMMAND:
        step = replace(step, at_ms=message.wake_up_time)
    elif type_ is MessageType.ONE_WAY_CALL_COMMAND and message.invoke_time:
        step = replace(step, at_ms=message.invoke_time)
    if hasattr(message, "invocation_id_notification_idx"):
        started = completions.get(message.invocation_id_notification_idx)
        step = replace(step, child=started[1].invocation_id if started is not None else None, given=message.parameter)
    if hasattr(message, "result_completion_id"):
        step = replace(step, completion=message.result_completion_id)
        completion = completions.get(message.result_completion_id)
        if completion is None:
            return replace(step, state=WAITING)
        return _with_outcome(step, completion[1], "result")
    for oneof in ("result", "completion"):
        if oneof in message.DESCRIPTOR.oneofs_by_name:
            return _with_outcome(step, message, oneof)
    if hasattr(message, "value") and message.HasField("value"):
        content = message.value.content if hasattr(message.value, "content") else b", ".join(message.value.keys)
        return replace(step, outcome=text_of(content), content=content)
    if type_ is MessageType.ONE_WAY_CALL_COMMAND:
        return replace(step, outcome=text_of(message.parameter))
    return step


def _subject(type_: MessageType, message: Any) -> str:
    match type_:
        case MessageType.CALL_COMMAND | MessageType.ONE_WAY_CALL_COMMAND:
            return "/".join(part for part in (message.service_name, message.key, message.handler_name) if part)
        case MessageType.SLEEP_COMMAND:
            return f"until {ages.moment(message.wake_up_time)}"
        case MessageType.SEND_SIGNAL_COMMAND:
            name = message.name if message.WhichOneof("signal_id") == "name" else f"#{message.idx}"
            named = "cancel" if name == f"#{CANCEL}" else name
            return f"{named} to {message.target_invocation_id}"
    for field in ("key", "awakeable_id", "invocation_id", "name"):
        value = getattr(message, field, "")
        if value:
            return text_of(value) if isinstance(value, bytes) else str(value)
    return ""


def _signal(index: int, message: Any) -> Step:
    if message.WhichOneof("id") == "name":
        kind, subject = "signal", message.name
    elif message.idx == CANCEL:
        return Step(index, "cancel", "", DONE, "asked to cancel")
    else:
        kind, subject = ("awakeable", f"#{message.idx}") if message.idx >= FIRST_AWAKEABLE else ("signal", f"#{message.idx}")
    return _with_outcome(Step(index, kind, subject), message, "result")


def _with_outcome(step: Step, message: Any, oneof: str) -> Step:
    which = message.WhichOneof(oneof)
    if which is None:
        return replace(step, state=DONE)
    if which == "void":
        return replace(step, state=DONE, outcome="" if step.kind == "sleep" else "nothing")
    value = getattr(message, which)
    if which.endswith("failure"):
        return replace(step, state=FAILED, outcome=f"[{value.code}] {value.message}")
    if which == "invocation_id":
        return replace(step, state=DONE, outcome=str(value))
    if which == "state_keys":
        return replace(step, state=DONE, outcome=", ".join(key.decode("utf-8", "replace") for key in value.keys) or "none")
    return replace(step, state=DONE, outcome=text_of(value.content), content=value.content)


def text_of(content: bytes) -> str:
    """For a line: as text when it is, cut, without line breaks."""
    if not content:
        return ""
    try:
        text = content[: MAX_SHOWN * 4].decode()
    except UnicodeDecodeError:
        text = content[: MAX_SHOWN * 4].decode("utf-8", "replace")
        if "\ufffd" in text[:-1]:
            return f"{len(content)} bytes"
    shown = " ".join(text[:MAX_SHOWN].split())
    return shown if len(text) <= MAX_SHOWN and len(content) <= MAX_SHOWN * 4 else f"{shown}… ({len(content)} bytes)"


def _as_json(content: bytes) -> Any:
    try:
        return {"text": content.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}
