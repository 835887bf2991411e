# ruff: noqa: E501 - messages of broken invariants read best unbroken
"""The invariants, checked while the world runs (architecture §4 I1-I9, storage design §10) and once more when it has come to rest.

The oracle replays every log from its first item into documents of its own, batch by batch, as items land. What it says is what is durable; all that
leaves a process, all that the store holds and all that owners remember is compared with it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from holdfast.protocol import messages
from holdfast.protocol.messages import MessageType as M
from holdfast_runtime.engine import listing, model
from holdfast_runtime.engine.model import Status
from holdfast_runtime.engine.operations import decode, decode_all, encode
from holdfast_runtime.engine.payload import BlobRef
from holdfast_runtime.ports.store import LogItem, StoredPage

from . import pack_checks, rest_checks
from .operator_checks import MARK, EditChecks, OperatorChecks

if TYPE_CHECKING:
    from .loop import SimProcess
    from .world import World

LARGEST_PAGE: Final = 64 * 1024  # with the small limits of the simulation; the hard limit is 350 KB
OUTSIDE: Final = b"outside"  # how values begin that are sent from outside, where nobody deduplicates signals
JOURNAL_SLACK: Final = 3  # a full journal takes one more command's entries, and the output
HOLDS: Final = (Status.RUNNING, Status.SUSPENDED, Status.PAUSED)

EMPTY: Final = encode({})


class Violation(AssertionError):
    """An invariant does not hold. The message starts with the invariant's name."""


@dataclass(slots=True)
class Life:
    """One life of an invocation id, from its creation to its end; an id that is derived may have several. entries: its journal, for good."""

    target: list[Any]
    execute_at: int | None
    request: bytes = b""  # that made it
    entries: list[bytes] = field(default_factory=list)
    seen: int = 0  # entries that some attempt was given
    result: Any = None
    ended_at: float = 0.0
    completions: set[Any] = field(default_factory=set)
    base: dict[str, bytes] | None = None  # state of its key when it got it
    idle_attempts: int = 0
    copied: int = 0  # entries it has from the invocation that it runs again: its commands were another's
    ancestors: list[str] = field(default_factory=list)  # the invocations it runs again, the latest first
    cleared: bool = False  # its journal is forgotten, `entries` is what it was
    expires_at: int | None = None
    requests: list[bytes] = field(default_factory=list)  # of operators, done, in order
    operator_cancels: int = 0
    cancels_when_paused: int = 0
    fresh: bool = False  # its page was put as a whole in the batch that is being read


@dataclass(slots=True)
class Line:
    """Who waits for a key, by number; who ever waited, in order; who holds it. fresh: made in the batch that is being read."""

    waiting: dict[int, str] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    last: int = -1
    holder: str = ""
    fresh: bool = False
    taken: int = 0  # LSN of the batch in which the holder got it


@dataclass(slots=True)
class Replica:
    """One shard's log as replayed by the oracle. history: per page the LSNs of its changes and what it was after each."""

    last: int = 0
    epoch: int = 0
    durable: int = 0  # LSN of the last complete batch
    parts: list[LogItem] = field(default_factory=list)
    pages: dict[str, Any] = field(default_factory=dict)
    history: dict[str, list[tuple[int, bytes | None]]] = field(default_factory=dict)
    sent: dict[tuple[int, int], bytes] = field(default_factory=dict)  # (destination, number) -> message


