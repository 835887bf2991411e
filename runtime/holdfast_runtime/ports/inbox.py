"""The inbox queue: the way in when nobody is awake (storage design §8). What is on it, and how it is received.

A message is on the queue until it is deleted, and it is deleted only when what it asks for is durable: it may come twice, late, and in
any order. Whoever sends one mints the id, so that the second delivery finds what the first did.

Our own messages are JSON with the member `holdfast` = the version of the format and one other member that says what is wanted:

    {"holdfast": 1, "invoke": {"id", "service", "handler", "key"?, "headers": [[name, value]], "body": base64, "idempotency_key"?,
                               "execute_at"?: ms}}
    {"holdfast": 1, "resolve": {"awakeable": "sign_1...", "value": base64}}
    {"holdfast": 1, "reject": {"awakeable": "sign_1...", "message": text}}
    {"holdfast": 1, "wake": {"shard", "hour", "page"}}
    {"holdfast": 1, "register": {"arn", "assume_role_arn"?, "force"?: bool, "concurrency"?: number, "until"?: ms}}
    {"holdfast": 1, "event": {"id", "service", "handler", "key"?, "body": any JSON}}

The last one is for others to write, such as the input transformer of an EventBridge rule. Anything else is an event of another service.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

VERSION: Final = 1
MAX_MESSAGE_BYTES: Final = 1024 * 1024  # of an SQS message, attributes included
MAX_NUMBER: Final = 2**53  # what every JSON library reads exactly, and the year 287396 as milliseconds


class InboxUnavailable(Exception):
    """The queue cannot be reached, or refuses us; a message that was to be put may or may not be on it."""


class MessageMalformed(Exception):
    """It never can be accepted; the text says what was expected and what was found."""


@dataclass(frozen=True, slots=True)
class Invoke:
    """An invocation to accept. `id`: minted by the sender. `execute_at_ms`: wall clock, None = at once."""

    id: str
    service: str
    handler: str
    key: str | None
    headers: Sequence[tuple[str, str]]
    body: bytes
    idempotency_key: str | None = None
    execute_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Resolve:
    awakeable: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Reject:
    awakeable: str
    message: str


@dataclass(frozen=True, slots=True)
class Wake:
    """Timers of a page fall due soon."""

    shard: int
    hour: int
    page: int


@dataclass(frozen=True, slots=True)
class Register:
    """A function to discover and register. Only functions: what may be invoked is limited by the coordinator's role, addresses are not.

    concurrency: how many of its attempts may be in flight in each process; None: what the coordinator is configured with. until_ms: wall
    clock, after which nobody wants it any more; None: it is wanted whenever.
    """

    arn: str
    assume_role_arn: str | None = None
    force: bool = False
    concurrency: int | None = None
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened elsewhere and is to become one invocation. `id`: of the event, deduplicates per handler."""

    id: str
    service: str
    handler: str
    key: str | None
    body: Any


InboxMessage = Invoke | Resolve | Reject | Wake | Register | Event


@dataclass(frozen=True, slots=True)
class Received:
    """`body`: as sent. `attributes`: those of the message that are texts. `receipt`: to delete it with. `count`: deliveries so far."""

    id: str
    receipt: str
    body: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    count: int = 1


class Inbox(Protocol):
    """Methods raise InboxUnavailable."""

    async def receive(self) -> Sequence[Received]:
        """Wait up to 20 s for messages; some at a time, perhaps none. Each is hidden from others for a while, then comes again."""
        ...

    async def delete(self, messages: Sequence[Received]) -> None:
        """They are done with. One that could not be deleted comes again."""
        ...

    async def postpone(self, messages: Sequence[Received]) -> None:
        """They were not accepted, for a reason that passes: they come again after a time that grows with their deliveries."""
        ...

    async def put(self, message: InboxMessage) -> None:
        """Durable when this returns. Raises ValueError for one that is too large."""
        ...


def encode(message: InboxMessage) -> str:
    """As JSON. Raises ValueError when it exceeds what the queue takes."""
    match message:
        case Invoke():
            wanted: dict[str, Any] = {
                "invoke": {
                    "id": message.id,
                    "service": message.service,
                    "handler": message.handler,
                    **({} if message.key is None else {"key": message.key}),
                    "headers": [list(header) for header in message.headers],
                    "body": base64.b64encode(message.body).decode(),
                    **({} if message.idempotency_key is None else {"idempotency_key": message.idempotency_key}),
                    **({} if message.execute_at_ms is None else {"execute_at": message.execute_at_ms}),
                }
            }
        case Resolve():
            wanted = {"resolve": {"awakeable": message.awakeable, "value": base64.b64encode(message.value).decode()}}
        case Reject():
            wanted = {"reject": {"awakeable": message.awakeable, "message": message.message}}
        case Wake():
            wanted = {"wake": {"shard": message.shard, "hour": message.hour, "page": message.page}}
        case Register():
            role = {} if message.assume_role_arn is None else {"assume_role_arn": message.assume_role_arn}
            limit = {} if message.concurrency is None else {"concurrency": message.concurrency}
            until = {} if message.until_ms is None else {"until": message.until_ms}
            wanted = {"register": {"arn": message.arn, **role, "force": message.force, **limit, **until}}
        case Event():
            key = {} if message.key is None else {"key": message.key}
            wanted = {"event": {"id": message.id, "service": message.service, "handler": message.handler, **key, "body": message.body}}
    text = json.dumps({"holdfast": VERSION, **wanted}, separators=(",", ":"))
    if len(text) > MAX_MESSAGE_BYTES:
        raise ValueError(f"a message on the inbox queue holds at most {MAX_MESSAGE_BYTES} bytes, this one has {len(text)}")
    return text


