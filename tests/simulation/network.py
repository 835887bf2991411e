"""What lies between the processes and the rest of the world: a store and a network that fail in every way their ports allow.

A call may fail before it does anything, succeed and look failed, land seconds after its caller was told that it failed (or has died), be
slow,
or lose its answer. A late write is judged by its condition when it lands. Effects are carried out by the world, never by the process that
asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from holdfast_runtime.adapters.memory import MemoryBlobs, MemoryLeases, MemoryLog, MemoryPages, memory_store
from holdfast_runtime.engine import blob_ids, model
from holdfast_runtime.engine.operations import decode, encode
from holdfast_runtime.ports.inbox import Wake
from holdfast_runtime.ports.peers import PeerUnavailable
from holdfast_runtime.ports.store import LogItem, Member, ShardRecord, Store, StoredPage, StoreUnavailable
from holdfast_runtime.ports.wakeups import WakeupsUnavailable

from .loop import PROCESS

if TYPE_CHECKING:
    from .processes import Process
    from .world import World


def now(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the store in memory waited")


class Wire:
    """One kind of call: when it takes effect and what the caller gets to see."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def call(self, name: str, act: Callable[[], Any], *, write: bool) -> Any:
        world, loop, random = self.world, self.world.loop, self.world.random
        process = PROCESS.get()
        answer: asyncio.Future[Any] = loop.create_future()
        quick = 0.001 + random.random() * 0.008
        fate = random.random() / world.fault_rate if world.fault_rate else 1.0
        if world.store_down or (process is not None and process in world.cut_off):
            fate = random.random() * 0.3
        if fate < 0.1:
            world.count(f"{name} failed")
            loop.call_later(quick, self._fail, answer, name, context=world.context)
        elif fate < 0.2 and write:
            world.count(f"{name} succeeded unseen")
            loop.call_later(quick, act, context=world.context)
            loop.call_later(quick + 0.01, self._fail, answer, name, context=world.context)
        elif fate < 0.3 and write:
            world.count(f"{name} landed late")
            loop.call_later(quick + random.choice([0.05, 0.5, 3.0, 12.0]) * random.random(), act, context=world.context)
            loop.call_later(quick, self._fail, answer, name, context=world.context)
        elif fate < 0.4:
            world.count(f"{name} was slow")
            slow = random.choice([0.1, 1.0, 5.0]) * random.random()
            loop.call_later(slow, self._act, answer, act, quick, context=world.context)
        else:
            loop.call_later(quick, self._act, answer, act, quick if random.random() < 0.3 else 0.0, context=world.context)
        result = await answer
        if process is not None and world.trap == name:
            world.spring(process)
            await asyncio.sleep(0)  # the next step is never taken, or only after the pause
        return result

    def _act(self, answer: asyncio.Future[Any], act: Callable[[], Any], delay: float) -> None:
        result = act()
        if delay:
            self.world.loop.call_later(delay, _resolve, answer, result, context=self.world.context)
        else:
            _resolve(answer, result)

    def _fail(self, answer: asyncio.Future[Any], name: str) -> None:
        if not answer.done():
            answer.set_exception(StoreUnavailable(f"{name} timed out"))


def _resolve(answer: asyncio.Future[Any], result: Any) -> None:
    if not answer.done():
        answer.set_result(result)


class FaultyStore:
    """`ports` is what a process gets; `true` is what the store really holds."""

    def __init__(self, world: World, shards: int) -> None:
        self.true = memory_store(shards)
        wire = Wire(world)
        self.ports = Store(
            _Log(wire, self.true.log),  # type: ignore[arg-type]
            _Pages(wire, self.true.pages),  # type: ignore[arg-type]
            _Leases(wire, self.true.leases),  # type: ignore[arg-type]
            self.true.registry,
            _Blobs(wire, self.true.blobs),
            shards,
        )

    def log_items(self, shard: int) -> dict[int, LogItem]:
        log = self.true.log
        assert isinstance(log, MemoryLog)
        return log._items[shard]

    def pages(self) -> dict[str, StoredPage]:
        pages = self.true.pages
        assert isinstance(pages, MemoryPages)
        return pages._pages

    def record(self, shard: int) -> ShardRecord:
        leases = self.true.leases
        assert isinstance(leases, MemoryLeases)
        return leases._shards[shard]

    def has_blob(self, blob_id: str) -> bool:
        blobs = self.true.blobs
        assert isinstance(blobs, MemoryBlobs)
        return blob_id in blobs._blobs

    def sweep_blobs(self) -> int:
        """Delete what neither log nor pages refer to, as the sweep of the embedded store does; how many."""
        blobs = self.true.blobs
        assert isinstance(blobs, MemoryBlobs)
        logs = (item.operations for shard in range(self.true.shards) for item in self.log_items(shard).values())
        documents = (page.document for page in self.pages().values() if page.document is not None)
        referred = {blob_id for encoded in (*logs, *documents) for blob_id in blob_ids.referenced(encoded)}
        unneeded = [blob_id for blob_id in blobs._blobs if blob_id not in referred]
        for blob_id in unneeded:
            del blobs._blobs[blob_id]
        return len(unneeded)

    def blob(self, blob_id: str) -> bytes:
        return now(self.true.blobs.get(blob_id))  # type: ignore[no-any-return]


