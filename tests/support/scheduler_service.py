"""EventBridge Scheduler as its documentation describes it, for tests: one-time schedules in groups, fired late and sometimes twice.

It refuses what the service refuses (names, expressions, unknown groups, a second create under a name with another token), answers a
create that is repeated with its token as the first, fires up to a minute after the instant, delivers twice now and then, retries a target
that fails under the schedule's retry policy, and deletes a completed schedule when it was told to. Time passes only by `advance`. What it
knows is in a file, so that it survives a restart.
"""

from __future__ import annotations

import json
import random
import re
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

NAME = re.compile(r"[0-9a-zA-Z\-_.]{1,64}")
AT = re.compile(r"at\((\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\)")
LATE_S = 60
TWICE = 0.2
RETRY_S = 60

Deliver = Callable[[str, str], None]


class Refused(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass
class Schedule:
    group: str
    name: str
    request: dict[str, Any]
    fires_at: list[float]  # seconds; the last one completes it
    failures: int = 0


class SchedulerService:
    """`deliver(target arn, input)` puts a message where it belongs; it raises when the target fails. `calls`: API calls by operation."""

    def __init__(self, file: Path, deliver: Deliver, *, now_s: float, seed: int = 0) -> None:
        self._file = file
        self._deliver = deliver
        self._random = random.Random(seed)
        self._lock = threading.RLock()
        self.now_s = now_s
        self.calls: Counter[str] = Counter()
        self.groups: set[str] = {"default"}
        self.schedules: dict[tuple[str, str], Schedule] = {}
        if file.exists():
            stored = json.loads(file.read_text())
            self.groups = set(stored["groups"])
            self.schedules = {(item["group"], item["name"]): Schedule(**item) for item in stored["schedules"]}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def advance(self, seconds: float) -> None:
        """Let time pass; whatever falls due is delivered in order."""
        end = self.now_s + seconds
        with self._lock:
            while True:
                due = [(item.fires_at[0], key) for key, item in self.schedules.items() if item.fires_at and item.fires_at[0] <= end]
                if not due:
                    break
                self.now_s, key = min(due)
                self._fire(self.schedules[key])
            self.now_s = end
            self._store()

    def _fire(self, schedule: Schedule) -> None:
        target = schedule.request["Target"]
        at = schedule.fires_at.pop(0)
        try:
            self._deliver(target["Arn"], target.get("Input", "{}"))
        except Exception:
            schedule.failures += 1
            policy = target.get("RetryPolicy", {})
            if schedule.failures <= policy.get("MaximumRetryAttempts", 185):
                schedule.fires_at.insert(0, at + RETRY_S)
                return
        if not schedule.fires_at and schedule.request.get("ActionAfterCompletion") == "DELETE":
            del self.schedules[schedule.group, schedule.name]

    # ---- The API

    def answer(self, method: str, path: str, query: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
        match method, path.strip("/").split("/"):
            case "POST", ["schedule-groups", name]:
                return self._create_group(_name(name))
            case "GET", ["schedule-groups", name]:
                self.calls["GetScheduleGroup"] += 1
                self._group(name)
                return {"Name": name, "State": "ACTIVE", "Arn": f"arn:aws:scheduler:us-east-1:000000000000:schedule-group/{name}"}
            case "POST", ["schedules", name]:
                return self._create(_name(name), body)
            case "PUT", ["schedules", name]:
                return self._update(_name(name), body)
            case "GET", ["schedules", name]:
                self.calls["GetSchedule"] += 1
                schedule = self._schedule(query.get("groupName", "default"), name)
                return {"Name": name, "GroupName": schedule.group, **schedule.request}
            case "DELETE", ["schedules", name]:
                self.calls["DeleteSchedule"] += 1
                schedule = self._schedule(query.get("groupName", "default"), name)
                del self.schedules[schedule.group, name]
                return {}
        raise Refused(404, "UnknownOperationException", f"{method} {path}")

    def _create_group(self, name: str) -> dict[str, Any]:
        self.calls["CreateScheduleGroup"] += 1
        if name in self.groups:
            raise Refused(409, "ConflictException", f"Schedule group {name} already exists.")
        self.groups.add(name)
        return {"ScheduleGroupArn": f"arn:aws:scheduler:us-east-1:000000000000:schedule-group/{name}"}

    def _create(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        self.calls["CreateSchedule"] += 1
        group = body.get("GroupName", "default")
        self._group(group)
        known = self.schedules.get((group, name))
        if known is not None and known.request.get("ClientToken") != body.get("ClientToken"):
            raise Refused(409, "ConflictException", f"Schedule {name} already exists.")
        if known is None:
            self.schedules[group, name] = Schedule(group, name, body, self._instants(body))
        return {"ScheduleArn": f"arn:aws:scheduler:us-east-1:000000000000:schedule/{group}/{name}"}

    def _update(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        self.calls["UpdateSchedule"] += 1
        schedule = self._schedule(body.get("GroupName", "default"), name)
        schedule.fires_at = self._instants(body)
        schedule.request = body
        return {"ScheduleArn": f"arn:aws:scheduler:us-east-1:000000000000:schedule/{schedule.group}/{name}"}

    def _instants(self, body: dict[str, Any]) -> list[float]:
        found = AT.fullmatch(body.get("ScheduleExpression", ""))
        if found is None or body.get("ScheduleExpressionTimezone", "UTC") != "UTC":
            raise Refused(400, "ValidationException", f"Invalid Schedule Expression {body.get('ScheduleExpression')}.")
        if body.get("FlexibleTimeWindow", {}).get("Mode") != "OFF":
            raise Refused(400, "ValidationException", "FlexibleTimeWindow is required, and only OFF is emulated.")
        if "Arn" not in body.get("Target", {}) or "RoleArn" not in body["Target"]:
            raise Refused(400, "ValidationException", "Target needs Arn and RoleArn.")
        at = datetime.fromisoformat(found.group(1)).replace(tzinfo=UTC).timestamp()
        first = max(at, self.now_s) + self._random.random() * LATE_S
        return [first, first + self._random.random()] if self._random.random() < TWICE else [first]

    def _group(self, name: str) -> None:
        if name not in self.groups:
            raise Refused(404, "ResourceNotFoundException", f"Schedule group {name} does not exist.")

    def _schedule(self, group: str, name: str) -> Schedule:
        self._group(group)
        if (group, name) not in self.schedules:
            raise Refused(404, "ResourceNotFoundException", f"Schedule {name} does not exist.")
        return self.schedules[group, name]

    def _store(self) -> None:
        stored = {"groups": sorted(self.groups), "schedules": [asdict(item) for item in self.schedules.values()]}
        self._file.write_text(json.dumps(stored))

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        service = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                url = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(url.query).items()}
                content = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {}
                with service._lock:
                    try:
                        status, answer = 200, service.answer(self.command, unquote(url.path), query, json.loads(content or b"{}"))
                        service._store()
                    except Refused as refused:
                        status, answer = refused.status, {"Message": str(refused)}
                        headers["x-amzn-ErrorType"] = refused.code
                encoded = json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {**headers, "content-type": "application/json", "content-length": str(len(encoded))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(encoded)

            do_GET = do_POST = do_PUT = do_DELETE = _serve

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        return Handler


def _name(text: str) -> str:
    if NAME.fullmatch(text) is None:
        raise Refused(400, "ValidationException", f"1 validation error detected: Value '{text}' at 'name' failed to satisfy constraint")
    return text