class Oracle:
    def __init__(self, world: World) -> None:
        self.world = world
        self.shards = [Replica() for _ in range(world.shards)]
        self.lives: dict[str, list[Life]] = {}
        self.state: dict[tuple[str, str], dict[str, Any]] = {}
        self.lines: dict[str, Line] = {}  # key page -> who queues for it
        self.promises: dict[str, dict[str, list[Any]]] = {}
        self.operators = OperatorChecks(self)
        self.edits = EditChecks(self)
        self.packs = pack_checks.PackChecks(self)
        self._fresh: list[Life] = []
        self._page_shards: dict[str, int] = {}
        self._sealed: dict[tuple[int, int], float] = {}  # (shard, epoch) -> when
        self._seals: dict[int, list[int]] = defaultdict(list)  # of a shard, their positions
        self._saw: dict[tuple[str, int], tuple[int, float]] = {}  # (process, shard) -> epoch, when it asked

    # -- the log

    def log_written(self, shard: int, item: LogItem, process: SimProcess | None) -> None:
        replica = self.shards[shard]
        self.demand(item.position == replica.last + 1, f"invariant 1: shard {shard} position {item.position} follows {replica.last}")
        self.demand(item.epoch >= replica.epoch, f"invariant 1: epoch {item.epoch} after {replica.epoch} in the log of shard {shard}")
        replica.last, replica.epoch = item.position, item.epoch
        if item.part == 0:
            if replica.parts:
                self.world.count("torn batch")
            replica.parts = []
        elif not replica.parts or (replica.parts[0].nonce, replica.parts[0].first) != (item.nonce, item.first):
            self.demand(False, f"invariant 1: part {item.part} of another batch at position {item.position}")
        if not item.operations and item.parts == 1:
            replica.durable = item.first
            self._sealed.setdefault((shard, item.epoch), self.world.loop.time())
            self._seals[shard].append(item.position)
            self.world.count("seal")
            return
        replica.parts.append(item)
        if len(replica.parts) < item.parts:
            self.world.count("batch in parts")
            return
        encoded = b"".join(part.operations for part in replica.parts)
        replica.parts = []
        if self.world.tracing:
            self.world.trace(f"shard {shard} batch {item.first} epoch {item.epoch}: {list(decode_all(encoded))}")
        self._batch(shard, item.first, list(decode_all(encoded)), process)

    def _batch(self, shard: int, lsn: int, operations: list[Any], process: SimProcess | None) -> None:
        replica = self.shards[shard]
        replica.durable = lsn
        touched: dict[str, None] = {}
        before: dict[str, Any] = {}
        for operation in operations:
            page_id = operation[0]
            if page_id not in touched:
                touched[page_id] = None
                before[page_id] = _counters(replica.pages.get(page_id)) if page_id.startswith("X/") else None
            self._before(shard, operation)
            document = replica.pages.get(page_id)
            was = (document[model.STATUS], document.get(model.DEPLOYMENT)) if page_id[0] == "I" and document else None
            replica.pages[page_id] = after = fold(document, operation)
            if was is not None and len(operation) == 3 and operation[1] is None:
                self.operators.changed(shard, page_id[2:], operation[2], was, after)
        for page_id in touched:
            if page_id in self.lines:
                self.lines[page_id].fresh = False
            document = replica.pages[page_id]
            encoded = encode(document) if document is not None else None
            size = len(encoded) if encoded is not None else 0
            self.demand(size <= LARGEST_PAGE, f"I9: page {page_id} has {size} bytes")
            replica.history.setdefault(page_id, []).append((lsn, encoded))
        clock = process.clock.now_ms() if process is not None else None  # type: ignore[attr-defined]
        for page_id in touched:
            match page_id[0]:
                case "I":
                    self._invocation(shard, page_id[2:], operations, clock)
                case "K":
                    self._key(shard, page_id)
                case "X":
                    self._channel(shard, page_id, before[page_id])
        self.operators.settle()
        self.edits.settle(shard)
        for life in self._fresh:
            life.fresh = False
        self._fresh.clear()

    def _before(self, shard: int, operation: list[Any]) -> None:
        """What only the order of operations inside a batch tells: results, state, queues, messages."""
        page_id = operation[0]
        if page_id[0] == "I":
            self._invocation_operation(shard, page_id[2:], operation)
        elif page_id[0] == "J" and len(operation) == 3 and not operation[1]:
            self.operators.laid(page_id.split("/")[1], operation[2])
        elif page_id[0] == "J" and len(operation) == 3 and operation[1]:
            self._entry(page_id.split("/")[1], operation[1][0], operation[2])
        elif page_id[0] in "KQ":
            self._key_operation(shard, page_id, operation)
            if len(operation) == 3 and operation[1] and operation[1][0] == model.PROMISES:
                self._promised(page_id, operation[1][1], operation[2])
        elif page_id[0] == "S" and len(operation) == 3 and page_id.endswith("/" + MARK):
            _, service, _, key, _ = page_id.split("/")
            self.edits.applied(shard, operation[2]["v"], self.lines.setdefault(model.key_page(service, key), Line()))
        elif page_id[0] == "P" and len(operation) == 3:
            _, service, _, key, name = page_id.split("/")
            self._promised(f"K/{service}/{key}", name, operation[2]["v"])
        elif page_id[0] == "X" and page_id.count("/") == 4 and "/out/" in page_id and len(operation) == 3 and operation[1]:
            self.shards[shard].sent[int(page_id.split("/")[3]), operation[1][0]] = encode(operation[2])
        elif page_id[0] == "X" and "/recent/" in page_id and len(operation) == 3 and operation[1] and operation[1][0][0] != "K":
            self._ended(operation[1][0], operation[2][0])  # an edit of state is remembered there too, by the page of its key

    # -- invocations

    def life(self, invocation: str) -> Life | None:
        lives = self.lives.get(invocation)
        return lives[-1] if lives else None

    def document(self, invocation: str) -> Any:
        return self.document_of(model.invocation_page(invocation), invocation)

    def document_of(self, page_id: str, invocation: str) -> Any:
        """A durable page of the shard of `invocation`."""
        return self.shards[model.shard_of(invocation, self.world.shards)].pages.get(page_id)

    def _invocation_operation(self, shard: int, invocation: str, operation: list[Any]) -> None:
        if len(operation) == 1:
            self.operators.dropped(invocation, self.shards[shard].pages.get("I/" + invocation))
            return
        if len(operation) == 3 and operation[1] is not None and not operation[1]:
            document = operation[2]
            existing = self.shards[shard].pages.get("I/" + invocation)
            derived = document[model.TARGET][3] == "run" or model.IDEMPOTENCY_KEY in document
            self.demand(derived or invocation not in self.lives, f"I1: {invocation} has ended and is started again")
            self.demand(existing is None, f"I1: {invocation} is created again while it exists")
            life = Life(document[model.TARGET], document.get(model.EXECUTE_AT), document.get(model.REQUEST, b""), fresh=True)
            twice = life.request and life.request in [other.request for other in self.lives.get(invocation, ())]
            self.demand(not twice, f"I1: one request has made two lives of {invocation}")
            self.lives.setdefault(invocation, []).append(life)
            self._fresh.append(life)
            self.world.count("invocation created" if len(self.lives[invocation]) == 1 else "id used again")
            if model.RESTARTED_FROM in document:
                self.operators.restarted(invocation, document, life)
            for index, entry in document[model.JOURNAL].items():
                self._entry(invocation, index, entry)
            if model.RESULT in document:  # created and ended in one transition
                self._ended(invocation, document[model.RESULT])
        elif len(operation) == 3 and operation[1] is None and model.RESULT in operation[2]:
            self._ended(invocation, operation[2][model.RESULT])
        elif len(operation) == 3 and operation[1] and operation[1] == [model.JOURNAL]:
            self._forgotten(invocation)
        elif len(operation) == 3 and operation[1] and operation[1][0] == model.JOURNAL:
            self._entry(invocation, operation[1][1], operation[2])

    def _ended(self, invocation: str, result: Any) -> None:
        life = self.life(invocation)
        self.demand(life is not None, f"invariant 9: {invocation} has a result but was never created")
        assert life is not None
        self.demand(
            life.result is None or life.result == result,
            f"I1: {invocation} ended with {life.result!r} and again with {result!r}",
        )
        if life.result is None:
            self.world.count("invocation failed" if result[0] == "f" else "invocation succeeded")
            life.ended_at = self.world.loop.time()
        life.result = result

    def _forgotten(self, invocation: str) -> None:
        """The journal is purged, or its retention is over."""
        life = self.life(invocation)
        self.demand(life is not None and life.result is not None, f"I1: the journal of {invocation} goes before it has ended")
        assert life is not None
        self.world.count("journal forgotten")
        life.cleared = True

    def _entry(self, invocation: str, index: int, entry: Any) -> None:
        """A journal entry becomes durable."""
        life = self.life(invocation)
        self.demand(life is not None, f"invariant 8: a journal entry of {invocation}, which does not exist")
        assert life is not None
        content = self.bytes_of(entry)
        if index < len(life.entries):  # pages that are put as a whole hold entries of later operations of their batch
            self.demand(life.entries[index] == content, f"I1: entry {index} of {invocation} is written again and differs")
            return
        self.demand(index == len(life.entries), f"invariant 8: entry {index} of {invocation} follows {len(life.entries) - 1}")
        life.entries.append(content)
        type_ = (content[0] << 8) | content[1]
        if messages.is_notification(type_):
            self._notified(invocation, life, type_, content)
        elif index > 0:
            self._commanded(life, type_, content)

    def _notified(self, invocation: str, life: Life, type_: int, content: bytes) -> None:
        message = messages.parse(type_, content[8:])
        self.world.count(f"notification {M(type_).name}")
        assert isinstance(message, messages.Notification)
        which = message.WhichOneof("id")
        if which == "completion_id" or (which == "idx" and message.idx >= model.FIRST_AWAKEABLE):
            key = (which, getattr(message, which))
            self.demand(key not in life.completions, f"invariant 8, I5: {which} {key[1]} of {invocation} is completed twice")
            life.completions.add(key)
        elif which == "name" and not bytes(message.value.content).startswith(OUTSIDE) and message.HasField("value"):
            value = bytes(message.value.content)
            again = value in self.operators.sent_again
            self.demand(again or ("n", value) not in life.completions, f"I5: the signal {value!r} reached {invocation} twice")
            life.completions.add(("n", value))
        if type_ == M.SLEEP_COMPLETION:
            self._slept(invocation, life, message.completion_id)

    def _slept(self, invocation: str, life: Life, completion_id: int) -> None:
        now = self.world.latest_ms()
        for entry in life.entries:
            if (entry[0] << 8) | entry[1] == M.SLEEP_COMMAND:
                command = messages.parse(M.SLEEP_COMMAND, entry[8:])
                assert isinstance(command, messages.SleepCommand)
                if command.result_completion_id == completion_id:
                    due = command.wake_up_time
                    self.demand(now >= due, f"I5: a sleep of {invocation} due at {due} is over at {now}")

    def _commanded(self, life: Life, type_: int, content: bytes) -> None:
        """Fold state commands, in the order in which they became durable."""
        self.world.count(f"command {M(type_).name}")
        if type_ not in (M.SET_STATE_COMMAND, M.CLEAR_STATE_COMMAND, M.CLEAR_ALL_STATE_COMMAND):
            return
        self.demand(life.target[3] in ("exclusive", "run"), "I4: a shared handler has written state")
        state = self.state.setdefault((life.target[0], life.target[2]), {})
        apply_state(state, content)

    def _invocation(self, shard: int, invocation: str, operations: list[Any], clock: int | None) -> None:
        """A page of an invocation after a batch that touched it."""
        pages, page_id = self.shards[shard].pages, model.invocation_page(invocation)
        document, life = pages[page_id], self.life(invocation)
        active = invocation in (pages.get(model.active_page(shard, invocation)) or {})
        if life is None:
            self.demand(document is None and not active, f"invariant 9: {invocation} exists and was never created")
            return
        if document is None:
            self.demand(life.result is not None, f"I1: {invocation} is gone and has no result")
            self.demand(not active, f"invariant 10: {invocation} is gone and counts as running")
            return
        status = Status(document[model.STATUS])
        self.demand(active == (status is Status.RUNNING), f"invariant 10: {invocation} is {status.name}, active: {active}")
        if life.cleared and status is Status.DONE and not document[model.LENGTH]:
            self.operators.cleared(invocation, document)
        else:
            text = f"invariant 8: {invocation} has {len(life.entries)} entries, its page says {document[model.LENGTH]}"
            self.demand(document[model.LENGTH] == len(life.entries), text)
        full = document[model.LENGTH] + len(document[model.PENDING])
        self.demand(full <= model.MAX_JOURNAL + JOURNAL_SLACK, f"I9: the journal of {invocation} has or expects {full} entries")
        life.expires_at = document.get(model.EXPIRES_AT)
        self.operators.cancelled(invocation, life)
        self.demand((life.result is not None) == (status is Status.DONE), f"I1: {invocation} is {status.name}, result {life.result!r}")
        if life.execute_at is not None and clock is not None and status is not Status.SCHEDULED and life.result is None:
            self.demand(self.world.latest_ms() >= life.execute_at, f"I5: {invocation} starts before its time")
        if status is not Status.DONE:
            row = (pages.get(model.live_page(shard, document[model.LISTED])) or {}).get(invocation)
            self.demand(row is not None and row == listing.row_of(document), f"listing: {invocation} is {status.name}, its row is {row!r}")
            self._pending(invocation, document)
        self.world.count(f"status {status.name}")
        service, _, key, kind = document[model.TARGET]
        if kind == "exclusive":
            holder = (pages.get(model.key_page(service, key)) or {}).get(model.LOCK)
            self.demand(
                (holder == invocation) == (status in HOLDS), f"invariant 10: {invocation} is {status.name}, the key is held by {holder}"
            )
            if status is Status.QUEUED:
                line = self.lines.get(model.key_page(service, key), Line())
                self.demand(invocation in line.waiting.values(), f"invariant 10: {invocation} is queued and in no queue")

    def _pending(self, invocation: str, document: Any) -> None:
        for completion_id in document[model.TIMERS]:
            if document[model.STATUS] != Status.SCHEDULED:
                self.demand(
                    completion_id in document[model.PENDING], f"invariant 13: timer {completion_id} of {invocation}, nothing waits for it"
                )

    # -- keys

    def _key_operation(self, shard: int, page_id: str, operation: list[Any]) -> None:
        """Who queues for a key and who gets it: first come, first served (I4)."""
        key_id = page_id if page_id[0] == "K" else "K" + page_id[1:].rpartition("/")[0]
        line = self.lines.setdefault(key_id, Line())
        match operation:
            case [_]:
                if page_id[0] == "K":
                    self._key_dropped(key_id, line)
            case [_, [number]] if page_id[0] == "Q":
                self.edits.taken(line.waiting.pop(number, ""))
            case [_, [number], invocation] if page_id[0] == "Q":
                self.world.count("queue overflowed")
                self._enqueue(key_id, line, number, invocation)
            case [_, [model.QUEUE, number]]:
                self.edits.taken(line.waiting.pop(number, ""))
            case [_, [model.QUEUE, number], invocation]:
                self._enqueue(key_id, line, number, invocation)
            case [_, [], document] if page_id[0] == "K":
                # The document holds later changes of its batch too, so who got the key first cannot be told from it.
                self.lines[key_id] = line = Line(fresh=True)
                for number, invocation in sorted(document[model.QUEUE].items()):
                    self._enqueue(key_id, line, number, invocation)
                self.edits.replaced(key_id)
                if MARK in document[model.STATE]:
                    self.edits.applied(shard, document[model.STATE][MARK], line)
            case [_, [model.STATE, name], value] if name == MARK:
                self.edits.applied(shard, value, line)
            case [_, None, fields] if fields.get(model.LOCK) is not None:
                self._key_taken(key_id, line, fields[model.LOCK])
                line.taken = self.shards[shard].durable

    def _key_taken(self, key_id: str, line: Line, holder: str) -> None:
        if line.fresh or holder == line.holder:
            return
        # An id may live again: how it came the last time says nothing then.
        line.order = [name for name in line.order if name != line.holder]
        line.holder = holder
        waiting = {name for name in line.waiting.values() if not name.startswith("edit ")}  # edits: see `_key`
        ahead = [other for other in line.order[: line.order.index(holder)] if other in waiting] if holder in line.order else waiting
        self.demand(not ahead, f"I4: {holder} gets {key_id} while {ahead} wait before it")
        self.world.count("key passed on" if holder in line.order else "key taken")

    def _key_dropped(self, key_id: str, line: Line) -> None:
        self.demand(not line.waiting, f"invariant 10: {key_id} is dropped, {line.waiting} wait")
        _, service, key = key_id.split("/")
        if service == "Flow":
            self.state.pop((service, key), None)
        else:
            self.demand(not self.state.get((service, key)), f"I2: {key_id} is dropped with state {self.state.get((service, key))}")
        self.lines[key_id] = Line()
        self.promises.pop(key_id, None)

    def _promised(self, key_id: str, name: str, value: list[Any]) -> None:
        """A promise is completed once."""
        promises = self.promises.setdefault(key_id, {})
        if value[0] != "l":
            self.demand(promises.setdefault(name, value) == value, f"I5: promise {name} of {key_id} is {promises[name]}, and then {value}")
            self.world.count("promise completed")

    def _enqueue(self, key_id: str, line: Line, number: int, waiting: Any) -> None:
        invocation = waiting if isinstance(waiting, str) else self.edits.label(waiting, number)
        if line.waiting.get(number) == invocation:
            return
        self.demand(number > line.last, f"I4: {invocation} enters {key_id} as number {number} behind {line.last}")
        line.last = number
        line.waiting[number] = invocation
        line.order.append(invocation)

    def _key(self, shard: int, page_id: str) -> None:
        """A key's page after a batch that touched it: its state is the fold of the committed commands (I2)."""
        pages = self.shards[shard].pages
        document = pages[page_id]
        _, service, key = page_id.split("/")
        expected = self.state.get((service, key), {})
        if document is None:
            return
        found = {name: self.bytes_of(value) for name, value in document[model.STATE].items()}
        for name in document[model.SPILLED]:
            spilled = pages.get(model.state_page(service, key, name))
            self.demand(spilled is not None, f"I2: state {name} of {page_id} was moved to a page that is not there")
            found[name] = self.bytes_of(spilled["v"])  # type: ignore[index]
            self.world.count("state spilled")
        self.demand(found == expected, f"I2: state of {page_id} is {found}, the commands say {expected}")
        holder, line = document.get(model.LOCK), self.lines.get(page_id, Line())
        if holder is None:
            self.demand(not line.waiting, f"I4: {page_id} is free while {line.waiting} wait")
        else:
            order = line.order[: line.order.index(holder)] if holder in line.order else []
            ahead = [name for name in line.waiting.values() if name in order]
            self.demand(not ahead, f"I4: {holder} has {page_id} while {ahead} wait before it")
            status = (pages.get(model.invocation_page(holder)) or {}).get(model.STATUS)
            self.demand(status in HOLDS, f"invariant 10: {page_id} is held by {holder}, which is {status}")

    # -- channels

    def _channel(self, shard: int, page_id: str, before: Any) -> None:
        parts = page_id.split("/")
        document = self.shards[shard].pages[page_id] or {}
        if parts[2] == "in":
            for source, last in document.items():
                given = (self.shards[source].pages.get(model.outbox_page(source, shard)) or {}).get("n", 0)
                self.demand(last <= given, f"invariant 2: shard {shard} has applied {last} messages of {source}, {given} are durable there")
                self.demand(last >= before.get(source, 0), f"invariant 11: the inbox of {shard} went back to {last}")
            self.world.count("messages applied")
        elif parts[2] == "out" and len(parts) == 4:
            destination = int(parts[3])
            applied = (self.shards[destination].pages.get(model.inbox_page(destination)) or {}).get(shard, 0)
            acknowledged = document.get("a", 0)
            self.demand(acknowledged <= applied, f"invariant 11: {acknowledged} acknowledged by {destination}, {applied} applied durably")
            self.demand(
                acknowledged >= before.get("a", 0) and document.get("n", 0) >= before.get("n", 0), f"invariant 11: {page_id} went back"
            )
            for number in range(acknowledged + 1, document.get("n", 0) + 1):
                page = self.shards[shard].pages.get(model.messages_page(shard, destination, number)) or {}
                self.demand(number in page, f"invariant 11: message {number} of {page_id} is not acknowledged and not there")

    # -- pages and checkpoints

    def page_sent(self, page_id: str, page: StoredPage) -> None:
        """A page is offered to the store: it must be what the log says it was after a durable batch (invariant 4)."""
        shard = self.shard_of_page(page_id)
        replica = self.shards[shard]
        self.demand(page.lsn <= replica.durable, f"invariant 4: {page_id} is flushed as of batch {page.lsn}, durable is {replica.durable}")
        if page_id[0] == "D":
            entries = pack_checks.entries(page)
            for name, entry in entries.items():
                self.demand(self.shard_of_page(name) == shard, f"packs: {name} is in {page_id}")
                self.demand(entry.lsn <= page.lsn, f"packs: {name} as of batch {entry.lsn} is in {page_id} as of batch {page.lsn}")
                self._flushed(replica, name, entry)
            return
        self._flushed(replica, page_id, page)

    def _flushed(self, replica: Replica, page_id: str, page: StoredPage) -> None:
        expected = self.as_of(replica, page_id, page.lsn)
        found = decode(page.document) if page.document is not None else None
        self.demand(found == expected, f"invariant 4: {page_id} as of batch {page.lsn} is flushed as {found!r}, the log says {expected!r}")

    def page_landed(self, page_id: str, page: StoredPage, before: StoredPage | None, accepted: bool, expires_at_ms: int | None) -> None:
        if not accepted:
            self.world.count("page put refused")
            return
        self.demand(before is None or before.lsn < page.lsn, f"invariant 4: the LSN of {page_id} goes back")
        if page_id[0] == "D":
            self.packs.landed(page_id, page, before)
        self.world.count("tombstone stored" if page.document is None else "page stored")
        if self.world.tracing:
            self.world.trace(f"{page_id} is stored as of batch {page.lsn}" + (", dropped" if page.document is None else ""))
        if expires_at_ms is not None:
            self.world.expiring[page_id] = (page.lsn, expires_at_ms)

    def checkpointed(self, shard: int, before: int, checkpoint: int) -> None:
        """Nothing before the checkpoint may be needed any more (invariant 5)."""
        self.demand(checkpoint >= before, f"invariant 5: the checkpoint of {shard} goes back from {before} to {checkpoint}")
        replica, stored = self.shards[shard], self.packs.stored(shard)
        self.demand(
            checkpoint <= replica.last + 1, f"invariant 5: checkpoint {checkpoint} of shard {shard}, the log ends at {replica.last}"
        )
        self.world.count("checkpoint")
        for page_id, history in replica.history.items():
            there = stored.get(page_id)
            if (there is not None and there.lsn >= history[-1][0]) or history[0][0] >= checkpoint:
                continue
            lsn, document = next((lsn, document) for lsn, document in reversed(history) if lsn < checkpoint)
            if there is None or there.document is None:
                dropped = any(later is None for changed, later in history if changed >= lsn)  # its drop is in the log
                gone = dropped or (document is not None and self._may_be_gone(document))
                self.demand(gone, f"invariant 5, 6: checkpoint {checkpoint} of shard {shard}, {page_id} of batch {lsn} is not stored")
            else:
                if (
                    there.lsn < lsn
                    and there.document == EMPTY
                    and any(
                        self._still_empty(shard, history, there.lsn, changed)
                        for changed, later in history
                        if changed >= lsn and later == EMPTY
                    )
                ):
                    self.world.count("page empty as before")
                    continue
                self.demand(
                    there.lsn >= lsn,
                    f"invariant 5, 6: checkpoint {checkpoint} of shard {shard}, {page_id} of batch {lsn} is stored as of {there.lsn}",
                )

    def _still_empty(self, shard: int, history: list[tuple[int, Any]], stored: int, emptied: int) -> bool:
        """A page is not written again as empty by the owner that wrote it so: no earlier one can have sent anything newer than that."""
        began = max((position for position in self._seals[shard] if position < emptied), default=-1)
        return not any(stored < changed < began for changed, _ in history)

    def _may_be_gone(self, document: bytes) -> bool:
        content = decode(document)
        return isinstance(content, dict) and content.get(model.EXPIRES_AT, 1 << 60) <= self.world.latest_ms()

    def as_of(self, replica: Replica, page_id: str, lsn: int) -> Any:
        for changed, document in reversed(replica.history.get(page_id, [])):
            if changed <= lsn:
                return decode(document) if document is not None else None
        return None

    def shard_of_page(self, page_id: str) -> int:
        shard = int(page_id.split("/")[1]) if page_id[0] == "D" else self._page_shards.get(page_id)
        if shard is None:
            for number, replica in enumerate(self.shards):
                if page_id in replica.history:
                    shard = self._page_shards[page_id] = number
                    break
            else:
                raise Violation(f"invariant 4: {page_id} is flushed, no log mentions it")
        return shard

    # -- what leaves a process

    def attempt_given(self, invocation: str, entries: list[bytes]) -> Life:
        """A handler sees nothing that is not durable (invariant 2), and all that any earlier attempt saw (I1)."""
        for life in reversed(self.lives.get(invocation, [])):
            if life.entries and life.entries[0] == entries[0]:
                break
        else:
            raise Violation(f"invariant 2: an attempt of {invocation} starts before the invocation is durable")
        self.demand(
            life.entries[: len(entries)] == entries,
            f"invariant 2, I1: an attempt of {invocation} is given {len(entries)} entries, durable are {len(life.entries)}, or other ones",
        )
        life.seen = max(life.seen, len(entries))
        if life.base is None and life is self.life(invocation) and not any(map(_is_state, life.entries[life.copied :])):
            service, _, key, kind = life.target
            holder = (
                (self.document_of(model.key_page(service, key), invocation) or {}).get(model.LOCK) if kind == "exclusive" else invocation
            )
            if kind in ("exclusive", "run") and holder == invocation:
                life.base = dict(self.state.get((service, key), {}))
        return life

    def expected_state(self, life: Life, known: int) -> dict[str, bytes] | None:
        """What the holder of a key must find as its state: what it found first, and its own commands."""
        if life.base is None:
            return None
        state = dict(life.base)
        for entry in life.entries[max(1, life.copied) : known]:
            apply_state(state, entry)
        return state

    def looked(self, process: SimProcess, records: Any, asked_at: float) -> None:
        """A process has read who owns what."""
        for number, record in records.items():
            if asked_at >= self._saw.get((process.name, number), (0, -1.0))[1]:
                self._saw[process.name, number] = (record.epoch, asked_at)

    def starts(self, process: SimProcess | None, shard: int, epoch: int) -> None:
        """An owner begins to act: it must have seen its epoch after its seal (invariant 7)."""
        assert process is not None
        sealed_at = self._sealed.get((shard, epoch))
        saw, asked_at = self._saw.get((process.name, shard), (-1, 0.0))
        proven = sealed_at is not None and saw == epoch and asked_at >= sealed_at
        if not proven:
            self.world.fail(
                Violation(f"invariant 7: {process.name} acts for shard {shard} in epoch {epoch}, sealed at {sealed_at}, saw {saw}")
            )

    def acts(self, process: SimProcess | None, shard: int) -> None:
        """An owner writes or calls a handler: its lease must be fresh (storage design §4.5)."""
        assert process is not None
        _, asked_at = self._saw.get((process.name, shard), (-1, 0.0))
        age = self.world.loop.time() - asked_at
        if age > self.world.settings.lease_s + 0.001:
            self.world.fail(Violation(f"I6: {process.name} acts for shard {shard}, it has not seen its epoch for {age:.3f} s"))

    def acknowledged(self, invocation: str, what: str) -> None:
        self.demand(invocation in self.lives, f"invariant 2, I1: {what} of {invocation} is acknowledged before it is durable")

    def bytes_of(self, entry: Any) -> bytes:
        if isinstance(entry, bytes):
            return entry
        if isinstance(entry, BlobRef):
            self.world.count("blob used")
            return self.world.store.blob(entry.id)
        return b"".join(self.bytes_of(chunk) for chunk in entry)

    def demand(self, condition: bool, message: str) -> None:
        if not condition:
            raise Violation(message)

    # -- replay equality

    def check_recovery(self, shard: int) -> None:
        """Stored pages and the log from the checkpoint on are all that is needed (invariants 3, 4, 5)."""
        replica, store = self.shards[shard], self.world.store
        items, record, pages = store.log_items(shard), store.record(shard), self.packs.stored(shard)
        found: dict[str, tuple[int, Any]] = {}
        for page_id, history in replica.history.items():
            stored = pages.get(page_id)
            if stored is not None and stored.lsn >= history[-1][0]:
                continue  # it was compared when it was sent, and nothing has happened to it since
            document = decode(stored.document) if stored is not None and stored.document is not None else None
            found[page_id] = (stored.lsn if stored is not None else -1, document)
        position = record.checkpoint
        parts: list[LogItem] = []
        while position in items:
            item = items[position]
            parts = [item] if item.part == 0 else [*parts, item]
            if len(parts) == item.parts:
                self._redo(found, parts[0].first, b"".join(part.operations for part in parts))
            position += 1
        for page_id, (_, document) in found.items():
            expected = replica.pages.get(page_id)
            same = document == expected or (document is None and expected is not None and self._may_be_gone(encode(expected)))
            self.demand(same, f"replay equality: {page_id} of shard {shard} recovers as {document!r}, the whole log says {expected!r}")

    def _redo(self, found: dict[str, tuple[int, Any]], lsn: int, encoded: bytes) -> None:
        changed: set[str] = set()
        for operation in decode_all(encoded):
            page_id = operation[0]
            if page_id not in found:
                continue
            known, document = found[page_id]
            if known < lsn or page_id in changed:
                changed.add(page_id)
                found[page_id] = (lsn, fold(document, operation))

    def check_owner(self, shard: Any) -> None:
        """An owner that has nothing in flight remembers what the log says (invariant 3)."""
        replica = self.shards[shard.number]
        if shard.fenced or shard._operations or shard.durable != shard.last_closed or replica.last != shard.next - 1:
            return
        self.world.counts["owner compared with its log"] += 1
        for page_id, page in shard.pages.items():
            expected = replica.pages.get(page_id)
            self.demand(
                (page.document or None) == (expected or None),
                f"invariant 3: {page_id} of shard {shard.number} is {page.document!r} in memory, the log says {expected!r}",
            )

    # -- at rest

    def check_rest(self) -> None:
        """Over all pages, when nothing moves any more."""
        for shard, replica in enumerate(self.shards):
            self._check_indexes(shard, replica)
            self.check_recovery(shard)
        rest_checks.check(self)
        self.packs.check_later()

    def _check_indexes(self, shard: int, replica: Replica) -> None:
        running = {page_id[2:] for page_id, d in replica.pages.items() if page_id[0] == "I" and d and d[model.STATUS] == Status.RUNNING}
        active = {name for page_id in model.active_pages(shard) for name in replica.pages.get(page_id) or ()}
        self.demand(running == active, f"invariant 10: active are {active}, running are {running}")
        live = {page_id[2:] for page_id, d in replica.pages.items() if page_id[0] == "I" and d and d[model.STATUS] != Status.DONE}
        done = {page_id[2:] for page_id, d in replica.pages.items() if page_id[0] == "I" and d and d[model.STATUS] == Status.DONE}
        index = replica.pages.get(model.listing_index(shard)) or {}
        listed = {name for number in index.get("p", {}) for name in replica.pages.get(model.live_page(shard, number)) or ()}
        self.demand(listed == live, f"listing: live pages list {listed}, alive are {live}")
        finished = set()
        for bucket, (last, _) in index.get("a", {}).items():
            for number in range(last + 1):
                finished |= set(replica.pages.get(model.finished_page(shard, bucket, number)) or ())
        now = self.world.latest_ms()  # what is over by any process's clock may have left the list before the store deletes its page
        missing = {name for name in done - finished if replica.pages["I/" + name][model.EXPIRES_AT] > now}
        self.demand(not missing, f"listing: {missing} are done and not listed as finished")
        hours = replica.pages.get(model.timer_index(shard)) or {}
        armed = {
            key
            for hour, last in hours.items()
            for number in range(last + 1)
            for key in replica.pages.get(model.timer_page(shard, hour, number)) or ()
        }
        for name in live:
            for completion_id in replica.pages["I/" + name][model.TIMERS]:
                self.demand(f"{name}:{completion_id}" in armed, f"invariant 13: timer {completion_id} of {name} is in no timer page")


