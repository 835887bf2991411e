"""What was recorded, for assertions: a journal as steps, its values decoded, and printed as a timeline when an assertion fails.

Rules: a step is a command of the handler, with the result that came back joined to it, or a signal from outside; values are JSON where
they are JSON, else bytes; instants are told relative to the start of the invocation.
"""

from __future__ import annotations

import base64
import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, TypeVar, overload

from holdfast.protocol import messages
from holdfast.protocol.ids import CANCEL_SIGNAL, FIRST_AWAKEABLE_SIGNAL
from holdfast.protocol.messages import MessageType as M
from holdfast.serde import serde_for

T = TypeVar("T")
State = Literal["done", "failed", "waiting"]
MAX_SHOWN: Final = 70  # characters of a value in the timeline

_KINDS: Final = {
    M.INPUT_COMMAND: "input",
    M.OUTPUT_COMMAND: "output",
    M.GET_LAZY_STATE_COMMAND: "get state",
    M.GET_EAGER_STATE_COMMAND: "get state",
    M.SET_STATE_COMMAND: "set state",
    M.CLEAR_STATE_COMMAND: "clear state",
    M.CLEAR_ALL_STATE_COMMAND: "clear all state",
    M.GET_LAZY_STATE_KEYS_COMMAND: "state keys",
    M.GET_EAGER_STATE_KEYS_COMMAND: "state keys",
    M.GET_PROMISE_COMMAND: "await promise",
    M.PEEK_PROMISE_COMMAND: "peek promise",
    M.COMPLETE_PROMISE_COMMAND: "complete promise",
    M.SLEEP_COMMAND: "sleep",
    M.CALL_COMMAND: "call",
    M.ONE_WAY_CALL_COMMAND: "send",
    M.SEND_SIGNAL_COMMAND: "send signal",
    M.RUN_COMMAND: "run",
    M.ATTACH_INVOCATION_COMMAND: "attach",
    M.GET_INVOCATION_OUTPUT_COMMAND: "output of",
    M.COMPLETE_AWAKEABLE_COMMAND: "complete awakeable",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened. `index`: of the command or signal in the journal; `result_index`: where its result is, if it is there.

    argument: what a call, send, signal or state write carried. raw: the bytes of the result. message: the command as it is stored.
    """

    index: int
    kind: str
    name: str
    state: State
    argument: Any
    raw: bytes
    failure: str
    result_index: int | None
    message: Any

    @property
    def result(self) -> Any:
        """The result as plain JSON values, or bytes; None while there is none."""
        return plain(self.raw)

    @overload
    def value(self, type: type[T]) -> T: ...
    @overload
    def value(self, type: Any) -> Any: ...
    def value(self, type: Any) -> Any:
        """The result, read as `type`."""
        return serde_for(type).deserialize(self.raw)

    def __str__(self) -> str:
        """As assertions name it, e.g. `run charge` or `call shipping/dispatch`."""
        return f"{self.kind} {self.name}".strip()


@dataclass(frozen=True, slots=True)
class Journal:
    """The journal of one invocation."""

    invocation_id: str
    target: str
    status: str
    created_at: datetime
    steps: Sequence[Step]
    failure: str = ""  # of the last attempt that failed, while the invocation is not over
    attempts_failed: int = 0

    @property
    def names(self) -> list[str]:
        """Every step but the input, as text: `["run charge", "sleep", "call shipping/dispatch", "output"]`."""
        return [str(step) for step in self.steps if step.kind != "input"]

    @property
    def runs(self) -> list[str]:
        """The names of the side effects, in order."""
        return [step.name for step in self.steps if step.kind == "run"]

    @property
    def output(self) -> Any:
        """The result of the invocation as plain values; None while it runs."""
        return next((step.result for step in self.steps if step.kind == "output"), None)

    def step(self, name: str) -> Step:
        """The only step called so (`run charge`, or just `charge`). Raises AssertionError when there is none, or more than one."""
        found = self.all(name)
        if len(found) != 1:
            raise AssertionError(f"expected one step '{name}', found {len(found)}.\n{self}")
        return found[0]

    def all(self, name: str) -> list[Step]:
        """Every step called so, in order."""
        return [step for step in self.steps if name in (str(step), step.name, step.kind)]

    def assert_steps(self, *expected: str) -> None:
        """Exactly these steps in this order, the input left out."""
        if self.names != list(expected):
            raise AssertionError(
                f"the journal has other steps than expected (- expected, + recorded):\n{_diff(expected, self.names)}\n{self}"
            )

    def assert_in_order(self, *expected: str) -> None:
        """These steps in this order, others between them."""
        left = iter(self.names)
        for name in expected:
            if not any(name == found for found in left):
                raise AssertionError(f"expected the steps {', '.join(expected)} in this order; '{name}' is missing there.\n{self}")

    def assert_ran(self, name: str, times: int = 1) -> None:
        """The side effect was recorded so many times."""
        if self.runs.count(name) != times:
            raise AssertionError(f"expected {times} × run '{name}', found {self.runs.count(name)}.\n{self}")

    def assert_waits_for(self, name: str) -> None:
        """The invocation waits for this step, e.g. `await promise confirmed` or `sleep`."""
        waiting = [str(step) for step in self.steps if step.state == "waiting"]
        if name not in waiting:
            raise AssertionError(f"expected it to wait for '{name}', it waits for {', '.join(waiting) or 'nothing'}.\n{self}")

    def __str__(self) -> str:
        """The timeline."""
        head = f"{self.target}  {self.invocation_id}  {self.status}"
        lines = [head, *(f"  {line}" for line in self._lines())]
        if self.failure:
            times = f" ({self.attempts_failed} times)" if self.attempts_failed > 1 else ""
            lines.append(f"  attempt failed{times}: {first_line(self.failure)}")
        return "\n".join(lines)

    def _lines(self) -> list[str]:
        width = max((len(str(step)) for step in self.steps), default=0)
        return [f"{step.index:>3}  {step!s:<{width}}  {self._shown(step)}".rstrip() for step in self.steps]

    def _shown(self, step: Step) -> str:
        wake_up = f"until {relative(step.message.wake_up_time, self.created_at)}  " if step.kind == "sleep" else ""
        given = "" if step.argument is None or step.kind == "input" else f"({shown(step.argument)})  "
        if step.state == "waiting":
            return f"{wake_up}{given}{'… waiting' if self.status != 'completed' else '– never came'}"
        if step.state == "failed":
            return f"{given}✗ {step.failure}"
        result = "" if step.raw == b"" else f"→ {shown(step.result)}"
        return f"{wake_up}{given}{result}" if step.kind != "input" else shown(step.result)


def journal_of(row: Mapping[str, Any]) -> Journal:
    """From what the coordinator tells of an invocation (`journal` inside)."""
    return Journal(
        invocation_id=row["id"],
        target=row["target"],
        status=row["status"],
        created_at=datetime.fromtimestamp(row["created_at_ms"] / 1000, UTC),
        steps=steps([(entry["index"], M[entry["type"]], base64.b64decode(entry["raw"])) for entry in row["journal"]]),
        failure=row.get("last_failure") or "" if row["status"] != "completed" else "",
        attempts_failed=row.get("retry_count") or 0,
    )


def steps(entries: Sequence[tuple[int, M, bytes]]) -> list[Step]:
    """Entries (index, type, body) as steps."""
    parsed: list[tuple[int, M, Any]] = [(index, type_, messages.parse(type_, body)) for index, type_, body in entries]
    completions = {
        message.completion_id: (index, message)
        for index, type_, message in parsed
        if messages.is_notification(type_) and message.WhichOneof("id") == "completion_id"
    }
    found = []
    for index, type_, message in parsed:
        if not messages.is_notification(type_):
            found.append(_command(index, type_, message, completions))
        elif message.WhichOneof("id") != "completion_id":
            found.append(_arrived(index, message))
    return found


def _command(index: int, type_: M, message: Any, completions: Mapping[int, tuple[int, Any]]) -> Step:
    kind = _KINDS.get(type_) or type_.name.removesuffix("_COMMAND").lower().replace("_", " ")
    make: Callable[..., Step] = lambda state, raw, failure, at: Step(  # noqa: E731
        index, kind, _name(type_, message), state, _argument(type_, message), raw, failure, at, message
    )
    if hasattr(message, "result_completion_id"):
        completion = completions.get(message.result_completion_id)
        if completion is None:
            waiting = type_ is not M.ONE_WAY_CALL_COMMAND
            return make("waiting" if waiting else "done", b"", "", None)
        return make(*_outcome(completion[1], "result"), completion[0])
    if type_ in (M.OUTPUT_COMMAND, M.GET_EAGER_STATE_COMMAND):
        return make(*_outcome(message, "result"), index)
    if type_ is M.GET_EAGER_STATE_KEYS_COMMAND:
        return make("done", json.dumps([key.decode(errors="replace") for key in message.value.keys]).encode(), "", index)
    return make("done", message.value.content if type_ is M.INPUT_COMMAND else b"", "", index)


def _arrived(index: int, message: Any) -> Step:
    """A signal from outside."""
    state, raw, failure = _outcome(message, "result")
    if message.WhichOneof("id") == "name":
        return Step(index, "signal", message.name, state, None, raw, failure, index, message)
    if message.idx == CANCEL_SIGNAL:
        return Step(index, "cancel", "", state, None, raw, failure, index, message)
    kind, number = ("awakeable", message.idx - FIRST_AWAKEABLE_SIGNAL) if message.idx >= FIRST_AWAKEABLE_SIGNAL else ("signal", message.idx)
    return Step(index, kind, f"#{number}", state, None, raw, failure, index, message)


def _name(type_: M, message: Any) -> str:
    match type_:
        case M.CALL_COMMAND | M.ONE_WAY_CALL_COMMAND:
            return f"{message.service_name}/{message.handler_name}"
        case M.SEND_SIGNAL_COMMAND:
            which = message.name if message.WhichOneof("signal_id") == "name" else f"#{message.idx}"
            return "cancel" if which == f"#{CANCEL_SIGNAL}" else which
        case M.INPUT_COMMAND | M.OUTPUT_COMMAND:
            return ""
    for field in ("key", "awakeable_id", "invocation_id", "name"):
        value = getattr(message, field, "")
        if value:
            return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return ""


def _argument(type_: M, message: Any) -> Any:
    match type_:
        case M.CALL_COMMAND | M.ONE_WAY_CALL_COMMAND:
            return plain(message.parameter)
        case M.SET_STATE_COMMAND | M.SEND_SIGNAL_COMMAND | M.COMPLETE_AWAKEABLE_COMMAND:
            return plain(message.value.content) if message.HasField("value") else None
        case M.COMPLETE_PROMISE_COMMAND:
            return plain(message.completion_value.content) if message.HasField("completion_value") else None
    return None


def _outcome(message: Any, oneof: str) -> tuple[State, bytes, str]:
    which = message.WhichOneof(oneof)
    if which is None or which == "void":
        return "done", b"", ""
    value = getattr(message, which)
    if which == "failure":
        return "failed", b"", f"[{value.code}] {value.message}"
    if which == "invocation_id":
        return "done", json.dumps(str(value)).encode(), ""
    if hasattr(value, "keys"):
        return "done", json.dumps([key.decode(errors="replace") for key in value.keys]).encode(), ""
    return "done", value.content, ""


def plain(content: bytes) -> Any:
    """JSON values where it is JSON, None for nothing, else the bytes."""
    if not content:
        return None
    try:
        return json.loads(content)
    except ValueError:
        return content


def first_line(text: str) -> str:
    return text.partition("\n")[0]


def shown(value: Any) -> str:
    """A value on one line, cut."""
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, bytes) else repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def relative(at_ms: int, start: datetime) -> str:
    """`+1 day, 2:00:00` after `start`."""
    passed = timedelta(milliseconds=at_ms) - timedelta(seconds=start.timestamp())
    return f"+{timedelta(seconds=round(passed.total_seconds(), 3))}"


def _diff(expected: Sequence[str], found: Sequence[str]) -> str:
    lines = difflib.ndiff(list(expected), list(found))
    return "\n".join(f"  {line}" for line in lines if not line.startswith("?"))
