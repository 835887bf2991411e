"""The exchanges with the ingress, and those of the official TypeScript client (http-api §1 and §9.1)."""

from __future__ import annotations

from tests.golden.live.exchanges import NAMES
from tests.golden.live.scenarios import (
    LAMBDA,
    MAIN,
    Registration,
    Scenario,
    answered,
    awakeable,
    becomes,
    begin,
    changes_deployments,
    finds,
    hold_endpoints,
    occupy,
    operate,
    reached,
    release_endpoints,
    remove,
    replay,
    replay_limited,
    request,
    scenario,
    send,
)

# A handler that can only wait: the reference suspends it after its inactivity timeout, we at once.
WAITING = ("running", "suspended")

# Refused by the surface itself, or answered from the registry alone.
_WITH_A_HISTORY = (
    "ingress-error-body-too-large",
    "ingress-error-overloaded",
    "ingress-error-patched-private",
    "ingress-error-terminal-idempotent",
)
AT_ONCE = [
    name
    for name in NAMES
    if name.startswith(("ingress-error-", "ingress-health", "ingress-lookup-", "ingress-cors-")) and not name.startswith(_WITH_A_HISTORY)
]

CALLS = scenario(
    replay("ingress-call-service"),
    replay("ingress-call-service-new-path"),
    replay("ingress-call-trailing-slash"),
    replay("ingress-call-text"),
    replay("ingress-call-binary"),
    replay("ingress-call-void-output"),
    replay("ingress-call-headers-seen-by-handler"),
    replay("ingress-call-object-urlencoded-key"),
    replay("ingress-call-object-plus-in-key"),
    replay("ingress-call-object"),
    replay("ingress-call-object-new-path"),
    replay("ingress-call-object-get-method"),
    replay("ingress-call-idempotent-first"),
    replay("ingress-call-idempotent-repeat"),
    replay("ingress-error-terminal-idempotent-first"),
    replay("ingress-error-terminal-idempotent-repeat"),
)

SENDS = scenario(
    replay("ingress-send-service"),
    replay("ingress-send-service-new-path"),
    replay("ingress-send-object"),
    replay("ingress-send-delayed-ms"),
    replay("ingress-send-delayed-new-path"),
)

WAITING_FOR_A_RESULT = scenario(
    hold_endpoints,
    replay("ingress-send-idempotent-first"),
    replay("ingress-send-idempotent-repeat"),
    replay("ingress-output-not-ready"),
    replay("ingress-output-new-path-not-ready"),
    replay("ingress-output-by-idempotency-not-ready"),
    begin("ingress-attach-blocks-until-done"),
    reached,
    release_endpoints,
    answered("ingress-attach-blocks-until-done"),
    replay("ingress-attach-new-path"),
    replay("ingress-attach-by-idempotency"),
    replay("ingress-attach-by-target-body"),
    replay("ingress-output-ready"),
    replay("ingress-output-by-target-body"),
    replay("ingress-call-object-idempotent"),
    replay("ingress-attach-object-by-idempotency"),
    replay("ingress-output-object-by-idempotency"),
)

WITHOUT_AN_IDEMPOTENCY_KEY = scenario(
    hold_endpoints,
    send("slow", "ApiGreeter/slow", 10),
    replay("ingress-output-non-idempotent-running", "slow"),
    begin("ingress-attach-non-idempotent-running", "slow"),
    reached,
    release_endpoints,
    answered("ingress-attach-non-idempotent-running"),
    replay("ingress-output-non-idempotent-completed", "slow"),
)

AWAKEABLES = scenario(
    send("resolved", "ApiGreeter/awaken", "resolved"),
    awakeable("first", "resolved"),
    replay("ingress-awakeable-resolve", "first"),
    replay("ingress-awakeable-resolve-again", "first"),
    send("rejected", "ApiGreeter/awaken", "rejected"),
    awakeable("second", "rejected"),
    replay("ingress-awakeable-reject", "second"),
    becomes("rejected", "completed"),
    replay("ingress-awakeable-reject-outcome", "rejected"),
)