def fold(document: Any, operation: list[Any]) -> Any:
    """The meaning of an operation (storage design §1), said once more."""
    if len(operation) == 1:
        return None
    path = operation[1]
    if len(operation) == 3 and path is None:
        return {**(document or {}), **operation[2]}
    if not path:
        return operation[2]
    if len(operation) == 3:
        document = document if document is not None else {}
        inner = document
        for step in path[:-1]:
            inner = inner.setdefault(step, {})
        inner[path[-1]] = operation[2]
        return document
    inner = document
    for step in path[:-1]:
        inner = (inner or {}).get(step)
    if inner:
        inner.pop(path[-1], None)
    return document


def apply_state(state: dict[str, bytes], entry: bytes) -> None:
    """One state command; every other entry changes nothing."""
    type_ = (entry[0] << 8) | entry[1]
    if type_ == M.SET_STATE_COMMAND:
        message: Any = messages.parse(type_, entry[8:])
        state[message.key.decode()] = bytes(message.value.content)
    elif type_ == M.CLEAR_STATE_COMMAND:
        message = messages.parse(type_, entry[8:])
        state.pop(message.key.decode(), None)
    elif type_ == M.CLEAR_ALL_STATE_COMMAND:
        state.clear()


def _is_state(entry: bytes) -> bool:
    return (entry[0] << 8) | entry[1] in (M.SET_STATE_COMMAND, M.CLEAR_STATE_COMMAND, M.CLEAR_ALL_STATE_COMMAND)


def _counters(document: Any) -> dict[Any, int]:
    return {key: value for key, value in (document or {}).items() if isinstance(value, int)}
