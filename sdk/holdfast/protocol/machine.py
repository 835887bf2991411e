"""The handler's side of one attempt, without any input or output: request body in, response body out.

Rules: notifications are taken one at a time, in journal order, and only while the handler waits, so what the
handler sees depends on the journal alone; commands are compared with the record until it is used up and sent
from then on; once the attempt is over every further operation raises, so that clean-up code of the handler
cannot add to the journal. A cancellation is taken like any notification, at the wait it reaches first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, TypeAlias, TypeVar

from holdfast.protocol import ids
from holdfast.protocol.arrivals import CANCEL_KEY, Arrivals
from holdfast.protocol.awaiting import Key
from holdfast.protocol.frames import encode
from holdfast.protocol.messages import (
    AttachInvocationCommand,
    CallCommand,
    ClearAllStateCommand,
    ClearStateCommand,
    CompleteAwakeableCommand,
    CompletePromiseCommand,
    Error,
    GetEagerStateCommand,
    GetEagerStateKeysCommand,
    GetInvocationOutputCommand,
    GetLazyStateCommand,
    GetLazyStateKeysCommand,
    GetPromiseCommand,
    Header,
    Message,
    MessageType,
    OneWayCallCommand,
    OutputCommand,
    PeekPromiseCommand,
    ProposeRunCompletion,
    RunCommand,
    SendSignalCommand,
    SetStateCommand,
    SleepCommand,
    StateKeys,
    Suspension,
    Value,
    Void,
)
from holdfast.protocol.outcomes import (
    EMPTY,
    Empty,
    Failed,
    First,
    Keys,
    Leaf,
    Node,
    Outcome,
    Success,
    Watch,
)
from holdfast.protocol.records import Record
from holdfast.protocol.replay import JournalMismatchError, RecordedCommands
from holdfast.protocol.request import read_request

CANCELLED: Final = Failed(409, "cancelled")
_MessageT = TypeVar("_MessageT", bound=Message)


class Suspended(BaseException):
    """The attempt is over: control flow of the drivers, not an error; raised by every later operation."""


class Ready(Record):
    """The awaited node is resolved."""

    outcome: Outcome


class Expired(Record):
    """The deadline at `index` of those given passed first."""

    index: int


class Cancelled(Record):
    """A cancellation reached this wait; the children were told."""


class StartRuns(Record):
    """These side effects must be executed and their results proposed before the attempt can suspend."""

    runs: tuple[Leaf, ...]


class Suspend(Record):
    """Nothing can go on in this attempt; the response is complete."""


Progress: TypeAlias = Ready | Expired | Cancelled | StartRuns | Suspend


class CallTarget(NamedTuple):
    """Whom a call or send addresses. `key` is empty for plain services."""

    service: str
    handler: str
    key: str = ""
    idempotency_key: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    name: str = ""


class Machine:
    """One attempt at one invocation."""

    def __init__(self, version: int, body: bytes) -> None:
        """`body`: the whole request. Raises ProtocolError when it is not a complete one (code 571)."""
        self.version = version
        request = read_request(version, body)
        self.start, self.input = request.start, request.input
        self.recorded_entries = len(request.commands) + len(request.notifications)
        self._recorded = RecordedCommands(request.commands)
        self._arrivals = Arrivals(request.notifications)
        self._state: dict[bytes, bytes | None] = {entry.key: entry.value for entry in self.start.state_map}
        self._partial_state = self.start.partial_state
        self._next_completion = 1
        self._next_awakeable = ids.FIRST_AWAKEABLE_SIGNAL
        self._children: list[tuple[Key, Key]] = []  # of calls: key of the id, key of the result
        self._proposed: set[Key] = set()
        self._out: list[bytes] = []
        self._over: BaseException | None = None
        self.new_entries = 0  # commands and proposals added by this attempt

    # ---- Facts

    @property
    def replaying(self) -> bool:
        """Whether the handler repeats what an earlier attempt did, as far as the journal tells."""
        return self._recorded.left or self._arrivals.results_left

    @property
    def ended(self) -> bool:
        """Whether the response is complete."""
        return self._over is not None

    @property
    def random_seed(self) -> int:
        """64 bits, the same in every attempt. Version 5 carries none, so it is derived from the id there."""
        if self.version >= 6 and self.start.random_seed:
            return self.start.random_seed
        from hashlib import sha256  # loads OpenSSL, which most handlers do without

        return int.from_bytes(sha256(b"seed," + self.start.id).digest()[:8], "big")

    def inherited_retries(self) -> tuple[int, int]:
        """Failed executions and milliseconds since the last stored entry, of a run that is next in line.

        Zero when this attempt already added entries: then the counters of Start are about something else.
        """
        if self.new_entries:
            return 0, 0
        start = self.start
        return start.retry_count_since_last_stored_entry, start.duration_since_last_stored_entry

    def response(self) -> bytes:
        """The frames of the response so far."""
        return b"".join(self._out)

    # ---- Commands

    def run(self, name: str) -> Leaf:
        """A side effect; it is executed when it is first awaited."""
        completion = self._completion_id()
        command = RunCommand(result_completion_id=completion, name=name)
        return self._issue_for(completion, MessageType.RUN_COMMAND, command, kind="run", name=name)

    def propose(self, leaf: Leaf, outcome: Success | Failed) -> None:
        """The result of an executed run. It counts once it comes back in the journal."""
        self._check_open()
        assert leaf.key is not None and leaf.kind == "run"
        proposal = ProposeRunCompletion(result_completion_id=int(leaf.key[1]))
        if isinstance(outcome, Success):
            proposal.value = outcome.content
        else:
            proposal.failure.CopyFrom(outcome.to_message(version=self.version))
        self._proposed.add(leaf.key)
        self._emit(MessageType.PROPOSE_RUN_COMPLETION, proposal)
        self.new_entries += 1

    def sleep(self, wake_up_at_ms: int, name: str = "") -> Leaf:
        """A durable timer; `wake_up_at_ms` since the epoch, of which the first execution's counts."""
        completion = self._completion_id()
        command = SleepCommand(wake_up_time=wake_up_at_ms, result_completion_id=completion, name=name)
        return self._issue_for(completion, MessageType.SLEEP_COMMAND, command, kind="timer", name=name)

    def call(self, target: CallTarget, parameter: bytes) -> tuple[Leaf, Leaf]:
        """A call; resolves to the callee's invocation id and to its result."""
        id_completion, completion = self._completion_id(), self._completion_id()
        command = CallCommand(
            service_name=target.service,
            handler_name=target.handler,
            key=target.key,
            parameter=parameter,
            headers=_headers(target.headers),
            idempotency_key=target.idempotency_key,
            invocation_id_notification_idx=id_completion,
            result_completion_id=completion,
            name=target.name,
        )
        self._issue(MessageType.CALL_COMMAND, command)
        self._children.append((("c", id_completion), ("c", completion)))
        name = f"{target.service}/{target.handler}"
        return self._arrivals.expect(("c", id_completion), name=name), self._arrivals.expect(("c", completion), name=name)

    def send(self, target: CallTarget, parameter: bytes, invoke_at_ms: int = 0) -> Leaf:
        """A one-way call, `invoke_at_ms` since the epoch or 0 for now; resolves to the invocation id."""
        completion = self._completion_id()
        command = OneWayCallCommand(
            service_name=target.service,
            handler_name=target.handler,
            key=target.key,
            parameter=parameter,
            invoke_time=invoke_at_ms,
            headers=_headers(target.headers),
            idempotency_key=target.idempotency_key,
            invocation_id_notification_idx=completion,
            name=target.name,
        )
        return self._issue_for(completion, MessageType.ONE_WAY_CALL_COMMAND, command)

    def awakeable(self) -> tuple[str, Leaf]:
        """An awakeable id and the result somebody will send to it. Nothing is written to the journal."""
        self._check_open()
        index = self._next_awakeable
        self._next_awakeable += 1
        text = ids.awakeable_id(ids.InvocationId.from_raw(self.start.id), index)
        return text, self._arrivals.expect(("s", index), name=f"awakeable {text}")

    def complete_awakeable(self, awakeable_id: str, outcome: Success | Failed) -> None:
        """Resolves or rejects the awakeable of another invocation."""
        command = CompleteAwakeableCommand(awakeable_id=awakeable_id)
        if isinstance(outcome, Success):
            command.value.CopyFrom(Value(content=outcome.content))
        else:
            command.failure.CopyFrom(outcome.to_message(version=self.version))
        self._issue(MessageType.COMPLETE_AWAKEABLE_COMMAND, command)

    def signal(self, name: str) -> Leaf:
        """The next signal of this name that no other wait took."""
        self._check_open()
        return Leaf(("n", name), "signal", name)

    def send_signal(self, target: str, signal: int | str, outcome: Success | Empty | Failed) -> None:
        """Sends a signal, by index (1 cancels) or by name, to an invocation given by its text id."""
        command = SendSignalCommand(target_invocation_id=target)
        if isinstance(signal, int):
            command.idx = signal
        else:
            command.name = signal
        match outcome:
            case Success(content):
                command.value.CopyFrom(Value(content=content))
            case Failed():
                command.failure.CopyFrom(outcome.to_message(version=self.version))
            case _:
                command.void.CopyFrom(Void())
        self._issue(MessageType.SEND_SIGNAL_COMMAND, command)

    def get_promise(self, name: str) -> Leaf:
        """The durable promise of this workflow, once completed."""
        completion = self._completion_id()
        command = GetPromiseCommand(key=name, result_completion_id=completion)
        return self._issue_for(completion, MessageType.GET_PROMISE_COMMAND, command, name=name)

    def peek_promise(self, name: str) -> Leaf:
        """The promise as it is now: void when it is not completed."""
        completion = self._completion_id()
        command = PeekPromiseCommand(key=name, result_completion_id=completion)
        return self._issue_for(completion, MessageType.PEEK_PROMISE_COMMAND, command, name=name)

    def complete_promise(self, name: str, outcome: Success | Failed) -> Leaf:
        """Completes a promise; resolves to void, or to a failure when it was completed before."""
        completion = self._completion_id()
        command = CompletePromiseCommand(key=name, result_completion_id=completion)
        if isinstance(outcome, Success):
            command.completion_value.CopyFrom(Value(content=outcome.content))
        else:
            command.completion_failure.CopyFrom(outcome.to_message(version=self.version))
        return self._issue_for(completion, MessageType.COMPLETE_PROMISE_COMMAND, command, name=name)

    def attach(self, invocation_id: str) -> Leaf:
        """The result of another invocation, once it ends."""
        completion = self._completion_id()
        command = AttachInvocationCommand(invocation_id=invocation_id, result_completion_id=completion)
        return self._issue_for(completion, MessageType.ATTACH_INVOCATION_COMMAND, command)

    def get_output(self, invocation_id: str) -> Leaf:
        """The result of another invocation as it is now: void while it runs."""
        completion = self._completion_id()
        command = GetInvocationOutputCommand(invocation_id=invocation_id, result_completion_id=completion)
        return self._issue_for(completion, MessageType.GET_INVOCATION_OUTPUT_COMMAND, command)

    # ---- State

    def get_state(self, key: bytes) -> Leaf:
        """A state entry: void when missing. Answered at once where request or earlier writes tell."""
        self._check_open()
        if self._answers_eagerly(MessageType.GET_EAGER_STATE_COMMAND, key in self._state):
            value = self._state.get(key)
            command = GetEagerStateCommand(key=key)
            if value is None:
                command.void.CopyFrom(Void())
            else:
                command.value.CopyFrom(Value(content=value))
            stored = self._issue(MessageType.GET_EAGER_STATE_COMMAND, command)
            present = stored.WhichOneof("result") == "value"
            return self._arrivals.at_once(Success(stored.value.content) if present else EMPTY)
        completion = self._completion_id()
        lazy = GetLazyStateCommand(key=key, result_completion_id=completion)
        return self._issue_for(completion, MessageType.GET_LAZY_STATE_COMMAND, lazy)

    def get_state_keys(self) -> Leaf:
        """The names of all state entries."""
        self._check_open()
        if self._answers_eagerly(MessageType.GET_EAGER_STATE_KEYS_COMMAND, False):
            present = sorted(key for key, value in self._state.items() if value is not None)
            command = GetEagerStateKeysCommand(value=StateKeys(keys=present))
            stored = self._issue(MessageType.GET_EAGER_STATE_KEYS_COMMAND, command)
            return self._arrivals.at_once(Keys(tuple(stored.value.keys)))
        completion = self._completion_id()
        lazy = GetLazyStateKeysCommand(result_completion_id=completion)
        return self._issue_for(completion, MessageType.GET_LAZY_STATE_KEYS_COMMAND, lazy)

    def set_state(self, key: bytes, value: bytes) -> None:
        """Writes a state entry; seen by later reads of this attempt."""
        self._issue(MessageType.SET_STATE_COMMAND, SetStateCommand(key=key, value=Value(content=value)))
        self._state[key] = value

    def clear_state(self, key: bytes) -> None:
        """Removes a state entry."""
        self._issue(MessageType.CLEAR_STATE_COMMAND, ClearStateCommand(key=key))
        self._state[key] = None

    def clear_all_state(self) -> None:
        """Removes every state entry, also those this attempt was not told of."""
        self._issue(MessageType.CLEAR_ALL_STATE_COMMAND, ClearAllStateCommand())
        self._state.clear()
        self._partial_state = False

    def _answers_eagerly(self, eager_type: MessageType, known: bool) -> bool:
        """The record decides when there is one; the handler's question is the same either way."""
        if self._recorded.left:
            return self._recorded.peek_type() == eager_type
        return known or not self._partial_state

    # ---- Waiting

    def progress(
        self,
        node: Node,
        *,
        deadlines: Sequence[Leaf] = (),
        shielded: bool = False,
        may_run: bool = True,
    ) -> Progress:
        """How a wait for `node` goes on.

        `deadlines`: timers that end the wait when they come first. `shielded`: cancellations are dropped, for
        compensations that must not be interrupted. `may_run` False: suspend instead of asking for more runs to
        be executed; at least one must have been proposed. After Suspend the attempt is over.
        """
        self._check_open()
        watch = Watch(node, deadlines)
        while True:
            if watch.signals:
                self._arrivals.bind_signals(node)
            if watch.may_be_over(self._arrivals.latest) and (done := self._first(node, deadlines)) is not None:
                self._arrivals.release_signals(node, delivered=isinstance(done, Ready))
                return done
            if self._arrivals.exhausted:
                return self._blocked(node, deadlines, shielded, may_run)
            if self._arrivals.take() and not shielded:
                self._arrivals.release_signals(node, delivered=False)
                return self._cancel_children()

    def _first(self, node: Node, deadlines: Sequence[Leaf]) -> Ready | Expired | None:
        """What came first of the node and its deadlines."""
        found = node.resolved()
        expired = First(deadlines).winner() if deadlines else None
        if expired is None:
            return None if found is None else Ready(found.outcome)
        passed = deadlines[expired].resolved()
        assert passed is not None
        if found is not None and found.sequence < passed.sequence:
            return Ready(found.outcome)
        return Expired(expired)

    def _blocked(self, node: Node, deadlines: Sequence[Leaf], shielded: bool, may_run: bool) -> StartRuns | Suspend:
        """Nothing more arrived: execute what can be executed here, then suspend on the rest."""
        waiting = list(node.waiting())
        if self._recorded.left:
            raise self._fail(self._recorded.blocked(_words(waiting)))
        runs = tuple(leaf for leaf in waiting if leaf.kind == "run" and leaf.key not in self._proposed)
        if runs and may_run:
            return StartRuns(_unique(runs))
        leaves = [*waiting, *(leaf for leaf in deadlines if leaf.resolution is None)]
        keys = [leaf.key for leaf in leaves if leaf.key is not None]
        return self._suspend(keys if shielded else [*keys, CANCEL_KEY])

    def _suspend(self, keys: Iterable[Key]) -> Suspend:
        waiting = dict.fromkeys(keys)
        suspension = Suspension(
            waiting_completions=[int(key) for kind, key in waiting if kind == "c"],
            waiting_signals=[int(key) for kind, key in waiting if kind == "s"],
            waiting_named_signals=[str(key) for kind, key in waiting if kind == "n"],
        )
        self._emit(MessageType.SUSPENSION, suspension)
        self._over = Suspended()
        return Suspend()

    def _cancel_children(self) -> Cancelled | Suspend:
        """Passes a cancellation on to the calls still open, once their ids are known (§3.11)."""
        # Only results the handler could have seen count as finished, so that replay decides the same.
        running = [id_key for id_key, key in self._children if not self._arrivals.seen(key)]
        found = {key: self._arrivals.invocation_id(key) for key in running}
        missing = [key for key, child in found.items() if child is None]
        if missing:
            if self._recorded.left:
                raise self._fail(self._recorded.blocked("the ids of called invocations"))
            return self._suspend(missing)
        for child in found.values():
            assert child is not None
            self.send_signal(child, ids.CANCEL_SIGNAL, EMPTY)
        self._children.clear()
        return Cancelled()

    # ---- Ends

    def output(self, outcome: Success | Failed) -> None:
        """The handler returned or failed terminally: the invocation ends."""
        command = OutputCommand()
        if isinstance(outcome, Success):
            command.value.CopyFrom(Value(content=outcome.content))
        else:
            command.failure.CopyFrom(outcome.to_message(version=self.version))
        self._issue(MessageType.OUTPUT_COMMAND, command)
        self._out.append(encode(MessageType.END, b""))
        self._over = Suspended()

    def error(
        self,
        message: str,
        *,
        code: int = 500,
        stacktrace: str = "",
        related_run: Leaf | None = None,
        next_retry_delay_ms: int | None = None,
    ) -> None:
        """The attempt failed; what it added so far stays. No effect once the response is complete."""
        if self._over is not None and not isinstance(self._over, JournalMismatchError):
            return
        error = Error(code=code, message=message, stacktrace=stacktrace)
        if next_retry_delay_ms is not None:
            error.next_retry_delay = next_retry_delay_ms
        if related_run is not None:
            error.related_command_index = related_run.command_index
            error.related_command_name = related_run.name
            error.related_command_type = MessageType.RUN_COMMAND
        elif isinstance(self._over, JournalMismatchError):
            error.related_command_index = self._over.command_index
            if self._over.issued_type is not None:
                error.related_command_type = self._over.issued_type
        self._emit(MessageType.ERROR, error)
        self._over = Suspended()

    @property
    def mismatch(self) -> JournalMismatchError | None:
        """The mismatch this attempt ran into, also when the handler swallowed it."""
        return self._over if isinstance(self._over, JournalMismatchError) else None

    # ---- Inside

    def _completion_id(self) -> int:
        self._check_open()
        self._next_completion += 1
        return self._next_completion - 1

    def _issue(self, type: MessageType, command: _MessageT) -> _MessageT:
        """The recorded command when there is one, else the given one, which is sent."""
        self._check_open()
        if not self._recorded.left:
            self._recorded.skip()
            self._emit(type, command)
            self.new_entries += 1
            return command
        try:
            stored = self._recorded.take(type, command)
        except JournalMismatchError as mismatch:
            raise self._fail(mismatch) from None
        assert isinstance(stored, command.__class__)
        return stored

    def _issue_for(
        self,
        completion: int,
        type: MessageType,
        command: Message,
        *,
        kind: str = "other",
        name: str = "",
    ) -> Leaf:
        index = self._recorded.command_index
        self._issue(type, command)
        leaf = self._arrivals.expect(("c", completion), name=name or type.name.lower())
        leaf.command_index = index
        if kind == "run":
            leaf.kind = "other" if self._arrivals.recorded(("c", completion)) else "run"
        elif kind == "timer":
            leaf.kind = "timer"
        return leaf

    def _emit(self, type: MessageType, message: Message) -> None:
        self._out.append(encode(type, message.SerializeToString()))

    def _fail(self, mismatch: JournalMismatchError) -> JournalMismatchError:
        self._over = mismatch
        return mismatch

    def _check_open(self) -> None:
        if self._over is not None:
            raise self._over


def _headers(pairs: Iterable[tuple[str, str]]) -> list[Header]:
    return [Header(key=key, value=value) for key, value in pairs]


def _unique(leaves: Sequence[Leaf]) -> tuple[Leaf, ...]:
    return tuple({leaf.key: leaf for leaf in leaves}.values())


def _words(leaves: Sequence[Leaf]) -> str:
    return ", ".join(leaf.name for leaf in leaves if leaf.name) or "a result"