WORKFLOWS = scenario(
    replay("ingress-workflow-send-run"),
    replay("ingress-workflow-send-run-again"),
    replay("ingress-workflow-output-not-ready"),
    finds("run", "target = 'ApiFlow/wf-1/run' AND status IN ('running', 'suspended') AND journal_size > 3"),  # its stage is set
    replay("ingress-workflow-shared-call"),
    begin("ingress-workflow-attach"),
    reached,
    replay("ingress-workflow-shared-signal"),
    answered("ingress-workflow-attach"),
    replay("ingress-workflow-output-ready"),
    replay("ingress-workflow-approve-again-conflict"),
    replay("ingress-workflow-call-run-again-conflict"),
    replay("ingress-workflow-send-run-after-completion"),
    replay("ingress-workflow-shared-idempotency-key"),
    replay("ingress-workflow-failing-run"),
    replay("ingress-workflow-output-failed"),
    send("fourth", "ApiFlow/wf-4/run", {"wait": True}),
    becomes("fourth", *WAITING),
    replay("ingress-workflow-call-run-while-running"),
)

ENDED_BY_AN_OPERATOR = scenario(
    begin("ingress-call-killed-while-running"),
    finds("killed", "target = 'ApiGreeter/awaken' AND status IN ('running', 'suspended')"),
    operate("killed", "kill"),
    answered("ingress-call-killed-while-running"),
    send("holder", "ApiCounter/cw/wait"),
    becomes("holder", *WAITING),
    begin("ingress-call-cancelled-while-pending"),
    finds("pending", "target = 'ApiCounter/cw/add' AND status = 'pending'"),
    operate("pending", "cancel"),
    answered("ingress-call-cancelled-while-pending"),
)

LIMITS = scenario(
    replay_limited("ingress-error-body-too-large"),
    hold_endpoints,
    occupy(2),
    replay_limited("ingress-error-overloaded"),
    deployments=(MAIN, LAMBDA),
)

HIDDEN = scenario(
    remove(21020),
    request("PATCH", "/services/ApiVersioned", {"public": False}),
    changes_deployments,
    replay("ingress-error-patched-private"),
    deployments=(MAIN, Registration(21020), Registration(21011)),
)

CLIENT = scenario(
    replay("client-ts-call"),
    replay("client-ts-generic-call"),
    send("before", "ApiGreeter/greet", "Ada", idempotency_key="ts-1"),
    becomes("before", "completed"),
    replay("client-ts-call-idempotent"),
    send("added", "ApiCounter/k%2F%20%C3%BC/add", 3),
    becomes("added", "completed"),
    replay("client-ts-object-call-encoded-key"),
    replay("client-ts-object-send-delayed"),
    replay("client-ts-send"),
    replay("client-ts-service-not-found"),
    replay("client-ts-terminal-error"),
    hold_endpoints,
    replay("client-ts-send-delayed-idempotent"),
    begin("client-ts-result-attach"),
    reached,
    release_endpoints,
    answered("client-ts-result-attach"),
    send("resolved", "ApiGreeter/awaken", "ts-resolved"),
    awakeable("first", "ts-resolved"),
    replay("client-ts-resolve-awakeable", "first"),
    send("rejected", "ApiGreeter/awaken", "ts-rejected"),
    awakeable("second", "ts-rejected"),
    replay("client-ts-reject-awakeable", "second"),
    replay("client-ts-workflow-submit"),
    replay("client-ts-workflow-output-not-ready"),
    finds("run", "target_service_name = 'ApiFlow' AND target_handler_name = 'run' AND status IN ('running', 'suspended')"),
    replay("client-ts-workflow-shared-handler"),
    becomes("run", "completed"),
    replay("client-ts-workflow-attach"),
    replay("client-ts-workflow-output"),
)

SCENARIOS: list[Scenario] = [
    scenario(*(replay(name) for name in AT_ONCE)),
    CALLS,
    SENDS,
    WAITING_FOR_A_RESULT,
    WITHOUT_AN_IDEMPOTENCY_KEY,
    AWAKEABLES,
    WORKFLOWS,
    ENDED_BY_AN_OPERATOR,
    LIMITS,
    HIDDEN,
    CLIENT,
]
