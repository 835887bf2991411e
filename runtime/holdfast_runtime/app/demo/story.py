"""What happens in the demonstration, and what must have come of it.

Rules: the story asks only through the public APIs and the ledger, which is written by the side effects themselves; a check that
does not hold is named, and makes the command fail.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from holdfast_runtime.app.demo.server import DemoServer
from holdfast_runtime.app.errors import CliError
from holdfast_runtime.app.http import Answer, admin_api, ingress_api

TIMEOUT_S: Final = 60.0
SHIPPED: Final = ("charge", "pack", "ship")
UNDONE: Final = ("charge", "pack", "unpack", "refund")
SLOW: Final = "order-4"  # the server is killed while the carrier has its parcel but has not answered yet
APPROVED: Final = "order-7"


@dataclass(frozen=True, slots=True)
class Plan:
    """One order: what it is told, how it must end, and which side effects it must have had, once each."""

    key: str
    what: str
    order: Mapping[str, Any]
    effects: Sequence[str] = SHIPPED
    ends: str = "shipped"


PLANS: Final = (
    Plan("order-1", "is quick", {"step_s": 0.02, "parcel_s": 0.02}),
    Plan("order-2", "is on its way", {"step_s": 0.3}),
    Plan("order-3", "is on its way", {"step_s": 0.5}),
    Plan(SLOW, "has a carrier that takes 3 s to answer", {"step_s": 0.15, "parcel_s": 3.0}),
    Plan("order-5", "cannot be delivered", {"city": "Atlantis", "step_s": 0.1}, UNDONE, "nobody delivers to Atlantis"),
    Plan("order-6", "cannot be delivered", {"city": "Atlantis", "step_s": 0.5}, UNDONE, "nobody delivers to Atlantis"),
    Plan(APPROVED, "waits for an approval", {"approval": True, "step_s": 0.1}),
    Plan("order-8", "sleeps for 3 s before it ships", {"keep_s": 3.0, "step_s": 0.1}),
)


@dataclass(slots=True)
class Findings:
    """Everything the checks and the report are made from. Keys of `executed` and the like: `order/step`."""

    exit_code: int = 0
    unfinished: list[str] = field(default_factory=list)
    recorded: set[str] = field(default_factory=set)  # steps whose result was in the journal before the kill
    executed_before: Counter[str] = field(default_factory=Counter)
    executed: Counter[str] = field(default_factory=Counter)
    applied: Counter[str] = field(default_factory=Counter)
    ends: dict[str, str] = field(default_factory=dict)
    restart_s: float = 0.0

    @property
    def repeated(self) -> list[str]:
        return sorted(key for key, count in self.executed.items() if count > 1)


class Story:
    """tell: says what happens, while it does."""

    def __init__(self, server: DemoServer, tell: Callable[[str], None]) -> None:
        self._server, self._tell = server, tell
        self.findings = Findings()

    def play(self) -> Findings:
        pid = self._server.start()
        self._tell(f"The server runs as process [bold]{pid}[/]: coordinator, SQLite file and handlers.")
        self._submit()
        self._wait_for_the_moment()
        self._kill(pid)
        self._restart()
        self._finish()
        return self.findings

    def _submit(self) -> None:
        for plan in PLANS:
            self._ingress("POST", f"/orders/{plan.key}/run/send", plan.order)
        self._tell(f"{len(PLANS)} orders are accepted. They charge a card, pack and ship; two cannot be delivered and must be undone.")

    def _wait_for_the_moment(self) -> None:
        self._until(lambda: f"{SLOW}/ship" in self._ledger(), f"{SLOW} to be given to the carrier")

    def _kill(self, pid: int) -> None:
        found = self.findings
        rows = [self._describe(row["id"]) for row in self._rows()]
        found.unfinished = sorted(row["target_service_key"] for row in rows if row["status"] != "completed")
        found.recorded = {f"{row['target_service_key']}/{step}" for row in rows for step in _recorded(row)}
        found.exit_code = self._server.kill()
        found.executed_before = self._ledger()
        self._tell(
            f"[bold red]kill -9 {pid}[/] while {len(found.unfinished)} orders are unfinished: "
            f"{sum(found.executed_before.values())} side effects are done, {len(found.recorded)} of them recorded."
        )

    def _restart(self) -> None:
        began = time.monotonic()
        pid = self._server.start()
        self.findings.restart_s = time.monotonic() - began
        self._tell(f"Started again on the same file as process [bold]{pid}[/], serving after {self.findings.restart_s:.1f} s.")

    def _finish(self) -> None:
        self._until(lambda: self._statuses().get(APPROVED) == "suspended", f"{APPROVED} to wait")
        self._ingress("POST", f"/orders/{APPROVED}/approve")
        self._tell(f"{APPROVED} still waits for its approval. It is given now.")
        self._until(lambda: self._statuses() == {plan.key: "completed" for plan in PLANS}, "all orders to end")
        found = self.findings
        for plan in PLANS:
            answer = self._ingress("GET", f"/restate/workflow/orders/{plan.key}/output", may_fail=True)
            found.ends[plan.key] = json.loads(answer.body) if answer.status == 200 else answer.message()
        found.executed = self._ledger()
        found.applied = self._ledger(applied_only=True)
        self._tell("All orders have ended.")

    def _ledger(self, *, applied_only: bool = False) -> Counter[str]:
        if not self._server.ledger.exists():
            return Counter()
        # The last line may be half written just now.
        lines = [json.loads(line) for line in self._server.ledger.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return Counter(line["key"] for line in lines if not (applied_only and line["repeated"]))

    def _rows(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = admin_api(self._server.admin_url).get("/holdfast/invocations", service="orders", handler="run")[
            "invocations"
        ]
        return found

    def _describe(self, invocation_id: str) -> dict[str, Any]:
        found: dict[str, Any] = admin_api(self._server.admin_url).get(f"/holdfast/invocations/{invocation_id}")
        return found

    def _statuses(self) -> dict[str, str]:
        """By key of the order."""
        return {row["target_service_key"]: row["status"] for row in self._rows()}

    def _ingress(self, method: str, path: str, document: object = None, *, may_fail: bool = False) -> Answer:
        body = b"" if document is None else json.dumps(document).encode()
        headers = {} if document is None else {"content-type": "application/json"}
        answer = ingress_api(self._server.ingress_url).request(method, path, body=body if method == "POST" else None, headers=headers)
        if answer.status >= 300 and not may_fail:
            raise CliError(f"{method} {path} was answered with {answer.status}: {answer.message()}")
        return answer

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            if time.monotonic() > deadline:
                raise CliError(f"waited {TIMEOUT_S:g} s for {what}; the server's log is {self._server.log}")
            time.sleep(0.05)


def _recorded(row: Mapping[str, Any]) -> set[str]:
    """Names of the runs whose success is in the journal."""
    from holdfast_runtime.app import timeline

    return {
        step.subject
        for step in timeline.steps(row["journal"])
        if step.kind == "run" and step.outcome != timeline.WAITING and not step.failed
    }


def checks(found: Findings) -> list[tuple[str, bool]]:
    """Every claim of the demonstration, and whether it holds."""
    expected = {f"{plan.key}/{effect}" for plan in PLANS for effect in plan.effects}
    again = sorted(key for key in found.recorded if found.executed[key] != 1)
    return [
        ("the server was killed with SIGKILL", found.exit_code == -9),
        (
            f"{len(found.unfinished)} orders were unfinished then, and some steps were recorded",
            len(found.unfinished) >= 3 and bool(found.recorded),
        ),
        (f"all {len(PLANS)} orders ended as they must", found.ends == {plan.key: plan.ends for plan in PLANS}),
        (f"all {len(expected)} side effects took place, each once, and no others", found.applied == Counter(expected)),
        (f"none of the {len(found.recorded)} recorded steps ran again", not again),
    ]
