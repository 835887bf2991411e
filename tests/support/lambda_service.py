"""A Lambda service on loopback: the Invoke API in front of real Lambda runtime processes.

Rules
- An **environment** is one process plus the runtime API listener that feeds it; it serves one invocation
  at a time.
- Between two invocations an environment is frozen (SIGSTOP), as in Lambda: background work stands still.
- The process is whatever the function's command says. The default is `python -m awslambdaric <handler>`, the
  code that runs inside Lambda; anything else that speaks the runtime API works too.
- Initialisation has its own limit and does not count against the function's timeout.
- Answers, limits and error bodies are those of the service: 6 MB in each direction, 429 above the concurrency
  limit, 404 for an unknown name, 200 with `X-Amz-Function-Error: Unhandled` for a failed function.

Three ways to use it
- in an event loop: `async with LambdaService() as service: service.add(FunctionSpec(...))`
- from synchronous code, in its own process: `with LambdaServiceProcess(port) as service: service.add(...)`
- from a shell: `python -m tests.support.lambda_service --port 9001 --function '{"name": "f", ...}'`

The Invoke API is what boto3 calls with `AWS_ENDPOINT_URL_LAMBDA=<url>`. Below `/_control` there is an HTTP
interface for tests: put a function, read its counters, kill its processes, inject faults.

Not covered: memory limits, extensions, response streaming, billing.
"""

import argparse
import asyncio
import base64
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web

PAYLOAD_LIMIT: Final = 6 * 1024 * 1024  # bytes of a synchronous request; AWS Lambda quotas
RESPONSE_LIMIT: Final = PAYLOAD_LIMIT + 100  # what the service tells in its own error text
EVENT_LIMIT: Final = 1024 * 1024  # bytes of an asynchronous request
INIT_TIMEOUT_S: Final = 60.0  # Lambda gives 10 s; here a busy machine must not be taken for a broken function
TRACE_ID: Final = "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=0"
RUNTIME_API: Final = "/2018-06-01/runtime"
PROJECT_ROOT: Final = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class FunctionSpec:
    """What a function is: its code, its limits and its variables.

    `command` is what an environment runs; `{handler}` and `{python}` in it are filled in.
    `environment` is added to the variables Lambda sets; `timeout_s` is the limit of one invocation.
    """

    name: str
    directory: str
    handler: str = "app.handler"
    command: tuple[str, ...] = ("{python}", "-m", "awslambdaric", "{handler}")
    python: str = sys.executable
    timeout_s: float = 30.0
    memory_mb: int = 256
    concurrency: int = 20
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    trace_id: str = TRACE_ID

    @property
    def arn(self) -> str:
        """The qualified ARN, with the version suffix that a registration needs."""
        return f"arn:aws:lambda:us-east-1:123456789012:function:{self.name}:$LATEST"

    def argv(self) -> list[str]:
        return [part.format(python=self.python, handler=self.handler) for part in self.command]


@dataclasses.dataclass(frozen=True)
class Fault:
    """What shall go wrong with one invocation.

    `kill_after_ms`: SIGKILL the process that long after it got the work, unless it has answered.
    `delay_reply_ms`: hold the answer back. `lose_reply`: the function ran, its caller is told that it failed.
    """

    kill_after_ms: float | None = None
    delay_reply_ms: float = 0.0
    lose_reply: bool = False


@dataclasses.dataclass
class Counters:
    """Totals since the function was added."""

    invocations: int = 0
    cold_starts: int = 0
    failures: int = 0
    throttles: int = 0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How an invocation ended: `failed` is told by the header `X-Amz-Function-Error`."""

    failed: bool
    body: bytes

    @classmethod
    def failure(cls, kind: str, message: str) -> "Outcome":
        return cls(True, json.dumps({"errorType": kind, "errorMessage": message}).encode())


@dataclasses.dataclass
class Work:
    """One invocation on its way through an environment."""

    request_id: str
    body: bytes
    deadline_at: float
    client_context: str | None
    outcome: "asyncio.Future[Outcome]"

    def settle(self, outcome: Outcome) -> None:
        """The first outcome counts; a late one is dropped, as the service does."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)


