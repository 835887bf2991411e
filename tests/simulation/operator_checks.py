# ruff: noqa: E501 - messages of broken invariants read best unbroken
"""What holds of operators' requests, of restarts, edits of state and of what is forgotten: judged by the log alone.

- A request that was answered is in the log, with its effect, once: however often it was delivered (pause, resume, cancel, kill, purges).
- A paused invocation leaves that state by a resume, a cancel or its end; it is not paused, nor moved, while an attempt is in flight; a pause
  that was accepted is not followed by a retry.
- An invocation is moved by a resume that asks for that deployment, and by nothing else; attempts go where it is pinned.
- A restart makes one invocation per request: its journal is the prefix asked for with the late completions of its commands, byte for byte.
- An edit of state is applied in its turn, when nobody holds the key, and onto the version it names; none is lost.
- A result is forgotten when its retention is over or it is purged, never before; so is a journal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Final

from holdfast.protocol import messages
from holdfast.protocol.messages import MessageType as M
from holdfast_runtime.engine import model, pinning
from holdfast_runtime.engine.events import Operated, Restart, Verb
from holdfast_runtime.engine.model import Status

from .scripts import unpack

if TYPE_CHECKING:
    from .checkers import Life, Line, Oracle

REMEMBERED: Final = 16  # requests that an invocation knows again
MARK: Final = "e"  # the value of a state that tells which edit it was
_ID_FIELDS: Final = ("result_completion_id", "invocation_id_notification_idx")
_COMPLETING: Final = {M.SIGNAL_NOTIFICATION}


@dataclass(frozen=True, slots=True)
class Asked:
    verb: Verb
    invocation: str
    deployment: str | None


class OperatorChecks:
    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self._asked: dict[bytes, Asked] = {}
        self._restarts: dict[bytes, Restart] = {}
        self._restarted: dict[bytes, str] = {}  # request -> the invocation it made
        self._applied: dict[bytes, str] = {}  # request -> its answer, as it stands in the log
        self._laid: dict[str, dict[int, Any]] = {}  # journal pages of a restart, which come before its own page
        self.sent_again: set[bytes] = set()  # named signals of invocations that ran again
        self._woken: list[tuple[str, Life, int]] = []  # left PAUSED in this batch without a resume; cancels before

    # -- what is asked for and what is answered

    def asked(self, request: bytes, verb: Verb, invocation: str, deployment: str | None) -> None:
        self._asked[request] = Asked(verb, invocation, deployment)

    def asked_restart(self, event: Restart) -> None:
        self._restarts[event.request] = event

    def answered(self, request: bytes, verb: Verb, invocation: str, answer: Operated) -> None:
        """The effect is in the log by now: what is in the log no take-over undoes (replay equality)."""
        lives = self._oracle.lives.get(invocation, [])
        if request in self._applied:
            return
        ended = any(life.result is not None for life in lives)  # its page went with the request
        gone = verb in (Verb.KILL, Verb.PURGE, Verb.CANCEL) and ended
        self._oracle.demand(gone, f"invariant 2: {verb.value} of {invocation} is answered {answer.value}, that is not durable")

    def purge_asked(self, invocation: str, verb: Verb) -> bool:
        return any(asked.invocation == invocation and asked.verb is verb for asked in self._asked.values())

    # -- changes of an invocation's page

    def changed(self, shard: int, invocation: str, fields: dict[str, Any], before: Any, after: Any) -> None:
        """`fields` were merged into the page. before: [status, deployment] of the page, as it stood."""
        oracle, life = self._oracle, self._oracle.life(invocation)
        if life is None:
            return
        request = self._request(invocation, life, fields, after)
        if life.fresh:
            return  # the page was put as a whole in this batch and may hold what comes later in it
        status, deployment = before
        now = after[model.STATUS]
        if status == Status.PAUSED and now == Status.RUNNING and (request is None or self._applied[request] != Operated.APPLIED.value):
            self._woken.append((invocation, life, life.cancels_when_paused))
        if now == Status.PAUSED != status:
            life.cancels_when_paused = _cancels(life)
            oracle.world.count("paused")
            busy = oracle.world.exchanging(shard, oracle.shards[shard].epoch, invocation)
            oracle.demand(not busy, f"pause: {invocation} is paused while an attempt of it is in flight")
        if deployment is not None and after.get(model.DEPLOYMENT) != deployment:
            waited = status in (Status.SUSPENDED, Status.PAUSED)
            oracle.demand(waited, f"resume: {invocation} is moved while it is {Status(status).name}")
            self._moved(shard, invocation, request, after)
        retry = fields.get(model.RETRY)
        if retry and retry[2] is not None:
            oracle.demand(not after.get(model.PAUSE_REQUESTED), f"pause: {invocation} is to be paused and will be tried again")

    def _request(self, invocation: str, life: Life, fields: dict[str, Any], after: Any) -> bytes | None:
        """The operator's request that these changes are about."""
        if not fields.get(model.ANSWERED):
            return None
        oracle = self._oracle
        request, answer = fields[model.ANSWERED][-1]
        oracle.demand(request not in life.requests[-REMEMBERED:], f"requests: one of {invocation} is done a second time")
        life.requests.append(request)
        self._applied[request] = answer
        asked = self._asked.get(request)
        if asked is None or life.fresh:
            return bytes(request)
        oracle.demand(asked.invocation == invocation, f"requests: one for {asked.invocation} is done for {invocation}")
        status, pausing = after[model.STATUS], after.get(model.PAUSE_REQUESTED)
        match asked.verb:
            case Verb.PAUSE:
                done = status == Status.PAUSED or pausing
            case Verb.RESUME:
                done = status == Status.RUNNING and not pausing
            case Verb.CANCEL:
                life.operator_cancels += 1
                done = not pausing and status != Status.PAUSED
            case Verb.PURGE_JOURNAL:
                done = after[model.LENGTH] == 0
            case Verb.KILL:
                done = status == Status.DONE
            case Verb.PURGE:
                done = False  # forgets the page with the request
        oracle.demand(
            bool(done), f"invariant 2: {asked.verb.value} of {invocation} is done, it is {Status(status).name}, pausing {pausing}"
        )
        if asked.verb is Verb.RESUME and asked.deployment not in (None, pinning.LATEST):
            pinned = after.get(model.DEPLOYMENT)
            oracle.demand(pinned == asked.deployment, f"resume: {invocation} was to go on at {asked.deployment}, it is pinned to {pinned}")
        return bytes(request)

    def _moved(self, shard: int, invocation: str, request: bytes | None, after: Any) -> None:
        oracle = self._oracle
        asked = self._asked.get(request) if request is not None else None
        wanted = asked is not None and asked.verb is Verb.RESUME and asked.deployment is not None
        oracle.demand(wanted, f"resume: {invocation} is pinned to {after.get(model.DEPLOYMENT)} now and nobody asked for it")
        busy = oracle.world.exchanging(shard, oracle.shards[shard].epoch, invocation)
        oracle.demand(not busy, f"resume: {invocation} is moved while an attempt of it is in flight")
        oracle.world.count("moved to another deployment")

    def settle(self) -> None:
        """After a batch: all of its entries are known."""
        for invocation, life, before in self._woken:
            cancelled = _cancels(life) > before
            self._oracle.demand(cancelled or life.result is not None, f"pause: {invocation} runs again, nobody resumed or cancelled it")
        self._woken.clear()

    def cancelled(self, invocation: str, life: Life) -> None:
        """Every cancel counts, once."""
        if life.result is None:
            self._oracle.demand(
                _cancels(life) >= life.operator_cancels,
                f"I5: {invocation} was cancelled {life.operator_cancels} times by operators, its journal has {_cancels(life)}",
            )

    def sent(self, invocation: str, document: Any, deployment: str) -> None:
        """An owner that nobody has overtaken sends an attempt."""
        oracle = self._oracle
        status = document[model.STATUS] if document is not None else None
        oracle.demand(status == Status.RUNNING, f"pause: an attempt of {invocation} is made, its status is {status}")
        pinned = document.get(model.DEPLOYMENT)
        oracle.demand(pinned in (None, deployment), f"resume: an attempt of {invocation} goes to {deployment}, it is pinned to {pinned}")

    # -- restarts

    def laid(self, invocation: str, page: dict[int, Any]) -> None:
        """A journal page put as a whole: only restarts do that."""
        self._laid.setdefault(invocation, {}).update(page)

    def restarted(self, invocation: str, document: Any, life: Life) -> None:
        oracle, old = self._oracle, document[model.RESTARTED_FROM]
        request = document[model.REQUEST]
        event = self._restarts.get(request)
        oracle.demand(event is not None, f"restart: {invocation} runs {old} again, nobody asked for that")
        assert event is not None
        oracle.demand(request not in self._restarted, f"restart: one request has made {self._restarted.get(request)} and {invocation}")
        oracle.demand((event.invocation, event.new_invocation) == (old, invocation), f"restart: {invocation} runs {old}, not {event}")
        self._restarted[request] = invocation
        before = oracle.life(old)
        assert before is not None
        journal = {**document[model.JOURNAL], **self._laid.pop(invocation, {})}
        oracle.demand(
            list(journal) == list(range(len(journal))), f"invariant 8: the journal of {invocation} has the entries {list(journal)}"
        )
        life.ancestors = [old, *before.ancestors]
        input_ = messages.parse(M.INPUT_COMMAND, oracle.bytes_of(journal[0])[8:]) if journal else None
        if isinstance(input_, messages.InputCommand):
            self.sent_again.add(f"by {unpack(input_.value.content)[0]}".encode())
        oracle.world.count("restarted from the middle" if event.upto else "restarted from the input")
        if model.RESULT in document:
            return  # created and ended in one batch, perhaps with its journal
        self._check_source(old, before, event, document)
        entries = [oracle.bytes_of(entry) for entry in journal.values()]
        wanted = _prefix(before.entries, event.upto)
        oracle.demand(wanted is not None, f"restart: {invocation} begins in the middle of a command of {old}, up to {event.upto}")
        assert wanted is not None
        oracle.demand(
            entries[: len(wanted)] == wanted,
            f"restart: {invocation} begins with {len(entries)} entries, not those of {old} up to {event.upto}",
        )
        more = [entry for entry in entries[len(wanted) :] if _type(entry) not in _COMPLETING]
        oracle.demand(not more, f"restart: {invocation} begins with {len(entries)} entries, {len(wanted)} are the prefix of {old}")
        life.copied = len(wanted)
        life.entries = entries[: life.copied]
        for entry in life.entries[1:]:
            if messages.is_notification(_type(entry)):
                message: Any = messages.parse(_type(entry), entry[8:])
                which = message.WhichOneof("id")
                if which == "completion_id" or (which == "idx" and message.idx >= model.FIRST_AWAKEABLE):
                    life.completions.add((which, getattr(message, which)))

    def _check_source(self, old: str, before: Life, event: Restart, document: Any) -> None:
        oracle, created = self._oracle, document[model.CREATED_AT]
        oracle.demand(before.result is not None, f"restart: {old} has not ended")
        oracle.demand(not before.cleared, f"restart: the journal of {old} is gone")
        oracle.demand(document[model.TARGET] == before.target, f"restart: {old} is {before.target}, the new one {document[model.TARGET]}")
        source = oracle.document(old)
        oracle.demand(source is not None, f"restart: {old} is forgotten")
        if event.upto and source.get(model.DEPLOYMENT) is not None:
            oracle.demand(document.get(model.DEPLOYMENT) is not None, f"restart: {old} was pinned, the new one has its journal and is not")
        if event.deployment not in (None, pinning.LATEST):
            pinned = document.get(model.DEPLOYMENT)
            oracle.demand(pinned == event.deployment, f"restart: {old} was to run again at {event.deployment}, it is pinned to {pinned}")
        over = source[model.COMPLETED_AT] + min(source[model.RETENTION], source[model.JOURNAL_RETENTION])
        oracle.demand(created < over, f"expiry: {old} is run again at {created}, its journal was kept until {over}")

    # -- what is forgotten

    def dropped(self, invocation: str, document: Any) -> None:
        """An invocation's page goes."""
        life = self._oracle.life(invocation)
        if document is None or life is None or life.fresh or document.get(model.STATUS) != Status.DONE:
            return
        if invocation in self._oracle.world.purges:
            return
        kept_until = document[model.EXPIRES_AT]
        minted = document.get(model.REQUEST) and model.IDEMPOTENCY_KEY not in document and document[model.TARGET][3] != "run"
        if minted:  # the request may come once more
            kept_until = max(kept_until, document[model.COMPLETED_AT] + model.RECENT_MS)
        latest = self._oracle.world.latest_ms()
        self._oracle.demand(latest >= kept_until, f"expiry: {invocation} is forgotten at {latest}, it is to be known until {kept_until}")

    def cleared(self, invocation: str, document: Any) -> None:
        """A finished invocation without its journal, after a batch."""
        if self.purge_asked(invocation, Verb.PURGE_JOURNAL):
            return
        kept_until = document[model.COMPLETED_AT] + document[model.JOURNAL_RETENTION]
        latest = self._oracle.world.latest_ms()
        self._oracle.demand(latest >= kept_until, f"expiry: the journal of {invocation} goes at {latest}, it is kept until {kept_until}")


