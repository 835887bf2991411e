"""Which deployment an operator may choose for an invocation, to resume or to restart it there (http-api §2.8)."""

from __future__ import annotations

from typing import Any, Final

from holdfast_runtime.engine.events import Operated
from holdfast_runtime.engine.registry import Deployment, RegistryView

LATEST: Final = "latest"  # in place of an id: the one that serves the service now


def choose(registry: RegistryView, target: list[Any], wanted: str, version: int | None) -> Deployment | Operated:
    """The deployment `wanted`, or why it cannot take an invocation of `target` whose journal has protocol version `version`.

    It may be removed a moment later: then attempts fail (RT0011) until the policy pauses it, and it can be moved again.
    """
    service, handler, _, kind = target
    found = registry.deployment_of(service) if wanted == LATEST else registry.deployments.get(wanted)
    if found is None:
        return Operated.NO_DEPLOYMENT
    revision = found.services.get(service)
    served = revision.handlers.get(handler) if revision is not None else None
    if served is None or served.kind.value != kind:
        return Operated.NO_HANDLER
    if version is not None and not found.min_protocol_version <= version <= found.max_protocol_version:
        return Operated.NO_VERSION
    return found