class Environment:
    """One process and the runtime API listener that feeds it."""

    def __init__(self, spec: FunctionSpec) -> None:
        self.spec = spec
        self.log: deque[str] = deque(maxlen=200)
        self.spent = False  # never used again, whatever the process says
        self._queue: asyncio.Queue[Work] = asyncio.Queue()
        self._current: Work | None = None
        self._ready = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Open the runtime API and start the process; returns at once, `run` waits for it to be ready."""
        app = web.Application(client_max_size=64 << 20)
        app.router.add_get(f"{RUNTIME_API}/invocation/next", self._next)
        app.router.add_post(f"{RUNTIME_API}/invocation/{{request_id}}/{{what}}", self._answer)
        app.router.add_post(f"{RUNTIME_API}/init/error", self._init_error)
        # A dead process leaves its long poll behind; nothing is worth waiting for when the listener closes.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._process = await asyncio.create_subprocess_exec(
            *self.spec.argv(),
            cwd=self.spec.directory,
            env=self._variables(self._runner.addresses[0][1]),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=8 << 20,
        )
        self._tasks = [asyncio.create_task(self._drain()), asyncio.create_task(self._watch())]

    def _variables(self, port: int) -> dict[str, str]:
        spec = self.spec
        return {
            **os.environ,
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{port}",
            "AWS_LAMBDA_FUNCTION_NAME": spec.name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(spec.memory_mb),
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{spec.name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": uuid.uuid4().hex,
            "AWS_REGION": "us-east-1",
            "LAMBDA_TASK_ROOT": spec.directory,
            "_HANDLER": spec.handler,
            "TZ": ":UTC",
            **spec.environment,
        }

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    @property
    def usable(self) -> bool:
        return self.alive and not self.spent

    def kill(self) -> None:
        """SIGKILL, also to a frozen process; an invocation in it fails with `Runtime.ExitError`."""
        self.spent = True
        if self.alive:
            self._process.kill()

    async def close(self) -> None:
        self.kill()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def run(self, work: Work, fault: Fault) -> Outcome:
        """Thaw, hand over the work, wait for the answer or the end of its time, freeze."""
        self._current = work
        if self._ready.is_set():
            self._process.send_signal(signal.SIGCONT)
        outcome = await self._initialised(work)
        if outcome is None:
            work.deadline_at = time.time() + self.spec.timeout_s
            self._queue.put_nowait(work)
            if fault.kill_after_ms is not None:
                asyncio.get_running_loop().call_later(fault.kill_after_ms / 1000, self._kill_if_at, work)
            outcome = await self._finished(work)
        self._current = None
        if self.usable:
            self._process.send_signal(signal.SIGSTOP)
        return outcome

    async def _initialised(self, work: Work) -> Outcome | None:
        """None when the process asks for work; else why it never will."""
        ready: asyncio.Future[Any] = asyncio.ensure_future(self._ready.wait())
        either: set[asyncio.Future[Any]] = {ready, work.outcome}
        done, _ = await asyncio.wait(either, timeout=INIT_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if work.outcome in done:
            return work.outcome.result()
        if self._ready.is_set():
            return None
        self.kill()
        return Outcome.failure("Sandbox.Timedout", f"RequestId: {work.request_id} Error: init timed out")

    async def _finished(self, work: Work) -> Outcome:
        try:
            return await asyncio.wait_for(asyncio.shield(work.outcome), self.spec.timeout_s)
        except TimeoutError:
            self.kill()
            text = f"RequestId: {work.request_id} Error: Task timed out after {self.spec.timeout_s:.2f} seconds"
            return Outcome.failure("Sandbox.Timedout", text)

    def _kill_if_at(self, work: Work) -> None:
        if self._current is work and not work.outcome.done():
            self.kill()

    async def _drain(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.log.append(line.decode(errors="replace").rstrip())

    async def _watch(self) -> None:
        code = await self._process.wait()
        if self._current is not None:
            text = f"RequestId: {self._current.request_id} Error: Runtime exited with error: exit status {code}"
            self._current.settle(Outcome.failure("Runtime.ExitError", text))
        await self._runner.cleanup()

    async def _next(self, request: web.Request) -> web.Response:
        self._ready.set()
        work = await self._queue.get()
        headers = {
            "Lambda-Runtime-Aws-Request-Id": work.request_id,
            "Lambda-Runtime-Deadline-Ms": str(int(work.deadline_at * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": self.spec.arn,
            "Lambda-Runtime-Trace-Id": self.spec.trace_id,
        }
        if work.client_context is not None:
            headers["Lambda-Runtime-Client-Context"] = work.client_context
        return web.Response(body=work.body, content_type="application/json", headers=headers)

    async def _answer(self, request: web.Request) -> web.Response:
        body, failed = await request.read(), request.match_info["what"] == "error"
        outcome = Outcome(failed, body)
        if not failed and len(body) > RESPONSE_LIMIT:
            text = f"Response payload size exceeded maximum allowed payload size ({RESPONSE_LIMIT} bytes)."
            outcome = Outcome.failure("Function.ResponseSizeTooLarge", text)
        if self._current is not None and self._current.request_id == request.match_info["request_id"]:
            self._current.settle(outcome)
        return web.json_response({"status": "OK"}, status=202)

    async def _init_error(self, request: web.Request) -> web.Response:
        self.spent = True
        if self._current is not None:
            self._current.settle(Outcome(True, await request.read()))
        return web.json_response({"status": "OK"}, status=202)


class Function:
    """A function's environments, counters and pending faults."""

    def __init__(self, spec: FunctionSpec) -> None:
        self.spec = spec
        self.concurrency = spec.concurrency
        self.counters = Counters()
        self.faults: deque[Fault] = deque()
        self._idle: list[Environment] = []
        self._busy: set[Environment] = set()

    async def invoke(self, body: bytes, client_context: str | None) -> Outcome | None:
        """The outcome, or None when the concurrency limit is reached."""
        if len(self._busy) >= self.concurrency:
            self.counters.throttles += 1
            return None
        self.counters.invocations += 1
        fault = self.faults.popleft() if self.faults else Fault()
        reply: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        work = Work(str(uuid.uuid4()), body, 0.0, client_context, reply)
        environment, cold = self._take()
        try:
            if cold:
                await environment.start()
            outcome = await environment.run(work, fault)
        finally:
            self._busy.discard(environment)
        if environment.usable:
            self._idle.append(environment)
        self.counters.failures += outcome.failed
        if fault.delay_reply_ms:
            await asyncio.sleep(fault.delay_reply_ms / 1000)
        return Outcome.failure("Service.Lost", "the reply was lost") if fault.lose_reply else outcome

    def _take(self) -> tuple[Environment, bool]:
        """A warm environment if there is one, else a new one that has to be started."""
        self._idle = [environment for environment in self._idle if environment.usable]
        cold = not self._idle
        environment = Environment(self.spec) if cold else self._idle.pop()
        self.counters.cold_starts += cold
        self._busy.add(environment)
        return environment, cold

    def kill(self) -> int:
        """Kill every process of the function, busy or frozen; the number of busy ones."""
        busy = len(self._busy)
        for environment in [*self._busy, *self._idle]:
            environment.kill()
        return busy

    def log(self) -> list[str]:
        return [line for environment in [*self._busy, *self._idle] for line in environment.log]

    async def close(self) -> None:
        await asyncio.gather(*(environment.close() for environment in [*self._busy, *self._idle]))


