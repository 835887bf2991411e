"""Draining the inbox queue: each message becomes what it asks for, then it is deleted (storage design §8).

Rules: a message is deleted only when all it asks for is durable, so nothing is lost when this process dies at any instant; what a second
delivery asks for exists already, because ids and idempotency keys come with the message; one that cannot be accepted is left alone, its
queue moves it to the dead-letter queue after the number of receives it allows, and others go on meanwhile. One that could not be accepted
for want of a shard's owner or of the store is put off, more each time, because an outage must not use up its receives.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Final

from holdfast.protocol.ids import IdError, InvocationId, parse_awakeable_id
from holdfast_runtime.coordinator.front import (
    MAX_REASON_BYTES,
    CoordinatorUnavailable,
    Front,
    NewInvocation,
    RegisterDeployment,
    RegistrationError,
    Target,
)
from holdfast_runtime.engine.registry import CONCURRENCY, HandlerKind, HandlerRevision, RegistryView
from holdfast_runtime.ports import inbox
from holdfast_runtime.ports.inbox import (
    Event,
    Inbox,
    InboxMessage,
    InboxUnavailable,
    Invoke,
    MessageMalformed,
    Received,
    Register,
    Reject,
    Resolve,
    Wake,
)
from holdfast_runtime.ports.metrics import Metrics
from holdfast_runtime.ports.system import Clock
from holdfast_runtime.surfaces.inbox_events import Subscription, events, subscriptions

log = logging.getLogger("holdfast.inbox")

MAX_BESIDE_BODY: Final = 64 * 1024  # bytes of key, headers and the like, as the ingress allows; they stand in the log as they are
RECEIVERS: Final = 2  # at a time: one waits for messages while another's are accepted
RETRY_S: Final = 1.0  # after the queue could not be reached; doubled up to a minute


class _End(Enum):
    ACCEPTED = "deleted: what it asks for is durable"
    LEFT = "its queue decides: it comes again, or goes to the dead-letter queue"
    LATER = "put off"


class InboxDrain:
    """`start` and `close`. `counts`: messages by what became of them ("accepted", "refused", "failed")."""

    def __init__(self, front: Front, queue: Inbox, clock: Clock, metrics: Metrics | None = None) -> None:
        self._front = front
        self._queue = queue
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []
        self._view: RegistryView | None = None
        self._subscriptions: Sequence[Subscription] = ()
        self.counts = (metrics or Metrics()).inbox

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._receive(), name=f"inbox:{number}") for number in range(RECEIVERS)]

    async def close(self) -> None:
        """What was received and not finished comes again, to another process."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _receive(self) -> None:
        delay = RETRY_S
        while True:
            try:
                messages = await self._queue.receive()
                ends = await asyncio.gather(*map(self._accept, messages))
                finished = [message for message, end in zip(messages, ends, strict=True) if end is _End.ACCEPTED]
                if finished:
                    await self._queue.delete(finished)
                await self._postpone([message for message, end in zip(messages, ends, strict=True) if end is _End.LATER])
                delay = RETRY_S
            except InboxUnavailable as problem:
                log.warning("inbox.unavailable", extra={"error": str(problem), "retry_in_s": delay})
                await self._clock.sleep(delay)
                delay = min(delay * 2, 60.0)
            except Exception:
                log.exception("inbox.broken")  # a fault of ours: the messages come again
                await self._clock.sleep(delay)

    async def _postpone(self, messages: Sequence[Received]) -> None:
        if not messages:
            return
        try:
            await self._queue.postpone(messages)
        except InboxUnavailable as problem:  # such as a role without the permission: they come again after a minute
            log.warning("inbox.not_postponed", extra={"error": str(problem)})

    async def _accept(self, received: Received) -> _End:
        facts = {"message_id": received.id, "deliveries": received.count}
        try:
            for message in self._parse(received):
                await self._perform(message)
        except MessageMalformed as problem:
            self.counts["refused"] += 1
            log.warning("inbox.refused", extra={**facts, "reason": str(problem)})
            return _End.LEFT
        except CoordinatorUnavailable as problem:
            self.counts["failed"] += 1
            log.warning("inbox.failed", extra={**facts, "error": str(problem)})
            return _End.LATER
        except Exception:
            self.counts["failed"] += 1
            log.exception("inbox.broken", extra=facts)
            return _End.LEFT
        self.counts["accepted"] += 1
        return _End.ACCEPTED

    def _parse(self, received: Received) -> Sequence[InboxMessage]:
        try:
            document = json.loads(received.body)
        except (ValueError, RecursionError) as problem:
            raise MessageMalformed(f"expected JSON, found {inbox.shape(received.body)} that is none: {problem}") from None
        ours = inbox.decode(document)
        if ours is not None:
            return [ours]
        view = self._front.registry
        if view is not self._view:
            self._subscriptions, self._view = subscriptions(view), view
        return events(received, document, self._subscriptions, view)

    async def _perform(self, message: InboxMessage) -> None:
        """Durable when this returns."""
        match message:
            case Invoke():
                await self._invoke(message)
            case Event():
                await self._happen(message)
            case Resolve():
                awakeable = _awakeable(message.awakeable)
                await self._front.resolve_awakeable(*awakeable, message.value)
            case Reject():
                awakeable = _awakeable(message.awakeable)
                _bounded("the reason of a rejection", [message.message], MAX_REASON_BYTES)
                await self._front.reject_awakeable(*awakeable, message.message)
            case Register():
                await self._register(message)
            case Wake():
                pass  # every owner reads the timer pages that come near; the message has woken one if none was there

    async def _invoke(self, message: Invoke) -> None:
        self._handler(message.service, message.handler, message.key)
        headers = [text for header in message.headers for text in header]
        _bounded("key, idempotency key and headers", [message.key or "", message.idempotency_key or "", *headers], MAX_BESIDE_BODY)
        delay_ms = None
        if message.execute_at_ms is not None:
            delay_ms = max(0, message.execute_at_ms - self._clock.now_ms())
        target = Target(message.service, message.handler, message.key)
        invocation = NewInvocation(target, message.body, message.headers, message.idempotency_key, delay_ms, from_queue=True)
        try:
            invocation_id = InvocationId.parse(message.id)
        except IdError as problem:
            raise MessageMalformed(f"expected an invocation id, found {message.id!r}: {problem.reason}") from problem
        await self._front.send(invocation_id, invocation)

    async def _register(self, message: Register) -> None:
        """Nothing changes for a function that is known, nor for one whose deployment has been given up: its stack went back meanwhile."""
        if message.until_ms is not None and self._clock.now_ms() > message.until_ms:
            log.warning("inbox.late", extra={"arn": message.arn, "until_ms": message.until_ms})
            return
        limit = {} if message.concurrency is None else {CONCURRENCY: str(message.concurrency)}
        request = RegisterDeployment(arn=message.arn, assume_role_arn=message.assume_role_arn, force=message.force, metadata=limit)
        try:
            registered = await self._front.register(request)
        except RegistrationError as refused:
            raise MessageMalformed(f"{message.arn} cannot be registered: {refused}") from refused
        log.info("inbox.registered", extra={"arn": message.arn, "deployment": registered.deployment.id, "new": registered.created})

    async def _happen(self, event: Event) -> None:
        """The id of the event is the idempotency key; a workflow's run has its own, the key."""
        handler = self._handler(event.service, event.handler, event.key)
        _bounded("the event's id and key", [event.id, event.key or ""], MAX_BESIDE_BODY)
        idempotency_key = None if handler.kind is HandlerKind.RUN else f"event:{event.id}"
        body = json.dumps(event.body, separators=(",", ":")).encode()
        headers = [("content-type", "application/json"), ("x-holdfast-event-id", event.id)]
        target = Target(event.service, event.handler, event.key)
        invocation = NewInvocation(target, body, headers, idempotency_key, from_queue=True)
        await self._front.send(self._front.mint(invocation), invocation)

    def _handler(self, service: str, handler: str, key: str | None) -> HandlerRevision:
        view = self._front.registry
        found = view.services.get(service)
        if found is None:
            raise MessageMalformed(f"service '{service}' is not registered; known: {', '.join(sorted(view.services)) or 'none'}")
        revision = found.handlers.get(handler)
        if revision is None:
            raise MessageMalformed(f"service '{service}' has no handler '{handler}'; it has: {', '.join(sorted(found.handlers))}")
        if found.keyed != (key is not None):
            raise MessageMalformed(f"{service}/{handler} is called {'with' if key is None else 'without'} a key")
        return revision


def _bounded(what: str, texts: Iterable[str], limit: int) -> None:
    """Refused here: what the log cannot hold would cost a shard its owner, each time the message comes."""
    try:
        size = sum(len(text.encode()) for text in texts)
    except UnicodeEncodeError as problem:
        raise MessageMalformed(f"expected Unicode text as {what}, found half of a surrogate pair: {problem.reason}") from None
    if size > limit:
        raise MessageMalformed(f"{what} may have {limit} bytes, found {size}; large values belong in the body")


def _awakeable(text: str) -> tuple[InvocationId, int]:
    try:
        awakeable = parse_awakeable_id(text)
    except IdError as problem:
        raise MessageMalformed(f"expected an awakeable's id, found {text!r:.60}: {problem.reason}") from problem
    return awakeable.invocation, awakeable.index
