"""What the surfaces know of the coordinator: requests in, outcomes out, all as data. Implemented by `coordinator.node.Node`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Protocol

from holdfast.protocol.ids import InvocationId
from holdfast_runtime.engine.model import INLINE_LIMIT
from holdfast_runtime.engine.registry import Deployment, RegistryView, ServiceRevision

MAX_REASON_BYTES: Final = INLINE_LIMIT  # why an awakeable was rejected: it stands in the log as it is, and a log item has 340 KB


@dataclass(frozen=True, slots=True)
class Target:
    """What is called. `key` is None exactly for plain services."""

    service: str
    handler: str
    key: str | None = None


@dataclass(frozen=True, slots=True)
class NewInvocation:
    """A request from the ingress that passed all checks against the registry.

    headers: what the handler will see, `x-restate-ingress-path` first, lower-case names. delay_ms: None = now.
    from_queue: it came over the inbox queue, which may deliver it again after its work is done.
    """

    target: Target
    body: bytes
    headers: Sequence[tuple[str, str]]
    idempotency_key: str | None = None
    delay_ms: int | None = None
    from_queue: bool = False


@dataclass(frozen=True, slots=True)
class Success:
    value: bytes
    # Wall-clock ms when a stored result expires; None when the answer was waited for live.
    expires_at_ms: int | None = None
    # Whose result it is, as far as known: its handler decides on the content-type. Not set by `call`, whose caller knows.
    target: Target | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """A terminal failure: the invocation's own outcome, visible to callers."""

    code: int
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    expires_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class NotFound:
    """Unknown invocation, or its retention is over."""


@dataclass(frozen=True, slots=True)
class NotReady:
    """The invocation exists but has not completed."""


Outcome = Success | Failed


@dataclass(frozen=True, slots=True)
class Accepted:
    """new: False when the idempotency key or workflow key was seen before. execution_time_ms: when it is scheduled for, else None."""

    invocation_id: InvocationId
    new: bool
    execution_time_ms: int | None = None


class Done(Enum):
    """What an operator's request found."""

    APPLIED = "applied"  # done at once and durable
    ACCEPTED = "accepted"  # durable; takes effect at the next attempt
    NOT_FOUND = "not found"
    ALREADY_COMPLETED = "already completed"
    NOT_COMPLETED = "not yet completed"
    NOT_RUNNING = "not running"  # pause of something that is not started
    NOT_STARTED = "inboxed or scheduled"  # resume or restart of something not started
    STILL_RUNNING = "still running"  # restart of something that is not over
    PINNED = "not waiting on a deployment"  # only what is paused or suspended, and pinned, can be moved to another one
    NO_DEPLOYMENT = "without such a deployment"
    NO_HANDLER = "not served by that deployment"
    NO_VERSION = "in a protocol version that deployment does not speak"
    NO_JOURNAL = "without a journal"  # purged, not kept, or its retention is over
    UNSUPPORTED = "not restartable"  # a workflow's run: once per key
    OUT_OF_RANGE = "shorter than the prefix asked for"
    UNFINISHED = "unfinished in the prefix asked for"  # a command without its result
    TOO_LARGE = "too large to restart from that entry"


@dataclass(frozen=True, slots=True)
class Restarted:
    """The invocation runs again, under this id."""

    invocation_id: InvocationId


class CoordinatorUnavailable(Exception):
    """The shard's owner could not be reached or lost its lease. retry_safe: the request certainly did nothing, or is idempotent."""

    def __init__(self, message: str, *, retry_safe: bool) -> None:
        super().__init__(message)
        self.retry_safe = retry_safe


