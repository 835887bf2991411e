"""What the ingress asks, answered without a coordinator: requests go onto the inbox queue, results are read from the table.

Rules: a request is answered with 202 when its message is durable on the queue, and its id is minted here, so that the caller can ask for
the result later and a repeated delivery finds what the first did; the registry is the coordinator's own document, a few seconds old at
most; whoever wants to wait for a result has to ask a coordinator.

Lambda runs one request at a time, so everything here blocks; the methods are coroutines because the ingress awaits them.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NoReturn, Protocol

from holdfast.protocol.ids import InvocationId, awakeable_id
from holdfast_runtime.coordinator import registry_document
from holdfast_runtime.coordinator.front import (
    Accepted,
    CoordinatorUnavailable,
    Failed,
    NewInvocation,
    NotFound,
    NotReady,
    Outcome,
    Success,
    Target,
)
from holdfast_runtime.coordinator.minting import RANDOM_BYTES, mint
from holdfast_runtime.engine import model
from holdfast_runtime.engine.model import Document, Status
from holdfast_runtime.engine.operations import decode
from holdfast_runtime.engine.payload import BlobRef
from holdfast_runtime.engine.registry import RegistryView
from holdfast_runtime.ports.inbox import InboxMessage, InboxUnavailable, Invoke, Reject, Resolve
from holdfast_runtime.surfaces.ingress_replies import Refused

log = logging.getLogger("holdfast.edge")

REGISTRY_AGE_S: Final = 5.0


class TableUnavailable(Exception):
    """The table cannot be read."""


class Table(Protocol):
    """The coordinators' table, read only. Methods raise TableUnavailable."""

    def registry(self, name: str) -> tuple[int, bytes]:
        """(version, document); (0, b"") when nothing was ever registered."""
        ...

    def page(self, page_id: str) -> bytes | None:
        """The stored document. None: never stored, or dropped."""
        ...

    def blob(self, blob_id: str) -> bytes: ...

    @property
    def shards(self) -> int: ...


@dataclass
class EdgeFront:
    """As much of `coordinator.front.Front` as the ingress needs here. `put` raises InboxUnavailable or ValueError."""

    table: Table
    put: Callable[[InboxMessage], None]
    now_s: Callable[[], float] = time.time
    random: Callable[[int], bytes] = os.urandom
    _view: RegistryView | None = None
    _read_at: float = 0.0

    @property
    def registry(self) -> RegistryView:
        now = self.now_s()
        if self._view is None or now - self._read_at > REGISTRY_AGE_S:
            try:
                version, document = self.table.registry(registry_document.DOCUMENT)
            except TableUnavailable as problem:
                if self._view is None:
                    raise CoordinatorUnavailable(f"the registry cannot be read: {problem}", retry_safe=True) from problem
                log.warning("edge.registry_is_old", extra={"error": str(problem)})
            else:
                if self._view is None or version != self._view.version:
                    self._view = registry_document.snapshot(version, registry_document.load(document), registry_document.DefaultSettings())
                self._read_at = now
        return self._view

    def mint(self, invocation: NewInvocation) -> InvocationId:
        handler = self.registry.handler(invocation.target.service, invocation.target.handler)
        assert handler is not None, "the ingress has looked it up in the same registry"
        random, now_ms = self.random(RANDOM_BYTES), int(self.now_s() * 1000)
        return mint(invocation, handler.kind, random, now_ms=now_ms, shards=self.table.shards, preferred=())

    async def call(self, invocation_id: InvocationId, invocation: NewInvocation) -> Outcome:
        _refuse(
            "a call waits for its result, and nobody waits here: append /send, then ask for the output; or call a coordinator's ingress"
        )

    async def send(self, invocation_id: InvocationId, invocation: NewInvocation) -> Accepted:
        """Durable on the queue. Whether the same request came before is not known here, so it counts as new."""
        execute_at = None if invocation.delay_ms is None else int(self.now_s() * 1000) + invocation.delay_ms
        target = invocation.target
        self._put(
            Invoke(
                id=str(invocation_id),
                service=target.service,
                handler=target.handler,
                key=target.key,
                headers=invocation.headers,
                body=invocation.body,
                idempotency_key=invocation.idempotency_key,
                execute_at_ms=execute_at,
            ),
            retry_safe=invocation.idempotency_key is not None,
        )
        return Accepted(invocation_id, True, execute_at)

    async def attach(self, invocation_id: InvocationId) -> Outcome | NotFound:
        _refuse(
            "attach waits for the result, and nobody waits here: ask for the output again and again, or attach at a coordinator's ingress"
        )

    async def output(self, invocation_id: InvocationId) -> Outcome | NotReady | NotFound:
        """From the stored page. What is only in the log yet counts as not completed; a page that was never stored as unknown."""
        try:
            stored = self.table.page(model.invocation_page(str(invocation_id)))
            return NotFound() if stored is None else self._outcome(decode(stored))
        except TableUnavailable as problem:
            raise CoordinatorUnavailable(f"the table cannot be read: {problem}", retry_safe=True) from problem

    def _outcome(self, document: Document) -> Outcome | NotReady | NotFound:
        if document[model.STATUS] != Status.DONE:
            return NotReady()
        expires_at = document.get(model.EXPIRES_AT)
        if expires_at is not None and expires_at <= self.now_s() * 1000:
            return NotFound()
        return self._result(document[model.RESULT], document, expires_at)

    def _result(self, result: Any, document: Document, expires_at: int | None) -> Outcome:
        service, handler, key, _ = document[model.TARGET]
        if result[0] == "f":
            return Failed(result[1], result[2], dict(result[3]) if len(result) > 3 else {}, expires_at)
        value = result[1] if len(result) > 1 else b""
        content = self.table.blob(value.id) if isinstance(value, BlobRef) else value
        return Success(content, expires_at, Target(service, handler, key))

    async def resolve_awakeable(self, invocation_id: InvocationId, index: int, value: bytes) -> None:
        self._put(Resolve(awakeable_id(invocation_id, index), value))

    async def reject_awakeable(self, invocation_id: InvocationId, index: int, message: str) -> None:
        self._put(Reject(awakeable_id(invocation_id, index), message))

    def _put(self, message: InboxMessage, *, retry_safe: bool = True) -> None:
        try:
            self.put(message)
        except InboxUnavailable as problem:
            raise CoordinatorUnavailable(f"the inbox queue cannot be reached: {problem}", retry_safe=retry_safe) from problem
        except ValueError as problem:
            raise Refused(413, f"cannot read body: {problem}; send what is larger to a coordinator's ingress") from problem


def _refuse(text: str) -> NoReturn:
    raise Refused(501, text)
