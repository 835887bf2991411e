"""A coordinator that only remembers what it was asked and answers what it was told: the contract of `Front`, no engine.

It stands in where a test is about what the surfaces make of requests and outcomes. Its registry is real: the services
of an official SDK, discovered by our own registration code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast.protocol.ids import InvocationId, idempotent_id, random_invocation_id, workflow_run_id
from holdfast_runtime.coordinator.deployments import Deployments
from holdfast_runtime.coordinator.front import (
    Accepted,
    CoordinatorUnavailable,
    Done,
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
    UpdateDeployment,
)
from holdfast_runtime.engine.registry import Deployment, HandlerKind, RegistryView, ServiceRevision


@dataclass
class FakeFront:
    """`outcome`: of calls, attach and output; an exception is raised. `forever`: calls never end.

    `each`: what is not `done` of some ids.
    """

    deployments: Deployments
    outcome: Outcome | NotFound | NotReady | Exception = field(default_factory=lambda: Success(b'"done"'))
    accepted_new: bool = True
    execution_time_ms: int | None = None
    forever: bool = False
    done: Done = Done.APPLIED
    each: Mapping[str, Done | Exception] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    rows: Sequence[Mapping[str, Any]] = ()
    entries: Mapping[str, bytes] = field(default_factory=dict)
    next_id: InvocationId | None = None

    @property
    def registry(self) -> RegistryView:
        return self.deployments.view

    def mint(self, invocation: NewInvocation) -> InvocationId:
        if self.next_id is not None:
            return self.next_id
        target = invocation.target
        handler = self.registry.handler(target.service, target.handler)
        assert handler is not None
        if handler.kind is HandlerKind.RUN and target.key is not None:
            return workflow_run_id(target.service, target.key)
        if invocation.idempotency_key is not None:
            return idempotent_id(target.service, target.handler, invocation.idempotency_key, target.key)
        return random_invocation_id(1, 1_795_291_447_669, bytes(10))

    async def call(self, invocation_id: InvocationId, invocation: NewInvocation) -> Outcome:
        self.asked.append(("call", invocation))
        self.started.set()
        if self.forever:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        outcome = self._outcome()
        assert not isinstance(outcome, NotFound | NotReady)
        return outcome

    async def send(self, invocation_id: InvocationId, invocation: NewInvocation) -> Accepted:
        self.asked.append(("send", invocation))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return Accepted(invocation_id, self.accepted_new, self.execution_time_ms)

    async def attach(self, invocation_id: InvocationId) -> Outcome | NotFound:
        self.asked.append(("attach", invocation_id))
        outcome = self._outcome()
        assert not isinstance(outcome, NotReady)
        return outcome

    async def output(self, invocation_id: InvocationId) -> Outcome | NotReady | NotFound:
        self.asked.append(("output", invocation_id))
        return self._outcome()

    def _outcome(self) -> Outcome | NotFound | NotReady:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    async def resolve_awakeable(self, invocation_id: InvocationId, index: int, value: bytes) -> None:
        self.asked.append(("resolve", (invocation_id, index, value)))

    async def reject_awakeable(self, invocation_id: InvocationId, index: int, message: str) -> None:
        self.asked.append(("reject", (invocation_id, index, message)))

    async def cancel(self, invocation_id: InvocationId) -> Done:
        return self._operate("cancel", invocation_id)

    async def kill(self, invocation_id: InvocationId) -> Done:
        return self._operate("kill", invocation_id)

    async def purge(self, invocation_id: InvocationId) -> Done:
        return self._operate("purge", invocation_id)

    async def pause(self, invocation_id: InvocationId) -> Done:
        return self._operate("pause", invocation_id)

    async def purge_journal(self, invocation_id: InvocationId) -> Done:
        return self._operate("purge-journal", invocation_id)

    async def resume(self, invocation_id: InvocationId, deployment: str | None = None) -> Done:
        return self._operate("resume" if deployment is None else f"resume on {deployment}", invocation_id)

    async def restart_as_new(self, invocation_id: InvocationId, *, upto: int = 0, deployment: str | None = "latest") -> Restarted | Done:
        done = self._operate(f"restart from {upto} on {deployment}", invocation_id)
        return Restarted(self.next_id or invocation_id) if done is Done.APPLIED else done

    def _operate(self, operation: str, invocation_id: InvocationId) -> Done:
        self.asked.append((operation, invocation_id))
        if isinstance(self.outcome, CoordinatorUnavailable):
            raise self.outcome
        done = self.each.get(str(invocation_id), self.done)
        if isinstance(done, Exception):
            raise done
        return done

    async def list_invocations(self, where: InvocationFilter) -> Sequence[Mapping[str, Any]]:
        self.asked.append(("list", where))
        return self.rows

    async def describe(self, invocation_id: InvocationId) -> Mapping[str, Any] | None:
        return next((row for row in self.rows if row["id"] == str(invocation_id)), None)

    async def scan(self, scan: Scan) -> Scanned:
        self.asked.append(("scan", scan))
        return Scanned([[row.get(name) for name in scan.columns] for row in self.rows])

    async def state(self, service: str, key: str) -> Mapping[str, bytes]:
        self.asked.append(("state", (service, key)))
        return self.entries

    async def register(self, request: RegisterDeployment) -> Registered:
        return await self.deployments.register(request)

    async def remove_deployment(self, deployment_id: str) -> bool:
        return await self.deployments.remove(deployment_id)

    async def update_deployment(self, deployment_id: str, update: UpdateDeployment) -> Deployment | None:
        return await self.deployments.update(deployment_id, update)

    async def patch_service(self, name: str, patch: PatchService) -> ServiceRevision | None:
        return await self.deployments.patch_service(name, patch)