class RegistrationError(Exception):
    """A deployment was refused. status, restate_code and message are those of http-api §2.5."""

    def __init__(self, message: str, *, status: int, restate_code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.restate_code = restate_code


@dataclass(frozen=True, slots=True)
class RegisterDeployment:
    """POST /deployments, parsed. Exactly one of uri and arn."""

    uri: str | None = None
    arn: str | None = None
    assume_role_arn: str | None = None
    additional_headers: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    use_http_11: bool = False
    force: bool = False
    breaking: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Registered:
    deployment: Deployment
    services: Sequence[ServiceRevision]
    created: bool  # False: the address was known and nothing changed, or it was overwritten by force


@dataclass(frozen=True, slots=True)
class UpdateDeployment:
    """PATCH /deployments/{id}, parsed; None leaves a thing as it is (http-api §2.5).

    A new `arn` without `assume_role_arn` drops the role. overwrite: what the endpoint serves replaces what is stored.
    """

    uri: str | None = None
    arn: str | None = None
    assume_role_arn: str | None = None
    additional_headers: Mapping[str, str] | None = None
    use_http_11: bool | None = None
    overwrite: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class PatchService:
    """PATCH /services/{name}, parsed; None leaves a setting as it is. Durations in ms."""

    public: bool | None = None
    idempotency_retention_ms: int | None = None
    workflow_completion_retention_ms: int | None = None
    journal_retention_ms: int | None = None
    inactivity_timeout_ms: int | None = None
    abort_timeout_ms: int | None = None


@dataclass(frozen=True, slots=True)
class InvocationFilter:
    """None means "any"."""

    service: str | None = None
    handler: str | None = None
    key: str | None = None
    status: str | None = None
    limit: int = 100


NEWEST: Final = "newest"
OLDEST: Final = "oldest"


@dataclass(frozen=True, slots=True)
class Scan:
    """Rows for SQL introspection. source: "invocations", "journal", "events", "inbox", "locks", "state" or "promises"; their columns are in
    `scans`.

    where: column -> the values it may have; a row passes when every column named has one of its values. limit: rows.
    Of invocations only: either: groups like `where`, of each of which one column must have one of its values; since_ms, until_ms: created
    between them, both included; order: with NEWEST or OLDEST the rows are the `limit` last or first created of each shard (then by id),
    hence more than `limit` altogether.
    """

    source: str
    columns: Sequence[str]
    where: Mapping[str, Sequence[str]] = field(default_factory=dict)
    limit: int = 1_000
    since_ms: int | None = None
    until_ms: int | None = None
    order: str | None = None
    either: Sequence[Mapping[str, Sequence[str]]] = ()


@dataclass(frozen=True, slots=True)
class Scanned:
    """One list per row, in the order of the columns. more: None when this is all, else the limit that was reached, "rows" or "bytes"."""

    rows: Sequence[Sequence[Any]]
    more: str | None = None


class Front(Protocol):
    """Methods raise CoordinatorUnavailable when the owner of the shard cannot be reached within 30 s."""

    @property
    def registry(self) -> RegistryView:
        """The current deployments and services; an immutable snapshot, cheap to read on every request."""
        ...

    def mint(self, invocation: NewInvocation) -> InvocationId:
        """The id this request gets: random, or a pure function of its idempotency or workflow key."""
        ...

    async def call(self, invocation_id: InvocationId, invocation: NewInvocation) -> Outcome:
        """Accept and wait for the result, however long it takes. A second call of a workflow's run handler gives Failed(409)."""
        ...

    async def send(self, invocation_id: InvocationId, invocation: NewInvocation) -> Accepted:
        """Accept durably, do not wait."""
        ...

    async def attach(self, invocation_id: InvocationId) -> Outcome | NotFound: ...

    async def output(self, invocation_id: InvocationId) -> Outcome | NotReady | NotFound: ...

    async def resolve_awakeable(self, invocation_id: InvocationId, index: int, value: bytes) -> None: ...

    async def reject_awakeable(self, invocation_id: InvocationId, index: int, message: str) -> None: ...

    async def cancel(self, invocation_id: InvocationId) -> Done: ...

    async def kill(self, invocation_id: InvocationId) -> Done: ...

    async def purge(self, invocation_id: InvocationId) -> Done: ...

    async def pause(self, invocation_id: InvocationId) -> Done: ...

    async def purge_journal(self, invocation_id: InvocationId) -> Done:
        """Forget the journal of a finished invocation, keep its result."""
        ...

    async def resume(self, invocation_id: InvocationId, deployment: str | None = None) -> Done:
        """deployment: where it goes on, an id or "latest"; None: where it was."""
        ...

    async def restart_as_new(self, invocation_id: InvocationId, *, upto: int = 0, deployment: str | None = "latest") -> Restarted | Done:
        """Run a finished invocation again, from its input and the journal up to and including entry `upto`; as `resume` for deployment."""
        ...

    async def list_invocations(self, where: InvocationFilter) -> Sequence[Mapping[str, Any]]:
        """Rows with the column names of `sys_invocation` (http-api §4.3) as far as known, newest first."""
        ...

    async def describe(self, invocation_id: InvocationId) -> Mapping[str, Any] | None:
        """One `sys_invocation` row plus "journal": a list of `sys_journal`-like rows. None: unknown."""
        ...

    async def scan(self, scan: Scan) -> Scanned:
        """Rows in no order, from every shard that may have some."""
        ...

    async def state(self, service: str, key: str) -> Mapping[str, bytes]:
        """The keyed state of a virtual object or workflow, as stored now."""
        ...

    async def edit_state(self, service: str, key: str, state: Mapping[str, bytes], version: str | None) -> None:
        """Replace the whole state of a key, in its turn; dropped silently when `version` is given and is not the state's (http-api
        §2.7)."""
        ...

    async def register(self, request: RegisterDeployment) -> Registered:
        """Discover, validate and store. Raises RegistrationError."""
        ...

    async def remove_deployment(self, deployment_id: str) -> bool:
        """False: unknown id."""
        ...

    async def update_deployment(self, deployment_id: str, update: UpdateDeployment) -> Deployment | None:
        """Point a deployment elsewhere; invocations pinned to it follow. None: unknown id. Raises RegistrationError."""
        ...

    async def patch_service(self, name: str, patch: PatchService) -> ServiceRevision | None:
        """Change settings of the active revision. None: unknown service. Raises RegistrationError."""
        ...