class _Log:
    def __init__(self, wire: Wire, log: MemoryLog) -> None:
        self._wire = wire
        self._log = log

    async def put(self, shard: int, item: LogItem) -> LogItem | None:
        world, process = self._wire.world, PROCESS.get()
        if item.operations:
            world.oracle.acts(process, shard)

        def act() -> LogItem | None:
            if item.position < world.store.record(shard).checkpoint and item.position not in self._log._items[shard]:
                return LogItem(item.position, 0, b"", item.position, 0, 1, b"")
            there = self._log._items[shard].get(item.position)
            if there is None:
                now(self._log.put(shard, item))
                world.oracle.log_written(shard, item, process)
            elif there.nonce == item.nonce:
                world.count("log put met its own first try")
            else:
                world.count("log put met another owner")
            return there

        return await self._wire.call("log put", act, write=True)  # type: ignore[no-any-return]

    async def read(self, shard: int, first: int, limit: int) -> Sequence[LogItem]:
        limit = min(limit, self._wire.world.random.randint(1, 8))
        return await self._wire.call("log read", lambda: now(self._log.read(shard, first, limit)), write=False)  # type: ignore


class _Pages:
    def __init__(self, wire: Wire, pages: MemoryPages) -> None:
        self._wire = wire
        self._pages = pages

    async def get(self, page_ids: Sequence[str]) -> Mapping[str, StoredPage]:
        found: Mapping[str, StoredPage] = await self._wire.call("page get", lambda: now(self._pages.get(page_ids)), write=False)
        if any(page_id[0] == "D" for page_id in found):
            self._wire.world.count("pack read")
        return found

    async def put(self, page_id: str, page: StoredPage, *, expires_at_ms: int | None = None) -> bool:
        world = self._wire.world
        world.oracle.page_sent(page_id, page)

        def act() -> bool:
            before = self._pages._pages.get(page_id)
            accepted: bool = now(self._pages.put(page_id, page, expires_at_ms=expires_at_ms))
            world.oracle.page_landed(page_id, page, before, accepted, expires_at_ms)
            return accepted

        return await self._wire.call("pack put" if page_id[0] == "D" else "page put", act, write=True)  # type: ignore[no-any-return]


class _Leases:
    def __init__(self, wire: Wire, leases: MemoryLeases) -> None:
        self._wire = wire
        self._leases = leases

    async def read(self) -> tuple[Mapping[int, ShardRecord], Mapping[str, Member]]:
        asked_at, process = self._wire.world.loop.time(), PROCESS.get()
        records, members = await self._wire.call("leases read", lambda: now(self._leases.read()), write=False)
        if process is not None:
            self._wire.world.oracle.looked(process, records, asked_at)
        return records, members

    async def acquire(self, shard: int, *, seen_epoch: int, owner: str) -> ShardRecord | None:
        def act() -> ShardRecord | None:
            record: ShardRecord | None = now(self._leases.acquire(shard, seen_epoch=seen_epoch, owner=owner))
            self._wire.world.count("take-over" if record is not None else "take-over lost to another")
            return record

        return await self._wire.call("acquire", act, write=True)  # type: ignore[no-any-return]

    async def checkpoint(self, shard: int, *, epoch: int, checkpoint: int, tip: int) -> bool:
        world = self._wire.world

        def act() -> bool:
            before = self._leases._shards[shard]
            accepted: bool = now(self._leases.checkpoint(shard, epoch=epoch, checkpoint=checkpoint, tip=tip))
            if accepted:
                world.oracle.checkpointed(shard, before.checkpoint, checkpoint)
            else:
                world.count("checkpoint refused")
            return accepted

        return await self._wire.call("checkpoint", act, write=True)  # type: ignore[no-any-return]

    async def release(self, shard: int, *, epoch: int) -> bool:
        return await self._wire.call("release", lambda: now(self._leases.release(shard, epoch=epoch)), write=True)  # type: ignore

    async def heartbeat(self, member: Member) -> None:
        await self._wire.call("heartbeat", lambda: now(self._leases.heartbeat(member)), write=True)

    async def leave(self, process_id: str) -> None:
        await self._wire.call("leave", lambda: now(self._leases.leave(process_id)), write=True)


