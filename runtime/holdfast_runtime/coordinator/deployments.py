"""Deployments: who serves what, agreed on by all coordinators through one stored document (http-api §2.5,
§3.3).

Rules: a deployment is its address; registering a known one changes nothing unless forced; each registration
of a service is a revision, the highest is active; only a change of a service's type is a breaking change.
Every change is a compare-and-set of the document: who loses the race looks again and decides anew. A process that dies
around the write has changed everything or nothing; the same request again finds its change done and writes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Final
from urllib.parse import urlsplit

from holdfast.protocol.ids import deployment_id
from holdfast.protocol.manifest import ServiceType
from holdfast_runtime.coordinator import registry_document
from holdfast_runtime.coordinator.address_guard import Resolve, forbidden_address, resolve
from holdfast_runtime.coordinator.addresses import address_of, identity, repointed
from holdfast_runtime.coordinator.discovery import Discovered, discover
from holdfast_runtime.coordinator.front import PatchService, RegisterDeployment, Registered, RegistrationError, UpdateDeployment
from holdfast_runtime.coordinator.lanes import concurrency_of
from holdfast_runtime.coordinator.registry_document import NO_PATCH, DefaultSettings, StoredDeployment
from holdfast_runtime.coordinator.settings import DISCOVERY_TIMEOUT_S
from holdfast_runtime.engine.registry import (
    EMPTY,
    Address,
    Deployment,
    HttpAddress,
    InProcessAddress,
    LambdaAddress,
    RegistryView,
    ServiceRevision,
)
from holdfast_runtime.ports.endpoint import Endpoint
from holdfast_runtime.ports.store import MAX_ITEM_BYTES, Registry
from holdfast_runtime.ports.system import Clock, Entropy

log = logging.getLogger("holdfast.deployments")

MAX_RACES: Final = 20  # registrations are rare; losing so often means that something rewrites the document


@dataclass(frozen=True, slots=True)
class _Change:
    """What a registration wants, with what discovery found."""

    address: Address
    metadata: Mapping[str, str]
    found: Discovered
    may_break: bool


class Deployments:
    """Owner of the registry document. `view` is a snapshot; it is replaced, never changed."""

    def __init__(
        self,
        registry: Registry,
        endpoint: Endpoint,
        clock: Clock,
        entropy: Entropy,
        settings: DefaultSettings | None = None,
        *,
        resolver: Resolve = resolve,
        discovery_timeout_s: float = DISCOVERY_TIMEOUT_S,
    ) -> None:
        self._discovery_timeout_s = discovery_timeout_s
        self._registry = registry
        self._endpoint = endpoint
        self._clock = clock
        self._entropy = entropy
        self._defaults = settings or DefaultSettings()
        self._resolver = resolver
        self._stored: dict[str, StoredDeployment] = {}
        self._view = EMPTY

    @property
    def view(self) -> RegistryView:
        return self._view

    async def load(self) -> RegistryView:
        """Read the document. Raises StoreUnavailable, or ValueError when a newer program wrote it."""
        self._adopt(*await self._registry.load(registry_document.DOCUMENT))
        return self._view

    async def refresh(self) -> RegistryView:
        """Read the document again and adopt it if its version changed; called every few seconds."""
        version, document = await self._registry.load(registry_document.DOCUMENT)
        if version != self._view.version:
            self._adopt(version, document)
            log.info("registry.changed", extra={"registry_version": version})
        return self._view

    def _adopt(self, version: int, document: bytes) -> None:
        # Two loads may overtake each other: an older document must not replace a newer one.
        if version < self._view.version:
            return
        stored = registry_document.load(document)
        self._view = registry_document.snapshot(version, stored, self._defaults)
        self._stored = stored

    async def register(self, request: RegisterDeployment) -> Registered:
        """Discover, validate and store. Raises RegistrationError."""
        address = address_of(request)
        try:
            concurrency_of(request.metadata)
        except ValueError as problem:
            raise RegistrationError(f"The request field 'metadata' is invalid. Reason: {problem}", status=400) from problem
        await self._guard(address)
        await self.refresh()
        known = self._known(address)
        if known is not None and not request.force:
            return self._registered(known, created=False)
        found = await discover(self._endpoint, address, self._clock, timeout_s=self._discovery_timeout_s)
        change = _Change(_with_compression(address, found), request.metadata, found, may_break=request.breaking or request.force)
        if request.dry_run:
            return self._registered(self._next(change, self._known(address)), created=known is None)
        return await self._commit(change, force=request.force)

    async def register_in_process(self, name: str) -> Registered:
        """Register handlers living in this process. The same name again replaces them and keeps the id."""
        address = InProcessAddress(name)
        found = await discover(self._endpoint, address, self._clock, timeout_s=self._discovery_timeout_s)
        await self.refresh()
        known = self._known(address)
        if known is not None and known.manifest == found.document and known.sdk_version == found.sdk_version:
            return self._registered(known, created=False)
        return await self._commit(_Change(address, {}, found, may_break=True), force=True)

    async def remove(self, deployment_id: str) -> bool:
        """False: unknown. Older revisions of its services become active again."""
        for _ in range(MAX_RACES):
            await self.refresh()
            if deployment_id not in self._stored:
                return False
            rest = {key: stored for key, stored in self._stored.items() if key != deployment_id}
            if await self._store(rest):
                log.info("deployment.removed", extra={"deployment_id": deployment_id})
                return True
        raise _too_many_races()

    async def update(self, deployment_id: str, wanted: UpdateDeployment) -> Deployment | None:
        """Point a deployment elsewhere, or read again what it serves; the id stays. None: unknown. Raises RegistrationError."""
        for _ in range(MAX_RACES):
            await self.refresh()
            stored = self._stored.get(deployment_id)
            if stored is None:
                return None
            address = repointed(stored.address, wanted)
            if address == stored.address and not wanted.overwrite:
                return registry_document.deployment_of(stored, self._defaults)
            await self._guard(address)
            found = await discover(self._endpoint, address, self._clock, timeout_s=self._discovery_timeout_s)
            changed = self._updated(stored, _with_compression(address, found), found, overwrite=wanted.overwrite)
            if not wanted.dry_run:
                # Somebody may have changed this deployment while its endpoint was asked: then ask again.
                if self._stored.get(deployment_id) != stored or not await self._store({**self._stored, stored.id: changed}):
                    continue
                log.info("deployment.updated", extra={"deployment_id": stored.id, "overwritten": wanted.overwrite})
            return registry_document.deployment_of(changed, self._defaults)
        raise _too_many_races()

    async def patch_service(self, name: str, patch: PatchService) -> ServiceRevision | None:
        """Change settings of the active revision; gone with it. None: unknown service. Raises RegistrationError."""
        for _ in range(MAX_RACES):
            await self.refresh()
            active = self._view.services.get(name)
            if active is None:
                return None
            if patch.workflow_completion_retention_ms is not None and active.type is not ServiceType.WORKFLOW:
                kind = "VirtualObject" if active.type is ServiceType.VIRTUAL_OBJECT else "Service"
                raise RegistrationError(f"modifying retention time for service type {kind} is unsupported", status=400)
            stored = self._stored[active.deployment_id]
            before = stored.patches.get(name, NO_PATCH)
            after = replace(before, **{setting: value for setting, value in asdict(patch).items() if value is not None})
            if after == before:
                return active
            changed = replace(stored, patches={**stored.patches, name: after})
            if await self._store({**self._stored, stored.id: changed}):
                log.info("service.patched", extra={"service": name, "revision": active.revision})
                return registry_document.deployment_of(changed, self._defaults).services[name]
        raise _too_many_races()

    async def _commit(self, change: _Change, *, force: bool) -> Registered:
        for _ in range(MAX_RACES):
            known = self._known(change.address)
            if known is not None and not force:
                return self._registered(known, created=False)  # somebody registered it meanwhile
            stored = self._next(change, known)
            if await self._store({**self._stored, stored.id: stored}):
                log.info(
                    "deployment.registered",
                    extra={"deployment_id": stored.id, "services": sorted(stored.revisions)},
                )
                return self._registered(stored, created=known is None)
            await self.refresh()
        raise _too_many_races()

    async def _store(self, deployments: Mapping[str, StoredDeployment]) -> bool:
        version = self._view.version
        document = registry_document.dump(deployments)
        if len(document) > MAX_ITEM_BYTES:
            raise RegistrationError(
                f"the registry would have {len(document)} bytes, the store takes {MAX_ITEM_BYTES}; remove deployments that are drained",
                status=507,
            )
        if not await self._registry.store(registry_document.DOCUMENT, document, expected_version=version):
            return False
        self._adopt(version + 1, document)
        return True

    def _next(self, change: _Change, known: StoredDeployment | None) -> StoredDeployment:
        """The deployment to store. Raises RegistrationError for a breaking change nobody allowed."""
        if not change.may_break:
            self._refuse_type_changes(change.found)
        now_ms = self._clock.now_ms()
        ulid = now_ms.to_bytes(6, "big") + self._entropy.bytes(10)
        return StoredDeployment(
            id=known.id if known is not None else deployment_id(ulid),
            address=change.address,
            created_at_ms=now_ms,
            sdk_version=change.found.sdk_version,
            manifest=change.found.document,
            revisions={service.name: self._revision(service.name) + 1 for service in change.found.manifest.services},
            metadata=dict(change.metadata),
        )

    def _updated(self, stored: StoredDeployment, address: Address, found: Discovered, *, overwrite: bool) -> StoredDeployment:
        """`stored` at its new address. Raises RegistrationError when its invocations could not go on there."""
        before = registry_document.deployment_of(stored, self._defaults)
        old = before.min_protocol_version, before.max_protocol_version
        new = found.manifest.min_protocol_version, found.manifest.max_protocol_version
        if old != new:
            raise RegistrationError(
                "[META0016] an update deployment operation must provide an endpoint with the same supported protocol versions. "
                f"The update tried to change them from {old[0]}..={old[1]} to {new[0]}..={new[1]}. "
                "Use the SDK version that the deployment was registered with, or register the code as a new deployment.",
                status=400,
                restate_code="META0016",
            )
        if overwrite:
            # Existing revisions keep their numbers: this is the same revision, corrected. What was patched on them goes.
            revisions = {
                service.name: stored.revisions.get(service.name) or self._revision(service.name) + 1 for service in found.manifest.services
            }
            return replace(stored, address=address, sdk_version=found.sdk_version, manifest=found.document, revisions=revisions, patches={})
        # How to talk to it follows the endpoint, what it serves stays as it was.
        manifest = {**stored.manifest, "protocolMode": found.manifest.protocol_mode.value}
        return replace(stored, address=address, sdk_version=found.sdk_version, manifest=manifest)

    def _refuse_type_changes(self, found: Discovered) -> None:
        for service in found.manifest.services:
            active = self._view.services.get(service.name)
            if active is not None and active.type is not service.type:
                raise RegistrationError(
                    f"[META0006] detected a new service revision for '{service.name}' changing the "
                    "service type from previous revision. Registering it needs breaking or force; "
                    "to keep the old one callable, give the new service another name.",
                    status=409,
                    restate_code="META0006",
                )

    def _revision(self, service: str) -> int:
        """The active revision's number; 0 when the service is new."""
        active = self._view.services.get(service)
        return active.revision if active is not None else 0

    def _known(self, address: Address) -> StoredDeployment | None:
        headers = self._defaults.routing_headers
        wanted = identity(address, headers)
        return next((stored for stored in self._stored.values() if identity(stored.address, headers) == wanted), None)

    def _registered(self, stored: StoredDeployment, *, created: bool) -> Registered:
        deployment = registry_document.deployment_of(stored, self._defaults)
        return Registered(deployment, list(deployment.services.values()), created)

    async def _guard(self, address: Address) -> None:
        """Refuse addresses of metadata services, whatever the name in front of them."""
        if not isinstance(address, HttpAddress):
            return
        host = urlsplit(address.uri).hostname or ""
        forbidden = await forbidden_address(host, self._resolver)
        if forbidden is not None:
            raise RegistrationError(
                f"The request field 'uri' is invalid. Reason: {host} is the link-local or metadata address "
                f"{forbidden}, which cannot serve handlers. Use the address of the endpoint itself.",
                status=400,
            )


def _with_compression(address: Address, found: Discovered) -> Address:
    """Compression is not registered but announced by the endpoint (http-api §2.5)."""
    if isinstance(address, LambdaAddress):
        return replace(address, compression=found.manifest.lambda_compression)
    return address


def _too_many_races() -> RegistrationError:
    return RegistrationError(f"other processes changed the registry {MAX_RACES} times meanwhile; try again", status=503)
