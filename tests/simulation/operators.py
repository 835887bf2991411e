"""Operators of a simulated world: they do everything to any invocation and any key, at any moment, and ask again when an answer is lost.

A request has one id however often it is sent: until it is answered, at once a second time, and once more seconds later. What the log shows
of it is judged by `operator_checks`.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any, Final

from holdfast.protocol import ids, messages
from holdfast.protocol.ids import InvocationId
from holdfast_runtime.coordinator import requests
from holdfast_runtime.coordinator.front import CoordinatorUnavailable, Failed, InvocationFilter, NotFound, Scan, Success
from holdfast_runtime.engine import model, pinning, state_edit
from holdfast_runtime.engine.events import Operated, Restart, Verb
from holdfast_runtime.engine.model import Status
from holdfast_runtime.engine.payload import VOID, success
from holdfast_runtime.ports.store import StoreUnavailable

from .checkers import Violation
from .deployed import DEPLOYMENTS, Stage
from .scripts import KEYS, NAMES, OBJECTS

if TYPE_CHECKING:
    from .processes import Process
    from .world import World

MAX_RESTARTS: Final = 5  # each runs a whole script again
TRIES: Final = 5
LATEST_BIRTHS: Final = 25  # among which operators choose
WAYS: Final = ("output", "attach", "describe", "list", "scan", "named scan", "operate")
DONE: Final = (Operated.APPLIED, Operated.ACCEPTED)
LOST: Final = (CoordinatorUnavailable, TimeoutError, StoreUnavailable)


class Operators:
    """`chance` is a generator of its own: worlds without operators take the course that they took before there were any."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.chance = Random(f"operators of {world.seed}")
        self._restarts = 0
        self._edited: set[tuple[str, str]] = set()  # keys with an edit under way

    async def work(self) -> None:
        world, chance = self._world, self.chance
        pace = chance.choice([0.15, 0.4, 1.0])
        while world.fault_rate:
            await asyncio.sleep(pace * chance.random() * 2)
            if world.fault_rate:
                world.task(self._act())

    async def registry(self) -> None:
        """Deployments come and go, settings change; every process learns of it when it looks."""
        world, chance = self._world, self.chance
        while world.fault_rate:
            await asyncio.sleep(chance.choice([1.0, 4.0]) * chance.random() * 2)
            if world.fault_rate:
                world.stage = Stage.drawn(chance, world.stage)
                world.count("registry changed")
                self.spread()

    def spread(self, at_most_s: float = 2.0) -> None:
        world, view = self._world, self._world.stage.view()
        world.view = view
        for process in world.processes:
            world.loop.call_later(at_most_s * self.chance.random(), process.learn, view, context=process.context.copy())

    async def sickness(self) -> None:
        world, chance = self._world, self.chance
        while world.fault_rate:
            await asyncio.sleep(6.0 * chance.random())
            world.sick = world.fault_rate > 0
            await asyncio.sleep(chance.choice([0.3, 1.5]))
            world.sick = False

    async def clocks(self) -> None:
        """The wall clock of a process jumps, by up to a minute to either side of the truth."""
        world, chance = self._world, self.chance
        while world.fault_rate:
            await asyncio.sleep(3.0 * chance.random())
            serving = [process for process in world.processes if process.alive]
            if world.fault_rate and serving:
                world.count("clock jumped")
                world.set_clock(chance.choice(serving), chance.choice([-60_000, -5_000, 0, 5_000, 60_000]))

    async def _act(self) -> None:
        verbs = ["pause", "pause", "resume", "move", "purge journal", "restart", "restart", "edit", "edit", "look", "look", "signal"]
        if self._world.meddles:
            verbs += ["cancel", "kill", "purge"]
        chance, verb = self.chance, self.chance.choice(verbs)
        match verb:
            case "edit":
                await self._edit()
            case "restart":
                await self._restart()
            case "look":
                await self._look()
            case "signal":
                await self._signal_somebody()
            case "move":
                name = self._somebody(Status.PAUSED, Status.SUSPENDED, Status.RUNNING, pinned=True)
                await self.operate(Verb.RESUME, name, chance.choice([pinning.LATEST, *DEPLOYMENTS[:2], *DEPLOYMENTS]))
            case "pause":
                name = self._somebody(Status.RUNNING, Status.SUSPENDED)
                if await self.operate(Verb.PAUSE, name) is Operated.ACCEPTED and chance.random() < 0.6:  # it has not begun
                    await self.operate(chance.choice([Verb.CANCEL, Verb.RESUME] if self._world.meddles else [Verb.RESUME]), name)
            case "resume":
                await self.operate(Verb.RESUME, self._somebody(Status.PAUSED, Status.RUNNING))
            case "purge journal":
                await self.operate(Verb.PURGE_JOURNAL, self._somebody(Status.DONE))
            case "purge":
                known = list(self._world.known)
                await self.operate(Verb.PURGE, self.chance.choice(known) if known else None)
            case _:
                await self.operate(Verb(verb), self._somebody(*Status))

    def _somebody(self, *statuses: Status, pinned: bool = False) -> str | None:
        """An invocation that was born lately, of one of the statuses, and pinned if it is to be, if there is one."""
        oracle = self._world.oracle
        names = list(oracle.lives)[-LATEST_BIRTHS:]
        if not names:
            return None
        documents = {name: oracle.document(name) or {} for name in names}
        fitting = [name for name in names if documents[name].get(model.STATUS) in statuses]
        if pinned:
            fitting = [name for name in fitting if documents[name].get(model.DEPLOYMENT) is not None] or fitting
        return self.chance.choice(fitting if fitting and self.chance.random() < 0.85 else names)

    def _over_with_journal(self) -> str | None:
        oracle = self._world.oracle
        documents = ((name, oracle.document(name) or {}) for name in oracle.lives)
        found = [name for name, document in documents if document.get(model.STATUS) == Status.DONE and document[model.LENGTH]]
        return self.chance.choice(found) if found else None

    # -- requests that are known by an id

    async def operate(self, verb: Verb, invocation: str | None, deployment: str | None = None) -> Operated | None:
        if invocation is None:
            return None
        world, request_id = self._world, self.chance.randbytes(8)
        if verb is Verb.PURGE:
            world.purges.add(invocation)
        world.oracle.operators.asked(request_id, verb, invocation, deployment)
        request = requests.operate(verb, invocation, request_id, deployment)
        self._later(invocation, request)
        reply = await self._until_answered(invocation, request)
        if reply is None:
            return None
        answer = requests.parse_operated(reply)
        world.count(f"operator: {verb.value}: {answer.value}")
        if answer in DONE:
            world.oracle.operators.answered(request_id, verb, invocation, answer)
            if verb is Verb.PURGE:
                world.purged.add(invocation)
        elif answer is Operated.NOT_FOUND and world.must_exist(invocation):
            raise Violation(f"I1: {invocation} was seen and is said not to exist when it is to be {verb.value}d")
        return answer

    def _later(self, invocation: str, request: dict[str, Any]) -> None:
        """The request is delivered again: at once, or seconds later; nobody waits for its answer."""
        if self.chance.random() < 0.4:
            self._world.count("operator's request delivered again")
            delay = self.chance.choice([0.001, 0.05, 1.0, 6.0, 12.0])
            self._world.task(self._repeat(invocation, request, delay))

    async def _repeat(self, invocation: str, request: dict[str, Any], delay: float) -> None:
        await asyncio.sleep(delay)
        await self._once(invocation, request)

    async def _until_answered(self, invocation: str, request: dict[str, Any]) -> dict[str, Any] | None:
        for _ in range(TRIES):
            reply = await self._once(invocation, request)
            if reply is not None:
                return reply
            await asyncio.sleep(0.2)
        return None

    async def _once(self, invocation: str, request: dict[str, Any]) -> dict[str, Any] | None:
        """None: no answer, whatever has happened."""
        process = self._world.any_process(self.chance)
        if process is None:
            return None
        return await self._rpc(process, lambda p: p.coordinator._ask(InvocationId.parse(invocation), request))  # type: ignore[no-any-return]

    async def _rpc(self, process: Process, work: Any) -> Any:
        from .world import Gone

        try:
            return await self._world.rpc(process, lambda: work(process), 20.0)
        except (Gone, *LOST):
            return None

    # -- restart

    async def _restart(self) -> None:
        world, chance = self._world, self.chance
        old, process = self._over_with_journal() if chance.random() < 0.8 else self._somebody(Status.DONE), world.any_process(chance)
        if old is None or process is None or self._restarts >= MAX_RESTARTS:
            return
        self._restarts += 1
        entries = world.oracle.lives[old][-1].entries
        commands = [index for index, entry in enumerate(entries) if messages.is_command(entry[0] << 8 | entry[1])]
        upto = chance.choice([0, 0, chance.randrange(len(entries) + 2), *(chance.choice(commands or [0]) for _ in range(2))])
        now = process.clock.now_ms()
        new = str(ids.random_invocation_id(InvocationId.parse(old).partition_key, now, chance.randbytes(10)))
        where = chance.choice([pinning.LATEST, None, *DEPLOYMENTS[:2]])
        event = Restart(old, new, chance.randbytes(8), now, upto, where)
        world.oracle.operators.asked_restart(event)
        request = requests.restart(event)
        self._later(old, request)
        reply = await self._until_answered(old, request)
        if reply is not None:
            answer = requests.parse_operated(reply)
            world.count(f"restart: {answer.value}")
            if answer is Operated.APPLIED:
                world.oracle.acknowledged(new, "a restart")
                world.known[new] = (InvocationId.parse(new), tuple(world.oracle.lives[new][-1].target[:3]))
                if world.meddles and chance.random() < 0.4:
                    await self.operate(Verb.KILL, new)
                    await self.operate(Verb.PURGE, new)
                    await self._once(old, request)  # what it has made came and went: it makes no other

    # -- state

    async def _edit(self) -> None:
        """Replace the state of a key, sometimes only if it is still the one that was read."""
        world, chance = self._world, self.chance
        service, key = chance.choice(OBJECTS), chance.choice(KEYS)
        process = world.any_process(chance)
        if process is None or (service, key) in self._edited:
            return
        self._edited.add((service, key))
        seen = None
        if chance.random() < 0.5:
            seen = await self._rpc(process, lambda p: p.coordinator.state(service, key))
            if seen is None:
                self._edited.discard((service, key))
                return
            world.count("state read")
        values = world.oracle.edits.new(service, key, seen, chance)
        version = state_edit.version_of(seen) if seen is not None else None
        for _ in range(TRIES):
            process = world.any_process(chance)
            if process is not None:
                done = await self._rpc(process, lambda p: self._edited_state(p, service, key, values, version))
                if done:
                    world.count("state edited")
                    world.oracle.edits.acknowledged(values)
                    break
            await asyncio.sleep(0.2)
        self._edited.discard((service, key))

    async def _edited_state(self, process: Process, service: str, key: str, values: dict[str, bytes], version: str | None) -> bool:
        self._world.oracle.edits.asks(values)
        await process.coordinator.edit_state(service, key, values, version)
        return True

    # -- signals

    async def _signal_somebody(self) -> None:
        """To whom nobody may know, or who is over: no harm."""
        invocation = self._somebody(Status.SUSPENDED, Status.PAUSED, Status.RUNNING)
        if invocation is not None:
            await self.signal(InvocationId.parse(invocation), "stray")

    async def signal(self, invocation: InvocationId, name: str) -> None:
        """Until it is acknowledged: it may arrive more than once."""
        value = b"outside " + self._world.unique().encode()
        result = success(value) if self.chance.random() < 0.8 else VOID
        while True:
            if await self._once(str(invocation), requests.signal(str(invocation), name, result)) is not None:
                self._world.count("signal from outside")
                return
            await asyncio.sleep(0.2)

    # -- looking at what is over

    async def _look(self) -> None:
        """In every way there is. What was over by all clocks when it was asked for is shown to nobody."""
        world, chance = self._world, self.chance
        process = world.any_process(chance)
        over = [name for name, lives in world.oracle.lives.items() if world.is_over(lives[-1])]
        if process is None or not over:
            return
        await self.look_for(chance.choice(over), chance.choice(WAYS), process)

    async def look_for(self, name: str, way: str, process: Process) -> None:
        world = self._world
        invocation, life, jumps = InvocationId.parse(name), world.oracle.lives[name][-1], world.jumps
        seen = await self._rpc(process, lambda p: self._seen(p, way, invocation))
        if seen is None:
            return
        world.count(f"looked for what is over: {way}")
        if seen and world.oracle.lives[name][-1] is life and jumps == world.jumps and name not in world.purged:
            raise Violation(f"expiry: {name} was over at {life.expires_at} and is shown by {way}")

    async def _seen(self, process: Process, way: str, invocation: InvocationId) -> bool:
        coordinator = process.coordinator
        match way:
            case "output":
                return isinstance(await coordinator.output(invocation), Success | Failed)
            case "attach":
                return not isinstance(await coordinator.attach(invocation), NotFound)
            case "describe":
                return await coordinator.describe(invocation) is not None
            case "list":
                rows = await coordinator.list_invocations(InvocationFilter(limit=500))
                return str(invocation) in [row["id"] for row in rows]
            case "operate":
                request = requests.operate(Verb.PURGE_JOURNAL, str(invocation), b"")
                return requests.parse_operated(await coordinator._ask(invocation, request)) is not Operated.NOT_FOUND
            case _:
                where = {"id": [str(invocation)]} if way == "named scan" else {"status": ["completed"]}
                found = await coordinator.scan(Scan("invocations", ["id"], where, limit=2_000))
                return str(invocation) in [row[0] for row in found.rows]


def edit_values(marker: str, chance: Random) -> dict[str, bytes]:
    """A whole state. Its value `e`, which no handler writes, tells in the log which edit it was."""
    values = {"e": marker.ljust(chance.choice([0, 40, 70]), ".").encode()}
    for name in NAMES:
        if chance.random() < 0.4:
            values[name] = f"{marker}{name}".ljust(chance.choice([0, 60, 300, 900]), "=").encode()
    return values
