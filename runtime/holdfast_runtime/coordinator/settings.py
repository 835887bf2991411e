"""Numbers of the coordinator, each with its reason. Durations in seconds unless the name says otherwise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from holdfast.protocol.frames import MAX_MESSAGE_BYTES
from holdfast_runtime.engine.registry import DAY_MS, RetryPolicy
from holdfast_runtime.engine.snapshot import EAGER_STATE_BYTES

DISCOVERY_TIMEOUT_S: Final = 20.0  # a cold Lambda function may take 10 s for its initialisation alone


@dataclass(frozen=True, slots=True)
class Settings:
    # Membership (storage design §4.5)
    heartbeat_s: float = 2.0
    presumed_dead_s: float = 8.0  # a member whose counter has not moved for so long
    lease_s: float = 10.0  # an owner that has not seen its epoch for so long neither appends, acts nor answers
    take_interval_s: float = 0.1  # between two take-overs of a process; each shard that waits for its turn is not served meanwhile
    exclusive_store: bool = False  # nobody else can have the store open (embedded): every other member is dead

    # Flush and checkpoint (storage design §4.3, §4.4)
    flush_after_s: float = 300.0
    log_limit_bytes: int = 16 * 1024 * 1024  # log behind the checkpoints of a process's shards: what recovery has to read
    checkpoint_interval_s: float = 10.0
    memory_limit_bytes: int = 12 * 1024 * 1024  # per process: encoded size of pages in memory; as objects they take about four times that
    flush_parallel: int = 64
    overdue_s: float = 6 * 3600.0  # a page that waits so long to be written back: nothing new is taken, before its log expires

    # Work
    part_bytes: int = 340_000  # of one log item; an item must stay under the store's 350 KB
    max_attempts_in_flight: int = 1_000  # per process; more wait their turn
    max_attempts_per_deployment: int | None = None  # of them at one deployment; None: `attempts_per_deployment`
    max_message_bytes: int = MAX_MESSAGE_BYTES  # one message of a handler
    eager_state_bytes: int = EAGER_STATE_BYTES  # of a key, sent along with each of its attempts
    window: int = 64  # messages between shards per transition
    resend_s: float = 1.0  # until a message is acknowledged
    timer_horizon_s: float = 600.0  # timers due within it are kept in memory
    wakeup_pace_s: float = 0.1  # between two requests of a shard for wake-ups: a take-over of many far pages must not exhaust the API
    acknowledge_timeout_s: float = 30.0  # a request not acknowledged by then gets 503
    retry_store_s: float = 0.05  # first delay after a store error, doubled up to 1 s
    registry_refresh_s: float = 5.0
    discovery_timeout_s: float = DISCOVERY_TIMEOUT_S  # one try of asking an endpoint what it serves

    # What services get that say nothing themselves, and the most any may ask for; None: no limit (http-api §5.2, §6.2 to §6.4)
    default_abort_timeout_ms: int = 10 * 60_000
    default_journal_retention_ms: int = DAY_MS
    default_idempotency_retention_ms: int = DAY_MS
    default_workflow_completion_retention_ms: int = DAY_MS
    default_retry_policy: RetryPolicy = field(default_factory=RetryPolicy)
    max_journal_retention_ms: int | None = None
    max_idempotency_retention_ms: int | None = None
    max_workflow_completion_retention_ms: int | None = None
    max_retry_policy_max_attempts: int | None = None
    deployment_routing_headers: tuple[str, ...] = ()  # headers that tell endpoints of one address apart (http-api §3.3)

    @property
    def attempts_per_deployment(self) -> int:
        """Four fifths, so that others get some whatever a deployment does."""
        most = self.max_attempts_in_flight
        return self.max_attempts_per_deployment or (most * 4 // 5 if most >= 100 else most)  # who sets a small limit means just that
