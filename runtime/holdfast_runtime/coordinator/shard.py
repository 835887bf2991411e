"""The owner of one shard: its pages in memory, its log, and the one door by which anything happens to it.

A transition runs without an await between its last check and its last write (invariant 3); its operations join the open batch; one append
is in
flight while the next batch collects; effects run when their batch is durable (invariant 2). Whoever is fenced drops everything and does
nothing more.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final

from holdfast_runtime.coordinator import packing
from holdfast_runtime.coordinator.attempts import Attempts
from holdfast_runtime.coordinator.channels import Channels
from holdfast_runtime.coordinator.environment import Environment
from holdfast_runtime.coordinator.flush import Flusher
from holdfast_runtime.coordinator.pages import document_of, note_end
from holdfast_runtime.coordinator.timers import Timers
from holdfast_runtime.engine import blob_ids, model
from holdfast_runtime.engine.decide import Answered, decide, transaction
from holdfast_runtime.engine.effects import Answer, ArmTimer, Effect, RetryAt, SendMessages, StartAttempt
from holdfast_runtime.engine.events import Event
from holdfast_runtime.engine.operations import encode
from holdfast_runtime.engine.payload import Result
from holdfast_runtime.engine.transaction import NeedPages, Page, Transaction
from holdfast_runtime.ports.store import LogItem, StoredPage, StoreUnavailable

log = logging.getLogger("holdfast.shard")

LAST_ROUNDS: Final = 20  # of a hand-over, while something still happens; then what is left is in the log, as ever
CANCELLED_CODE: Final = 409  # of what was cancelled or killed (service protocol §3.11)


class Fenced(Exception):
    """This process does not own the shard any more: ask the new owner."""


class Shard:
    """Created by `recovery.take` with the pages the log touches; `start` begins to act."""

    def __init__(self, number: int, epoch: int, nonce: bytes, environment: Environment, *, pages: dict[str, Page], sealed_at: int) -> None:
        self.number = number
        self.epoch = epoch
        self.nonce = nonce
        self.environment = environment
        self.pages = pages
        self.open = self.next = sealed_at + 1  # number of the batch that collects; position of the next append
        self.last_closed = sealed_at  # number of the batch that was closed last
        self.durable = sealed_at  # number of the last durable batch
        self.fenced = False
        self.accepting = True
        self.lease_seen_at = environment.clock.monotonic()
        self.waiters: dict[str, list[asyncio.Future[Result]]] = {}
        self.log_bytes = 0  # appended since everything was flushed for the log's size
        self.written = 0  # bytes of all batches closed in this ownership
        self._operations: list[list[Any]] = []
        self._effects: list[Effect] = []
        self._durable_waiters: deque[tuple[int, asyncio.Future[None], float]] = deque()  # batch, who waits, gives up at
        self._work: asyncio.Future[None] | None = None
        self._loading: dict[str, asyncio.Future[None]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self.attempts = Attempts(self)
        self.channels = Channels(self)
        self.timers = Timers(self)
        self.flusher = Flusher(self)

    # -- transitions

    async def perform(
        self, event: Event, *, guard: Callable[[], bool] | None = None, lazy: bool = False, proven: bool = False
    ) -> tuple[Answered, int]:
        """Decide `event`; its answer, and the number of the batch that must be durable before anybody outside may see it.

        guard: checked in the same instant as the decision; when it says no, nothing happens and the answer is None.
        lazy: the operations may wait for the next batch that has a reason of its own.
        proven: that nothing is to be done is told after a write only. Whoever was overtaken and does not know it yet does not know either
        what has begun since: it would acknowledge a signal to what it has never heard of, and the signal would be lost.
        """
        while True:
            self.check()
            if guard is not None and not guard():
                return None, self.durable
            try:
                return self._perform(event, lazy=lazy, proven=proven)
            except NeedPages as needed:
                await self.load(needed.page_ids)

    def _perform(self, event: Event, *, lazy: bool, proven: bool) -> tuple[Answered, int]:
        tx = self.transaction()
        try:
            answer = decide(tx, event)
        except BaseException:
            tx.rollback()
            raise
        return answer, self._commit(tx, lazy=lazy, proven=proven)

    def transaction(self) -> Transaction:
        environment = self.environment
        return transaction(
            self.pages,
            shard=self.number,
            shards=environment.shards,
            now=environment.clock.now_ms(),
            registry=environment.registry(),
        )

    def _commit(self, tx: Transaction, *, lazy: bool, proven: bool = False) -> int:
        """Operations into the open batch, pages marked; what must be durable for the transition (or for what it read) to be visible."""
        if tx.operations:
            now = self.environment.clock.monotonic()
            metrics = self.environment.metrics
            metrics.transitions += 1
            metrics.invocations_accepted += tx.created
            for page in tx.touched.values():
                page.lsn = self.open
                page.used = now
            self.flusher.dirtied(tx.touched, self.open, now)
            self._operations.extend(tx.operations)
        for invocation in tx.overtaken:
            self.attempts.overtake(invocation)
        self._effects.extend(tx.effects)
        if tx.effects or proven:
            # A transition without operations of its own (resume of something about to run): its effects still wait for what it read.
            self._write_something()
        if self._operations and not lazy:
            self.wake()
        return self.barrier()

    def prove(self) -> int:
        """The batch whose append shows that nobody had overtaken us by now."""
        self._write_something()
        self.wake()
        return self.barrier()

    def _write_something(self) -> None:
        if not self._operations:
            self._operations.append([f"X/{self.number}/nop"])

    def barrier(self) -> int:
        """The batch that holds everything decided so far."""
        return self.open if self._operations else self.last_closed

    # -- pages

    async def load(self, page_ids: Iterable[str]) -> None:
        """Bring pages into memory; a page is never loaded twice at the same time."""
        mine: list[str] = []
        theirs: list[asyncio.Future[None]] = []
        for page_id in dict.fromkeys(page_ids):
            if page_id in self.pages:
                continue
            flight = self._loading.get(page_id)
            if flight is not None:
                theirs.append(flight)
            else:
                mine.append(page_id)
        if mine:
            await self._fetch(mine)
        for flight in theirs:
            await asyncio.shield(flight)
        self.check()

    async def _fetch(self, page_ids: list[str]) -> None:
        flight: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for page_id in page_ids:
            self._loading[page_id] = flight
        try:
            stored = await self.read_pages(page_ids)
            blobs = self.environment.store.blobs
            documents = {page_id: await document_of(page, lambda i: self.insist(lambda: blobs.get(i))) for page_id, page in stored.items()}
            self.check()
            for page_id in page_ids:
                found = stored.get(page_id)
                if found is not None and found.lsn >= self.open:
                    self.fence(f"page {page_id} carries batch {found.lsn}, ahead of ours: another owner has written it")
                    self.check()
                if page_id in self.pages:
                    continue  # replaced as a whole in the meantime
                page = Page(documents.get(page_id), found.lsn if found is not None else -1, stored=found is not None)
                page.used = self.environment.clock.monotonic()
                note_end(page_id, page)
                self.pages[page_id] = page
                self.flusher.loaded(page_id, len(found.document) if found is not None and found.document is not None else 0)
        finally:
            for page_id in page_ids:
                self._loading.pop(page_id, None)
            if not flight.done():
                flight.set_result(None)

    async def read_pages(self, page_ids: Sequence[str]) -> dict[str, StoredPage]:
        """As the store has them, in items of their own or in packs."""
        pages = self.environment.store.pages
        return await packing.find(lambda wanted: self.insist(lambda: pages.get(wanted)), page_ids, self.environment.shards)

    def is_loading(self, page_id: str) -> bool:
        return page_id in self._loading

    async def insist(self, call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Call the store until it answers or the shard is lost. Only for what may be repeated."""
        delay = self.environment.settings.retry_store_s
        while True:
            self.check()
            try:
                return await call()
            except StoreUnavailable as error:
                self.environment.metrics.store_errors["page"] += 1
                log.warning("store.unavailable", extra={"shard": self.number, "error": str(error)})
                self.check_lease()  # a process that stops renews it no more, and must not wait here for ever
                await self.environment.clock.sleep(delay)
                delay = min(delay * 2, 1.0)

    # -- log

    def wake(self) -> None:
        """There is something to append."""
        if self._work is not None and not self._work.done():
            self._work.set_result(None)

    async def _append_loop(self) -> None:
        loop, monotonic, metrics = asyncio.get_running_loop(), self.environment.clock.monotonic, self.environment.metrics
        while True:
            if not self._operations:
                self._work = loop.create_future()
                await self._work
            first, parts, effects = self._close_batch()
            began = monotonic()
            for number, part in enumerate(parts):
                await self._append(LogItem(first + number, self.epoch, self.nonce, first, number, len(parts), part))
            self.check_lease()
            metrics.append_seconds.observe(monotonic() - began)
            metrics.appends += 1
            self.durable = first
            self.next = first + len(parts)
            while self._durable_waiters and self._durable_waiters[0][0] <= first:
                waiter = self._durable_waiters.popleft()[1]
                if not waiter.done():
                    waiter.set_result(None)
            for effect in effects:
                self._act(effect)

    def _close_batch(self) -> tuple[int, list[bytes], list[Effect]]:
        operations, self._operations = self._operations, []
        effects, self._effects = self._effects, []
        parts = _split([encode(operation) for operation in operations], self.environment.settings.part_bytes)
        first = self.open
        self.open = first + len(parts)
        self.last_closed = first
        size = sum(map(len, parts))
        self.log_bytes += size
        self.written += size
        self.environment.metrics.append_bytes += size
        return first, parts, effects

    async def _append(self, item: LogItem) -> None:
        """One position, with the same item until it is written or somebody else is there."""
        delay = self.environment.settings.retry_store_s
        while True:
            self.check_lease()
            try:
                there = await self.environment.store.log.put(self.number, item)
            except StoreUnavailable as error:
                self.environment.metrics.store_errors["append"] += 1
                log.warning("log.retry", extra={"shard": self.number, "position": item.position, "error": str(error)})
                await self.environment.clock.sleep(delay)
                delay = min(delay * 2, 1.0)
                continue
            if there is not None and there.nonce != self.nonce:
                self.fence(f"position {item.position} was written in epoch {there.epoch}")
                self.check()
            return

    async def until_durable(self, lsn: int, *, patience_s: float = math.inf) -> None:
        """Wait until batch `lsn` is in the store. Raises Fenced, and TimeoutError when it takes longer than `patience_s` (checked about
        once a second): then it may still happen."""
        self.check()
        if lsn <= self.durable:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._durable_waiters.append((lsn, waiter, self.environment.clock.monotonic() + patience_s))
        self.wake()
        await waiter

    def tire(self) -> None:
        """Give up on behalf of those who have waited too long. One look a second is cheaper than a timer for each."""
        now = self.environment.clock.monotonic()
        for _, waiter, until in self._durable_waiters:
            if until <= now and not waiter.done():
                waiter.set_exception(TimeoutError("the store has not confirmed the write in time; it may still be done"))

    def _act(self, effect: Effect) -> None:
        match effect:
            case StartAttempt(invocation):
                self.attempts.start(invocation)
            case RetryAt(invocation, at_ms):
                self.timers.retry_at(at_ms, invocation)
            case Answer(invocation, result):
                self.environment.metrics.invocations_finished[_outcome(result)] += 1
                for waiter in self.waiters.pop(invocation, ()):
                    if not waiter.done():
                        waiter.set_result(result)
            case SendMessages(destination, sequence):
                self.channels.send(destination, sequence)
            case ArmTimer(at_ms, hour, number, key):
                self.timers.arm(at_ms, hour, number, key)

    # -- waiting for results

    def wait_for(self, invocation: str) -> asyncio.Future[Result]:
        """Resolved when the invocation ends in this ownership; fails with Fenced when the shard is lost."""
        waiter: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.waiters.setdefault(invocation, []).append(waiter)
        return waiter

    def stop_waiting(self, invocation: str, waiter: asyncio.Future[Result]) -> None:
        waiters = self.waiters.get(invocation)
        if waiters is not None and waiter in waiters:
            waiters.remove(waiter)
            if not waiters:
                del self.waiters[invocation]

    # -- life

    def start(self) -> None:
        """Begin to act: append, run attempts, send messages, fire timers (storage design §4.5, last line of take)."""
        self.spawn(self._append_loop())
        self.spawn(self.flusher.run())
        self.timers.start()
        self.channels.start()
        for page_id in model.active_pages(self.number):
            for invocation in self.pages[page_id].document or ():
                self.attempts.start(invocation)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task that ends with the ownership. Its errors fence the shard: the next owner starts from what is durable."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not isinstance(error, Fenced):
            log.error("shard.failed", exc_info=error, extra={"shard": self.number})
            self.fence(f"{type(error).__name__}: {error}")

    def check(self) -> None:
        if self.fenced:
            raise Fenced(f"shard {self.number} is owned by another process now")

    def check_lease(self) -> None:
        """Raise Fenced, and be it, when the lease is stale: a process that slept for days must not write (storage design §4.5)."""
        self.check()
        if self.is_stale():
            self.fence("the lease is stale: the epoch was not seen for too long")
            self.check()

    def is_stale(self) -> bool:
        return self.environment.clock.monotonic() - self.lease_seen_at > self.environment.settings.lease_s

    def fence(self, reason: str) -> None:
        """Drop everything, cancel all work, run no more effects."""
        if self.fenced:
            return
        self.fenced = True
        self.environment.metrics.shards_lost += 1
        log.info("shard.lost", extra={"shard": self.number, "epoch": self.epoch, "reason": reason})
        self.abandon()
        self.environment.shard_lost(self.number, self)

    def abandon(self) -> None:
        """Forget memory and end all work, silently: waiters learn that they must ask again."""
        self.fenced = True
        self._operations.clear()
        self._effects.clear()
        lost = Fenced(f"shard {self.number} was lost")
        for _, durable_waiter, _ in self._durable_waiters:
            if not durable_waiter.done():
                durable_waiter.set_exception(lost)
        self._durable_waiters.clear()
        for waiters in self.waiters.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(lost)
                    waiter.exception()  # who still waits for durability learns it there, and never asks this one
        self.waiters.clear()
        self.attempts.close()
        self.timers.stop()
        current = asyncio.current_task() if _in_loop() else None
        for task in list(self._tasks):
            if task is not current:
                task.cancel()
        self.pages = {}

    async def hand_over(self) -> bool:
        """Stop accepting, let nothing new start, flush all, checkpoint, end. False: it was lost on the way.

        A shard that is released may rest for longer than its log is kept, so the log must not hold anything that the pages lack: a timer
        that fires meanwhile is one more round.
        """
        self.accepting = False
        self.attempts.close()
        try:
            for _ in range(LAST_ROUNDS):
                await self.flusher.flush_all()
                self.check()
                if self.barrier() <= self.durable and self.flusher.is_all_written():
                    break
                await self.until_durable(self.barrier())
        except Fenced:
            return False
        self.abandon()
        return True


def _outcome(result: Result) -> str:
    """The label of `Metrics.invocations_finished`."""
    if result[0] != "f":
        return "succeeded"
    if result[1] != CANCELLED_CODE:
        return "failed"
    return "killed" if result[2] == "killed" else "cancelled"


def _split(encoded: list[bytes], limit: int) -> list[bytes]:
    """Concatenate into parts of at most `limit` bytes, cut between operations; one that is larger by itself is cut, too: recovery puts the
    parts of a batch together before it decodes them."""
    parts: list[bytes] = []
    current: list[bytes] = []
    size = 0
    for item in encoded:
        while size + len(item) > limit and (current or len(item) > limit):
            if current:
                parts.append(b"".join(current))
                current, size = [], 0
            else:
                cut = blob_ids.cut_at(item, limit)
                parts.append(item[:cut])
                item = item[cut:]
        current.append(item)
        size += len(item)
    parts.append(b"".join(current))
    return parts


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
