"""The exchanges with the admin API: registry, operations on invocations, state, SQL (http-api §2 to §4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.golden.live.endpoints import Told
from tests.golden.live.exchanges import NAMES
from tests.golden.live.scenarios import (
    MAIN,
    Registration,
    Scenario,
    Step,
    becomes,
    changes_deployments,
    hold_endpoints,
    operate,
    release_endpoints,
    remove,
    replay,
    rows,
    scenario,
    send,
    special,
)

# Answered at once with the five fixture services registered and nothing else.
AT_ONCE = [
    "admin-cluster-health",
    "admin-health",
    "admin-version",
    "admin-unsupported-api-version",
    "admin-services-get",
    "admin-services-get-not-found",
    "admin-services-get-tuned",
    "admin-services-get-workflow",
    "admin-services-handler-get",
    "admin-services-handler-not-found",
    "admin-services-handlers-list",
    "admin-services-patch-bad-duration",
    "admin-services-patch-not-found",
    "admin-services-patch-workflow-retention-on-object",
    "admin-deployments-get-bad-id",
    "admin-deployments-patch-unknown",
    "admin-deployments-register-admin-404",
    "admin-deployments-register-bad-arn",
    "admin-deployments-register-bad-json",
    "admin-deployments-register-bad-uri",
    "admin-deployments-register-empty",
    "admin-deployments-register-no-content-type",
    "admin-deployments-register-not-restate-endpoint",
    "admin-deployments-register-relative-uri",
    "admin-deployments-register-unreachable",
    "admin-invocations-cancel-bad-id",
    "admin-invocations-cancel-not-found",
    "admin-invocations-delete-old-form-bad-mode",
    "admin-invocations-delete-old-form-kill-not-found",
    "admin-invocations-get",
    "admin-invocations-kill-not-found",
    "admin-invocations-post-method",
    "admin-state-clear-unknown-service",
    "admin-state-missing-key",
    "admin-state-modify-on-service",
    "admin-state-modify-unknown-service",
    "admin-kafka-clusters-list",
    "admin-subscriptions-create-bad-sink",
    "admin-subscriptions-create-bad-source",
    "admin-subscriptions-create-unknown-cluster",
    "admin-subscriptions-delete-unknown",
    "admin-subscriptions-get-unknown",
    "admin-subscriptions-list-empty",
]

# ---- The registry

BREAKING = (("breaking", True),)
NEWER = (("metadata", {"git": "abc"}), ("additional_headers", {"x-api-key": "secret"}))
FIRST, SECOND, THIRD, CHANGED = Registration(21020), Registration(21011), Registration(21012), Registration(21013, BREAKING)

REGISTERING = scenario(
    changes_deployments,
    replay("admin-deployments-register-http-dry-run"),
    replay("admin-deployments-register-http"),
    replay("admin-deployments-register-again-unversioned"),
    replay("admin-deployments-register-again-v2"),
    replay("admin-deployments-register-again-v3"),
    deployments=(),
)

REMOVING = scenario(
    remove(21020),
    replay("admin-deployments-list"),
    replay("admin-deployments-get"),
    replay("admin-deployments-delete-no-force"),
    replay("admin-deployments-delete-force-false"),
    replay("admin-deployments-delete-force"),
    replay("admin-deployments-delete-unknown"),
    replay("admin-deployments-get-unknown"),
    deployments=(MAIN, FIRST, SECOND, THIRD, CHANGED),
)

CHANGING = scenario(
    remove(21020),
    replay("admin-deployments-register-new-revision"),
    replay("admin-services-list"),
    replay("admin-deployments-put-unversioned"),
    replay("admin-deployments-patch-headers"),
    replay("admin-deployments-patch-uri"),
    replay("admin-deployments-patch-overwrite-dry-run"),
    replay("admin-services-patch"),
    replay("admin-services-patch-workflow-retention"),
    deployments=(MAIN, FIRST, SECOND),
)

FUNCTIONS = scenario(
    changes_deployments,
    replay("admin-deployments-register-lambda"),
    replay("admin-deployments-get-lambda"),
    replay("admin-deployments-list-lambda"),
    replay("admin-deployments-patch-lambda"),
    deployments=(),
)


def manifest(*, service: str = "ApiDisc", low: int = 5, **handler: Any) -> Mapping[str, Any]:
    typed = {"input": {"required": True, "contentType": "application/json"}, "output": {"contentType": "application/json"}}
    return {
        "protocolMode": "REQUEST_RESPONSE",
        "minProtocolVersion": low,
        "maxProtocolVersion": low + 2,
        "services": [{"name": service, "ty": "SERVICE", "handlers": [{"name": "greet", **typed, **handler}]}],
    }


MADE_BY_HAND = scenario(
    special(Told(manifest())),
    replay("admin-deployments-register-http11-dry-run"),
    replay("admin-deployments-register-h2-against-http11"),
    special(Told(manifest(), content_type="application/json")),
    replay("admin-deployments-register-bad-discovery-content-type"),
    special(Told(manifest(ty="EXCLUSIVE"))),
    replay("admin-deployments-register-bad-handler-type"),
    special(Told(manifest(service="RestateThing"))),
    replay("admin-deployments-register-reserved-name"),
    special(Told(manifest(low=1))),
    replay("admin-deployments-register-protocol-too-old"),
)

SQL = scenario(
    remove(21020),
    *(replay(name) for name in NAMES if name.startswith("admin-query-")),
    deployments=(MAIN, FIRST, SECOND, THIRD),
)

# ---- Operations on invocations

# A handler that can only wait: the reference suspends it after its inactivity timeout, we at once.
WAITING = ("running", "suspended")

# Over HTTP/1.1 an attempt suspends as soon as it has nothing to do.
SUSPENDING = Registration(21010, (("use_http_11", True),))


def each(operation_names: str, name: str) -> tuple[Step, ...]:
    """The exchanges `admin-invocations-<operation>` one after the other, about one invocation."""
    return tuple(replay(f"admin-invocations-{operation}", name) for operation in operation_names.split())


COMPLETED = scenario(
    send("c", "ApiGreeter/greet", "Ada"),
    becomes("c", "completed"),
    *each("cancel-completed kill-completed pause-completed resume-completed restart-completed", "c"),
    *each("purge-journal-completed restart-journal-purged purge-completed purge-not-found", "c"),
    send("wf", "ApiFlow/wf-1/run", {"wait": False}),
    becomes("wf", "completed"),
    *each("restart-workflow", "wf"),
)

SCHEDULED = scenario(
    send("later", "ApiGreeter/greet", "Ada", delay="1h"),
    *each("pause-scheduled resume-scheduled restart-scheduled kill-scheduled", "later"),
    send("never", "ApiGreeter/greet", "Ada", delay="1h"),
    *each("cancel-scheduled", "never"),
)

PENDING = scenario(
    send("holder", "ApiCounter/held/wait"),
    becomes("holder", *WAITING),
    send("waits", "ApiCounter/held/add", 1),
    becomes("waits", "pending"),
    *each("pause-pending resume-pending restart-pending purge-pending kill-pending", "waits"),
    send("cancelled", "ApiCounter/held/add", 1),
    becomes("cancelled", "pending"),
    *each("cancel-pending", "cancelled"),
    replay("ingress-cancelled-pending-outcome", "cancelled"),
)

RUNNING = scenario(
    hold_endpoints,
    send("r", "ApiCounter/k/wait"),
    becomes("r", "running"),
    *each("purge-running purge-journal-running restart-running resume-with-deployment-running resume-bad-deployment", "r"),
    *each("pause-running", "r"),
    release_endpoints,
    becomes("r", "paused"),
    *each("pause-again resume-paused", "r"),
    becomes("r", *WAITING),
    *each("delete-old-form-cancel", "r"),
    becomes("r", "completed"),
)

KILLED = scenario(
    hold_endpoints,
    send("k", "ApiCounter/k/wait"),
    becomes("k", "running"),
    *each("kill-running", "k"),
    becomes("k", "completed"),
    replay("ingress-killed-outcome", "k"),
)

CANCELLED = scenario(
    hold_endpoints,
    send("c", "ApiCounter/k/wait"),
    becomes("c", "running"),
    *each("cancel-running", "c"),
    release_endpoints,
    becomes("c", "completed"),
    replay("ingress-cancelled-outcome", "c"),
)

PAUSED = scenario(
    send("b", "ApiGreeter/crash", "x"),
    becomes("b", "backing-off"),
    *each("resume-backing-off", "b"),
    becomes("b", "backing-off"),
    *each("pause-backing-off", "b"),
    becomes("b", "paused"),
    *each("cancel-paused", "b"),
    operate("b", "kill"),
    becomes("b", "completed"),
    *each("restart-killed", "b"),
    send("p", "ApiTuned/k/pausing", "x"),
    becomes("p", "paused"),
    *each("purge-paused purge-journal-paused restart-paused resume-paused-latest", "p"),
    becomes("p", "paused"),
    *each("kill-paused", "p"),
)

SUSPENDED = scenario(
    send("s", "ApiGreeter/awaken", "s"),
    becomes("s", "suspended"),
    *each("purge-suspended purge-journal-suspended restart-suspended pause-suspended resume-suspended", "s"),
    becomes("s", "suspended", "paused"),
    *each("kill-suspended", "s"),
    send("t", "ApiGreeter/awaken", "t"),
    becomes("t", "suspended"),
    *each("resume-suspended-latest", "t"),
    becomes("t", "suspended"),
    *each("cancel-suspended", "t"),
    deployments=(SUSPENDING,),
)

BATCHES = scenario(
    send("r", "ApiCounter/r/wait"),
    becomes("r", *WAITING),
    replay("admin-internal-batch-pause", "r"),
    becomes("r", "paused"),
    replay("admin-internal-batch-resume", "r"),
    becomes("r", *WAITING),
    replay("admin-internal-batch-cancel", "r"),
    send("k", "ApiCounter/k/wait"),
    becomes("k", *WAITING),
    replay("admin-internal-batch-kill", "k"),
    becomes("k", "completed"),
    replay("admin-internal-batch-restart", "k"),
    replay("admin-internal-batch-purge-journal", "k"),
    replay("admin-internal-batch-purge", "k"),
)

# ---- State, and what is not there

STATE = scenario(
    replay("admin-state-modify"),
    rows("SELECT key FROM state WHERE service_key = 'st-1' AND (key = 'blob' OR value_utf8 = '41')", 2),
    replay("admin-state-modify-string-values"),
    rows("SELECT key FROM state WHERE service_key = 'st-2' AND value_utf8 = 'abc'", 1),
    replay("admin-state-modify-version-mismatch"),
    replay("admin-state-clear"),
    rows("SELECT key FROM state WHERE service_key = 'st-1'", 0),
)

KAFKA = scenario(
    replay("admin-kafka-clusters-create-missing-broker"),
    replay("admin-kafka-clusters-create"),
    replay("admin-subscriptions-create"),
    replay("admin-subscriptions-get"),
    replay("admin-subscriptions-list"),
    replay("admin-kafka-clusters-get"),
    replay("admin-kafka-clusters-delete-orphan"),
    replay("admin-subscriptions-delete"),
    replay("admin-kafka-clusters-delete"),
)

RULES = scenario(
    replay("admin-rules-upsert"),
    replay("admin-rules-delete"),
)

SCENARIOS: list[Scenario] = [
    scenario(*(replay(name) for name in AT_ONCE)),
    REGISTERING,
    REMOVING,
    CHANGING,
    FUNCTIONS,
    MADE_BY_HAND,
    SQL,
    COMPLETED,
    SCHEDULED,
    PENDING,
    RUNNING,
    KILLED,
    CANCELLED,
    PAUSED,
    SUSPENDED,
    BATCHES,
    STATE,
    KAFKA,
    RULES,
]
