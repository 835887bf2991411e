"""What a test holds: one deployment of the conformance services, its ingress, its operator and its effects.

Plain HTTP on purpose: status codes, headers and bodies are what the suite is about.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import uuid4

import httpx

from tests.conformance.servers import Server

T = TypeVar("T")
PATIENCE_S: Final = 60.0  # bounds a hang; nothing waits that long when all is well
POLL_S: Final = 0.02


def until(look: Callable[[], T | None], what: str = "the expected state") -> T:
    """Ask again until the answer is neither nothing nor false nor zero, and give it back."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {PATIENCE_S:.0f} s for {what}, last answer: {found!r}")
        time.sleep(POLL_S)


class Effects:
    """The test's side of `services/*/effects`: counts, notes, gates and flags in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fresh(self) -> str:
        """A name nobody has used."""
        return uuid4().hex[:12]

    def count(self, name: str) -> int:
        """How often the side effect of that name happened."""
        path = self.folder / f"{name}.count"
        return path.stat().st_size if path.exists() else 0

    def note(self, name: str) -> str:
        """What a handler noted; waits for it."""
        path = self.folder / f"{name}.note"
        until(path.exists, f"the note {name}")
        return path.read_text()

    def open(self, gate: str) -> None:
        (self.folder / f"{gate}.gate").touch()

    def raise_flag(self, name: str) -> None:
        (self.folder / f"{name}.flag").touch()

    def lower_flag(self, name: str) -> None:
        (self.folder / f"{name}.flag").unlink()


@dataclass(frozen=True)
class Sent:
    """The answer to a send."""

    invocation_id: str
    status: str
    execution_time: str | None


class Deployment:
    """One transport's services on one server; paths are written without the prefix, as `Runs/once`."""

    def __init__(self, server: Server, prefix: str, effects: Effects) -> None:
        self.server, self.prefix, self.effects = server, prefix, effects
        # No connection is kept: the server may close one after an early refusal, and some tests kill it.
        limits = httpx.Limits(max_keepalive_connections=0)
        self.http = httpx.Client(timeout=PATIENCE_S + 10, limits=limits)

    # The ingress

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Any request to the ingress, the path as it is."""
        return self.http.request(method, self.server.ingress_url + path, **options)

    def call(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """POST and wait; `idempotency_key="k"` becomes the header of that name."""
        return self.request("POST", f"/{self.prefix}{path}", json={} if body is None else body, headers=_dashed(headers))

    def result(self, path: str, body: Any = None, **headers: str) -> Any:
        """What a call that succeeds answers."""
        return self._json(self.call(path, body, **headers))

    def send(self, path: str, body: Any = None, delay: str | None = None, **headers: str) -> Sent:
        """POST to `/send`."""
        answer = self.request(
            "POST",
            f"/{self.prefix}{path}/send",
            json={} if body is None else body,
            params={} if delay is None else {"delay": delay},
            headers=_dashed(headers),
        )
        assert answer.status_code == 202, (answer.status_code, answer.text)
        told = answer.json()
        return Sent(told["invocationId"], told["status"], told.get("executionTime"))

    def attach(self, invocation_id: str) -> httpx.Response:
        return self.request("GET", f"/restate/invocation/{invocation_id}/attach")

    def attached(self, invocation_id: str) -> Any:
        """The result of an invocation that succeeds; waits for it."""
        return self._json(self.attach(invocation_id))

    def output(self, invocation_id: str) -> httpx.Response:
        return self.request("GET", f"/restate/invocation/{invocation_id}/output")

    def resolve(self, awakeable: str, value: Any) -> httpx.Response:
        return self.request("POST", f"/restate/awakeables/{awakeable}/resolve", json=value)

    def reject(self, awakeable: str, reason: str) -> httpx.Response:
        return self.request("POST", f"/restate/awakeables/{awakeable}/reject", content=reason)

    # The operator

    def operate(self, invocation_id: str, operation: str) -> httpx.Response:
        """PATCH /invocations/{id}/cancel, kill, pause, resume or purge."""
        return self.http.patch(f"{self.server.admin_url}/invocations/{invocation_id}/{operation}")

    def status(self, invocation_id: str) -> str | None:
        """As the operator reads it, HTTP surfaces §6.1; None when there is no record."""
        found = self.server.describe(invocation_id)
        return None if found is None else str(found["status"])

    def becomes(self, invocation_id: str, *statuses: str) -> str:
        """Waits until the invocation has one of the statuses."""

        def look() -> str | None:
            found = self.status(invocation_id)
            return found if found in statuses else None

        return until(look, f"{invocation_id} to become {' or '.join(statuses)}")

    def failure(self, invocation_id: str) -> str:
        """Waits until an attempt has failed and gives the text of its failure."""

        def look() -> str | None:
            found = self.server.describe(invocation_id)
            return None if found is None else found.get("last_failure")

        return until(look, f"{invocation_id} to fail an attempt")

    @staticmethod
    def _json(answer: httpx.Response) -> Any:
        assert answer.status_code == 200, (answer.status_code, answer.text)
        return json.loads(answer.content) if answer.content else None


def _dashed(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
