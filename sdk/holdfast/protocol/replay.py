"""The recorded commands of an attempt, and the check that the handler issues the same ones again.

Rules: commands are compared in order, type and every field, except what the first execution alone could
decide: wake-up and invoke times, and the answers embedded in eager state reads (service protocol §4.5).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from holdfast.protocol.errors import JOURNAL_MISMATCH, ProtocolError
from holdfast.protocol.messages import (
    CallCommand,
    ClearStateCommand,
    CompleteAwakeableCommand,
    CompletePromiseCommand,
    GetEagerStateCommand,
    GetLazyStateCommand,
    GetPromiseCommand,
    Message,
    MessageType,
    OneWayCallCommand,
    PeekPromiseCommand,
    RunCommand,
    SendSignalCommand,
    SetStateCommand,
    parse,
)

USUAL_CAUSES: Final = (
    "Usual causes: the code was changed while invocations of the old code were in flight (deploy it as a new "
    "revision); a branch that depends on the clock, on randomness, on environment variables or on outside "
    "data read without ctx.run; iteration over a set; results awaited in threads or asyncio tasks instead of "
    "ctx.gather and ctx.select."
)

# What only the first execution could know.
_VOLATILE: Final[dict[int, tuple[str, ...]]] = {
    MessageType.SLEEP_COMMAND: ("wake_up_time",),
    MessageType.ONE_WAY_CALL_COMMAND: ("invoke_time",),
    MessageType.GET_EAGER_STATE_COMMAND: ("void", "value"),
    MessageType.GET_EAGER_STATE_KEYS_COMMAND: ("value",),
}


class JournalMismatchError(ProtocolError):
    """The handler does not do again what its journal records. The attempt fails with code 570.

    `entry_index`: position in the journal, the input being 0. `command_index` counts commands only.
    """

    def __init__(self, *, entry_index: int, command_index: int, recorded: str, issued: str, issued_type: int | None = None) -> None:
        super().__init__(
            f"journal mismatch: entry {entry_index} records {recorded}, the handler issued {issued}.\n" + USUAL_CAUSES,
            code=JOURNAL_MISMATCH,
        )
        self.entry_index = entry_index
        self.command_index = command_index
        self.recorded = recorded
        self.issued = issued
        self.issued_type = issued_type  # type id of the issued command; None when the handler waits or ends

    def at(self, place: str) -> None:
        """Adds the line of the handler, for the reader; what the machine compares does not know it."""
        first, _, rest = str(self).partition("\n")
        self.args = (f"{first}\n  at {place}\n{rest}",)


class Recorded(NamedTuple):
    """One command of the journal, as it was stored."""

    type: int
    body: bytes
    entry_index: int


class RecordedCommands:
    """The commands behind the input, consumed one by one."""

    def __init__(self, commands: list[Recorded]) -> None:
        self._commands = commands
        self._next = 0

    @property
    def left(self) -> bool:
        """Whether the handler still repeats what is recorded."""
        return self._next < len(self._commands)

    @property
    def command_index(self) -> int:
        """Index of the command issued next; the input is 0. Counts on past the end of the record."""
        return self._next + 1

    def peek_type(self) -> int | None:
        """Type id of the next recorded command."""
        return self._commands[self._next].type if self.left else None

    def skip(self) -> None:
        """A new command took an index."""
        self._next += 1

    def take(self, type: int, message: Message) -> Message:
        """The recorded command in the place of the issued one; raises JournalMismatchError if they differ."""
        recorded = self._commands[self._next]
        if recorded.type != type:
            raise self._mismatch(recorded, describe(type, message), type)
        stored = parse(recorded.type, recorded.body)
        if recorded.body != message.SerializeToString() and not _same(type, stored, message):
            raise self._mismatch(recorded, describe(type, message, details=stored), type)
        self._next += 1
        return stored

    def blocked(self, waiting_for: str) -> JournalMismatchError:
        """The handler waits for what is not there, though the journal shows that it went further."""
        return self._mismatch(self._commands[self._next], f"a wait for {waiting_for}")

    def _mismatch(self, recorded: Recorded, issued: str, type: int | None = None) -> JournalMismatchError:
        stored = parse(recorded.type, recorded.body)
        return JournalMismatchError(
            entry_index=recorded.entry_index,
            command_index=self.command_index,
            recorded=describe(recorded.type, stored),
            issued=issued,
            issued_type=type,
        )


def _same(type: int, stored: Message, issued: Message) -> bool:
    volatile = _VOLATILE.get(type, ())
    left, right = stored.__class__(), stored.__class__()
    left.CopyFrom(stored)
    right.CopyFrom(issued)
    left.DiscardUnknownFields()
    for field in volatile:
        left.ClearField(field)
        right.ClearField(field)
    return left == right


def describe(type: int, message: Message, *, details: Message | None = None) -> str:
    """A command in words, e.g. `call orders/checkout` or `run 'charge'`; `details` adds what differs."""
    text = _subject(message) or _words(type)
    name = getattr(message, "entry_name", "") or getattr(message, "name", "")
    if name and f"'{name}'" not in text:
        text += f" '{name}'"
    if details is None:
        return text
    volatile = _VOLATILE.get(type, ())
    different = [
        field.name
        for field in message.DESCRIPTOR.fields
        if field.name not in volatile and getattr(message, field.name) != getattr(details, field.name)
    ]
    return f"{text} with another {', '.join(different) or 'content'}"


def _words(type: int) -> str:
    try:
        return MessageType(type).name.removesuffix("_COMMAND").lower().replace("_", " ")
    except ValueError:
        return f"command 0x{type:04x}"


def _subject(message: Message) -> str | None:
    """The commands whose target says more than their type."""
    match message:
        case CallCommand() | OneWayCallCommand():
            verb = "call" if isinstance(message, CallCommand) else "send"
            key = f" of key '{message.key}'" if message.key else ""
            return f"{verb} {message.service_name}/{message.handler_name}{key}"
        case RunCommand():
            return f"run '{message.name}'"
        case GetLazyStateCommand() | GetEagerStateCommand():
            return f"get state '{message.key.decode(errors='replace')}'"
        case SetStateCommand():
            return f"set state '{message.key.decode(errors='replace')}'"
        case ClearStateCommand():
            return f"clear state '{message.key.decode(errors='replace')}'"
        case GetPromiseCommand() | PeekPromiseCommand() | CompletePromiseCommand():
            verb = message.__class__.__name__.removesuffix("PromiseCommand").lower()
            return f"{verb} promise '{message.key}'"
        case SendSignalCommand():
            signal = f"'{message.name}'" if message.name else str(message.idx)
            return f"signal {signal} to {message.target_invocation_id}"
        case CompleteAwakeableCommand():
            return f"complete awakeable {message.awakeable_id}"
        case _:
            return None
