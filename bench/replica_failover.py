"""How long clients feel that a replica is gone, with the default times: see `replica_chaos --failover`.

One client per shard asks without a pause, and fails over when a replica does not answer. What it waits for is its shard's owner: the
longest answer around a crash is how long that shard could not be reached.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from bench.replica_load import Client
from bench.replicas import Replica, owners
from holdfast.protocol.ids import keyed_partition_key
from holdfast_runtime.engine.model import shard_of_key

if TYPE_CHECKING:
    from bench.replica_chaos import World

AWAY_S: Final = 20.0  # until a killed process is started again: longer than anybody needs to take over
PAUSE_S: Final = 60.0
CALM_S: Final = 3.0  # of undisturbed service before the next crash


async def failover(made: World, crashes: int, *, pausing: bool) -> tuple[list[float], list[float]]:
    """Seconds without an answer: per crash and shard that the lost replica owned; and per crash and other shard."""
    of_shard = keys(made.shards)
    answered: dict[int, list[tuple[float, float]]] = {shard: [] for shard in of_shard}  # (began, ended)
    probes = [asyncio.create_task(_probe(made.client, key, answered[shard])) for shard, key in of_shard.items()]
    lost: list[float] = []
    others: list[float] = []
    try:
        for number in range(crashes):
            replica = made.replicas[number % len(made.replicas)]
            owned_by = await _spread(made)
            await asyncio.sleep(CALM_S)
            began = time.monotonic()
            made.counts["pause" if pausing else "kill"] += 1
            await _disappear(replica, made, pausing=pausing)
            for shard, found in answered.items():
                longest = max((end - start for start, end in found if end > began), default=0.0)
                (lost if owned_by[shard] == replica.address else others).append(longest)
            await _start_again(replica, made)
    finally:
        for probe in probes:
            probe.cancel()
    return lost, others


async def _spread(made: World) -> dict[int, str]:
    """Shard -> address of its owner, once all are owned and every replica has some."""
    while True:
        found = await owners()
        if len(found) == made.shards and len(set(found.values())) == len(made.replicas):
            return found


async def _disappear(replica: Replica, made: World, *, pausing: bool) -> None:
    if pausing:
        replica.pause()
        await asyncio.sleep(PAUSE_S)
        replica.resume()
    else:
        await replica.kill()
        await asyncio.sleep(AWAY_S)


async def _start_again(replica: Replica, made: World) -> None:
    if not replica.running:
        await replica.start()
    await replica.until_ready(made.session)


async def _probe(client: Client, key: str, answered: list[tuple[float, float]]) -> None:
    while True:
        began = time.monotonic()
        await client.insist("GET", f"/Sequence/{key}/seen")
        answered.append((began, time.monotonic()))
        await asyncio.sleep(0.02)


def keys(shards: int) -> dict[int, str]:
    """A key for each shard."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < shards:
        found.setdefault(shard_of_key(keyed_partition_key(str(number)), shards), str(number))
        number += 1
    return found