class _Blobs:
    def __init__(self, wire: Wire, blobs: Any) -> None:
        self._wire = wire
        self._blobs = blobs

    async def put(self, blob_id: str, content: bytes) -> None:
        await self._wire.call("blob put", lambda: now(self._blobs.put(blob_id, content)), write=True)

    async def get(self, blob_id: str) -> bytes:
        return await self._wire.call("blob get", lambda: now(self._blobs.get(blob_id)), write=False)  # type: ignore[no-any-return]

    async def delete(self, blob_ids: Sequence[str]) -> None:
        await self._wire.call("blob delete", lambda: now(self._blobs.delete(blob_ids)), write=True)


class SimWakeups:
    """Arranges wake-ups, or does not, or does and does not say so. `chance`: the operators' generator."""

    def __init__(self, world: World, chance: Random) -> None:
        self._world = world
        self._chance = chance

    async def arrange(self, wake: Wake, at_ms: int, *, replace: bool) -> None:
        world, loop, chance = self._world, self._world.loop, self._chance
        page_id = model.timer_page(wake.shard, wake.hour, wake.page)
        world.oracle.demand(
            page_id in world.oracle.shards[wake.shard].history, f"invariant 2: a wake-up for {page_id}, which is not durable"
        )
        answer: asyncio.Future[None] = loop.create_future()
        fate = chance.random() if world.fault_rate else 1.0
        if fate > 0.2:
            loop.call_later(0.002, self._land, (wake.shard, wake.hour, wake.page), at_ms, replace, context=world.context)
        if fate < 0.3:
            world.count("wake-up refused")
            loop.call_later(0.003, _unarranged, answer, context=world.context)
        else:
            loop.call_later(0.003, _resolve, answer, None, context=world.context)
        await answer

    def _land(self, page: tuple[int, int, int], at_ms: int, replace: bool) -> None:
        there = self._world.wakeups.get(page)
        if replace or there is None or there < self._world.earliest_ms():
            self._world.count("wake-up arranged" if there is None else "wake-up moved")
            self._world.wakeups[page] = at_ms


def _unarranged(answer: asyncio.Future[None]) -> None:
    if not answer.done():
        answer.set_exception(WakeupsUnavailable("the scheduler refused"))


class SimPeers:
    """The network between processes. Requests are copied as bytes, lost, doubled, late; answers are lost."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def ask(self, address: str, request: dict[str, Any]) -> dict[str, Any]:
        world, loop, random = self._world, self._world.loop, self._world.random
        sent = encode(request)
        answer: asyncio.Future[bytes] = loop.create_future()
        fate = random.random() / world.fault_rate if world.fault_rate else 1.0
        if PROCESS.get() in world.cut_off_peers:
            fate = random.random() * 0.15
        quick = 0.001 + random.random() * 0.004
        if fate < 0.05:
            world.count("peer request lost")
            loop.call_later(quick, _lost, answer, context=world.context)
        elif fate < 0.1:
            world.count("peer request late")
            loop.call_later(quick, _lost, answer, context=world.context)
            loop.call_later(quick + random.choice([0.2, 2.0, 10.0]), self._serve, address, sent, None, context=world.context)
        elif fate < 0.15:
            world.count("peer answer lost")
            loop.call_later(quick, self._serve, address, sent, None, context=world.context)
            loop.call_later(quick + 0.02, _lost, answer, context=world.context)
        elif fate < 0.2:
            world.count("peer request doubled")
            loop.call_later(quick, self._serve, address, sent, answer, context=world.context)
            loop.call_later(quick + random.choice([0.01, 1.0, 5.0]), self._serve, address, sent, None, context=world.context)
        else:
            loop.call_later(quick, self._serve, address, sent, answer, context=world.context)
        reply: dict[str, Any] = decode(await answer)
        return reply

    def _serve(self, address: str, sent: bytes, answer: asyncio.Future[bytes] | None) -> None:
        process: Process | None = self._world.at(address)
        if process is None or process.node is None:
            if answer is not None:
                _lost(answer)
            return
        number = process.connect(answer) if answer is not None else 0
        self._world.loop.create_task(self._answer(process, decode(sent), answer, number), context=process.context.copy())

    async def _answer(self, process: Process, request: dict[str, Any], answer: asyncio.Future[bytes] | None, number: int) -> None:
        assert process.node is not None
        world = self._world
        try:
            reply = encode(await process.node.serve_peer(request))
        except Exception:
            if answer is not None:
                world.loop.call_later(0.002, _lost, answer, context=world.context)
            raise
        if answer is not None:
            process.connections.pop(number, None)
            world.count("peer answered")
            world.loop.call_later(0.002, _resolve, answer, reply, context=world.context)


def _lost(answer: asyncio.Future[Any]) -> None:
    if not answer.done():
        answer.set_exception(PeerUnavailable("the connection was lost"))
