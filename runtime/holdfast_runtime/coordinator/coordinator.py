"""The coordinator as the surfaces see it: requests in, outcomes out (implements `front.Front`)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from holdfast.protocol import ids
from holdfast.protocol.ids import InvocationId
from holdfast.protocol.manifest import ServiceType
from holdfast_runtime.coordinator import requests, scans
from holdfast_runtime.coordinator.deployments import Deployments
from holdfast_runtime.coordinator.front import (
    Accepted,
    CoordinatorUnavailable,
    Done,
    Failed,
    InvocationFilter,
    NewInvocation,
    NotFound,
    NotReady,
    Outcome,
    PatchService,
    RegisterDeployment,
    Registered,
    Restarted,
    Scan,
    Scanned,
    Success,
    Target,
    UpdateDeployment,
)
from holdfast_runtime.coordinator.minting import RANDOM_BYTES, mint
from holdfast_runtime.coordinator.node import Node
from holdfast_runtime.coordinator.requests import Reply, Request
from holdfast_runtime.engine import model, pinning
from holdfast_runtime.engine.events import Arrival, Arrive, Arrived, Operated, Restart, Verb
from holdfast_runtime.engine.payload import BlobRef, Payload, Result, failure, input_entry, success
from holdfast_runtime.engine.registry import Deployment, HandlerKind, HandlerRevision, RegistryView, ServiceRevision, retention_of
from holdfast_runtime.engine.response import as_payload
from holdfast_runtime.ports.store import StoreUnavailable

log = logging.getLogger("holdfast.coordinator")

_UNREACHABLE: Final = "the owner of this invocation could not be reached"
_QUEUED_RETENTION_MS: Final = 24 * 3_600_000  # a queue may deliver a message again after its work is done (storage design §6)
_SCANNED_TOGETHER: Final = (2, 8)  # shards, a quarter of all of them: so few that it pays to stop when the limit is reached
_DONE: Final = {
    Operated.APPLIED: Done.APPLIED,
    Operated.ACCEPTED: Done.ACCEPTED,
    Operated.NOT_FOUND: Done.NOT_FOUND,
    Operated.ALREADY_COMPLETED: Done.ALREADY_COMPLETED,
    Operated.NOT_COMPLETED: Done.NOT_COMPLETED,
    Operated.NOT_RUNNING: Done.NOT_RUNNING,
    Operated.NOT_STARTED: Done.NOT_STARTED,
    Operated.STILL_RUNNING: Done.STILL_RUNNING,
    Operated.PINNED: Done.PINNED,
    Operated.NO_DEPLOYMENT: Done.NO_DEPLOYMENT,
    Operated.NO_HANDLER: Done.NO_HANDLER,
    Operated.NO_VERSION: Done.NO_VERSION,
    Operated.NO_JOURNAL: Done.NO_JOURNAL,
    Operated.UNSUPPORTED: Done.UNSUPPORTED,
    Operated.OUT_OF_RANGE: Done.OUT_OF_RANGE,
    Operated.UNFINISHED: Done.UNFINISHED,
    Operated.TOO_LARGE: Done.TOO_LARGE,
}


class Coordinator:
    """One per process."""

    def __init__(self, node: Node, deployments: Deployments) -> None:
        self._node = node
        self._deployments = deployments

    @property
    def registry(self) -> RegistryView:
        return self._deployments.view

    # -- arriving

    def mint(self, invocation: NewInvocation) -> InvocationId:
        node = self._node
        kind, random = self._handler(invocation).kind, node.entropy.bytes(RANDOM_BYTES)
        # Any shard will do for an invocation without a key: one of our own needs no forwarding.
        return mint(invocation, kind, random, now_ms=node.clock.now_ms(), shards=node.store.shards, preferred=tuple(node.shards))

    async def call(self, invocation_id: InvocationId, invocation: NewInvocation) -> Outcome:
        answer = await self._arrive(invocation_id, invocation, wait=True)
        if answer.arrival is Arrival.ALREADY_INVOKED:
            return Failed(409, "the workflow method was already invoked")
        self._refuse(answer.arrival, invocation_id)
        assert answer.result is not None
        return await self._outcome(answer.result, answer.expires_at)

    async def send(self, invocation_id: InvocationId, invocation: NewInvocation) -> Accepted:
        answer = await self._arrive(invocation_id, invocation, wait=False)
        self._refuse(answer.arrival, invocation_id)
        return Accepted(invocation_id, answer.arrival is Arrival.NEW, answer.execute_at)

    async def _arrive(self, invocation_id: InvocationId, invocation: NewInvocation, *, wait: bool) -> Arrived:
        payload = await self._keep(invocation_id, invocation.body)
        event = self._event(invocation_id, invocation, payload)
        shard = model.shard_of_key(invocation_id.partition_key, self._node.store.shards)
        try:
            return await self._node.arrive(shard, event, wait=wait)
        except (TimeoutError, StoreUnavailable) as error:
            raise CoordinatorUnavailable(f"{_UNREACHABLE}: {error}", retry_safe=not event.fresh) from error

    async def _keep(self, invocation_id: InvocationId, content: bytes, *, limit: int = model.INLINE_LIMIT) -> Payload:
        """`content` itself, or a reference to it in the blob store when it is large."""
        blobs: dict[str, bytes] = {}
        payload = as_payload(str(invocation_id), content, blobs, limit=limit)
        for blob_id, large in blobs.items():
            try:
                await self._node.store.blobs.put(blob_id, large)
            except StoreUnavailable as error:
                raise CoordinatorUnavailable(f"the store cannot take the request body: {error}", retry_safe=True) from error
        return payload

    def _event(self, invocation_id: InvocationId, invocation: NewInvocation, payload: Payload) -> Arrive:
        handler = self._handler(invocation)
        target, now = invocation.target, self._node.clock.now_ms()
        known_before = invocation.from_queue or handler.kind is HandlerKind.RUN or invocation.idempotency_key is not None
        # Requests from outside are kept as if they had an idempotency key, but those to workflows (http-api §1.8).
        workflow = self.registry.services[target.service].type is ServiceType.WORKFLOW
        retention, journal_retention = retention_of(handler, invocation.idempotency_key if workflow else "generated")
        if invocation.from_queue:
            retention = max(retention, _QUEUED_RETENTION_MS)
        return Arrive(
            invocation=str(invocation_id),
            target=[target.service, target.handler, target.key, handler.kind.value],
            entry=input_entry(invocation.headers, payload),
            retention_ms=retention,
            journal_retention_ms=journal_retention,
            source=[],
            execute_at=now + invocation.delay_ms if invocation.delay_ms is not None else None,
            idempotency_key=invocation.idempotency_key,
            request=self._node.entropy.bytes(8),
            fresh=not known_before,
            minted_at=None if known_before else now,
        )

    def _handler(self, invocation: NewInvocation) -> HandlerRevision:
        target = invocation.target
        handler = self.registry.handler(target.service, target.handler)
        if handler is None:  # the surface has checked; the registry changed in between
            raise CoordinatorUnavailable(f"{target.service}/{target.handler} was just removed", retry_safe=True)
        return handler

    def _refuse(self, arrival: Arrival, invocation_id: InvocationId) -> None:
        if arrival is Arrival.CLOSED:
            text = (
                "no new work is taken, because what was changed hours ago could not be written to the store; see pages.overdue in the log"
            )
            raise CoordinatorUnavailable(text, retry_safe=True)
        if arrival is Arrival.STALE:
            text = f"whether {invocation_id} ran cannot be told any more; the request took too long to reach its owner"
            raise CoordinatorUnavailable(text, retry_safe=False)
        if arrival is Arrival.MISMATCH:
            text = f"{invocation_id} belongs to another target: two targets derive the same id (a comma in a key or idempotency key?)"
            raise CoordinatorUnavailable(text, retry_safe=False)

    # -- asking

    async def attach(self, invocation_id: InvocationId) -> Outcome | NotFound:
        seen = requests.parse_seen(await self._ask(invocation_id, requests.look(str(invocation_id), wait=True)))
        if not seen.exists or seen.result is None:
            return NotFound()
        return await self._outcome(seen.result, seen.expires_at, seen.target)

    async def output(self, invocation_id: InvocationId) -> Outcome | NotReady | NotFound:
        seen = requests.parse_seen(await self._ask(invocation_id, requests.look(str(invocation_id), wait=False)))
        if not seen.exists:
            return NotFound()
        return NotReady() if seen.result is None else await self._outcome(seen.result, seen.expires_at, seen.target)

    async def resolve_awakeable(self, invocation_id: InvocationId, index: int, value: bytes) -> None:
        payload = await self._keep(invocation_id, value)
        await self._ask(invocation_id, requests.signal(str(invocation_id), index, success(payload)))

    async def reject_awakeable(self, invocation_id: InvocationId, index: int, message: str) -> None:
        await self._ask(invocation_id, requests.signal(str(invocation_id), index, failure(500, message)))

    async def cancel(self, invocation_id: InvocationId) -> Done:
        return await self._operate(Verb.CANCEL, invocation_id)

    async def kill(self, invocation_id: InvocationId) -> Done:
        return await self._operate(Verb.KILL, invocation_id)

    async def purge(self, invocation_id: InvocationId) -> Done:
        return await self._operate(Verb.PURGE, invocation_id)

    async def pause(self, invocation_id: InvocationId) -> Done:
        return await self._operate(Verb.PAUSE, invocation_id)

    async def purge_journal(self, invocation_id: InvocationId) -> Done:
        return await self._operate(Verb.PURGE_JOURNAL, invocation_id)

    async def resume(self, invocation_id: InvocationId, deployment: str | None = None) -> Done:
        return await self._operate(Verb.RESUME, invocation_id, deployment)

    async def restart_as_new(
        self, invocation_id: InvocationId, *, upto: int = 0, deployment: str | None = pinning.LATEST
    ) -> Restarted | Done:
        # Minted here, so that the request may be repeated: an owner who finds the new invocation has done it before.
        node, now = self._node, self._node.clock.now_ms()
        new = ids.random_invocation_id(invocation_id.partition_key, now, node.entropy.bytes(10))
        event = Restart(str(invocation_id), str(new), node.entropy.bytes(8), now, upto, deployment)
        # Asked for once more it gets another id, and runs twice.
        found = requests.parse_operated(await self._ask(invocation_id, requests.restart(event), retry_safe=False))
        if found is Operated.STALE:
            text = f"whether {invocation_id} was restarted cannot be told any more; the request took too long to reach its owner"
            raise CoordinatorUnavailable(text, retry_safe=False)
        return Restarted(new) if found is Operated.APPLIED else _DONE[found]

    async def _operate(self, verb: Verb, invocation_id: InvocationId, deployment: str | None = None) -> Done:
        request = requests.operate(verb, str(invocation_id), self._node.entropy.bytes(8), deployment)
        # A second cancel would stop a handler that cleans up after the first; all else may be asked for once more.
        reply = await self._ask(invocation_id, request, retry_safe=verb is not Verb.CANCEL)
        return _DONE[requests.parse_operated(reply)]

    async def list_invocations(self, where: InvocationFilter) -> Sequence[Mapping[str, Any]]:
        wanted = {"service": where.service, "handler": where.handler, "key": where.key, "status": where.status, "limit": where.limit}
        shards = range(self._node.store.shards)
        replies = await asyncio.gather(*(self._ask_shard(n, {"ask": "list", "where": wanted}) for n in shards))
        rows = [row for reply in replies for row in reply["rows"]]
        rows.sort(key=lambda row: (row["created_at_ms"], row["id"]), reverse=True)
        return rows[: where.limit]

    async def describe(self, invocation_id: InvocationId) -> Mapping[str, Any] | None:
        reply = await self._ask(invocation_id, {"ask": "describe", "id": str(invocation_id)})
        row: Mapping[str, Any] | None = reply["row"]
        return row

    async def scan(self, scan: Scan) -> Scanned:
        rows: list[Sequence[Any]] = []
        wheres = scans.spread(scan.where, self._node.store.shards)
        fewest, most = _SCANNED_TOGETHER
        together = min(max(fewest, len(wheres) // 4), most)
        for start in range(0, len(wheres), together):
            limit = scan.limit if scan.order is not None else scan.limit - len(rows)
            some = wheres[start : start + together]
            asked = (self._ask_shard(shard, scans.ask(replace(scan, where=where, limit=limit))) for shard, where in some)
            replies = await asyncio.gather(*asked)
            for reply in replies:
                rows += reply["rows"]
            more = next((reply["more"] for reply in replies if reply["more"]), None)
            if scan.order is None and (more is not None or len(rows) > scan.limit):
                return Scanned(rows[: scan.limit], more or "rows")
        return Scanned(rows)

    async def state(self, service: str, key: str) -> Mapping[str, bytes]:
        shard = model.shard_of_key(ids.keyed_partition_key(key), self._node.store.shards)
        reply = await self._ask_shard(shard, {"ask": "state", "service": service, "key": key})
        state: Mapping[str, bytes] = reply["state"]
        return state

    async def edit_state(self, service: str, key: str, state: Mapping[str, bytes], version: str | None) -> None:
        owner_key = ids.keyed_partition_key(key)
        shard = model.shard_of_key(owner_key, self._node.store.shards)
        holder = ids.random_invocation_id(owner_key, self._node.clock.now_ms(), self._node.entropy.bytes(10))
        total = sum(len(name) + len(value) for name, value in state.items())
        values = []
        for name, value in sorted(state.items()):
            # Many middling values together would outgrow a log record: then all but the smallest become references.
            payload = await self._keep(holder, value, limit=model.INLINE_LIMIT if total <= model.INLINE_LIMIT else 256)
            values.append([name, payload])
        asked = {"service": service, "key": key, "values": values, "expected": version, "request": self._node.entropy.bytes(8)}
        await self._ask_shard(shard, {"ask": "edit", **asked})

    async def _ask(self, invocation_id: InvocationId, request: Request, *, retry_safe: bool = True) -> Reply:
        shard = model.shard_of_key(invocation_id.partition_key, self._node.store.shards)
        return await self._ask_shard(shard, request, retry_safe=retry_safe)

    async def _ask_shard(self, shard: int, request: Request, *, retry_safe: bool = True) -> Reply:
        try:
            return await self._node.ask(shard, request)
        except (TimeoutError, StoreUnavailable) as error:
            raise CoordinatorUnavailable(f"{_UNREACHABLE}: {error}", retry_safe=retry_safe) from error

    # -- results

    async def _outcome(self, result: Result, expires_at: int | None, target: list[Any] | None = None) -> Outcome:
        if result[0] == "f":
            return Failed(result[1], result[2], result[3], expires_at)
        value = result[1]
        if isinstance(value, BlobRef):
            value = await self._node.store.blobs.get(value.id)
        return Success(value, expires_at, Target(*target[:3]) if target is not None else None)

    # -- deployments

    async def register(self, request: RegisterDeployment) -> Registered:
        return await self._deployments.register(request)

    async def remove_deployment(self, deployment_id: str) -> bool:
        return await self._deployments.remove(deployment_id)

    async def update_deployment(self, deployment_id: str, update: UpdateDeployment) -> Deployment | None:
        return await self._deployments.update(deployment_id, update)

    async def patch_service(self, name: str, patch: PatchService) -> ServiceRevision | None:
        return await self._deployments.patch_service(name, patch)
