"""One seed: several processes over a faulty store and network, clients, and a nemesis, in virtual time; the oracle looks on.

`World(seed).play()` either ends well or raises; the same seed takes the same course in every run.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextvars import copy_context
from dataclasses import replace
from random import Random
from typing import Any, Final

from holdfast.protocol import ids
from holdfast.protocol.ids import InvocationId
from holdfast_runtime.coordinator.front import (
    CoordinatorUnavailable,
    Done,
    Failed,
    InvocationFilter,
    NewInvocation,
    NotFound,
    NotReady,
    Success,
)
from holdfast_runtime.coordinator.front import Target as FrontTarget
from holdfast_runtime.coordinator.shard import Fenced, Shard
from holdfast_runtime.engine import model
from holdfast_runtime.engine.model import Status
from holdfast_runtime.ports.endpoint import EndpointRequest
from holdfast_runtime.ports.peers import PeerUnavailable
from holdfast_runtime.ports.store import StoreUnavailable

from .bursts import Bursts
from .checkers import Life, Oracle, Violation
from .deployed import VIEW, Stage
from .handlers import Mismatch
from .limits import operated_limits, small_limits, small_settings
from .loop import PROCESS, SimLoop, running
from .network import FaultyStore
from .operators import WAYS, Operators
from .processes import EPOCH_MS, Process, run
from .scripts import Author, Script, Target, pack

MAX_IDLE_ATTEMPTS: Final = 60  # attempts that were given nothing new; each fault may cause some, a wrong wake-up causes thousands
REST_S: Final = 900.0
EXPECTED: Final = (Fenced, StoreUnavailable, PeerUnavailable, CoordinatorUnavailable, TimeoutError, asyncio.CancelledError)
TRAPS: Final = ("log put", "page put", "pack put", "page get", "acquire", "checkpoint", "release", "log read", "leases read", "blob put")


class Gone(Exception):
    """The process that was asked died, or its answer was lost."""


class World:
    def __init__(self, seed: int, *, tracing: bool = False) -> None:
        self.seed = seed
        self.tracing = tracing
        self.lines: list[str] = []
        self.counts: Counter[str] = Counter()
        self.random = Random(seed)
        self.loop = SimLoop()  # type: ignore[abstract]
        self.context = copy_context()
        self.context.run(PROCESS.set, None)
        self.error: BaseException | None = None
        # what kind of world
        self.shards = self.random.choice([1, 2, 2, 4])
        self.settings = small_settings(self.random)
        self.skews = self.random.choice([[0], [-400, 0, 700]])
        self.fault_rate = self.random.choice([0.02, 0.1, 0.3])
        self.meddles = self.random.random() < 0.5  # whether clients cancel, kill and purge
        self.reruns = self.random.choice([0, 0, 30])
        self.duration = self.random.choice([5.0, 12.0, 25.0])
        # Operators have a generator of their own, and half of the worlds: the others are as they were before there were any.
        self.operated = seed % 2 == 1
        self.operators = Operators(self)
        self.stage = Stage.first(self.operators.chance)
        self.view = self.stage.view() if self.operated else VIEW
        self.bursts = Bursts(self)
        self.jumpy = self.operated and self.operators.chance.random() < 0.3
        if self.operated:
            self.duration = min(self.duration, 12.0)
            self.settings = replace(self.settings, timer_horizon_s=9.0, wakeup_pace_s=0.01)
        # what is broken just now
        self.store_down = False
        self.sick = False  # handlers fail more often than not
        self.cut_off: list[Process] = []
        self.cut_off_peers: list[Any] = []
        self.trap: str | None = None
        # what is there
        self.store = FaultyStore(self, self.shards)
        self.oracle = Oracle(self)
        self.author = Author(self.random, operated=self.operated)
        self.wakeups: dict[tuple[int, int, int], int] = {}  # timer page -> when its wake-up is arranged for
        self.exchanges: Counter[tuple[int, int, str, int]] = Counter()  # attempts in flight: shard, epoch, invocation, its life
        self.ahead_ms, self.jumps = max(self.skews), 0  # the most that a wall clock ever was ahead; how often one jumped
        self.expiring: dict[str, tuple[int, int]] = {}
        self.processes: list[Process] = []
        self.known: dict[str, tuple[InvocationId, Target]] = {}  # acknowledged
        self.keyed: dict[str, tuple[Target, str]] = {}  # of these, those with an idempotency key
        self.purged: set[str] = set()  # said to be
        self.purges: set[str] = set()  # asked to be
        self.awaited: set[tuple[str, int, int]] = set()
        self.last_attempt: dict[int, tuple[int, str]] = {}
        self._numbers = 0

    # -- saying what happens

    def trace(self, text: str) -> None:
        if self.tracing:
            process = PROCESS.get()
            self.lines.append(f"{self.loop.time():9.3f} {process.name if process is not None else '-':4} {text}")

    def count(self, what: str) -> None:
        self.counts[what] += 1
        if self.tracing:
            self.trace(what)

    def latest_ms(self) -> int:
        """The wall clock that is ahead of all others, or was."""
        return EPOCH_MS + int(self.loop.time() * 1000) + self.ahead_ms

    def earliest_ms(self) -> int:
        """The wall clock that is behind all others."""
        skews = [*self.skews, *(process.clock.skew_ms for process in self.processes if process.alive)]
        return EPOCH_MS + int(self.loop.time() * 1000) + min(skews)

    def set_clock(self, process: Process, skew_ms: int) -> None:
        self.ahead_ms = max(self.ahead_ms, skew_ms)
        self.jumps += 1
        process.clock.skew_ms = skew_ms

    def is_over(self, life: Life) -> bool:
        """Its result is past its retention by every clock."""
        return life.expires_at is not None and life.expires_at <= self.earliest_ms()

    def unique(self) -> str:
        self._numbers += 1
        return f"#{self._numbers}"

    def fail(self, error: BaseException) -> None:
        if self.error is None:
            self.error = error
        self.loop.stopped = True

    # -- the course of a world

    def play(self) -> World:
        more = operated_limits(self.operators.chance) if self.operated else ()
        with small_limits(more), running(self.loop), self._watched():
            try:
                for number in range(self.random.choice([1, 2, 3, 3])):
                    self.processes.append(Process(self, f"p{number}"))
                clients = self.random.choice([1, 2, 4])
                for _ in range(clients):
                    self.task(self._client())
                self.task(self._nemesis())
                self.task(self._watch())
                if self.operated:
                    self.task(self.operators.work())
                    self.task(self.operators.registry())
                    self.task(self.operators.sickness())
                if self.bursts.come:
                    self.task(self.bursts.work())
                if self.jumpy:
                    self.task(self.operators.clocks())
                self._run(self.duration)
                self._calm()
                self._come_to_rest()
                self.counts["blob swept"] += self.store.sweep_blobs()
                self.oracle.check_rest()
                self._look_at_all()
                self._check_tasks()
            except BaseException as error:
                if self.error is None:
                    self.error = error
        if self.error is not None:
            raise self.error
        return self

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """The oracle is told when a shard begins to act."""
        start = Shard.start

        def told(shard: Shard) -> None:
            self.oracle.starts(PROCESS.get(), shard.number, shard.epoch)
            start(shard)

        Shard.start = told  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            Shard.start = start  # type: ignore[method-assign]

    def _run(self, seconds: float) -> None:
        self.loop.run_until(self.loop.time() + seconds)
        if self.error is not None:
            raise self.error

    def task(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.create_task(self._guarded(work), context=self.context.copy())

    async def _guarded(self, work: Coroutine[Any, Any, Any]) -> None:
        try:
            await work
        except Exception as error:
            self.fail(error)

    def _calm(self) -> None:
        """Faults stop; whoever is down comes back."""
        self.trace("calm")
        self.fault_rate = 0.0
        self.store_down = self.sick = False
        self.cut_off.clear()
        self.cut_off_peers.clear()
        self.trap = None
        if self.operated:
            self.stage = replace(Stage.first(self.operators.chance), version=self.stage.version + 1)
            self.operators.spread(0.0)
        for number, process in enumerate(list(self.processes)):
            process.clock.skew_ms = process.clock.skew_ms if abs(process.clock.skew_ms) < 1_000 else 0
            process.fuse = -1
            if process.paused:
                self.loop.resume(process)
            if not process.serves():
                self.processes[number] = Process(self, process.name + "'")

    def _come_to_rest(self) -> None:
        """Everything that was accepted ends; what waits for somebody who was cancelled or killed is cancelled too."""
        end = self.loop.time() + REST_S
        self.task(self._operator())
        self._settle(end, lambda: not self._unfinished())
        self._run(3.0)
        attached = [self.task(self._attach(*known)) for known in self.known.values()]
        self._settle(end, lambda: all(task.done() for task in attached) and not self._unfinished())
        self._run(2.0)

    def _look_at_all(self) -> None:
        """What is kept can be read to its last byte; what is over is shown in no way."""
        if not self.operated:
            return
        known = [name for name, lives in self.oracle.lives.items() if not self.is_over(lives[-1])]
        looking = [self.task(self._read("describe", InvocationId.parse(name))) for name in known]
        over = [name for name, lives in self.oracle.lives.items() if self.is_over(lives[-1]) and name not in self.purges]
        chance = self.operators.chance
        for way, name in zip(WAYS, chance.sample(over, min(len(over), len(WAYS))), strict=False):
            process = self.any_process(chance)
            assert process is not None
            looking.append(self.task(self.operators.look_for(name, way, process)))
        for name in [name for name in over if name in self.keyed][:2]:  # who repeats its request has it run once again
            target, idempotency_key = self.keyed[name]
            looking.append(self.task(self._request(target, [], self.unique(), idempotency_key, delay_ms=0)))
        end = self.loop.time() + 60.0
        while not all(task.done() for task in looking) or self._unfinished():
            self._run(1.0)
            if self.loop.time() > end:
                raise Violation("liveness: what is kept cannot be read")

    def _settle(self, end: float, at_rest: Callable[[], bool]) -> None:
        cancel_at = end - 200.0
        while not at_rest():
            self._run(1.0)
            if self.loop.time() > cancel_at and self.meddles:
                cancel_at += 5.0
                for life in self._unfinished():
                    self.task(self._operate("cancel", InvocationId.parse(life)))
            if self.loop.time() > end:
                raise Violation(f"liveness: {self._stuck()}")

    def _unfinished(self) -> list[str]:
        return [name for name, lives in self.oracle.lives.items() if lives[-1].result is None]

    def _stuck(self) -> str:
        rows = []
        for name in self._unfinished():
            document = self.oracle.document(name) or {}
            life = self.oracle.lives[name][-1]
            rows.append(
                f"{name} {life.target} {Status(document[model.STATUS]).name if document else 'gone'} {len(life.entries)} entries "
                f"awaiting {document.get(model.AWAITING)}"
            )
        records = [self.store.record(shard) for shard in range(self.shards)]
        return "; ".join([*rows, *map(str, records), f"alive {[p.node.process_id for p in self.processes if p.alive]}"])

    def _check_tasks(self) -> None:
        """Nothing in the coordinator may fail in a way nobody expects."""
        for task in self.loop.failed():
            error = task.exception()
            while isinstance(error, BaseExceptionGroup):
                unexpected = [inner for inner in error.exceptions if not isinstance(inner, EXPECTED)]
                error = unexpected[0] if unexpected else Fenced()
            if error is not None and not isinstance(error, EXPECTED):
                raise error

    async def _watch(self) -> None:
        """Compare owners with their logs, and what the store holds with the whole log; expire what may expire."""
        looks = 0
        while True:
            await asyncio.sleep(0.2 + self.random.random())
            looks += 1
            for process in self.processes:
                if process.alive and (self.fault_rate or looks % 8 == 0):  # what is at rest changes little
                    for shard in list(process.node.shards.values()):
                        self.oracle.check_owner(shard)
            if self.fault_rate:
                shard_number = self.random.randrange(self.shards)
                self.oracle.check_recovery(shard_number)
                self._expire(shard_number)
            self._check_tasks()

    def _expire(self, shard: int) -> None:
        """What the store may delete it deletes, some of it."""
        items, checkpoint = self.store.log_items(shard), self.store.record(shard).checkpoint
        for position in [p for p in items if p < checkpoint]:
            if self.random.random() < 0.5:
                del items[position]
                self.counts["log item expired"] += 1
        pages = self.store.pages()
        for page_id, (lsn, expires_at_ms) in list(self.expiring.items()):
            there = pages.get(page_id)
            if there is None or there.lsn != lsn:
                del self.expiring[page_id]
            elif expires_at_ms < self.latest_ms():
                del self.expiring[page_id], pages[page_id]
                self.count("page expired")

    # -- attempts

    def sends(self, process: Any, shard_number: int, invocation: str, address: str) -> tuple[int, int, str, int]:
        """An attempt leaves a process; what it is counted as in `exchanges`."""
        shard = process.node.shards.get(shard_number)
        epoch = shard.epoch if shard is not None else -1
        exchange = shard_number, epoch, invocation, len(self.oracle.lives.get(invocation, ()))
        self.exchanges[exchange] += 1
        if epoch == self.oracle.shards[shard_number].epoch and self.operated:
            self.oracle.operators.sent(invocation, self.oracle.document(invocation), address.partition("@")[0])
        return exchange

    def exchanging(self, shard: int, epoch: int, invocation: str) -> bool:
        """Whether the owner of that epoch has an attempt in flight."""
        return self.exchanges[shard, epoch, invocation, len(self.oracle.lives.get(invocation, ()))] > 0

    def attempt(self, request: EndpointRequest) -> bytes:
        """A request has reached the handlers."""
        try:
            attempt = run(request, now_ms=EPOCH_MS + int(self.loop.time() * 1000), unique=self.unique)
            life = self.oracle.attempt_given(str(attempt.id), attempt.entries)
            attempt.ancestors = life.ancestors
            expected = self.oracle.expected_state(life, len(attempt.entries))
            if expected is not None and not attempt.start.partial_state and attempt.state != expected:
                raise Violation(f"I2: the state given to {attempt.id} is {attempt.state}, it must be {expected}")
            response = attempt.play()
        except (Mismatch, Violation, AssertionError) as error:
            self.fail(error)
            return b""
        self.count("attempt")
        self.trace(f"attempt of {attempt.id} knowing {len(attempt.entries)} entries: {response.ended}, {len(response.body)} bytes")
        self._count_idle(life, len(attempt.entries), response.ended)
        for index in response.published:
            if (str(attempt.id), id(life), index) not in self.awaited:
                self.awaited.add((str(attempt.id), id(life), index))
                self.task(self._resolve(attempt.id, index))
        for number, name in enumerate(response.wanted):
            if (str(attempt.id), id(life), -1 - number) not in self.awaited:
                self.awaited.add((str(attempt.id), id(life), -1 - number))
                self.task(self.operators.signal(attempt.id, name))
        return response.body

    def _count_idle(self, life: Life, known: int, ended: str) -> None:
        same = self.last_attempt.get(id(life)) == (known, "suspend") and ended == "suspend"
        self.last_attempt[id(life)] = (known, ended)
        life.idle_attempts = life.idle_attempts + 1 if same else 0
        if life.idle_attempts > MAX_IDLE_ATTEMPTS:
            self.fail(Violation(f"I5: {life.target} is woken {life.idle_attempts} times and nothing is new"))

    # -- clients

    async def _client(self) -> None:
        while self.fault_rate:
            await asyncio.sleep(self.random.choice([0.05, 0.3, 2.0]) * self.random.random() * 2)
            if not self.fault_rate:
                return
            if self.known and self.random.random() < 0.4:
                await self._ask_again()
            else:
                self.task(self._invoke())

    async def _invoke(self) -> None:
        random = self.random
        target = self.author.target()
        nonce = self.unique()
        idempotency_key = f"k{random.randrange(8)}" if target[0] != "Flow" and random.random() < 0.3 else None
        await self._request(
            target, self.author.script(target), nonce, idempotency_key, delay_ms=random.choice([None, None, None, 0, 400, 3_000])
        )

    async def _request(self, target: Target, script: Script, nonce: str, idempotency_key: str | None, *, delay_ms: int | None) -> None:
        """Send or call; what has a key of its own is tried until it is acknowledged, all else once."""
        service, handler, key = target
        headers = [("x-restate-ingress-path", "/" + service)]
        wanted = NewInvocation(FrontTarget(service, handler, key), pack(script, nonce), headers, idempotency_key, delay_ms)
        derived = idempotency_key is not None or service == "Flow"
        waits = delay_ms is None and self.random.random() < 0.5
        while True:
            process = self._any_process()
            if process is not None:
                invocation = process.coordinator.mint(wanted)
                try:
                    if waits:
                        outcome = await self.rpc(process, lambda p=process, i=invocation: p.coordinator.call(i, wanted), 60.0)  # type: ignore[misc]
                        self.count("call answered")
                        if outcome == Failed(409, "the workflow method was already invoked"):
                            self.count("workflow already invoked")
                            self.oracle.acknowledged(str(invocation), "a refused workflow call")
                        else:
                            self._observe(invocation, outcome)
                    else:
                        over = self._is_over_now(invocation)
                        accepted = await self.rpc(process, lambda p=process, i=invocation: p.coordinator.send(i, wanted), 20.0)  # type: ignore[misc]
                        if over is not None and not accepted.new:
                            self._check_joined(invocation, *over)
                        self.count("send acknowledged" if accepted.new else "send joined")
                        self.oracle.acknowledged(str(invocation), "a send")
                    self.known[str(invocation)] = (invocation, target)
                    if idempotency_key is not None:
                        self.keyed[str(invocation)] = (target, idempotency_key)
                    return
                except (Gone, CoordinatorUnavailable, TimeoutError) as error:
                    self.count(f"client saw {type(error).__name__}")
            if not derived:
                return
            await asyncio.sleep(0.3)

    def _is_over_now(self, invocation: InvocationId) -> tuple[Life, int] | None:
        life = self.oracle.life(str(invocation))
        return (life, self.jumps) if life is not None and self.is_over(life) else None

    def _check_joined(self, invocation: InvocationId, life: Life, jumps: int) -> None:
        """Who repeats a request after the result's retention starts a new life."""
        if self.oracle.lives[str(invocation)][-1] is life and jumps == self.jumps:
            raise Violation(f"expiry: {invocation} was over at {life.expires_at} and is joined")

    async def _ask_again(self) -> None:
        """Something about an invocation that was acknowledged."""
        random = self.random
        invocation, target = random.choice(list(self.known.values()))
        verbs = ["output", "output", "attach", "pause", "list", "describe", "again"]
        if self.meddles:
            verbs += ["cancel", "kill", "purge", "rerun", *["rerun"] * self.reruns]
        verb = random.choice(verbs)
        if verb == "rerun":
            workflows = [known for known in self.known.values() if known[1][0] == "Flow"]
            invocation, target = random.choice(workflows or [(invocation, target)])
        match verb:
            case "output":
                await self._output(invocation)
            case "attach":
                self.task(self._attach(invocation, target))
            case "list" | "describe":
                await self._read(verb, invocation)
            case "again" if target[0] == "Flow":
                await self._request(target, [], self.unique(), None, delay_ms=0)
            case "rerun" if target[0] == "Flow":
                await self._rerun(invocation, target)
            case "pause":
                await self._operate("pause", invocation)
                self.task(self._resume(invocation))
            case "cancel" | "kill" | "purge":
                await self._operate(verb, invocation)

    async def _rerun(self, invocation: InvocationId, target: Target) -> None:
        """Kill, forget and start anew under the same id: the attempt in flight must not count for the new life."""
        await self._operate("kill", invocation)
        await self._operate("purge", invocation)
        await self._request(target, self.author.script(target), self.unique(), None, delay_ms=None)

    async def _resume(self, invocation: InvocationId) -> None:
        await asyncio.sleep(self.random.random() * 3)
        await self._operate("resume", invocation)

    async def _operate(self, verb: str, invocation: InvocationId) -> Done | None:
        if verb == "purge":
            self.purges.add(str(invocation))
        for _ in range(5):
            process = self._any_process()
            if process is not None:
                try:
                    done: Done = await self.rpc(process, lambda p=process: getattr(p.coordinator, verb)(invocation), 20.0)  # type: ignore[misc]
                except (Gone, CoordinatorUnavailable, TimeoutError):
                    pass
                else:
                    self.count(f"{verb}: {done.name}")
                    self._operated(verb, str(invocation), done)
                    return done
            await asyncio.sleep(0.2)
        return None

    def _operated(self, verb: str, invocation: str, done: Done) -> None:
        life = self.oracle.life(invocation)
        unended = life is None or (life.result is None and len(self.oracle.lives[invocation]) == 1)  # else it may be about its former life
        if done is Done.APPLIED and verb == "kill" and unended:
            raise Violation(f"invariant 2: {invocation} is said to be killed, that is not durable")
        if done is Done.ALREADY_COMPLETED and unended:
            raise Violation(f"invariant 2: {invocation} is said to be completed, that is not durable")
        if verb == "purge" and done is Done.APPLIED:
            self.purged.add(invocation)

    async def _resolve(self, invocation: InvocationId, index: int) -> None:
        """Complete an awakeable until that is acknowledged, sometimes twice with different values."""
        await asyncio.sleep(self.random.random() * 2)
        times = self.random.choice([1, 2])
        while times:
            process = self._any_process()
            if process is not None:
                value = self.unique().encode()
                try:
                    await self.rpc(process, lambda p=process, v=value: p.coordinator.resolve_awakeable(invocation, index, v), 20.0)  # type: ignore[misc]
                    self.count("awakeable resolved from outside")
                    times -= 1
                except (Gone, CoordinatorUnavailable, TimeoutError, StoreUnavailable):
                    pass
            await asyncio.sleep(0.2)

    async def _output(self, invocation: InvocationId) -> None:
        process = self._any_process()
        if process is None:
            return
        ended = self._ended_since(invocation)
        try:
            found = await self.rpc(process, lambda: process.coordinator.output(invocation), 20.0)
        except (Gone, CoordinatorUnavailable, TimeoutError):
            return
        self.count(f"output: {type(found).__name__}")
        if isinstance(found, Success | Failed):
            self._observe(invocation, found)
        elif isinstance(found, NotReady):
            # A reader may be shown what its owner's lease allows, not older (storage design §4.5).
            if (
                ended is not None
                and self.loop.time() - ended > 20.0 + self.settings.lease_s
                and len(self.oracle.lives[str(invocation)]) == 1
            ):
                raise Violation(f"I6: {invocation} is said not to be ready, it ended {self.loop.time() - ended:.1f} s ago")
        elif str(invocation) not in self.purged and self.must_exist(str(invocation)):
            raise Violation(f"I1: {invocation} was acknowledged and is said not to exist")

    def _ended_since(self, invocation: InvocationId) -> float | None:
        life = self.oracle.life(str(invocation))
        return life.ended_at if life is not None and life.result is not None else None

    def must_exist(self, invocation: str) -> bool:
        """Not ended, or not so long ago that its retention may be over."""
        life = self.oracle.life(invocation)
        return life is not None and life.result is None and len(self.oracle.lives[invocation]) == 1

    async def _attach(self, invocation: InvocationId, target: Target) -> None:
        while True:
            process = self._any_process()
            if process is not None:
                try:
                    outcome = await self.rpc(process, lambda p=process: p.coordinator.attach(invocation), 30.0)  # type: ignore[misc]
                except (Gone, CoordinatorUnavailable, TimeoutError):
                    pass
                else:
                    if isinstance(outcome, NotFound):
                        life = self.oracle.life(str(invocation))
                        if life is None or (life.result is None and len(self.oracle.lives[str(invocation)]) == 1):
                            raise Violation(f"I1: {invocation} was acknowledged and is said not to exist")
                    else:
                        self.count("attach answered")
                        self._observe(invocation, outcome)
                    return
            await asyncio.sleep(0.3)

    async def _read(self, verb: str, invocation: InvocationId) -> None:
        process = self._any_process()
        if process is None:
            return
        try:
            if verb == "list":
                rows = await self.rpc(process, lambda: process.coordinator.list_invocations(InvocationFilter(limit=500)), 20.0)
                self.count("listed")
                for row in rows:
                    self.oracle.acknowledged(row["id"], "a row")
            else:
                await self.rpc(process, lambda: process.coordinator.describe(invocation), 20.0)
                self.count("described")
        except (Gone, CoordinatorUnavailable, TimeoutError, StoreUnavailable):
            return

    def _observe(self, invocation: InvocationId, outcome: Any) -> None:
        """Whoever is told a result is told the one and only, and that one is durable."""
        lives = self.oracle.lives.get(str(invocation), [])
        told = [self._told(life.result) for life in lives if life.result is not None]
        seen = (True, outcome.value) if isinstance(outcome, Success) else (False, outcome.code, outcome.message)
        if seen not in told:
            raise Violation(f"invariant 2, I1: the result of {invocation} is said to be {seen}, durable are {told}")

    def _told(self, result: Any) -> Any:
        return (True, self.oracle.bytes_of(result[1])) if result[0] == "v" else (False, result[1], result[2])

    async def _operator(self) -> None:
        """Resumes what has used up its attempts; cancels what was run again and waits for what only its ancestor was sent."""
        while True:
            await asyncio.sleep(2.0)
            for name in self._unfinished():
                document = self.oracle.document(name)
                if self.oracle.lives[name][-1].ancestors and document is not None and document[model.STATUS] == Status.SUSPENDED:
                    await self._operate("cancel", InvocationId.parse(name))
                if document is not None and document[model.STATUS] == Status.PAUSED:
                    self.count("paused at rest")
                    await self._operate("resume", InvocationId.parse(name))

    def at(self, address: str) -> Process | None:
        for process in self.processes:
            if process.name == address and process.alive:
                return process
        return None

    def any_process(self, random: Random) -> Process | None:
        serving = [process for process in self.processes if process.serves()]
        return random.choice(serving) if serving else None

    def _any_process(self) -> Process | None:
        serving = [process for process in self.processes if process.serves()]
        return self.random.choice(serving) if serving else None

    async def rpc(self, process: Process, work: Callable[[], Coroutine[Any, Any, Any]], timeout_s: float) -> Any:
        """Ask a process as an HTTP client does: the answer comes, or is lost, or the connection breaks. Raises Gone, TimeoutError."""
        answer: asyncio.Future[Any] = self.loop.create_future()
        number = process.connect(answer)
        self.loop.create_task(self._serve(process, work, answer), context=process.context.copy())
        try:
            async with asyncio.timeout(timeout_s):
                outcome = await answer
        except PeerUnavailable as error:
            raise Gone from error
        finally:
            process.connections.pop(number, None)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _serve(self, process: Process, work: Callable[[], Coroutine[Any, Any, Any]], answer: asyncio.Future[Any]) -> None:
        try:
            outcome = await work()
        except EXPECTED as error:
            outcome = error
        except Exception as error:
            self.fail(error)
            return
        if self.fault_rate and self.random.random() < self.fault_rate * 0.1:
            self.count("client answer lost")
            outcome = Gone()
        self.loop.call_later(0.001, _set, answer, outcome, context=self.context)

    # -- the nemesis

    async def _nemesis(self) -> None:
        random = self.random
        pace = random.choice([0.5, 2.0, 6.0])
        while self.fault_rate:
            await asyncio.sleep(random.random() * pace)
            serving = [process for process in self.processes if process.serves()]
            if not self.fault_rate or not serving:
                continue
            process = random.choice(serving)
            match random.choice(["crash", "crash", "pause", "pause", "sleep", "stop", "store", "lease", "peers", "trap", "trap"]):
                case "crash":
                    process.blow = lambda p=process: self.crash(p)
                    process.fuse = random.randrange(200)
                case "pause":
                    process.blow = lambda p=process: self.pause(p, random.choice([0.3, 4.0, 12.0]))
                    process.fuse = random.randrange(200)
                case "sleep":
                    self.pause(process, random.choice([20.0, 90.0]))
                case "stop":
                    self.stop(process)
                case "store":
                    self.count("store outage")
                    self.store_down = True
                    await asyncio.sleep(random.choice([0.3, 3.0, 6.0]))
                    self.store_down = False
                case "lease":
                    self.count("cut off from the store")
                    self.cut_off.append(process)
                    self.loop.call_later(random.choice([1.0, 4.0, 8.0]), self._mend, self.cut_off, process, context=self.context)
                case "peers":
                    self.count("cut off from its peers")
                    self.cut_off_peers.append(process)
                    self.loop.call_later(random.choice([1.0, 4.0]), self._mend, self.cut_off_peers, process, context=self.context)
                case "trap":
                    self.trap = random.choice(TRAPS)

    def _mend(self, cut: list[Any], process: Process) -> None:
        if process in cut:
            cut.remove(process)

    def spring(self, process: Any) -> None:
        """The process has just got the answer that a trap was set for."""
        name, self.trap = self.trap, None
        if self.random.random() < 0.6:
            self.count(f"crash after {name}")
            self.crash(process)
        else:
            self.count(f"pause after {name}")
            self.pause(process, self.random.choice([1.0, 5.0, 30.0]))

    def crash(self, process: Process) -> None:
        if not process.alive:
            return
        self.count("crash")
        process.alive = False
        process.paused = False
        process.held.clear()
        for answer in list(process.connections.values()):
            self.loop.call_soon(_break, answer, context=self.context)
        process.connections.clear()
        if self.fault_rate:
            self.loop.call_later(self.random.choice([0.01, 1.0, 4.0]), self._replace, process, context=self.context)

    def _replace(self, process: Process) -> None:
        if process in self.processes:
            self.processes[self.processes.index(process)] = Process(self, process.name + "'")

    def pause(self, process: Process, seconds: float) -> None:
        if process.paused or not process.alive:
            return
        self.count("pause" if seconds < 20 else "pause of minutes")
        process.paused = True
        self.loop.call_later(seconds, self._wake, process, context=self.context)

    def _wake(self, process: Process) -> None:
        if process.alive and process.paused:
            self.count("woken from a pause")
            self.loop.resume(process)

    def stop(self, process: Process) -> None:
        self.count("graceful stop")
        process.stopping = True
        self.loop.create_task(self._stop(process), context=process.context.copy())
        self.loop.call_later(5.0, self.crash, process, context=self.context)

    async def _stop(self, process: Process) -> None:
        await process.node.stop()
        self.count("handed over")
        self.loop.call_soon(self.crash, process, context=self.context)


def _set(answer: asyncio.Future[Any], outcome: Any) -> None:
    if not answer.done():
        answer.set_result(outcome)


def _break(answer: asyncio.Future[Any]) -> None:
    if answer.done():
        return
    if answer.get_loop() is not None:
        answer.set_exception(PeerUnavailable("the process died"))


def awakeable(invocation: InvocationId, index: int) -> str:
    return ids.awakeable_id(invocation, index)