def _cancels(life: Life) -> int:
    head = M.SIGNAL_NOTIFICATION.to_bytes(2, "big")
    found = (messages.parse(M.SIGNAL_NOTIFICATION, entry[8:]) for entry in life.entries if entry[:2] == head)
    return sum(message.WhichOneof("id") == "idx" and message.idx == model.CANCEL_SIGNAL for message in found)  # type: ignore[attr-defined]


def _type(entry: bytes) -> int:
    return (entry[0] << 8) | entry[1]


def _prefix(entries: list[bytes], upto: int) -> list[bytes] | None:
    """What a restart up to entry `upto` begins with, said once more; None when a command has no result."""
    prefix = entries[: upto + 1]
    asked: set[int] = set()
    for entry in prefix:
        if messages.is_command(_type(entry)):
            message = messages.parse(_type(entry), entry[8:])
            asked |= {getattr(message, name) for name in _ID_FIELDS if name in message.DESCRIPTOR.fields_by_name}
    for index, entry in enumerate(entries[1:], 1):
        if messages.is_notification(_type(entry)):
            found: Any = messages.parse(_type(entry), entry[8:])
            if found.WhichOneof("id") == "completion_id" and found.completion_id in asked:
                asked.discard(found.completion_id)
                if index > upto:
                    prefix.append(entry)
    return None if asked else prefix