def decode(document: Any) -> InboxMessage | None:
    """One of ours from parsed JSON; None when it does not claim to be. Raises MessageMalformed."""
    if not isinstance(document, dict) or "holdfast" not in document:
        return None
    version = document["holdfast"]
    if version != VERSION:
        found = version if isinstance(version, int) else shape(version)
        raise MessageMalformed(f'expected "holdfast": {VERSION}, found {found}: sent by another version of Holdfast')
    rest = [name for name in document if name != "holdfast"]
    if len(rest) != 1 or rest[0] not in _READERS:
        raise MessageMalformed(f'expected one of {", ".join(_READERS)} beside "holdfast", found {", ".join(rest) or "nothing"}')
    return _READERS[rest[0]](_Members(rest[0], document[rest[0]]))


def shape(found: Any) -> str:
    """What a JSON value is, without what it says: reasons go to the log, where contents do not belong."""
    match found:
        case dict():
            return f"an object with {', '.join(str(name)[:40] for name in list(found)[:10]) or 'nothing'}"
        case list():
            return f"a list of {len(found)}"
        case str():
            return f"a text of {len(found)} characters"
        case None | bool():
            return json.dumps(found)
    return "a number"


class _Members:
    """The members of a message, each read with its type."""

    def __init__(self, where: str, found: Any) -> None:
        if not isinstance(found, dict):
            raise MessageMalformed(f'expected an object as "{where}", found {shape(found)}')
        self._where = where
        self._found: dict[str, Any] = found

    def text(self, name: str) -> str:
        found = self._found.get(name)
        if not isinstance(found, str):
            raise self._wrong(name, "a text")
        return found

    def text_or_none(self, name: str) -> str | None:
        return None if self._found.get(name) is None else self.text(name)

    def number(self, name: str) -> int:
        found = self._found.get(name)
        if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= MAX_NUMBER:
            raise self._wrong(name, "a whole number from 0 to 2^53")
        return found

    def number_or_none(self, name: str) -> int | None:
        return None if self._found.get(name) is None else self.number(name)

    def flag(self, name: str) -> bool:
        found = self._found.get(name, False)
        if not isinstance(found, bool):
            raise self._wrong(name, "true or false")
        return found

    def octets(self, name: str) -> bytes:
        try:
            return base64.b64decode(self.text(name), validate=True)
        except binascii.Error:
            raise self._wrong(name, "base64") from None

    def pairs(self, name: str) -> list[tuple[str, str]]:
        found = self._found.get(name, [])
        if not isinstance(found, list) or not all(
            isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair) for pair in found
        ):
            raise self._wrong(name, "a list of pairs of texts")
        return [(pair[0], pair[1]) for pair in found]

    def any(self, name: str) -> Any:
        if name not in self._found:
            raise self._wrong(name, "any JSON value")
        return self._found[name]

    def _wrong(self, name: str, expected: str) -> MessageMalformed:
        found = shape(self._found[name]) if name in self._found else "nothing"
        return MessageMalformed(f'expected {expected} as "{self._where}.{name}", found {found}')


def _invoke(of: _Members) -> Invoke:
    return Invoke(
        id=of.text("id"),
        service=of.text("service"),
        handler=of.text("handler"),
        key=of.text_or_none("key"),
        headers=of.pairs("headers"),
        body=of.octets("body"),
        idempotency_key=of.text_or_none("idempotency_key"),
        execute_at_ms=of.number_or_none("execute_at"),
    )


def _register(of: _Members) -> Register:
    return Register(
        arn=of.text("arn"),
        assume_role_arn=of.text_or_none("assume_role_arn"),
        force=of.flag("force"),
        concurrency=of.number_or_none("concurrency"),
        until_ms=of.number_or_none("until"),
    )


_READERS: Final[Mapping[str, Callable[[_Members], InboxMessage]]] = {
    "invoke": _invoke,
    "resolve": lambda of: Resolve(of.text("awakeable"), of.octets("value")),
    "reject": lambda of: Reject(of.text("awakeable"), of.text("message")),
    "wake": lambda of: Wake(of.number("shard"), of.number("hour"), of.number("page")),
    "register": _register,
    "event": lambda of: Event(of.text("id"), of.text("service"), of.text("handler"), of.text_or_none("key"), of.any("body")),
}
