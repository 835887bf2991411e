"""How an exchange comes about: a scenario is a list of steps, run in order in a server that holds nothing else.

`replay` steps are the exchanges themselves; the others bring about, through the HTTP surfaces, what must be there before.
A name stands for an invocation: `send("w", ...)` makes one, `replay("admin-invocations-kill-running", "w")` sends the captured request with
the id of `w` where the capture has its first id.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from tests.golden.live.comparing import Ids, differences, in_order
from tests.golden.live.endpoints import Told
from tests.golden.live.exchanges import Exchange, load
from tests.golden.live.world import Registration as Registration
from tests.golden.live.world import World, dechunked
from tests.surfaces.http import Answer

MAIN = Registration(21010)
LAMBDA = Registration(0, (("arn", "arn:aws:lambda:eu-central-1:123456789012:function:my-fn:1"),))
# The deployments of the captures, by the port they were served at.
CAPTURED_DEPLOYMENTS: Mapping[str, int] = {
    "dp_17eFPWitiphlmWqW6YJehGN": 21010,
    "dp_17wxbsPzVfRhQDPRp08z13r": 21011,
    "dp_12Xuhq1iDn0qyMPNcS9wUEx": 21012,
    "dp_11lCPObCrTV36v7VS1p2e5P": 21012,  # registered again after the one before was removed
    "dp_10q3ABR8ZpLsF9H5oGUUHXb": 21013,
    "dp_12vr2FPLZZwsEPyJTMoNKW5": 21014,
}


class Step(Protocol):
    async def __call__(self, stage: Stage) -> None: ...


@dataclass
class Stage:
    """A scenario under way. `told`: exchange -> how the answer differs, nothing when it does not."""

    world: World
    ids: Ids
    authorities: Mapping[str, str]
    deployments: Mapping[int, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    told: dict[str, list[str]] = field(default_factory=dict)
    under_way: dict[str, asyncio.Task[Answer]] = field(default_factory=dict)

    def located(self, text: str) -> str:
        """The captured text with our ports in it, and the protocol versions that the server speaks."""
        for captured, ours in {**self.authorities, **self.world.facts}.items():
            text = text.replace(captured, ours)
        return text


@dataclass(frozen=True)
class Scenario:
    """`deployments`: what is registered before the first step. `ports`: captured port -> the fixture that was behind it this time."""

    steps: tuple[Step, ...]
    deployments: tuple[Registration, ...] = (MAIN,)
    ports: Mapping[int, int] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return [step.name for step in self.steps if isinstance(step, replay)]

    async def play(self, world: World) -> dict[str, list[str]]:
        """Exchange -> differences; an exchange that was not reached has the reason."""
        stage = await self._staged(world)
        try:
            for step in self.steps:
                await step(stage)
        except Exception as error:  # whatever keeps a scenario from going on is told of every exchange that it keeps from being made
            told = [f"the scenario ended before: {type(error).__name__}: {error}"]
            stage.told |= {name: told for name in self.names if name not in stage.told}
        finally:
            world.endpoints.gate.set()
            for task in stage.under_way.values():
                task.cancel()
        return stage.told

    async def _staged(self, world: World) -> Stage:
        await world.clean()
        deployments = await world.only(self.deployments)
        known = {captured: deployments[port] for captured, port in CAPTURED_DEPLOYMENTS.items() if port in deployments}
        moved = {f"127.0.0.1:{port}": world.authorities[f"127.0.0.1:{other}"] for port, other in self.ports.items()}
        return Stage(world, Ids(known), {**world.authorities, **moved}, deployments)


def scenario(*steps: Step, deployments: Sequence[Registration] = (MAIN,), ports: Mapping[int, int] | None = None) -> Scenario:
    return Scenario(steps, tuple(deployments), ports or {})


# ---- The exchanges


class replay:
    """Send the captured request, compare the answer with the captured one.

    `names` take the place of the ids in the request, in the order these appear; those beyond are left as they are, or as known by now.
    `ties`: rows may have been created in the same millisecond, so that the order asked for is not total.
    """

    def __init__(self, name: str, *names: str, ties: bool = False) -> None:
        self.name, self.names, self.ties = name, names, ties

    async def __call__(self, stage: Stage) -> None:
        await self.compare(stage, await self.send(stage))

    async def send(self, stage: Stage) -> Answer:
        exchange = load(self.name)
        body = exchange.body if exchange.body is None else exchange.body.decode("latin-1")
        for captured, name in zip(in_order(exchange.path + " " + (body or "")), self.names, strict=False):
            stage.ids.ours[captured] = stage.names[name]
        located = stage.ids.translated(stage.located(exchange.path))
        sent = None if body is None else stage.ids.translated(stage.located(body)).encode("latin-1")
        headers = {name: value for name, value in exchange.headers.items() if name not in ("host", "content-length", "connection")}
        return dechunked(await self.server(stage, exchange).request(exchange.method, located, headers, sent))

    def server(self, stage: Stage, exchange: Exchange) -> Any:
        return stage.world.ingress if exchange.surface == "ingress" else stage.world.admin

    async def compare(self, stage: Stage, answer: Answer) -> None:
        exchange = load(self.name)
        expected = exchange.answer
        if expected.body[:1] in (b"{", b"["):
            expected = replace(expected, body=stage.located(expected.body.decode()).encode())
        same_ids = exchange.surface == "ingress" and exchange.is_derived
        stage.told[self.name] = differences(replace(exchange, answer=expected), answer, stage.ids, same_ids=same_ids, ties=self.ties)


class replay_limited(replay):
    """At the ingress with the captured limits."""

    def server(self, stage: Stage, exchange: Exchange) -> Any:
        return stage.world.limited


class replay_steady(replay):
    """While the invocation is in that status, and makes no attempt meanwhile: asked again if it did."""

    def __init__(self, name: str, watched: str, status: str) -> None:
        super().__init__(name)
        self.watched, self.status = watched, status

    async def __call__(self, stage: Stage) -> None:
        statement = f"SELECT status, retry_count FROM sys_invocation WHERE id = '{stage.names[self.watched]}'"
        while True:
            before = await stage.world.until(statement, lambda rows: rows[0]["status"] == self.status, self.status)
            answer = await self.send(stage)
            if await stage.world.rows(statement) == before:
                return await self.compare(stage, answer)


class occupy:
    """That many calls wait at the limited ingress for the endpoints to be released."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    async def __call__(self, stage: Stage) -> None:
        limited = stage.world.limited
        assert limited is not None, "there is no ingress with the captured limits"
        for i in range(self.calls):
            stage.under_way[f"occupies {i}"] = asyncio.create_task(limited.post("/ApiGreeter/greet", "x"))
        await rows("SELECT id FROM sys_invocation WHERE target = 'ApiGreeter/greet' AND status = 'running'", self.calls)(stage)


