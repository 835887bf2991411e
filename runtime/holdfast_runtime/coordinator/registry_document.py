"""The registry document: every deployment with its manifest as it was sent, and the snapshot the engine
reads, made from it.

Rules: the manifest is stored untouched, effective settings are computed when it is read, so that a newer
version of this program understands more of it; revisions are stored, because they depend on history.
Settings are layered per parameter: handler, else what an operator patched on the service, else service, else default
(service protocol §3.8, §5.5), and limited by the operator's maxima. Patches belong to the revision they were made on:
they live and go with its row (http-api §2.6).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from holdfast.protocol.manifest import (
    EndpointManifest,
    HandlerManifest,
    HandlerType,
    Options,
    ProtocolMode,
    ServiceManifest,
    ServiceType,
    parse_manifest,
)
from holdfast.protocol.manifest import OnMaxAttempts as ManifestOnMaxAttempts
from holdfast.protocol.versions import select_version
from holdfast_runtime.coordinator.addresses import dump_address, load_address
from holdfast_runtime.coordinator.front import PatchService
from holdfast_runtime.coordinator.settings import Settings
from holdfast_runtime.engine.registry import (
    DAY_MS,
    Address,
    Deployment,
    HandlerKind,
    HandlerRevision,
    OnMaxAttempts,
    RegistryView,
    RetryPolicy,
    ServiceRevision,
)

DOCUMENT: Final = "deployments"  # its name in the registry
FORMAT: Final = 1
NO_PATCH: Final = PatchService()


@dataclass(frozen=True, slots=True)
class DefaultSettings:
    """What applies when neither handler nor service say otherwise, and how much they may ask for. Durations in ms; None: no limit."""

    inactivity_timeout_ms: int = 60_000  # only shown: attempts have a closed input and suspend by themselves
    abort_timeout_ms: int = 10 * 60_000
    journal_retention_ms: int = DAY_MS
    idempotency_retention_ms: int = DAY_MS
    workflow_retention_ms: int = DAY_MS
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    max_journal_retention_ms: int | None = None
    max_idempotency_retention_ms: int | None = None
    max_workflow_retention_ms: int | None = None
    max_retry_attempts: int | None = None  # for what services ask; the default policy is the operator's own
    routing_headers: Sequence[str] = ()  # lower case; part of a deployment's identity (http-api §3.3)


def default_settings(settings: Settings) -> DefaultSettings:
    """What this process's configuration says about services."""
    return DefaultSettings(
        abort_timeout_ms=settings.default_abort_timeout_ms,
        journal_retention_ms=settings.default_journal_retention_ms,
        idempotency_retention_ms=settings.default_idempotency_retention_ms,
        workflow_retention_ms=settings.default_workflow_completion_retention_ms,
        retry=settings.default_retry_policy,
        max_journal_retention_ms=settings.max_journal_retention_ms,
        max_idempotency_retention_ms=settings.max_idempotency_retention_ms,
        max_workflow_retention_ms=settings.max_workflow_completion_retention_ms,
        max_retry_attempts=settings.max_retry_policy_max_attempts,
        routing_headers=tuple(sorted(name.lower() for name in settings.deployment_routing_headers)),
    )


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """The settings of a service as such: what its handlers have unless they say otherwise."""

    inactivity_timeout_ms: int
    abort_timeout_ms: int
    journal_retention_ms: int
    idempotency_retention_ms: int
    lazy_state: bool
    retry: RetryPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveredService(ServiceRevision):
    """A service revision with what its description needs besides: manifest and own settings."""

    manifest: ServiceManifest
    settings: ServiceSettings
    patch: PatchService = NO_PATCH


@dataclass(frozen=True, slots=True)
class StoredDeployment:
    """One deployment as the document holds it. `revisions`: service name -> revision; `patches`: service name -> what was changed."""

    id: str
    address: Address
    created_at_ms: int
    sdk_version: str | None
    manifest: Mapping[str, Any]
    revisions: Mapping[str, int]
    metadata: Mapping[str, str] = field(default_factory=dict)
    patches: Mapping[str, PatchService] = field(default_factory=dict)


