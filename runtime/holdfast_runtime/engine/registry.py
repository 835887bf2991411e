"""What is deployed where: an immutable snapshot that every decision takes as an input.

Built by `coordinator.deployments` from discovery manifests; the engine only reads it. Rules: service protocol §3.9, §5.5; http-api §3.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from holdfast.protocol.manifest import HandlerManifest, ServiceType

DAY_MS: Final = 24 * 3600 * 1000
CONCURRENCY: Final = "holdfast.concurrency"  # in the metadata of a deployment: how many of its attempts may be in flight in each process


class HttpVersion(Enum):
    HTTP_1_1 = "HTTP/1.1"
    HTTP_2 = "HTTP/2.0"  # cleartext: prior knowledge; TLS: ALPN decides


@dataclass(frozen=True, slots=True)
class HttpAddress:
    """`uri` is absolute, with an optional base path."""

    uri: str
    http_version: HttpVersion = HttpVersion.HTTP_2
    additional_headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LambdaAddress:
    """`arn` is qualified (version or alias). `compression` is "zstd" when the manifest announced it, else None."""

    arn: str
    assume_role_arn: str | None = None
    compression: str | None = None
    additional_headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InProcessAddress:
    """Handlers loaded into the coordinator's own process under a name (`holdfast dev`)."""

    name: str


Address = HttpAddress | LambdaAddress | InProcessAddress


class HandlerKind(Enum):
    """What decides about queues and writes. Plain services: SERVICE for all handlers."""

    SERVICE = "service"
    EXCLUSIVE = "exclusive"  # virtual object: one at a time per key, may write state
    SHARED = "shared"  # virtual object or workflow: concurrent, reads only
    RUN = "run"  # workflow: once per key while retained


class OnMaxAttempts(Enum):
    PAUSE = "Pause"
    KILL = "Kill"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Invocation retries (service protocol §3.8). max_attempts includes the first attempt; None = unlimited."""

    initial_interval_ms: int = 500
    factor: float = 2.0
    max_interval_ms: int = 60_000
    max_attempts: int | None = 70
    on_max_attempts: OnMaxAttempts = OnMaxAttempts.PAUSE


@dataclass(frozen=True, slots=True)
class HandlerRevision:
    """One handler with its EFFECTIVE settings (handler, else service, else default). Durations in ms."""

    name: str
    kind: HandlerKind
    public: bool
    abort_timeout_ms: int
    journal_retention_ms: int
    idempotency_retention_ms: int
    workflow_retention_ms: int  # only meaningful for RUN
    lazy_state: bool
    retry: RetryPolicy
    manifest: HandlerManifest  # as discovered: input and output rules, documentation, metadata, own overrides


@dataclass(frozen=True, slots=True)
class ServiceRevision:
    """One service as one deployment serves it. The active revision of a service is the highest over all deployments."""

    name: str
    type: ServiceType
    revision: int
    deployment_id: str
    public: bool
    handlers: Mapping[str, HandlerRevision]
    documentation: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def keyed(self) -> bool:
        """Whether its handlers are called with a key: a virtual object or a workflow."""
        return self.type is not ServiceType.SERVICE


@dataclass(frozen=True, slots=True)
class Deployment:
    """An address serving handlers. `protocol_version` is the one negotiated for new invocations: min(max announced, ours)."""

    id: str
    address: Address
    protocol_mode: str  # "BidiStream" | "RequestResponse"
    min_protocol_version: int
    max_protocol_version: int
    protocol_version: int
    created_at_ms: int
    sdk_version: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    services: Mapping[str, ServiceRevision] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RegistryView:
    """An immutable snapshot. `services` holds the active revision of each service."""

    version: int
    deployments: Mapping[str, Deployment]
    services: Mapping[str, ServiceRevision]

    def handler(self, service: str, handler: str) -> HandlerRevision | None:
        """The active revision's handler; None when service or handler are unknown."""
        revision = self.services.get(service)
        return revision.handlers.get(handler) if revision is not None else None

    def deployment_of(self, service: str) -> Deployment | None:
        """Where new work of `service` goes."""
        revision = self.services.get(service)
        return self.deployments.get(revision.deployment_id) if revision is not None else None


EMPTY: Final = RegistryView(0, {}, {})


def retention_of(handler: HandlerRevision, idempotency_key: str | None) -> tuple[int, int]:
    """(completion, journal) retention in ms of a new invocation (service protocol §6.7)."""
    if handler.kind is HandlerKind.RUN:
        completion = handler.workflow_retention_ms
    elif idempotency_key is not None:
        completion = handler.idempotency_retention_ms
    else:
        return handler.journal_retention_ms, handler.journal_retention_ms
    return completion, min(completion, handler.journal_retention_ms)
