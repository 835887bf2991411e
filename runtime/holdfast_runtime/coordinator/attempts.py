"""Attempts: one execution of a handler each, named by a token. Only the answer to the current token counts (invariant 12).

An attempt first waits for its turn in the lane of its deployment (`lanes`), in memory alone. When the platform refuses to start the
handler, there was no attempt: nothing is written, and it waits again. A process that dies meanwhile leaves a running invocation without an
attempt in the page of active ones, whose next owner starts it. While it waits it is not in flight: no pause has to wait for its end.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from holdfast.protocol import versions
from holdfast_runtime.coordinator.lanes import Turn
from holdfast_runtime.engine import model
from holdfast_runtime.engine.events import AttemptEnd, AttemptFailed, AttemptOver, Operate, Suspended, Verb
from holdfast_runtime.engine.model import Document
from holdfast_runtime.engine.payload import BlobRef
from holdfast_runtime.engine.registry import RegistryView
from holdfast_runtime.engine.response import Response, read_response
from holdfast_runtime.engine.snapshot import Snapshot, Unservable, destination, snapshot
from holdfast_runtime.engine.transaction import NeedPages
from holdfast_runtime.ports.endpoint import EndpointFailure, EndpointRequest, Refusal
from holdfast_runtime.ports.outcomes import failure_of

if TYPE_CHECKING:
    from holdfast_runtime.coordinator.shard import Shard

log = logging.getLogger("holdfast.attempt")


# A platform that has trouble with this invocation alone, time and again, is not in trouble: then it is a failed attempt after all, which
# the retry policy counts, and which pauses the invocation in the end. Long enough for a function that is being changed.
MAX_TROUBLES: Final = 10
TROUBLE_S: Final = 600.0


@dataclass(slots=True, eq=False)
class Token:
    """An attempt, from its first wait to its end. turn: while it is in flight.

    lane: where it waits, or waited last. follows: the service whose newest deployment that is; None: it is pinned to it.
    refusal: why the platform did not start it when it was last tried, at `refused_at_ms`, at the deployment `refused_by`.
    """

    attempts: Attempts
    invocation: str
    turn: Turn | None = None
    lane: str | None = None
    follows: str | None = None
    refusal: EndpointFailure | None = None
    refused_at_ms: int = 0
    refused_by: str = ""
    troubles: int = 0
    trouble_since: float = 0.0

    def begin(self, turn: Turn) -> bool:
        return self.attempts.begin(self, turn)

    def stays(self, view: RegistryView) -> bool:
        if self.follows is None:
            return True
        latest = view.deployment_of(self.follows)
        return self.lane == (latest.id if latest is not None else "")

    def wait(self) -> None:
        self.attempts.wait(self)

    def reason(self) -> list[Any]:
        """The refusal, as the reason of a failed attempt is kept in the page (`engine.attempts`), for who wonders why nothing happens."""
        assert self.refusal is not None
        return [self.refusal.code, str(self.refusal), self.refusal.error_code, None, None, None, "", self.refused_at_ms, self.refused_by]


class Attempts:
    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._tokens: dict[str, Token] = {}  # invocation -> its attempt, in flight or waiting
        self._closed = False

    def close(self) -> None:
        """Start no more attempts (hand-over); answers of those in flight are dropped by the next owner's tokens."""
        self._closed = True
        self._shard.environment.lanes.drop(lambda holder: isinstance(holder, Token) and holder.attempts is self)

    def __len__(self) -> int:
        """In flight, and waiting for their turn."""
        return len(self._tokens)

    def in_flight(self, invocation: str) -> bool:
        token = self._tokens.get(invocation)
        return token is not None and token.turn is not None

    def refused(self, invocation: str) -> Token | None:
        """Its attempt, if that waits because the platform has refused to start the handler."""
        token = self._tokens.get(invocation)
        return token if token is not None and token.refusal is not None else None

    def start(self, invocation: str) -> None:
        """Start an attempt unless one is in flight or waits: the end of that one decides what is next."""
        if self._closed:
            return
        known = self._tokens.get(invocation)
        if known is not None and not self._was_moved(known):
            return
        self._tokens[invocation] = Token(self, invocation)
        self.wait(self._tokens[invocation])

    def _was_moved(self, token: Token) -> bool:
        """It waits for a deployment that it was taken from meanwhile (paused, and resumed with another): there it may wait for ever."""
        if token.turn is not None or token.lane is None:
            return False
        page = self._shard.pages.get(model.invocation_page(token.invocation))
        if page is None or page.document is None:
            return False
        return destination(self._shard.environment.registry(), page.document) != token.lane

    def wait(self, token: Token) -> None:
        """For the turn of its deployment, as its page says, which has to be read if it is not in memory."""
        if not self._is_wanted(token):
            return
        shard, environment = self._shard, self._shard.environment
        page = shard.pages.get(model.invocation_page(token.invocation))
        if page is None:
            environment.loads.take(lambda: self._read(token))
            return
        document = page.document
        if document is None or document[model.STATUS] != model.Status.RUNNING or self._is_later(token.invocation, document):
            self._forget(token)
            return
        if document.get(model.PAUSE_REQUESTED):  # of an attempt that was lost with its process; this one may wait for long
            shard.spawn(self._pause_if_asked(token.invocation, token))
        token.lane = destination(environment.registry(), document)
        token.follows = document[model.TARGET][0] if document.get(model.DEPLOYMENT) is None else None
        environment.lanes.enter(token.lane, token)

    def _read(self, token: Token) -> bool:
        if not self._is_wanted(token):
            return False
        task = self._shard.spawn(self._load(token))
        task.add_done_callback(lambda _: self._shard.environment.loads.give_back())
        return True

    async def _load(self, token: Token) -> None:
        await self._shard.load([model.invocation_page(token.invocation)])
        self.wait(token)

    def begin(self, token: Token, turn: Turn) -> bool:
        """It is its turn. False: it is not wanted any more."""
        if not self._is_wanted(token):
            return False
        page = self._shard.pages.get(model.invocation_page(token.invocation))
        if page is not None and (page.document is None or page.document[model.STATUS] != model.Status.RUNNING):  # it was paused
            self._forget(token)
            return False
        token.turn = turn
        task = self._shard.spawn(self._run(token.invocation, token, turn))
        task.add_done_callback(lambda _: turn.over())
        return True

    def _is_wanted(self, token: Token) -> bool:
        return not self._closed and self._tokens.get(token.invocation) == token

    def _forget(self, token: Token) -> None:
        if self._tokens.get(token.invocation) == token:
            del self._tokens[token.invocation]

    def overtake(self, invocation: str) -> None:
        """The answer of the attempt in flight does not count any more."""
        self._tokens.pop(invocation, None)

    async def _run(self, invocation: str, token: Token, turn: Turn) -> None:
        try:
            await self._attempt(invocation, token, turn)
        finally:
            if token.turn is turn:  # else it waits again, or has another turn already
                self._forget(token)

    async def _attempt(self, invocation: str, token: Token, turn: Turn) -> None:
        try:
            await self._exchange(invocation, token, turn)
        except Unservable as error:
            await self._failed(invocation, token, AttemptFailed(503, str(error), error.error_code))
        except Exception as error:
            if self._shard.fenced:
                raise
            # A bug of ours, or a blob that is gone: it must cost this invocation an attempt, not its shard's other invocations their owner.
            log.exception("attempt.broken", extra={"invocation_id": invocation})
            text = f"the coordinator could not process this attempt: {type(error).__name__}: {error}"
            await self._failed(invocation, token, AttemptFailed(500, text, "RT0006"))

    async def _failed(self, invocation: str, token: Token, end: AttemptFailed) -> None:
        await self._commit(invocation, token, 1, "", versions.MAX_VERSION, Response([], end))

    async def _exchange(self, invocation: str, token: Token, turn: Turn) -> None:
        shard = self._shard
        taken = await self._snapshot(invocation, token)
        if taken is None:
            return
        if taken.deployment.id != turn.deployment:  # another serves it since it began to wait
            token.turn = None
            self.wait(token)
            return
        contents = {ref.id: await self._blob(ref) for ref in taken.blobs()}
        await shard.until_durable(taken.lsn)
        shard.check_lease()
        if self._tokens.get(invocation) != token:
            return
        response = await self._call(taken, taken.body(contents))
        if isinstance(response, EndpointFailure):
            await self._refused(taken, token, turn, response)
            return
        turn.answered()
        token.refusal = None
        for blob_id, content in response.blobs.items():
            await shard.insist(partial(shard.environment.store.blobs.put, blob_id, content))
        await self._commit(invocation, token, taken.known, taken.deployment.id, taken.version, response)

    async def _snapshot(self, invocation: str, token: Token) -> Snapshot | None:
        """None: it is not running any more, or its retry is not due (then the timer is set)."""
        shard = self._shard
        while True:
            shard.check()
            if self._tokens.get(invocation) != token:
                return None
            tx = shard.transaction()
            try:
                document = tx.get(model.invocation_page(invocation))
                if document is not None and self._is_later(invocation, document):
                    return None
                return snapshot(tx, invocation, eager_state_bytes=shard.environment.settings.eager_state_bytes)
            except NeedPages as needed:
                await shard.load(needed.page_ids)

    def _is_later(self, invocation: str, document: Document) -> bool:
        """Its retry is not due; then the timer is set."""
        retry = document.get(model.RETRY)
        if retry and retry[2] is not None and retry[2] > self._shard.environment.clock.now_ms():
            self._shard.timers.retry_at(retry[2], invocation)
            return True
        return False

    async def _blob(self, ref: BlobRef) -> bytes:
        content: bytes = await self._shard.insist(lambda: self._shard.environment.store.blobs.get(ref.id))
        return content

    async def _call(self, taken: Snapshot, body: bytes) -> Response | EndpointFailure:
        """One exchange; whatever goes wrong is a failed attempt, except that the platform refuses to start the handler."""
        address = taken.deployment.address
        request = EndpointRequest("POST", taken.path, taken.headers, body)
        timeout_s = taken.abort_timeout_ms / 1000
        self._shard.environment.metrics.attempts_started += 1
        try:
            answer = await self._shard.environment.endpoint.request(address, request, timeout_s=timeout_s)
            failed = failure_of(answer, taken.headers["content-type"], now_ms=self._shard.environment.clock.now_ms())
        except EndpointFailure as error:
            failed = error
        if failed is not None and failed.refusal is not None:
            return failed
        if failed is not None:
            log.info("attempt.failed", extra={"invocation_id": taken.invocation, "code": failed.code, "error": str(failed)})
            end = AttemptFailed(failed.code, str(failed), failed.error_code, failed.retry_after_ms, hopeless=failed.hopeless)
            return Response([], end)
        limit = self._shard.environment.settings.max_message_bytes
        return read_response(taken.invocation, answer.body, version=taken.version, broken=answer.broken, max_message_bytes=limit)

    async def _refused(self, taken: Snapshot, token: Token, turn: Turn, failure: EndpointFailure) -> None:
        """The handler did not run: wait for another turn. A pause that was to wait for the attempt's end has nothing to wait for."""
        environment = self._shard.environment
        if failure.refusal is Refusal.TROUBLE and self._is_enough(token):
            text = f"{failure}; it has been so for {TROUBLE_S / 60:g} minutes, so this counts as a failed attempt"
            await self._failed(taken.invocation, token, AttemptFailed(failure.code, text, failure.error_code))
            return
        environment.metrics.attempts_ended["throttled"] += 1
        token.refusal, token.refused_at_ms, token.refused_by = failure, environment.clock.now_ms(), taken.deployment.id
        token.turn = None
        turn.refused(retry_after_ms=failure.retry_after_ms, last=failure.refusal is Refusal.TROUBLE, reason=str(failure))
        await self._pause_if_asked(taken.invocation, token)

    def _is_enough(self, token: Token) -> bool:
        """One more trouble: is it one that lasts?"""
        now = self._shard.environment.clock.monotonic()
        token.troubles += 1
        if token.troubles == 1:
            token.trouble_since = now
        return token.troubles >= MAX_TROUBLES and now - token.trouble_since >= TROUBLE_S

    async def _pause_if_asked(self, invocation: str, token: Token) -> None:
        """What an operator has asked for while it was in flight happens now that it waits."""
        shard = self._shard

        def is_asked() -> bool:
            page = shard.pages.get(model.invocation_page(invocation))
            waits = self._is_wanted(token) and token.turn is None
            return waits and (page is None or bool((page.document or {}).get(model.PAUSE_REQUESTED)))

        if is_asked():
            await shard.perform(Operate(Verb.PAUSE, invocation), guard=is_asked)

    async def _commit(self, invocation: str, token: Token, known: int, deployment: str, version: int, response: Response) -> None:
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
        return "failed"
    return "suspended" if isinstance(end, Suspended) else "ended"
