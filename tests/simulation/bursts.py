"""Short calls, several in a moment, that end at once and are kept: what packs are made of. Some are purged, or asked for later."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

from holdfast_runtime.coordinator.front import CoordinatorUnavailable, Done, NotFound

if TYPE_CHECKING:
    from holdfast.protocol.ids import InvocationId

    from .world import World

SALT = 0x9E3779B97F4A7C15


class Bursts:
    """In a third of the worlds. They have a generator of their own: the other worlds are as they were before there were any."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._chance = Random(world.seed ^ SALT)
        self.come = world.seed % 3 == 0

    async def work(self) -> None:
        world, chance = self._world, self._chance
        while world.fault_rate:
            await asyncio.sleep(chance.choice([0.2, 0.6, 1.5]) * chance.random() * 2)
            for _ in range(chance.choice([3, 5, 8])):
                if world.fault_rate:
                    world.task(self._call())

    async def _call(self) -> None:
        world, chance = self._world, self._chance
        script = chance.choice([[], [], [["run", 5]]])
        target, before = (chance.choice(["Plain", "Plain", "Brittle"]), "run", None), set(world.known)
        await world._request(target, script, world.unique(), None, delay_ms=None)
        new = world.known.keys() - before - world.keyed.keys()  # perhaps also another client's; none that may live again
        mine = [known[0] for name, known in world.known.items() if name in new and known[1] == target]
        if not mine or chance.random() < 0.4:
            return
        await asyncio.sleep(chance.choice([0.5, 2.0, 8.0]) * (0.5 + chance.random()))
        if chance.random() < 0.4:
            await world._output(mine[0])
        elif await world._operate("purge", mine[0]) is Done.APPLIED:
            for _ in range(3):
                await asyncio.sleep(chance.random() * 5)
                await self._must_be_gone(mine[0])

    async def _must_be_gone(self, invocation: InvocationId) -> None:
        from .world import Gone

        world = self._world
        process = world.any_process(self._chance)
        if process is None:
            return
        try:
            found = await world.rpc(process, lambda: process.coordinator.output(invocation), 20.0)
        except (Gone, CoordinatorUnavailable, TimeoutError):
            return
        world.count("looked for what is purged")
        world.oracle.demand(isinstance(found, NotFound), f"I1: {invocation} is purged and shows {found!r}")