class begin(replay):
    """Send the captured request and go on; `answered` waits for the answer and compares it."""

    async def __call__(self, stage: Stage) -> None:
        stage.under_way[self.name] = asyncio.create_task(self.send(stage))


async def reached(stage: Stage) -> None:
    """Requests begun before have arrived: a server takes them in the order they come, and it has answered a later one."""
    for _ in range(2):
        await stage.world.ingress.get("/restate/health")


class answered:
    def __init__(self, name: str) -> None:
        self.name = name

    async def __call__(self, stage: Stage) -> None:
        await replay(self.name).compare(stage, await stage.under_way.pop(self.name))


# ---- What must be there before


class send:
    """A one-way call; the name stands for its invocation. `path` is that of the call, without `/send`."""

    def __init__(self, name: str, path: str, argument: Any = None, delay: str | None = None, **headers: str) -> None:
        self.name, self.path, self.argument, self.delay = name, path, argument, delay
        self.headers = {header.replace("_", "-"): value for header, value in headers.items()}

    async def __call__(self, stage: Stage) -> None:
        await stage.world.next_instant()
        query = "" if self.delay is None else f"?delay={self.delay}"
        typed = {} if self.argument is None else {"content-type": "application/json"}
        body = None if self.argument is None else json.dumps(self.argument).encode()
        answer = await stage.world.ingress.request("POST", f"/{self.path}/send{query}", {**typed, **self.headers}, body)
        assert answer.status == 202, answer
        stage.names[self.name] = answer.json()["invocationId"]


