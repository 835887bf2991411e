"""Attempts: one execution of a handler each, named by a token. Only the answer to the current token counts (invariant 12)."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

from holdfast.protocol import versions
from holdfast_runtime.engine import model
from holdfast_runtime.engine.events import AttemptEnd, AttemptFailed, AttemptOver, Suspended
from holdfast_runtime.engine.payload import BlobRef
from holdfast_runtime.engine.response import Response, read_response
from holdfast_runtime.engine.snapshot import Snapshot, Unservable, snapshot
from holdfast_runtime.engine.transaction import NeedPages
from holdfast_runtime.ports.endpoint import EndpointFailure, EndpointRequest
from holdfast_runtime.ports.outcomes import failure_of

if TYPE_CHECKING:
    from holdfast_runtime.coordinator.shard import Shard

log = logging.getLogger("holdfast.attempt")


class Attempts:
    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._tokens: dict[str, int] = {}  # invocation -> token of its attempt in flight
        self._counter = 0
        self._closed = False

    def close(self) -> None:
        """Start no more attempts (hand-over); answers of those in flight are dropped by the next owner's tokens."""
        self._closed = True

    def __len__(self) -> int:
        """In flight, and waiting for their turn."""
        return len(self._tokens)

    def in_flight(self, invocation: str) -> bool:
        return invocation in self._tokens

    def start(self, invocation: str) -> None:
        """Start an attempt unless one is in flight, in which case that one's end decides what is next."""
        if invocation in self._tokens or self._closed:
            return
        self._counter += 1
        self._tokens[invocation] = self._counter
        token = self._counter
        self._shard.environment.slots.take(lambda: self._begin(invocation, token))

    def _begin(self, invocation: str, token: int) -> None:
        task = self._shard.spawn(self._run(invocation, token))
        task.add_done_callback(self._slot_free)

    def _slot_free(self, _: asyncio.Task[None]) -> None:
        self._shard.environment.slots.give_back()

    def overtake(self, invocation: str) -> None:
        """The answer of the attempt in flight does not count any more."""
        self._tokens.pop(invocation, None)

    async def _run(self, invocation: str, token: int) -> None:
        try:
            await self._attempt(invocation, token)
        finally:
            if self._tokens.get(invocation) == token:
                del self._tokens[invocation]

    async def _attempt(self, invocation: str, token: int) -> None:
        try:
            await self._exchange(invocation, token)
        except Unservable as error:
            await self._failed(invocation, token, AttemptFailed(503, str(error), error.error_code))
        except Exception as error:
            if self._shard.fenced:
                raise
            # A bug of ours, or a blob that is gone: it must cost this invocation an attempt, not its shard's other invocations their owner.
            log.exception("attempt.broken", extra={"invocation_id": invocation})
            text = f"the coordinator could not process this attempt: {type(error).__name__}: {error}"
            await self._failed(invocation, token, AttemptFailed(500, text, "RT0006"))

    async def _failed(self, invocation: str, token: int, end: AttemptFailed) -> None:
        await self._commit(invocation, token, 1, "", versions.MAX_VERSION, Response([], end))

    async def _exchange(self, invocation: str, token: int) -> None:
        shard = self._shard
        taken = await self._snapshot(invocation, token)
        if taken is None:
            return
        contents = {ref.id: await self._blob(ref) for ref in taken.blobs()}
        await shard.until_durable(taken.lsn)
        shard.check_lease()
        if self._tokens.get(invocation) != token:
            return
        response = await self._call(taken, taken.body(contents))
        for blob_id, content in response.blobs.items():
            await shard.insist(partial(shard.environment.store.blobs.put, blob_id, content))
        await self._commit(invocation, token, taken.known, taken.deployment.id, taken.version, response)

    async def _snapshot(self, invocation: str, token: int) -> Snapshot | None:
        """None: it is not running any more, or its retry is not due (then the timer is set)."""
        shard = self._shard
        while True:
            shard.check()
            if self._tokens.get(invocation) != token:
                return None
            tx = shard.transaction()
            try:
                document = tx.get(model.invocation_page(invocation))
                retry = document.get(model.RETRY) if document is not None else None
                if retry and retry[2] is not None and retry[2] > tx.now:
                    shard.timers.retry_at(retry[2], invocation)
                    return None
                return snapshot(tx, invocation, eager_state_bytes=shard.environment.settings.eager_state_bytes)
            except NeedPages as needed:
                await shard.load(needed.page_ids)

    async def _blob(self, ref: BlobRef) -> bytes:
        content: bytes = await self._shard.insist(lambda: self._shard.environment.store.blobs.get(ref.id))
        return content

    async def _call(self, taken: Snapshot, body: bytes) -> Response:
        """One exchange; whatever goes wrong is a failed attempt."""
        address = taken.deployment.address
        request = EndpointRequest("POST", taken.path, taken.headers, body)
        timeout_s = taken.abort_timeout_ms / 1000
        self._shard.environment.metrics.attempts_started += 1
        try:
            answer = await self._shard.environment.endpoint.request(address, request, timeout_s=timeout_s)
            failed = failure_of(answer, taken.headers["content-type"], now_ms=self._shard.environment.clock.now_ms())
        except EndpointFailure as error:
            failed = error
        if failed is not None:
            log.info("attempt.failed", extra={"invocation_id": taken.invocation, "code": failed.code, "error": str(failed)})
            end = AttemptFailed(failed.code, str(failed), failed.error_code, failed.retry_after_ms, throttled=failed.throttled)
            return Response([], end)
        limit = self._shard.environment.settings.max_message_bytes
        return read_response(taken.invocation, answer.body, version=taken.version, broken=answer.broken, max_message_bytes=limit)

    async def _commit(self, invocation: str, token: int, known: int, deployment: str, version: int, response: Response) -> None:
        shard = self._shard
        jitter = shard.environment.entropy.fraction()
        shard.environment.metrics.attempts_ended[_how(response.end)] += 1
        event = AttemptOver(invocation, known, response.frames, response.end, deployment, version, jitter)
        await shard.perform(event, guard=lambda: self._tokens.get(invocation) == token)
        # The token goes in the same instant as the decision: what it started follows when the decision is durable, and finds no attempt
        # in flight.
        if self._tokens.get(invocation) == token:
            del self._tokens[invocation]


def _how(end: AttemptEnd) -> str:
    """The label of `Metrics.attempts_ended`."""
    if isinstance(end, AttemptFailed):
        return "throttled" if end.throttled else "failed"
    return "suspended" if isinstance(end, Suspended) else "ended"