# ---- Bytes


def dump(deployments: Mapping[str, StoredDeployment]) -> bytes:
    """The document, compressed: JSON schemas are long and repeat themselves."""
    rows = [
        {
            "id": stored.id,
            "address": dump_address(stored.address),
            "created_at_ms": stored.created_at_ms,
            "sdk_version": stored.sdk_version,
            "manifest": stored.manifest,
            "revisions": dict(stored.revisions),
            "metadata": dict(stored.metadata),
            "patches": {name: _dump_patch(patch) for name, patch in stored.patches.items()},
        }
        for stored in deployments.values()
    ]
    text = json.dumps({"format": FORMAT, "deployments": rows}, separators=(",", ":"))
    return zlib.compress(text.encode(), 6)


def load(document: bytes) -> dict[str, StoredDeployment]:
    """The inverse; an empty document holds no deployments. Raises ValueError for one of a newer format."""
    if not document:
        return {}
    content = json.loads(zlib.decompress(document))
    if content["format"] != FORMAT:
        raise ValueError(
            f"the stored registry has format {content['format']}, this version reads {FORMAT}; "
            "run the version that wrote it, or a newer one"
        )
    rows = (
        StoredDeployment(
            id=row["id"],
            address=load_address(row["address"]),
            created_at_ms=row["created_at_ms"],
            sdk_version=row["sdk_version"],
            manifest=row["manifest"],
            revisions=row["revisions"],
            metadata=row["metadata"],
            patches={name: _load_patch(patch) for name, patch in row.get("patches", {}).items()},
        )
        for row in content["deployments"]
    )
    return {stored.id: stored for stored in rows}


def _dump_patch(patch: PatchService) -> dict[str, Any]:
    return {name: value for name, value in asdict(patch).items() if value is not None}


def _load_patch(document: Mapping[str, Any]) -> PatchService:
    known = PatchService.__dataclass_fields__
    return PatchService(**{name: value for name, value in document.items() if name in known})


# ---- Snapshot


def snapshot(version: int, deployments: Mapping[str, StoredDeployment], defaults: DefaultSettings) -> RegistryView:
    """What the engine reads: all deployments, and of each service the highest revision."""
    views = {stored.id: deployment_of(stored, defaults) for stored in deployments.values()}
    active: dict[str, ServiceRevision] = {}
    for deployment in views.values():
        for name, service in deployment.services.items():
            if name not in active or active[name].revision < service.revision:
                active[name] = service
    return RegistryView(version, views, active)


def deployment_of(stored: StoredDeployment, defaults: DefaultSettings) -> Deployment:
    manifest = parse_manifest(stored.manifest)
    low, high = manifest.min_protocol_version, manifest.max_protocol_version
    services = {service.name: _service(stored, service, defaults) for service in manifest.services if service.name in stored.revisions}
    return Deployment(
        id=stored.id,
        address=stored.address,
        protocol_mode=protocol_mode_text(manifest),
        min_protocol_version=low,
        max_protocol_version=high,
        # No overlap: registered under an older version of this program; its own newest, which calls will
        # refuse.
        protocol_version=select_version(low, high) or high,
        created_at_ms=stored.created_at_ms,
        sdk_version=stored.sdk_version,
        metadata=stored.metadata,
        services=services,
    )


def protocol_mode_text(manifest: EndpointManifest) -> str:
    return "BidiStream" if manifest.protocol_mode is ProtocolMode.BIDI_STREAM else "RequestResponse"


def _service(stored: StoredDeployment, service: ServiceManifest, defaults: DefaultSettings) -> DiscoveredService:
    patch = stored.patches.get(service.name, NO_PATCH)
    settings = _settings(service, patch, defaults)
    public = not service.ingress_private if patch.public is None else patch.public
    return DiscoveredService(
        name=service.name,
        type=service.type,
        revision=stored.revisions[service.name],
        deployment_id=stored.id,
        public=public,
        handlers={
            handler.name: _handler(service, handler, settings, patch, defaults, public=public and not handler.ingress_private)
            for handler in service.handlers
        },
        documentation=service.documentation,
        metadata=service.metadata or {},
        manifest=service,
        settings=settings,
        patch=patch,
    )


