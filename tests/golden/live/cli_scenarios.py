"""What the official CLI asks for, command by command (http-api §8): `cli-<command>-<n>`."""

from __future__ import annotations

from tests.golden.live.scenarios import (
    MAIN,
    Registration,
    Scenario,
    becomes,
    changes_deployments,
    hold_endpoints,
    release_endpoints,
    remove,
    replay,
    replay_steady,
    request,
    rows,
    scenario,
    send,
)

HEADERS = (("metadata", {"git": "abc"}), ("additional_headers", {"x-api-key": "rotated"}))
PATCHED = {
    "public": True,
    "idempotency_retention": "2days",
    "journal_retention": "PT12H",
    "inactivity_timeout": "30s",
    "abort_timeout": "1m 30s",
}


def command(name: str, count: int) -> tuple[replay, ...]:
    return tuple(replay(f"cli-{name}-{number}") for number in range(1, count + 1))


def steady(name: str, *numbers: int) -> tuple[replay, ...]:
    """While the failing invocation backs off."""
    return tuple(replay_steady(f"cli-{name}-{number}", "fails", "backing-off") for number in numbers)


WITH_INVOCATIONS = scenario(
    remove(21020),
    request("PATCH", "/services/ApiVersioned", PATCHED),
    request("PATCH", "/services/ApiFlow", {"workflow_completion_retention": "3 days"}),
    hold_endpoints,  # what these call is created after the last of them
    send("steps", "ApiGreeter/steps", "demo"),
    send("refused", "ApiGreeter/fail", {"message": "boom", "code": 418}),
    send("holder", "ApiCounter/locked/wait"),
    send("waits", "ApiCounter/locked/add", 1),
    send("later", "ApiGreeter/greet", "Ada", delay="1h"),
    send("fails", "ApiEntries/k3/runfail"),
    send("suspended", "ApiEntries/k2/susp"),
    send("paused", "ApiTuned/t9/pausing", "x"),
    send("cart", "ApiCounter/cart-1/add", 41),
    release_endpoints,
    becomes("steps", "completed"),
    becomes("refused", "completed"),
    becomes("waits", "pending"),
    becomes("paused", "paused"),
    becomes("suspended", "suspended"),
    rows("SELECT id FROM sys_invocation WHERE target_service_name = 'ApiCounter' AND status = 'completed'", 4),
    *command("whoami", 2),
    replay("cli-invocations-describe-1", "steps"),
    *command("invocations-describe", 5)[1:],
    *command("services-list", 2),
    *command("services-describe", 3),
    *command("services-status", 2),
    *steady("services-status", 3),
    *command("services-status", 4)[3:],
    *steady("services-status", 5),
    *command("services-status-one", 3),
    replay("cli-services-status-one-4", ties=True),  # two sends of one handler
    replay("cli-services-status-one-5", ties=True),
    *command("services-status-one", 7)[5:],
    *command("deployments-list-extra", 6),
    *command("deployments-describe", 2),
    *command("deployments-register-existing", 1),
    *command("deployments-remove-refused", 3),
    *command("invocations-list", 1),
    *steady("invocations-list", 2, 3),
    *steady("invocations-list-status", 1, 2, 3),
    *command("invocations-list-all-limit", 3),
    *command("sql", 1),
    *command("state-get", 2),
    *command("state-edit", 3),
    rows("SELECT key FROM state WHERE service_key = 'cart-1' AND value_utf8 = '77'", 1),
    *command("state-clear", 2),
    *steady("invocations-pause", 1),
    *command("invocations-pause", 2)[1:],
    *command("invocations-resume", 2),
    *command("invocations-cancel", 1),
    replay("cli-invocations-cancel-3"),  # the CLI sends both at once; the one that waits must not get the key first
    replay("cli-invocations-cancel-2"),
    *command("invocations-kill", 2),
    *command("invocations-purge", 2),
    *command("invocations-restart", 2),
    deployments=(MAIN, Registration(21020), Registration(21011), Registration(21012, HEADERS), Registration(21014)),
)

REGISTERING = scenario(
    changes_deployments,
    *command("deployments-register-new", 2),
    *command("deployments-register-force", 6),
    *command("services-config-view", 1),
    *command("services-config-patch", 1),
    *command("deployments-remove-force", 4),
    *command("subscriptions-list", 1),
    *command("kafka-clusters-list", 1),
    *command("rules-list", 1),
    *command("vqueues-list", 1),
    deployments=(),
    ports={21010: 21014},  # another session of captures: the journal entry set stood there
)

SCENARIOS: list[Scenario] = [WITH_INVOCATIONS, REGISTERING]