class becomes:
    """Wait until the invocation has one of the statuses."""

    def __init__(self, name: str, *statuses: str) -> None:
        self.name, self.statuses = name, statuses

    async def __call__(self, stage: Stage) -> None:
        await stage.world.becomes(stage.names[self.name], *self.statuses)


class finds:
    """Wait for the one invocation of that condition; the name stands for it."""

    def __init__(self, name: str, condition: str) -> None:
        self.name, self.condition = name, condition

    async def __call__(self, stage: Stage) -> None:
        statement = f"SELECT id FROM sys_invocation WHERE {self.condition}"
        rows = await stage.world.until(statement, lambda rows: len(rows) == 1, self.condition)
        stage.names[self.name] = rows[0]["id"]


class rows:
    """Wait until the statement has that many rows."""

    def __init__(self, statement: str, count: int) -> None:
        self.statement, self.count = statement, count

    async def __call__(self, stage: Stage) -> None:
        await stage.world.until(self.statement, lambda rows: len(rows) == self.count, self.statement)


class operate:
    """PATCH /invocations/{id}/{operation}, which must succeed."""

    def __init__(self, name: str, operation: str) -> None:
        self.name, self.operation = name, operation

    async def __call__(self, stage: Stage) -> None:
        answer = await stage.world.admin.request("PATCH", f"/invocations/{stage.names[self.name]}/{self.operation}")
        assert answer.status in (200, 202), answer


class awakeable:
    """The name stands for the awakeable that a handler of the fixture services published."""

    def __init__(self, name: str, published: str) -> None:
        self.name, self.published = name, published

    async def __call__(self, stage: Stage) -> None:
        from tests.golden.live.world import PATIENCE_S, POLL_S

        async def look() -> str:
            while True:
                answer = await stage.world.ingress.post("/ApiGreeter/awk_id", self.published)
                if answer.status == 200 and answer.json():
                    return str(answer.json())
                await asyncio.sleep(POLL_S)

        stage.names[self.name] = await asyncio.wait_for(look(), PATIENCE_S)


class request:
    """Any request to the admin API or, with `at="ingress"`, to the ingress; it must succeed."""

    def __init__(self, method: str, path: str, body: Any = None, at: str = "admin") -> None:
        self.method, self.path, self.body, self.at = method, path, body, at

    async def __call__(self, stage: Stage) -> None:
        server = getattr(stage.world, self.at)
        typed = {} if self.body is None else {"content-type": "application/json"}
        body = None if self.body is None else stage.located(json.dumps(self.body)).encode()
        answer = await server.request(self.method, stage.ids.translated(self.path), typed, body)
        assert 200 <= answer.status < 300, (self.method, self.path, answer)


class special:
    """What the endpoint made by hand says from now on."""

    def __init__(self, told: Told) -> None:
        self.told = told

    async def __call__(self, stage: Stage) -> None:
        stage.world.endpoints.special = self.told


async def hold_endpoints(stage: Stage) -> None:
    """No attempt begins until they are released."""
    stage.world.endpoints.gate.clear()


async def release_endpoints(stage: Stage) -> None:
    stage.world.endpoints.gate.set()


async def changes_deployments(stage: Stage) -> None:
    """To be said where a scenario changes what is registered."""
    stage.world.deployments_changed()


class remove:
    """Remove the deployment that was served at the captured port."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def __call__(self, stage: Stage) -> None:
        answer = await stage.world.admin.request("DELETE", f"/deployments/{stage.deployments[self.port]}?force=true")
        assert answer.status == 202, answer
        stage.world.deployments_changed()
