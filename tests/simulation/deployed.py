"""What is deployed in a world with operators: deployments that come and go, and settings that are changed.

Every deployment runs the same handlers; they differ in what the registry says of them: the third speaks an older protocol and lacks a
service, so that nothing that has a journal can be moved there.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any, Final

from holdfast.protocol.manifest import HandlerManifest, HandlerType, ServiceType
from holdfast_runtime.engine.registry import (
    Deployment,
    HandlerKind,
    HandlerRevision,
    InProcessAddress,
    OnMaxAttempts,
    RegistryView,
    RetryPolicy,
    ServiceRevision,
)

EPOCH_MS: Final = 1_800_000_000_000
DEPLOYMENT: Final = "dp_1simulated"
DEPLOYMENTS: Final = (DEPLOYMENT, "dp_2simulated", "dp_3old")
OLD: Final = DEPLOYMENTS[2]
HOUR_MS: Final = 3_600_000
_Services = dict[str, tuple[ServiceType, list[HandlerRevision]]]
_CHANGED: Final = ("Brittle", "Object", "Lazy", "Flow")  # services whose retention operators change


def handler(name: str, kind: HandlerKind, retention_ms: int, **more: Any) -> HandlerRevision:
    return HandlerRevision(
        name=name,
        kind=kind,
        public=True,
        abort_timeout_ms=5_000,
        journal_retention_ms=more.get("journal_ms", retention_ms),
        idempotency_retention_ms=retention_ms,
        workflow_retention_ms=retention_ms,
        lazy_state=more.get("lazy_state", False),
        retry=more.get("retry", RetryPolicy(50, 2.0, 500, None)),
        manifest=HandlerManifest(name=name, type=None if kind is HandlerKind.SERVICE else HandlerType.SHARED),
    )


def services(kept: dict[str, tuple[int, int]]) -> _Services:
    """kept: retention of result and journal in ms, of services that do not have their usual one."""
    shared, exclusive, plain = HandlerKind.SHARED, HandlerKind.EXCLUSIVE, HandlerKind.SERVICE
    pausing = RetryPolicy(50, 2.0, 500, 3, OnMaxAttempts.PAUSE)
    killing = RetryPolicy(50, 2.0, 500, 3, OnMaxAttempts.KILL)

    def made(service: str, name: str, kind: HandlerKind, retention_ms: int, **more: Any) -> HandlerRevision:
        retention_ms, journal_ms = kept.get(service, (retention_ms, retention_ms))
        return handler(name, kind, retention_ms, journal_ms=journal_ms, **more)

    return {
        "Plain": (ServiceType.SERVICE, [made("Plain", "run", plain, HOUR_MS)]),
        "Fleeting": (ServiceType.SERVICE, [made("Fleeting", "run", plain, 0)]),
        "Brittle": (ServiceType.SERVICE, [made("Brittle", "run", plain, HOUR_MS, retry=pausing)]),
        "Doomed": (ServiceType.SERVICE, [made("Doomed", "run", plain, 0, retry=killing)]),
        "Object": (ServiceType.VIRTUAL_OBJECT, [made("Object", "write", exclusive, HOUR_MS), handler("read", shared, 0)]),
        "Lazy": (
            ServiceType.VIRTUAL_OBJECT,
            [made("Lazy", "write", exclusive, 5_000, lazy_state=True), handler("read", shared, HOUR_MS, lazy_state=True)],
        ),
        "Flow": (ServiceType.WORKFLOW, [made("Flow", "run", HandlerKind.RUN, HOUR_MS), handler("query", shared, 0)]),
    }


def _revisions(deployment: str, revision: int, served: _Services) -> dict[str, ServiceRevision]:
    return {
        name: ServiceRevision(name, type_, revision, deployment, True, {handler.name: handler for handler in handlers})
        for name, (type_, handlers) in served.items()
    }


def _deployment(id_: str, address: str, versions: tuple[int, int], revisions: dict[str, ServiceRevision]) -> Deployment:
    return Deployment(id_, InProcessAddress(address), "RequestResponse", *versions, versions[1], EPOCH_MS, services=revisions)


def _view() -> RegistryView:
    revisions = _revisions(DEPLOYMENT, 1, services({}))
    return RegistryView(1, {DEPLOYMENT: _deployment(DEPLOYMENT, "simulated", (5, 6), revisions)}, revisions)


VIEW: Final = _view()


@dataclass(frozen=True, slots=True)
class Stage:
    """present: deployments there are. moved: how often their addresses have changed. kept: see `services`."""

    version: int
    present: tuple[str, ...]
    moved: int
    kept: tuple[tuple[str, tuple[int, int]], ...]

    @staticmethod
    def first(chance: Random) -> Stage:
        return Stage(1, DEPLOYMENTS, 0, _kept(chance))

    @staticmethod
    def drawn(chance: Random, before: Stage) -> Stage:
        one, two, old = DEPLOYMENTS
        present = chance.choice([(one, old), (one, two, old), (one, two, old), (two, old), (one, two)])
        kept = _kept(chance) if chance.random() < 0.4 else before.kept
        return Stage(before.version + 1, present, before.moved + chance.choice([0, 1]), kept)

    def view(self) -> RegistryView:
        served = services(dict(self.kept))
        found: dict[str, Deployment] = {}
        active: dict[str, ServiceRevision] = {}
        for number, id_ in sorted((0 if id_ == OLD else n + 1, id_) for n, id_ in enumerate(self.present)):
            mine = {name: service for name, service in served.items() if id_ != OLD or name != "Doomed"}
            revisions = _revisions(id_, number, mine)
            found[id_] = _deployment(id_, f"{id_}@{self.moved}", (5, 5) if id_ == OLD else (5, 6), revisions)
            active |= revisions
        return RegistryView(self.version, found, active)


def _kept(chance: Random) -> tuple[tuple[str, tuple[int, int]], ...]:
    """Results of a few seconds to an hour, journals for a shorter time or not at all. Plain ones stay: calls with a key rely on them."""
    kept = {"Plain": (HOUR_MS, chance.choice([0, 2_000, 9_000, HOUR_MS]))}
    for name in _CHANGED:
        retention = chance.choice([3_000, 3_000, 12_000, 60_000, HOUR_MS])
        kept[name] = retention, chance.choice([0, 1_500, retention, HOUR_MS])
    return tuple(kept.items())