class LambdaService:
    """The Invoke front and its functions, inside the running event loop."""

    def __init__(self) -> None:
        self.functions: dict[str, Function] = {}
        self._background: set[asyncio.Task[Outcome | None]] = set()

    async def start(self, port: int = 0) -> None:
        """Listen on loopback; port 0 takes a free one, `url` tells which."""
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/2015-03-31/functions/{name}/invocations", self._invoke)
        app.router.add_put("/_control/functions/{name}", self._control_put)
        app.router.add_get("/_control/functions/{name}", self._control_get)
        app.router.add_post("/_control/functions/{name}/{what}", self._control_post)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()

    @property
    def url(self) -> str:
        """What goes into `AWS_ENDPOINT_URL_LAMBDA`."""
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    def add(self, spec: FunctionSpec) -> Function:
        """Make a function known; no process starts before its first invocation."""
        self.functions[spec.name] = Function(spec)
        return self.functions[spec.name]

    async def stop(self) -> None:
        await asyncio.gather(*(function.close() for function in self.functions.values()))
        await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, e: BaseException | None, t: TracebackType | None) -> None:
        await self.stop()

    async def _invoke(self, request: web.Request) -> web.Response:
        name = request.match_info["name"].split(":function:")[-1].split(":")[0]
        function = self.functions.get(name)
        if function is None:
            return _refusal(404, "ResourceNotFoundException", f"Function not found: {name}")
        body, kind = (
            await request.read() or b"{}",
            request.headers.get("X-Amz-Invocation-Type", "RequestResponse"),
        )
        limit = EVENT_LIMIT if kind == "Event" else PAYLOAD_LIMIT
        if len(body) > limit:
            return _refusal(413, "RequestTooLargeException", f"Request must be smaller than {limit} bytes")
        if kind == "DryRun":
            return web.Response(status=204)
        context = base64.b64decode(request.headers.get("X-Amz-Client-Context", "")).decode() or None
        if kind == "Event":
            task = asyncio.create_task(function.invoke(body, context))
            self._background.add(task)
            task.add_done_callback(self._background.discard)
            return web.Response(status=202)
        outcome = await function.invoke(body, context)
        if outcome is None:
            return _refusal(
                429,
                "TooManyRequestsException",
                "Rate Exceeded.",
                Reason="ReservedFunctionConcurrentInvocationLimitExceeded",
            )
        headers = {"X-Amz-Executed-Version": "$LATEST"}
        if outcome.failed:
            headers["X-Amz-Function-Error"] = "Unhandled"
        return web.Response(body=outcome.body, headers=headers)

    async def _control_put(self, request: web.Request) -> web.Response:
        self.add(_spec({**await request.json(), "name": request.match_info["name"]}))
        return web.json_response({})

    async def _control_get(self, request: web.Request) -> web.Response:
        function = self.functions[request.match_info["name"]]
        return web.json_response({**dataclasses.asdict(function.counters), "log": function.log()})

    async def _control_post(self, request: web.Request) -> web.Response:
        function, body = self.functions[request.match_info["name"]], await request.json()
        match request.match_info["what"]:
            case "kill":
                return web.json_response({"busy": function.kill()})
            case "concurrency":
                function.concurrency = int(body["limit"])
            case "faults":
                function.faults.extend(Fault(**fault) for fault in body["faults"])
            case other:
                return web.json_response({"message": f"kill, concurrency or faults expected, found {other}"}, status=404)
        return web.json_response({})


