"""Handlers that speak the service protocol in bytes, as an SDK does: replay what is known, say what is new, suspend.

Each attempt checks what it is given against everything any earlier attempt of that invocation was given: nothing may be lost, changed or
reordered (invariant I1), and command bytes come back exactly as they were sent (I8). Every execution of a run proposes a new value.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

from holdfast.protocol import frames, ids, messages
from holdfast.protocol.ids import InvocationId
from holdfast.protocol.messages import MessageType as M

from .scripts import Script, pack, unpack

CANCEL: Final = 1
AWAKEABLE: Final = 17


class Suspend(Exception):
    """Nothing can go on before one of these is there."""

    def __init__(self, completions: list[int], signals: list[int], names: list[str]) -> None:
        self.message = messages.Suspension(waiting_completions=completions, waiting_signals=[*signals, CANCEL], waiting_named_signals=names)
        super().__init__("suspended")


class Cancelled(Exception):
    """The handler was cancelled while it waited."""


class Mismatch(AssertionError):
    """The journal is not what the script and the earlier attempts say it is."""


@dataclass(slots=True)
class Attempt:
    """What one attempt saw and said. published: awakeables that wait for somebody outside."""

    invocation: str
    nonce: str
    body: bytes = b""
    commands: list[tuple[int, bytes]] = field(default_factory=list)
    ended: str = ""
    published: list[int] = field(default_factory=list)
    wanted: list[str] = field(default_factory=list)


class Run:
    """One attempt at a script. `unique` makes values nobody else has; `now_ms` is the endpoint's clock."""

    def __init__(self, content: bytes, *, now_ms: int, unique: Any) -> None:
        received = list(frames.split(content))
        start = messages.parse(received[0].type, received[0].body)
        assert isinstance(start, messages.Start)
        if start.known_entries != len(received) - 1:
            raise Mismatch(f"known_entries is {start.known_entries}, the journal has {len(received) - 1}")
        self.start = start
        self.id = InvocationId.from_raw(start.id)
        self.entries = [frames.raw(frame) for frame in received[1:]]
        self.now_ms = now_ms
        self.unique = unique
        self.state = {item.key.decode(): item.value for item in start.state_map}
        self.recorded = [frame for frame in received[2:] if messages.is_command(frame.type)]
        self.waiting: deque[Any] = deque(messages.parse(f.type, f.body) for f in received[2:] if messages.is_notification(f.type))
        self.arrived: dict[Any, Any] = {}
        self.named: dict[str, deque[Any]] = {}
        self.cancels = 0
        self.issued = 0
        self.next_completion = 1
        self.next_signal = AWAKEABLE
        self.new: list[bytes] = []
        self.children: list[int] = []  # completion ids under which the ids of called invocations are known
        self.published: list[int] = []
        self.wanted: list[str] = []  # named signals that somebody outside is to send
        self.ancestors: list[str] = []  # invocations that this one runs again, in whose names earlier commands may speak
        self.observed: list[Any] = []
        content_ = messages.parse(received[1].type, received[1].body)
        assert isinstance(content_, messages.InputCommand)
        self.nonce, self.script = unpack(content_.value.content)

    # -- what an SDK does

    def play(self) -> Attempt:
        """Run as far as possible; the response."""
        attempt = Attempt(str(self.id), self.nonce)
        try:
            try:
                for step in self.script:
                    self.step(step)
                failed = False
            except Cancelled:
                for number in self.children:
                    child = self.wait_for(("c", number), catch=False).invocation_id
                    self.issue(
                        M.SEND_SIGNAL_COMMAND, messages.SendSignalCommand(target_invocation_id=child, idx=CANCEL, void=messages.Void())
                    )
                failed = True
            self.output(failed or self.script[-1:] == [["terminal"]])
            self.new.append(frames.encode(M.END, b""))
            attempt.ended = "end"
        except Suspend as suspend:
            self.new.append(frames.encode(M.SUSPENSION, suspend.message.SerializeToString()))
            attempt.ended = "suspend"
        if self.issued < len(self.recorded):
            raise Mismatch(f"the journal holds {len(self.recorded)} commands, this replay issued {self.issued}")
        attempt.body = b"".join(self.new)
        attempt.published = self.published
        attempt.wanted = self.wanted
        return attempt

    def output(self, failed: bool) -> None:
        if failed:
            self.issue(M.OUTPUT_COMMAND, messages.OutputCommand(failure=messages.Failure(code=500, message="terminal")))
            return
        text = json.dumps(self.observed)[:300]
        self.issue(M.OUTPUT_COMMAND, messages.OutputCommand(value=messages.Value(content=text.encode())))

    def issue(self, type_: int, command: Any) -> Any:
        """Replay or emit the next command; the command as it stands in the journal."""
        number = self.issued
        self.issued += 1
        if number >= len(self.recorded):
            self.new.append(frames.encode(type_, command.SerializeToString()))
            return command
        recorded = messages.parse(self.recorded[number].type, self.recorded[number].body)
        for name in ("wake_up_time", "invoke_time"):  # computed by the attempt that issued it first
            if name in command.DESCRIPTOR.fields_by_name:
                setattr(command, name, getattr(recorded, name, 0))
        if type_ == M.GET_EAGER_STATE_COMMAND and self.recorded[number].type == type_:
            command.CopyFrom(recorded)
        if self.recorded[number].type != type_ or not self._is_same(self.recorded[number].body, command.SerializeToString()):
            raise Mismatch(f"command {number} is {recorded!r}, the script says {M(type_).name} {command!r}")
        return command

    def _is_same(self, recorded: bytes, said: bytes) -> bool:
        if recorded == said:
            return True
        for ancestor in self.ancestors:
            before = said.replace(str(self.id).encode(), ancestor.encode())
            for index in range(AWAKEABLE, self.next_signal):
                mine, old = (ids.awakeable_id(id_, index).encode() for id_ in (self.id, InvocationId.parse(ancestor)))
                before = before.replace(mine, old)
            if recorded == before:
                return True
        return False

    def completion(self) -> int:
        number = self.next_completion
        self.next_completion += 1
        return number

    def pull(self) -> bool:
        """Take the next notification in journal order; False when there is none."""
        if not self.waiting:
            return False
        notification = self.waiting.popleft()
        match notification.WhichOneof("id"):
            case "completion_id":
                key: Any = ("c", notification.completion_id)
                if key in self.arrived:
                    raise Mismatch(f"completion {notification.completion_id} is in the journal twice")
                self.arrived[key] = notification
            case "idx" if notification.idx == CANCEL:
                self.cancels += 1
            case "idx":
                key = ("s", notification.idx)
                if key in self.arrived:
                    raise Mismatch(f"awakeable {notification.idx} was completed twice")
                self.arrived[key] = notification
            case "name":
                self.named.setdefault(notification.name, deque()).append(notification)
        return True

    def wait_any(self, keys: list[Any], *, catch: bool = True) -> Any:
        """The first key that is there, in journal order. Raises Suspend, Cancelled."""
        while True:
            for key in keys:
                if key in self.arrived or (key[0] == "n" and self.named.get(key[1])):
                    return key
            if self.cancels and catch:
                self.cancels -= 1
                raise Cancelled
            if not self.pull():
                raise Suspend(
                    [key[1] for key in keys if key[0] == "c"],
                    [key[1] for key in keys if key[0] == "s"],
                    [key[1] for key in keys if key[0] == "n"],
                )

    def wait_for(self, key: Any, *, catch: bool = True) -> Any:
        self.wait_any([key], catch=catch)
        return self.named[key[1]].popleft() if key[0] == "n" else self.arrived[key]

    # -- steps

    def step(self, step: list[Any]) -> None:
        getattr(self, "do_" + step[0])(*step[1:])

    def do_run(self, size: int) -> None:
        number = self.completion()
        replayed = self.issued < len(self.recorded)
        self.issue(M.RUN_COMMAND, messages.RunCommand(result_completion_id=number, name="r"))
        if not replayed or ("c", number) not in self._known():
            value = self.unique().ljust(size, ".").encode()
            self.new.append(
                frames.encode(
                    M.PROPOSE_RUN_COMPLETION, messages.ProposeRunCompletion(result_completion_id=number, value=value).SerializeToString()
                )
            )
        self.observed.append(self.wait_for(("c", number)).value.content.decode().rstrip("."))

    def _known(self) -> set[Any]:
        return {*self.arrived, *(("c", n.completion_id) for n in self.waiting if n.HasField("completion_id"))}

    def do_sleep(self, ms: int) -> None:
        number = self.completion()
        self.issue(M.SLEEP_COMMAND, messages.SleepCommand(wake_up_time=self.now_ms + ms, result_completion_id=number))
        self.wait_for(("c", number))

    def do_call(self, service: str, handler: str, key: str | None, script: Script, idempotency_key: str | None = None) -> None:
        self.observed.append(self.result(self.wait_for(("c", self.call(service, handler, key, script, idempotency_key)))))

    def call(self, service: str, handler: str, key: str | None, script: Script, idempotency_key: str | None = None) -> int:
        id_at, result_at = self.completion(), self.completion()
        self.children.append(id_at)
        command = messages.CallCommand(
            service_name=service,
            handler_name=handler,
            key=key or "",
            parameter=pack(script, f"{self.nonce}.{self.issued}"),
            invocation_id_notification_idx=id_at,
            result_completion_id=result_at,
        )
        if idempotency_key is not None:
            command.idempotency_key = idempotency_key
        self.issue(M.CALL_COMMAND, command)
        return result_at

    def result(self, notification: Any) -> Any:
        match notification.WhichOneof("result"):
            case "value":
                return notification.value.content.decode()
            case "failure":
                return [notification.failure.code, notification.failure.message]
            case _:
                return None

    def do_race(self, ms: int, service: str, handler: str, key: str | None, script: Script) -> None:
        """A call against a sleep; the loser is awaited too."""
        called = self.call(service, handler, key, script)
        number = self.completion()
        self.issue(M.SLEEP_COMMAND, messages.SleepCommand(wake_up_time=self.now_ms + ms, result_completion_id=number))
        first = self.wait_any([("c", called), ("c", number)])
        self.observed.append(first == ("c", number))
        self.wait_for(("c", number))
        self.observed.append(self.result(self.wait_for(("c", called))))

    def do_twice(self, service: str, handler: str, key: str | None, script: Script) -> None:
        """Two calls with one idempotency key are one invocation, so they have one result."""
        idempotency_key = f"{self.nonce}/{self.issued}"
        one = self.call(service, handler, key, script, idempotency_key)
        two = self.call(service, handler, key, script, idempotency_key)
        first, second = (self.result(self.wait_for(("c", number))) for number in (one, two))
        if first != second and service == "Plain":  # without retention the second may come after the first is forgotten
            raise Mismatch(f"two calls with one idempotency key: {first!r} and {second!r}")
        self.observed += [first, second]

    def send(self, service: str, handler: str, key: str | None, delay_ms: int, script: Script) -> int:
        number = self.completion()
        command = messages.OneWayCallCommand(
            service_name=service,
            handler_name=handler,
            key=key or "",
            parameter=pack(script, f"{self.nonce}.{self.issued}"),
            invoke_time=self.now_ms + delay_ms if delay_ms else 0,
            invocation_id_notification_idx=number,
        )
        self.issue(M.ONE_WAY_CALL_COMMAND, command)
        return number

    def do_send(self, service: str, handler: str, key: str | None, delay_ms: int, script: Script) -> None:
        self.send(service, handler, key, delay_ms, script)

    def do_attach(self, service: str, handler: str, key: str | None, delay_ms: int, script: Script) -> None:
        child = self.wait_for(("c", self.send(service, handler, key, delay_ms, script))).invocation_id
        number = self.completion()
        self.issue(M.ATTACH_INVOCATION_COMMAND, messages.AttachInvocationCommand(invocation_id=child, result_completion_id=number))
        self.observed.append(self.result(self.wait_for(("c", number))))

    def do_output(self, service: str, handler: str, key: str | None, delay_ms: int, script: Script) -> None:
        child = self.wait_for(("c", self.send(service, handler, key, delay_ms, script))).invocation_id
        number = self.completion()
        self.issue(M.GET_INVOCATION_OUTPUT_COMMAND, messages.GetInvocationOutputCommand(invocation_id=child, result_completion_id=number))
        self.observed.append(self.result(self.wait_for(("c", number))))

    def do_awake(self, who: int, delay_ms: int) -> None:
        """An awakeable that another invocation or somebody outside completes, perhaps both."""
        index = self.next_signal
        self.next_signal += 1
        if who < 2:
            self.send("Plain", "run", None, delay_ms, [["resolve", ids.awakeable_id(self.id, index)]])
        if who >= 1:
            self.published.append(index)
        self.observed.append(self.result(self.wait_for(("s", index))))

    def do_resolve(self, awakeable: str) -> None:
        value = messages.Value(content=f"by {self.nonce}".encode())
        self.issue(M.COMPLETE_AWAKEABLE_COMMAND, messages.CompleteAwakeableCommand(awakeable_id=awakeable, value=value))

    def do_signal(self, count: int, delay_ms: int) -> None:
        """As many named signals as are awaited, all of one name: a queue."""
        for _ in range(count + 1):
            self.send("Plain", "run", None, delay_ms, [["emit", str(self.id), "sig"]])
        for _ in range(count + 1):
            self.observed.append(self.result(self.wait_for(("n", "sig"))))

    def do_outside(self, name: str) -> None:
        """A named signal that somebody outside sends."""
        self.wanted.append(name)
        self.observed.append(str(self.result(self.wait_for(("n", name))))[:7])

    def do_emit(self, target: str, name: str) -> None:
        value = messages.Value(content=f"by {self.nonce}".encode())
        self.issue(M.SEND_SIGNAL_COMMAND, messages.SendSignalCommand(target_invocation_id=target, name=name, value=value))

    def do_cancelled(self, count: int, delay_ms: int) -> None:
        """Cancelled by another invocation while it sleeps long; caught, and then it sleeps again: the old cancel must not wake it."""
        self.send("Plain", "run", None, delay_ms, [["cancel", str(self.id)]])
        number = self.completion()
        self.issue(M.SLEEP_COMMAND, messages.SleepCommand(wake_up_time=self.now_ms + 300_000, result_completion_id=number))
        try:
            self.wait_for(("c", number))
            self.observed.append("slept")
        except Cancelled:
            self.observed.append("cancelled")
        self.do_sleep(1_500)

    def do_cancel(self, target: str) -> None:
        self.issue(M.SEND_SIGNAL_COMMAND, messages.SendSignalCommand(target_invocation_id=target, idx=CANCEL, void=messages.Void()))

    def do_terminal(self) -> None:
        return

    # -- state and promises

    def do_set(self, name: str, size: int) -> None:
        value = f"{self.nonce}.{self.issued}".ljust(size, "=").encode()
        self.issue(M.SET_STATE_COMMAND, messages.SetStateCommand(key=name.encode(), value=messages.Value(content=value)))
        self.state[name] = value

    def do_clear(self, name: str) -> None:
        self.issue(M.CLEAR_STATE_COMMAND, messages.ClearStateCommand(key=name.encode()))
        self.state.pop(name, None)

    def do_clearall(self) -> None:
        self.issue(M.CLEAR_ALL_STATE_COMMAND, messages.ClearAllStateCommand())
        self.state.clear()

    def do_get(self, name: str) -> None:
        if self.start.partial_state:
            self.do_lazyget(name)
            return
        command = messages.GetEagerStateCommand(key=name.encode())
        if name in self.state:
            command.value.content = self.state[name]
        else:
            command.void.SetInParent()
        command = self.issue(M.GET_EAGER_STATE_COMMAND, command)
        self.observed.append(command.value.content.decode().rstrip("="))

    def do_lazyget(self, name: str) -> None:
        number = self.completion()
        self.issue(M.GET_LAZY_STATE_COMMAND, messages.GetLazyStateCommand(key=name.encode(), result_completion_id=number))
        found = self.wait_for(("c", number))
        self.observed.append(found.value.content.decode().rstrip("="))

    def do_keys(self) -> None:
        number = self.completion()
        self.issue(M.GET_LAZY_STATE_KEYS_COMMAND, messages.GetLazyStateKeysCommand(result_completion_id=number))
        self.observed.append([key.decode() for key in self.wait_for(("c", number)).state_keys.keys])

    def do_promise(self, how: str, name: str) -> None:
        """round: somebody else completes it, and we wait for that."""
        number = self.completion()
        match how:
            case "peek":
                self.issue(M.PEEK_PROMISE_COMMAND, messages.PeekPromiseCommand(key=name, result_completion_id=number))
            case "complete":
                value = messages.Value(content=self.nonce.encode())
                command = messages.CompletePromiseCommand(key=name, completion_value=value, result_completion_id=number)
                self.issue(M.COMPLETE_PROMISE_COMMAND, command)
            case _:
                self.issue(M.GET_PROMISE_COMMAND, messages.GetPromiseCommand(key=name, result_completion_id=number))
                self.send("Flow", "query", self.start.key, 0, [["promise", "complete", name]])
        self.observed.append(self.result(self.wait_for(("c", number))))

    def do_ask(self) -> None:
        """A workflow that is started by its own run again answers that it was already invoked."""
        answer = self.result(self.wait_for(("c", self.call("Flow", "run", self.start.key, []))))
        if not isinstance(answer, list) or answer[0] != 409:
            raise Mismatch(f"a workflow that runs was started again: {answer!r}")
