"""One coordinator process: its shards, its membership, and the way of any request to the owner of its shard."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from holdfast_runtime.coordinator import owner, recovery, requests
from holdfast_runtime.coordinator.channels import Unreachable
from holdfast_runtime.coordinator.environment import Environment, Slots
from holdfast_runtime.coordinator.lanes import Lanes
from holdfast_runtime.coordinator.membership import Membership
from holdfast_runtime.coordinator.requests import Reply, Request
from holdfast_runtime.coordinator.settings import Settings
from holdfast_runtime.coordinator.shard import Fenced, Shard
from holdfast_runtime.engine.events import Arrive, Arrived, Message
from holdfast_runtime.engine.registry import RegistryView
from holdfast_runtime.ports.endpoint import Endpoint
from holdfast_runtime.ports.metrics import Metrics
from holdfast_runtime.ports.peers import Peers, PeerUnavailable
from holdfast_runtime.ports.store import Member, ShardRecord, Store, StoreUnavailable
from holdfast_runtime.ports.system import Clock, Entropy
from holdfast_runtime.ports.wakeups import Wakeups

log = logging.getLogger("holdfast.node")

SOON_S: Final = 0.05
LOOK_S: Final = 0.5
_NOT_OWNER: Final = {"error": "not owner"}
_NOT_UNDERSTOOD: Final = {"error": "not understood"}


class Node:
    """Start with `start`, end with `stop` (hand-over) or by dying: both lose nothing."""

    def __init__(
        self,
        *,
        store: Store,
        endpoint: Endpoint,
        clock: Clock,
        entropy: Entropy,
        registry: Callable[[], RegistryView],
        settings: Settings,
        peers: Peers | None = None,
        address: str = "",
        wakeups: Wakeups | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.clock = clock
        self.entropy = entropy
        self.store = store
        self.settings = settings
        self.process_id = entropy.bytes(8).hex()
        self.shards: dict[int, Shard] = {}
        self.registry = registry
        self.metrics = metrics or Metrics()
        self._peers = peers
        self._address = address
        self._membership = Membership(self.process_id, settings, clock)
        slots = Slots(settings.max_attempts_in_flight)
        self._environment = Environment(
            clock=clock,
            entropy=entropy,
            store=store,
            settings=settings,
            endpoint=endpoint,
            registry=registry,
            deliver=self._deliver,
            shard_lost=self._lost,
            slots=slots,
            lanes=Lanes(clock, entropy, registry, slots, settings.attempts_per_deployment),
            owned_shards=lambda: max(1, len(self.shards)),
            wakeups=wakeups,
            metrics=self.metrics,
        )
        self._counter = 0
        self._looked_at = -LOOK_S  # when a request that waits for an owner last read who owns what
        self._tasks: set[asyncio.Task[Any]] = set()
        self._taking: set[int] = set()
        self._stopping = False
        self._owned = asyncio.Event()

    # -- life

    async def start(self) -> None:
        """Join and begin to take shards; returns after the first round."""
        await self._round()
        self._spawn(self._heartbeat())

    async def until_ready(self, timeout_s: float) -> None:
        """Wait until this process can serve: it owns a shard, or others own them all; alone on its store, until it owns them all."""
        async with asyncio.timeout(timeout_s):
            while not self._is_ready():
                self._owned.clear()
                await self._owned.wait()

    def _is_ready(self) -> bool:
        if self.settings.exclusive_store:
            return len(self.shards) == self.store.shards
        return bool(self.shards) or self._membership.all_owned()

    async def stop(self) -> None:
        """Hand every shard over: stop accepting, flush, checkpoint, release."""
        self._stopping = True
        for task in list(self._tasks):
            task.cancel()
        for shard in list(self.shards.values()):
            await self._hand_over(shard)
        try:
            await self.store.leases.leave(self.process_id)
        except StoreUnavailable as error:
            log.warning("leave.failed", extra={"error": str(error)})

    async def _hand_over(self, shard: Shard) -> None:
        try:
            if await shard.hand_over():
                await self._release(shard.number, shard.epoch)
        except Exception:  # it accepts nothing any more: whoever takes it next starts from what is durable
            log.exception("release.failed", extra={"shard": shard.number})
        if self.shards.get(shard.number) is shard:
            del self.shards[shard.number]
        shard.abandon()

    async def _release(self, number: int, epoch: int) -> None:
        try:
            await self.store.leases.release(number, epoch=epoch)
        except StoreUnavailable as error:
            log.warning("release.failed", extra={"shard": number, "error": str(error)})

    # -- membership

    async def _heartbeat(self) -> None:
        while True:
            # No later than the moment a silent process is presumed dead: its clients wait for just that.
            await self.clock.sleep(min(self.settings.heartbeat_s, max(self._membership.next_death_s(), SOON_S)))
            for shard in list(self.shards.values()):
                shard.tire()  # its own loop may be what is stuck
            try:
                await self._round()
            except StoreUnavailable as error:
                self.metrics.store_errors["lease"] += 1
                log.warning("heartbeat.failed", extra={"error": str(error)})
            except Exception:  # without a heartbeat the process would live on and do nothing
                log.exception("heartbeat.failed")

    async def _round(self) -> None:
        """Raise our counter, see the others', renew our leases, take what is ours to take."""
        self._counter += 1
        await self.store.leases.heartbeat(Member(self.process_id, self._counter, self._address))
        asked_at = self.clock.monotonic()  # before asking: the answer may be older than its arrival
        records, members = await self.store.leases.read()
        self._membership.saw(records, members, asked_at)
        for shard in list(self.shards.values()):
            shard.flusher.watch()
            record = records.get(shard.number)
            if record is not None and record.epoch == shard.epoch:
                shard.lease_seen_at = max(shard.lease_seen_at, asked_at)
            elif record is not None and record.epoch > shard.epoch:
                shard.fence(f"epoch {record.epoch} was taken by {record.owner or 'nobody'}")
        if self._stopping:
            return
        for record in self._membership.to_release():
            held = self.shards.get(record.shard)
            if held is not None and held.accepting:
                self._spawn(self._hand_over(held))
            elif held is None and record.shard not in self._taking:
                # Lost by a stale lease, or its release failed, and meanwhile it belongs to another: nobody takes what a living process
                # holds.
                self._spawn(self._release(record.shard, record.epoch))
        wanted = [record for record in self._membership.to_take() if record.shard not in self._taking and record.shard not in self.shards]
        if wanted:
            self._spawn(self._take_all(wanted))

    async def _take_all(self, wanted: Sequence[ShardRecord]) -> None:
        self._taking.update(record.shard for record in wanted)
        try:
            for number, record in enumerate(wanted):
                if number and not self.settings.exclusive_store:
                    await self.clock.sleep(self.settings.take_interval_s)
                await self._take(record)
        finally:
            self._taking.difference_update(record.shard for record in wanted)

    async def _take(self, record: ShardRecord) -> None:
        try:
            shard = await recovery.take(record, self.process_id, self._environment)
        except StoreUnavailable as error:
            self.metrics.store_errors["lease"] += 1
            log.warning("take.failed", extra={"shard": record.shard, "error": str(error)})
            return
        except Exception:  # of this shard; others wait for their turn behind it
            log.exception("take.failed", extra={"shard": record.shard})
            return
        if shard is None or self._stopping:
            return
        self.metrics.shards_taken += 1
        self.shards[record.shard] = shard
        shard.start()
        self._owned.set()

    @property
    def slots_waiting(self) -> int:
        """Attempts that wait for their deployment, or for one of `max_attempts_in_flight` to end."""
        return self._environment.lanes.waiting() + self._environment.slots.waiting

    def unowned(self) -> int:
        """Shards that no living process holds, as far as this one has seen."""
        return self._membership.unowned(self.shards)

    def _lost(self, number: int, shard: Shard) -> None:
        if self.shards.get(number) is shard:
            del self.shards[number]

    # -- routing

    async def arrive(self, shard_number: int, event: Arrive, *, wait: bool) -> Arrived:
        """`ask` for arrivals, which are the most frequent: at an owner in this process nothing has to be made ready for a network."""
        shard = self.shards.get(shard_number)
        if shard is not None:
            try:
                owner.check(shard)
                return await owner.arrive(shard, event, wait=wait)
            except Fenced:
                event = replace(event, fresh=False)
        return requests.parse_arrived(await self.ask(shard_number, requests.arrive(event, wait=wait)))

    async def ask(self, shard_number: int, request: Request) -> Reply:
        """Have the owner of the shard serve the request, wherever it is; repeated while the owner changes.

        Raises TimeoutError when nobody serves it within the acknowledgement limit. Waiting for a result at an owner is not bounded.
        """
        limit = self.settings.acknowledge_timeout_s
        deadline = self.clock.monotonic() + limit
        delay = 0.02
        while True:
            asked_at = self.clock.monotonic()
            reply = await self._ask_once(shard_number, request)
            if reply is not None:
                return reply
            now = self.clock.monotonic()
            if now - asked_at > limit:  # it waited at an owner for long: that one had acknowledged it
                deadline = now + limit
            if now >= deadline:
                raise TimeoutError(f"no owner of shard {shard_number} answered within {limit:g} s")
            if request["ask"] == "arrive":
                request = again(request)
            elif request["ask"] == "look":
                request = {**request, "again": True}
            await self.clock.sleep(delay)
            delay = min(delay * 2, 0.5)
            await self._look_for_owners()

    async def _look_for_owners(self) -> None:
        """Whoever waits for a shard learns of its new owner as soon as there is one, not at our next heartbeat. One reading for all."""
        now = self.clock.monotonic()
        if now - self._looked_at < LOOK_S or self.settings.exclusive_store:
            return
        self._looked_at = now
        try:
            records, members = await self.store.leases.read()
        except StoreUnavailable:
            return
        self._membership.saw(records, members, now)

    async def _ask_once(self, shard_number: int, request: Request) -> Reply | None:
        """None: not served, ask again."""
        shard = self.shards.get(shard_number)
        if shard is not None:
            try:
                return await owner.serve(shard, request)
            except Fenced:
                return None
        address = self._membership.address_of(shard_number)
        if address is None or self._peers is None:
            return None
        if request["ask"] == "arrive":
            request = again(request)  # the network may deliver it late or twice: nobody can know there that it is the first time
        try:
            reply = await self._peers.ask(address, {**request, "shard": shard_number})
        except PeerUnavailable:
            return None
        return None if reply.get("error") else reply

    async def serve_peer(self, request: Request) -> Reply:
        """A request that another process has routed here."""
        shard = self.shards.get(request["shard"])
        if shard is None:
            return _NOT_OWNER
        try:
            return await owner.serve(shard, request)
        except Fenced:
            return _NOT_OWNER
        except requests.NotUnderstood as unknown:
            log.warning("peers.newer", extra={"what": str(unknown)})  # while a deployment rolls: we are the one that will be replaced
            return _NOT_UNDERSTOOD

    async def _deliver(self, destination: int, source: int, messages: Sequence[tuple[int, Message]]) -> int:
        reply = await self._ask_once(destination, requests.receive(source, list(messages)))
        if reply is None:
            raise Unreachable(f"nobody owns shard {destination} just now")
        applied: int = reply["applied"]
        return applied

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def again(request: Request) -> Request:
    """The same arrival, sent again: its id may be known by now."""
    event = requests.parse_arrive(request)
    if not event.fresh:
        return request
    return requests.arrive(replace(event, fresh=False), wait=request["wait"])