def _refusal(status: int, kind: str, message: str, **more: str) -> web.Response:
    body = {"Type": "User", "Message": message, "message": message, **more}
    return web.json_response(body, status=status, headers={"x-amzn-errortype": kind})


def _spec(fields: Mapping[str, Any]) -> FunctionSpec:
    values = dict(fields)
    if "command" in values:
        values["command"] = tuple(values["command"])
    return FunctionSpec(**values)


class LambdaServiceProcess:
    """The service as a child process, driven by synchronous code.

    The handle of tests and benchmarks whose own event loop must not share a core's time with the functions.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.support.lambda_service", "--port", str(self.port)]
        self._process = subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise RuntimeError(f"the Lambda service did not start on port {self.port}; see its standard error above")
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, t: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait(timeout=60)

    def add(self, spec: FunctionSpec) -> None:
        """Make a function known."""
        self._control("PUT", spec.name, {**dataclasses.asdict(spec), "command": list(spec.command)})

    def counters(self, name: str) -> Counters:
        """Invocations, cold starts, failures and throttles so far."""
        answer = self._control("GET", name, None)
        return Counters(**{field.name: answer[field.name] for field in dataclasses.fields(Counters)})

    def log(self, name: str) -> list[str]:
        """What the function's living processes printed last."""
        return [str(line) for line in self._control("GET", name, None)["log"]]

    def kill(self, name: str) -> int:
        """SIGKILL every process of the function; how many were busy."""
        return int(self._control("POST", f"{name}/kill", {})["busy"])

    def limit_concurrency(self, name: str, limit: int) -> None:
        """From now on more than `limit` invocations at once are refused with 429."""
        self._control("POST", f"{name}/concurrency", {"limit": limit})

    def inject(self, name: str, *faults: Fault) -> None:
        """The next invocations suffer these faults, one each, in order."""
        self._control("POST", f"{name}/faults", {"faults": [dataclasses.asdict(fault) for fault in faults]})

    def _control(self, method: str, path: str, body: object) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.url}/_control/functions/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            answer: dict[str, Any] = json.load(response)
            return answer


async def _serve(port: int, specs: list[FunctionSpec]) -> None:
    service, ended = LambdaService(), asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, ended.set)
    for spec in specs:
        service.add(spec)
    await service.start(port)
    print(service.url, flush=True)
    await ended.wait()
    await service.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description="A Lambda service on loopback for tests and benchmarks.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free port; the address is printed")
    parser.add_argument("--function", action="append", default=[], help="a FunctionSpec as JSON; may be repeated")
    options = parser.parse_args()
    asyncio.run(_serve(options.port, [_spec(json.loads(text)) for text in options.function]))


if __name__ == "__main__":
    main()
