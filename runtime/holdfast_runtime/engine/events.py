"""Everything that can happen to a shard. Each event is decided by one function, in one transition (see `decide`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from holdfast.protocol.awaiting import Awaiting
from holdfast_runtime.engine.payload import Entry, Payload, Result

Message = dict[str, Any]  # what one shard tells another, see `messages`


@dataclass(slots=True)  # not frozen: made often, and a frozen one costs three times as much to make
class Arrive:
    """A request for a new invocation, or for one that exists.

    target: [service, handler, key or None, handler kind]. sink: who is told the result (outbox.py). fresh: the id was minted
    just
    now, so that nothing can be known of it. request: id of the request, repeated when the request is repeated.
    """

    invocation: str
    target: list[Any]
    entry: Entry  # journal entry 0
    retention_ms: int
    journal_retention_ms: int
    source: list[Any]
    execute_at: int | None = None
    idempotency_key: str | None = None
    sink: list[Any] | None = None
    request: bytes = b""
    fresh: bool = False
    minted_at: int | None = None  # ms; only of ids from HTTP requests that carry a time
    closed: bool = False  # nothing new is taken: only what is known already is answered


@dataclass(slots=True)
class ReceivedFrame:
    """One command or run proposal of a response. `payload` overrides the content carried by `message` when that was stored as a blob."""

    type: int
    entry: Entry
    message: Any  # generated protobuf class
    payload: Payload | None = None


@dataclass(frozen=True, slots=True)
class Suspended:
    awaiting: Awaiting


@dataclass(frozen=True, slots=True)
class Ended:
    """End message: the invocation completes with the result of its last OutputCommand."""


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """code, message: as reported or produced by us. delay_ms: exact next delay, which then does not consume an attempt."""

    code: int
    message: str
    error_code: str | None = None  # RT00xx
    delay_ms: int | None = None
    related: tuple[int | None, str | None, int | None] = (None, None, None)  # command index, name, type
    stacktrace: str = ""
    terminal: bool = False  # no further attempt can do better: it is the invocation's result
    hopeless: bool = False  # nor can one of this handler at this deployment: what the policy says of the last attempt happens now


AttemptEnd = Suspended | Ended | AttemptFailed


@dataclass(slots=True)
class AttemptOver:
    """A response of the current attempt. known: journal entries the attempt was given. The shell has checked the token."""

    invocation: str
    known: int
    frames: Sequence[ReceivedFrame]
    end: AttemptEnd
    deployment: str
    version: int
    jitter: float  # in [0, 1)


@dataclass(frozen=True, slots=True)
class MessagesReceived:
    """Messages of one channel, in order of their sequence numbers."""

    source: int
    messages: Sequence[tuple[int, Message]]


@dataclass(frozen=True, slots=True)
class MessagesAcknowledged:
    destination: int
    sequence: int


@dataclass(frozen=True, slots=True)
class TimerDue:
    hour: int
    number: int
    key: str


@dataclass(frozen=True, slots=True)
class Deliver:
    """A message from outside: an awakeable's result, a signal, a cancel."""

    message: Message


class Verb(Enum):
    CANCEL = "cancel"
    KILL = "kill"
    PURGE = "purge"
    PURGE_JOURNAL = "purge journal"
    PAUSE = "pause"
    RESUME = "resume"


@dataclass(frozen=True, slots=True)
class Operate:
    """An operator's request. in_flight: an attempt of it is running right now. request: id of a request that may be repeated.

    deployment: of a resume, where it goes on: an id or pinning.LATEST; None: where it was.
    """

    verb: Verb
    invocation: str
    in_flight: bool = False
    request: bytes = b""
    deployment: str | None = None


@dataclass(frozen=True, slots=True)
class Restart:
    """Run a finished invocation once more, as `new_invocation`, whose id was minted for this request at `minted_at` (ms).

    upto: index of the last journal entry that the new one begins with. deployment: an id, pinning.LATEST, or None: where it ran.
    """

    invocation: str
    new_invocation: str
    request: bytes
    minted_at: int
    upto: int = 0
    deployment: str | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """Read an invocation for somebody outside; a read has no operations but waits for the durability of what it saw.

    again: asked before, so that a result which is not kept may have come and gone meanwhile.
    """

    invocation: str
    again: bool = False


@dataclass(frozen=True, slots=True)
class Forget:
    """Drop what is over: pages of `recent`, and of the list of finished invocations."""


@dataclass(frozen=True, slots=True)
class EditState:
    """Replace the whole state of a key. fingerprint: of the state it must still be (state_edit.fingerprint), None: whatever it is.

    request: id of a request that may be repeated.
    """

    service: str
    key: str
    values: Sequence[tuple[str, Payload]]
    fingerprint: bytes | None
    request: bytes = b""


Event = Arrive | AttemptOver | MessagesReceived | MessagesAcknowledged | TimerDue | Deliver | Operate | Restart | Look | Forget | EditState


# ---- what a decision tells the one who asked ---------------------------------------------------------------------------------------


class Arrival(Enum):
    NEW = "new"
    KNOWN = "known"  # joined: same request, idempotency key or workflow key
    ALREADY_INVOKED = "already invoked"  # a workflow's run handler: callers get a 409
    STALE = "stale"  # too old to tell whether it ran: refused
    CLOSED = "closed"  # new, and nothing new is taken
    MISMATCH = "mismatch"  # the id belongs to another target (service protocol §7.3, collisions)


@dataclass(slots=True)
class Arrived:
    """result: when it has already ended. expires_at: of a stored result."""

    arrival: Arrival
    result: Result | None = None
    expires_at: int | None = None
    execute_at: int | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """exists: False = unknown or over. result: None while it has not ended."""

    exists: bool
    result: Result | None = None
    expires_at: int | None = None
    target: list[Any] | None = None  # as of Arrive, None when it is not known any more


class Operated(Enum):
    APPLIED = "applied"
    ACCEPTED = "accepted"
    NOT_FOUND = "not found"
    ALREADY_COMPLETED = "already completed"
    NOT_COMPLETED = "not completed"
    NOT_RUNNING = "not running"
    NOT_STARTED = "not started"
    STILL_RUNNING = "still running"
    PINNED = "pinned"  # only what waits and is pinned can move to another deployment
    NO_DEPLOYMENT = "no deployment"
    NO_HANDLER = "no handler"  # the deployment does not serve it, or serves it as something else
    NO_VERSION = "no version"  # the deployment does not speak the protocol version of the journal
    NO_JOURNAL = "no journal"
    UNSUPPORTED = "unsupported"
    OUT_OF_RANGE = "out of range"
    UNFINISHED = "unfinished"  # a command of the journal prefix has no result
    TOO_LARGE = "too large"
    STALE = "stale"  # too old to tell whether it was done: refused
