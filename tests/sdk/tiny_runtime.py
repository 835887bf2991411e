"""The least of a coordinator: keeps one journal, answers commands, and lets the test choose what happens when."""

import asyncio
from collections.abc import Callable

from holdfast.endpoint import Endpoint
from holdfast.protocol.frames import Frame, encode, split
from holdfast.protocol.ids import random_invocation_id
from holdfast.protocol.messages import (
    CallCommand,
    ClearAllStateCommand,
    ClearStateCommand,
    Failure,
    GetLazyStateCommand,
    GetLazyStateKeysCommand,
    GetPromiseCommand,
    Message,
    MessageType,
    Notification,
    OneWayCallCommand,
    OutputCommand,
    ProposeRunCompletion,
    SetStateCommand,
    SleepCommand,
    Start,
    StateEntry,
    StateKeys,
    Suspension,
    Value,
    Void,
    input_command,
    is_command,
    parse,
)
from holdfast.protocol.versions import content_type

INVOCATION = random_invocation_id(1, 2, bytes(10))
CHILD = str(random_invocation_id(3, 4, bytes(10)))
MAX_ATTEMPTS = 200

# What may happen next: a description, and the notification it appends.
Event = tuple[str, Callable[[], tuple[int, Notification]]]


class Journal:
    """One invocation of an object's handler."""

    def __init__(self, *, version: int = 6, lazy: bool = False, body: bytes = b"") -> None:
        self.version = version
        self.lazy = lazy
        self.entries: list[Frame] = list(split(input_command((), body)))
        self.state: dict[bytes, bytes] = {}
        self.open: dict[str, Event] = {}  # what the handler asked for and nobody answered yet
        self.awaiting = Suspension()
        self.output: Message | None = None
        self.failures = 0
        self.responses: list[bytes] = []

    def request(self, known: int | None = None, *, state: dict[bytes, bytes] | None = None) -> bytes:
        """The request of an attempt that knows the first entries of the journal, all by default."""
        entries = self.entries[:known]
        start = Start(
            id=INVOCATION.raw,
            debug_id=str(INVOCATION),
            known_entries=len(entries),
            key="k",
            partial_state=self.lazy,
            random_seed=7,
            retry_count_since_last_stored_entry=self.failures,
        )
        if not self.lazy:
            found = self.state if state is None else state
            start.state_map.extend(StateEntry(key=key, value=value) for key, value in found.items())
        frames = [encode(MessageType.START, start.SerializeToString())]
        return b"".join([*frames, *(encode(frame.type, frame.body) for frame in entries)])

    async def attempt(self, endpoint: Endpoint, path: str, known: int | None = None) -> bytes:
        """One attempt; its response."""
        headers = {"content-type": content_type(self.version)}
        status, _, body = await endpoint.handle("POST", path, headers, self.request(known))
        assert status == 200, body
        return body

    def take(self, response: bytes) -> None:
        """Processes a response as a coordinator does."""
        self.responses.append(response)
        for frame in split(response):
            message = parse(frame.type, frame.body, version=self.version)
            if is_command(frame.type):
                self.entries.append(frame)
                self.failures = 0
                self._answer(message)
            elif isinstance(message, ProposeRunCompletion):
                done = Notification(completion_id=message.result_completion_id)
                if message.HasField("failure"):
                    done.failure.CopyFrom(message.failure)
                else:
                    done.value.CopyFrom(Value(content=message.value))
                self.append(MessageType.RUN_COMPLETION, done)
            elif isinstance(message, Suspension):
                self.awaiting = message
            elif frame.type == MessageType.ERROR:
                self.failures += 1

    def append(self, type: int, notification: Notification) -> None:
        self.entries.append(Frame(type, notification.SerializeToString()))

    def happen(self, name: str) -> None:
        """One of the open events."""
        self.append(*self.open.pop(name)[1]())

    def cancel(self) -> None:
        self.append(MessageType.SIGNAL_NOTIFICATION, Notification(idx=1, void=Void()))

    def signal(self, name: str, content: bytes) -> None:
        self.append(MessageType.SIGNAL_NOTIFICATION, Notification(name=name, value=Value(content=content)))

    def awakened(self, index: int, content: bytes) -> None:
        self.append(MessageType.SIGNAL_NOTIFICATION, Notification(idx=index, value=Value(content=content)))

    def satisfied(self, known: int) -> bool:
        """Whether something the handler awaits came after the entries its attempt knew."""
        for frame in self.entries[known:]:
            if not is_command(frame.type):
                message = parse(frame.type, frame.body)
                assert isinstance(message, Notification)
                if (
                    message.completion_id in self.awaiting.waiting_completions
                    or message.idx in self.awaiting.waiting_signals
                    or message.name in self.awaiting.waiting_named_signals
                ):
                    return True
        return False

    @property
    def commands(self) -> list[Frame]:
        """The commands so far, the input included."""
        return [frame for frame in self.entries if is_command(frame.type)]

    def _answer(self, message: Message) -> None:
        match message:
            case OutputCommand():
                self.output = message
            case SetStateCommand():
                self.state[message.key] = message.value.content
            case ClearStateCommand():
                self.state.pop(message.key, None)
            case ClearAllStateCommand():
                self.state.clear()
            case GetLazyStateCommand():
                done = Notification(completion_id=message.result_completion_id)
                if message.key in self.state:
                    done.value.CopyFrom(Value(content=self.state[message.key]))
                else:
                    done.void.CopyFrom(Void())
                self.append(MessageType.GET_LAZY_STATE_COMPLETION, done)
            case GetLazyStateKeysCommand():
                keys = StateKeys(keys=sorted(self.state))
                done = Notification(completion_id=message.result_completion_id, state_keys=keys)
                self.append(MessageType.GET_LAZY_STATE_KEYS_COMPLETION, done)
            case SleepCommand():
                id = message.result_completion_id
                self.open[f"sleep {id}"] = (
                    "sleep",
                    lambda: (MessageType.SLEEP_COMPLETION, Notification(completion_id=id, void=Void())),
                )
            case GetPromiseCommand():
                id = message.result_completion_id
                value = Notification(completion_id=id, value=Value(content=b"true"))
                self.open[f"promise {id}"] = ("promise", lambda: (MessageType.GET_PROMISE_COMPLETION, value))
            case OneWayCallCommand():
                self._child(message.invocation_id_notification_idx)
            case CallCommand():
                self._child(message.invocation_id_notification_idx)
                self._call(message.result_completion_id)

    def _child(self, id: int) -> None:
        notification = Notification(completion_id=id, invocation_id=CHILD)
        self.append(MessageType.CALL_INVOCATION_ID_COMPLETION, notification)

    def _call(self, id: int) -> None:
        value, failure = Value(content=b'"answer"'), Failure(code=418, message="no")
        kind = MessageType.CALL_COMPLETION
        self.open[f"call {id}"] = ("call", lambda: (kind, Notification(completion_id=id, value=value)))
        self.open[f"failed call {id}"] = ("call", lambda: (kind, Notification(completion_id=id, failure=failure)))


def run_to_end(journal: Journal, endpoint: Endpoint, path: str, choose: Callable[[Journal], None]) -> None:
    """Attempts until the handler ends; `choose` makes things happen while it is suspended."""

    async def play() -> None:
        for _ in range(MAX_ATTEMPTS):
            known = len(journal.entries)
            journal.take(await journal.attempt(endpoint, path))
            if journal.output is not None:
                return
            if not journal.satisfied(known):
                choose(journal)
        raise AssertionError("the handler does not end")

    asyncio.run(play())
