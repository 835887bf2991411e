"""Reading the request of an attempt: Start, the input, then the journal so far.

Rules: exactly the announced entries must be there, further notifications may follow them; the first of several
completions of one id counts; cancellations and named signals are never dropped (service protocol §3.6, §4.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from holdfast.protocol import ids
from holdfast.protocol.awaiting import Key, key_of
from holdfast.protocol.errors import ProtocolError
from holdfast.protocol.frames import Frame, split
from holdfast.protocol.messages import (
    InputCommand,
    Message,
    MessageType,
    Notification,
    Start,
    is_command,
    is_notification,
    parse,
)
from holdfast.protocol.outcomes import Outcome, outcome_of
from holdfast.protocol.replay import Recorded


class Request(NamedTuple):
    """One attempt as it was asked for. `commands` are those behind the input."""

    start: Start
    input: InputCommand
    commands: list[Recorded]
    notifications: list[tuple[Key, Outcome]]


def read_request(version: int, body: bytes) -> Request:
    """Raises ProtocolError (571) when the body is not one complete request."""
    frames = list(split(body))
    start = _control(frames, 0, MessageType.START, version)
    assert isinstance(start, Start)
    if len(frames) - 1 < start.known_entries:
        raise ProtocolError(
            f"the request announces {start.known_entries} journal entries and carries {len(frames) - 1}; send the whole journal"
        )
    input = _control(frames, 1, MessageType.INPUT_COMMAND, version)
    assert isinstance(input, InputCommand)
    request = Request(start, input, [], [])
    seen: set[Key] = set()
    for index, frame in enumerate(frames[2:], start=1):
        if is_notification(frame.type):
            message = parse(frame.type, frame.body, version=version)
            assert isinstance(message, Notification)
            key = key_of(message)
            if key not in seen or key[0] == "n" or key == ("s", ids.CANCEL_SIGNAL):
                request.notifications.append((key, outcome_of(message)))
            seen.add(key)
        elif is_command(frame.type) and index < start.known_entries:
            request.commands.append(Recorded(frame.type, frame.body, index))
        else:
            raise ProtocolError(
                f"entry {index} has type 0x{frame.type:04x}: expected a command or notification among the "
                f"{start.known_entries} announced entries, or a notification behind them"
            )
    return request


def _control(frames: Sequence[Frame], index: int, type: MessageType, version: int) -> Message:
    found = frames[index] if index < len(frames) else None
    if found is None or found.type != type:
        what = "nothing" if found is None else f"0x{found.type:04x}"
        raise ProtocolError(f"frame {index} of the request must be {type.name}, found {what}")
    return parse(found.type, found.body, version=version)