def _settings(service: ServiceManifest, patch: PatchService, defaults: DefaultSettings) -> ServiceSettings:
    journal = _first(patch.journal_retention_ms, service.journal_retention_ms, defaults.journal_retention_ms)
    idempotency = _first(patch.idempotency_retention_ms, service.idempotency_retention_ms, defaults.idempotency_retention_ms)
    return ServiceSettings(
        inactivity_timeout_ms=_first(patch.inactivity_timeout_ms, service.inactivity_timeout_ms, defaults.inactivity_timeout_ms),
        abort_timeout_ms=_first(patch.abort_timeout_ms, service.abort_timeout_ms, defaults.abort_timeout_ms),
        journal_retention_ms=_at_most(journal, defaults.max_journal_retention_ms),
        idempotency_retention_ms=_at_most(idempotency, defaults.max_idempotency_retention_ms),
        lazy_state=bool(service.enable_lazy_state),
        retry=_retry(service, defaults.retry, defaults.max_retry_attempts),
    )


def _handler(
    service: ServiceManifest,
    handler: HandlerManifest,
    above: ServiceSettings,
    patch: PatchService,
    defaults: DefaultSettings,
    *,
    public: bool,
) -> HandlerRevision:
    # Only the run handler of a workflow has this retention, so there a patch of the service means the handler.
    workflow = _first(patch.workflow_completion_retention_ms, handler.workflow_completion_retention_ms, defaults.workflow_retention_ms)
    journal = _first(handler.journal_retention_ms, above.journal_retention_ms)
    idempotency = _first(handler.idempotency_retention_ms, above.idempotency_retention_ms)
    return HandlerRevision(
        name=handler.name,
        kind=_kind(service.type, handler.type),
        public=public,
        abort_timeout_ms=_first(handler.abort_timeout_ms, above.abort_timeout_ms),
        journal_retention_ms=_at_most(journal, defaults.max_journal_retention_ms),
        idempotency_retention_ms=_at_most(idempotency, defaults.max_idempotency_retention_ms),
        workflow_retention_ms=_at_most(workflow, defaults.max_workflow_retention_ms),
        lazy_state=above.lazy_state if handler.enable_lazy_state is None else handler.enable_lazy_state,
        retry=_retry(handler, above.retry, defaults.max_retry_attempts),
        manifest=handler,
    )


def _retry(options: Options, above: RetryPolicy, most: int | None) -> RetryPolicy:
    attempts = options.retry_max_attempts
    return RetryPolicy(
        initial_interval_ms=_first(options.retry_initial_interval_ms, above.initial_interval_ms),
        factor=above.factor if options.retry_exponentiation_factor is None else options.retry_exponentiation_factor,
        max_interval_ms=_first(options.retry_max_interval_ms, above.max_interval_ms),
        max_attempts=above.max_attempts if attempts is None else _at_most(max(1, attempts), most),
        on_max_attempts=_ON_MAX_ATTEMPTS.get(options.retry_on_max_attempts, above.on_max_attempts),
    )


_ON_MAX_ATTEMPTS: Final[dict[ManifestOnMaxAttempts | None, OnMaxAttempts]] = {
    ManifestOnMaxAttempts.PAUSE: OnMaxAttempts.PAUSE,
    ManifestOnMaxAttempts.KILL: OnMaxAttempts.KILL,
}


def _kind(service: ServiceType, handler: HandlerType | None) -> HandlerKind:
    if service is ServiceType.SERVICE:
        return HandlerKind.SERVICE
    match handler:
        case HandlerType.WORKFLOW:
            return HandlerKind.RUN
        case HandlerType.SHARED:
            return HandlerKind.SHARED
    return HandlerKind.EXCLUSIVE


def _first(value: int | None, *otherwise: int | None) -> int:
    """The first that is set; the last one always is."""
    found = next(item for item in (value, *otherwise) if item is not None)
    assert found is not None
    return found


def _at_most(value: int, limit: int | None) -> int:
    return value if limit is None else min(value, limit)
