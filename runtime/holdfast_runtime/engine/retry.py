"""When a failed attempt is tried again (service protocol §3.8)."""

from __future__ import annotations

from holdfast_runtime.engine.model import Document
from holdfast_runtime.engine.registry import HandlerRevision, RegistryView, RetryPolicy

MAX_JITTER = 0.3


def next_delay_ms(policy: RetryPolicy, failures: int, jitter: float) -> int | None:
    """Delay after the n-th failure of a series (1, 2, ...), or None when the attempts are used up. jitter in [0, 1)."""
    if policy.max_attempts is not None and failures >= policy.max_attempts:
        return None
    # 2.0 ** 1100 would overflow; long before that the maximum holds.
    exponent = min(failures - 1, 200)
    delay = min(policy.initial_interval_ms * policy.factor**exponent, policy.max_interval_ms)
    return int(delay * (1 + MAX_JITTER * jitter))


def handler_of(registry: RegistryView, service: str, handler: str, deployment: str | None) -> HandlerRevision | None:
    """The handler as the pinned deployment serves it, else as the active revision does."""
    pinned = registry.deployments.get(deployment) if deployment is not None else None
    revision = pinned.services.get(service) if pinned is not None else registry.services.get(service)
    return revision.handlers.get(handler) if revision is not None else None


def policy_of(registry: RegistryView, document: Document, service: str, handler: str, deployment: str | None) -> RetryPolicy:
    found = handler_of(registry, service, handler, deployment)
    return found.retry if found is not None else RetryPolicy()