# ---- State


@dataclass(slots=True)
class Edit:
    """seen: the state it replaces, None: whatever it is. batch: (shard, LSN) in which it was applied last. asked, applied: how often."""

    service: str
    key: str
    values: dict[str, bytes]
    seen: dict[str, bytes] | None
    batch: tuple[int, int] | None = None
    queued: bool = False
    asked: int = 0
    applied: int = 0
    overtaken: bool = False  # the key's page was put as a whole meanwhile: what it held before may not show in the log


@dataclass(slots=True)
class EditChecks:
    oracle: Oracle
    edits: dict[str, Edit] = field(default_factory=dict)  # by their marks
    due: list[Edit] = field(default_factory=list)  # taken from the queue in this batch, and to be applied in it

    def new(self, service: str, key: str, seen: dict[str, bytes] | None, chance: Random) -> dict[str, bytes]:
        from .operators import edit_values

        mark = f"edit{len(self.edits)}"
        values = edit_values(mark, chance)
        self.edits[mark] = Edit(service, key, values, dict(seen) if seen is not None else None)
        return values

    def _of(self, value: Any) -> Edit:
        return self.edits[self._mark(value)]

    def _mark(self, value: Any) -> str:
        return self.oracle.bytes_of(value).decode().rstrip(".")

    def label(self, waiting: Any, number: int) -> str:
        """How an edit is called among those who wait for a key."""
        mark = next(value for name, value in waiting[0] if name == MARK)
        self._of(mark).queued = True
        self.oracle.world.count("edit queued")
        return f"edit {self._mark(mark)} {number}"

    def taken(self, label: str) -> None:
        """It leaves the queue."""
        if label.startswith("edit "):
            edit = self.edits[label.split(" ")[1]]
            if edit.seen is None or edit.seen == self.oracle.state.get((edit.service, edit.key), {}):
                self.due.append(edit)
            else:
                self.oracle.world.count("edit dropped for its version")

    def applied(self, shard: int, value: Any, line: Line) -> None:
        """The mark of an edit is written."""
        oracle, edit = self.oracle, self._of(value)
        batch = shard, oracle.shards[shard].durable
        key_id = model.key_page(edit.service, edit.key)
        if edit.batch != batch:
            oracle.world.count("edit applied" if edit.batch is None else "edit applied again")
            edit.applied += 1
            oracle.demand(
                edit.applied <= edit.asked, f"requests: an edit of {key_id} asked for {edit.asked} times is done {edit.applied} times"
            )
            state = oracle.state.get((edit.service, edit.key), {})
            oracle.demand(edit.seen is None or state == edit.seen, f"edits: {key_id} is edited as of {edit.seen}, its state is {state}")
            holder = (oracle.shards[shard].pages.get(key_id) or {}).get(model.LOCK)
            if holder is not None and not line.fresh and line.taken != batch[1]:  # else it got the key behind the edit
                life = oracle.life(holder)
                oracle.demand(life is not None and life.result is not None, f"I4: {key_id} is edited while {holder} holds it")
        edit.batch = batch
        oracle.state[edit.service, edit.key] = dict(edit.values)

    def replaced(self, key_id: str) -> None:
        _, service, key = key_id.split("/")
        for edit in self.edits.values():
            if (edit.service, edit.key) == (service, key):
                edit.overtaken = True

    def settle(self, shard: int) -> None:
        batch = shard, self.oracle.shards[shard].durable
        for edit in self.due:
            self.oracle.demand(edit.batch == batch, f"edits: {edit} was next in the queue of its key and is not applied")
        self.due.clear()

    def asks(self, values: dict[str, bytes]) -> None:
        """Somebody asks for it, once or once more."""
        self.edits[values[MARK].decode().rstrip(".")].asked += 1

    def acknowledged(self, values: dict[str, bytes]) -> None:
        edit = self.edits[values[MARK].decode().rstrip(".")]
        found = edit.batch is not None or edit.queued or edit.overtaken or edit.seen is not None
        self.oracle.demand(found, f"invariant 2: {edit} is acknowledged and not durable")
