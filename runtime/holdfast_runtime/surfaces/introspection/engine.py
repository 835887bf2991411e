"""The server's side of the engine: keeps its processes, fetches the rows they ask for, passes the answer on.

A process is started for the first statement and reused; it ends after a while without work, and is killed when a statement takes too long.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from holdfast_runtime.coordinator.front import Front, Scan
from holdfast_runtime.surfaces.introspection import frames, registry_tables
from holdfast_runtime.surfaces.introspection.frames import Message

log = logging.getLogger("holdfast.introspection")

MAX_WAITING: Final = 32
IDLE_S: Final = 120.0
END_S: Final = 2.0
_MODULE: Final = "holdfast_runtime.surfaces.introspection.worker"
_LATE: Final = "make its conditions more selective, with = or IN on ids, services or keys"
_READ_LATE: Final = (
    "not all shards had answered: another process has died or cannot be reached (the log says it, `peers...`), so try again in some "
    f"seconds, or {_LATE}"
)
_SPARE_S: Final = 18.0  # so much later than we kill it for a statement, a process ends by itself


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """timeout_s: from the statement to its answer; the official CLI gives up after 13. processes: statements at the same time.
    memory_bytes: what the operators of one may hold.
    """

    timeout_s: float = 12.0
    processes: int = 2
    memory_bytes: int = 256 * 1024 * 1024


class QueryError(Exception):
    """status: of the HTTP answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(slots=True)
class _Stage:
    """Of a statement: whether its rows are being read, which needs every shard, or it is computed."""

    reading: bool = False


class _Gone(Exception):
    """The process has ended before it answered."""


class Engine:
    """One per server. `close` ends its processes."""

    def __init__(self, front: Front, limits: QueryLimits | None = None) -> None:
        self._front = front
        self._limits = limits or QueryLimits()
        self._idle: list[_Process] = []
        self._slots = asyncio.Semaphore(self._limits.processes)
        self._waiting = 0

    async def query(self, statement: str, *, json: bool) -> list[bytes]:
        """The encoded result, in parts. Raises QueryError and CoordinatorUnavailable."""
        if self._waiting >= MAX_WAITING:
            raise QueryError(429, "Rate limited")
        self._waiting += 1
        stage = _Stage()
        try:
            async with asyncio.timeout(self._limits.timeout_s), self._slots:
                return await self._run(statement, stage, json=json)
        except TimeoutError:
            advice = _READ_LATE if stage.reading else _LATE
            raise QueryError(500, f"the statement took longer than {self._limits.timeout_s:g} s; {advice}") from None
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        while self._idle:
            await self._idle.pop().end()

    async def _run(self, statement: str, stage: _Stage, *, json: bool) -> list[bytes]:
        process = self._idle_one() or await _Process.start(self._limits)
        try:
            parts = [part async for part in process.ask(statement, stage, json=json, front=self._front)]
        except QueryError:
            self._give_back(process)
            raise
        except _Gone:
            if process.has_rested and not process.has_spoken:  # it ended while it was idle: that is not the statement's fault
                process.kill()
                return await self._run(statement, stage, json=json)
            raise QueryError(*await process.reason()) from None
        except BaseException:
            process.kill()  # in the middle of a conversation: nobody can take it up again
            raise
        self._give_back(process)
        return parts

    def _idle_one(self) -> _Process | None:
        while self._idle:
            process = self._idle.pop()
            process.rest.cancel()
            if process.alive:
                return process
        return None

    def _give_back(self, process: _Process) -> None:
        process.has_rested = True
        process.rest = asyncio.get_running_loop().call_later(IDLE_S, self._retire, process)
        self._idle.append(process)

    def _retire(self, process: _Process) -> None:
        if process in self._idle:
            self._idle.remove(process)
            process.kill()


class _Process:
    """A running `worker`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._stdin, self._stdout = process.stdin, process.stdout
        self.rest: asyncio.TimerHandle = asyncio.get_running_loop().call_later(0, lambda: None)
        self.has_rested = False  # since it was started
        self.has_spoken = False  # of the statement it was asked last

    @classmethod
    async def start(cls, limits: QueryLimits) -> _Process:
        pipe = asyncio.subprocess.PIPE
        # Its own session: what interrupts the server from a terminal must not tear down what the server still answers from.
        command = (sys.executable, "-m", _MODULE, str(limits.memory_bytes), str(limits.timeout_s + _SPARE_S))
        return cls(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True))

    @property
    def alive(self) -> bool:
        return self._process.returncode is None and not self._stdout.at_eof()

    def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()

    async def end(self) -> None:
        self.kill()
        await self._process.wait()

    async def ask(self, statement: str, stage: _Stage, *, json: bool, front: Front) -> AsyncIterator[bytes]:
        self.has_spoken = False
        await self._send({"query": statement, "json": json})
        while True:
            message = await self._receive()
            if "read" in message:
                stage.reading = True
                await self._serve(message["read"], front)
                stage.reading = False
            elif "bytes" in message:
                yield message["bytes"]
            elif "error" in message:
                raise QueryError(*message["error"])
            else:
                return

    async def _serve(self, read: dict[str, Any], front: Front) -> None:
        more = None
        if read["source"] in ("deployments", "services"):
            rows: Any = registry_tables.rows(front.registry, read["source"], read["columns"])
        else:
            found = await front.scan(Scan(**read))
            rows, more = found.rows, found.more
        for start in range(0, len(rows), frames.CHUNK_ROWS):
            await self._send({"rows": rows[start : start + frames.CHUNK_ROWS]})
            await asyncio.sleep(0)  # to encode them is a millisecond of work
        await self._send({"more": more})

    async def _send(self, message: Message) -> None:
        try:
            self._stdin.write(frames.encode(message))
            await self._stdin.drain()
        except (ConnectionError, RuntimeError) as error:
            raise _Gone from error

    async def _receive(self) -> Message:
        try:
            head = await self._stdout.readexactly(frames.LENGTH.size)
            self.has_spoken = True
            return frames.decode(await self._stdout.readexactly(frames.LENGTH.unpack(head)[0]))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise _Gone from error

    async def reason(self) -> tuple[int, str]:
        """Why it has ended: status and message of the answer."""
        assert self._process.stderr is not None
        self._stdin.close()
        try:
            async with asyncio.timeout(END_S):  # its pipes are closed, so it has ended or is about to: how, it says itself
                code = await self._process.wait()
        except TimeoutError:
            self.kill()
            code = await self._process.wait()
        text = (await self._process.stderr.read()).decode("utf-8", "replace")
        log.warning("introspection.process_ended", extra={"code": code, "stderr": text[-2000:]})
        if "ModuleNotFoundError: No module named 'datafusion'" in text or "No module named 'pyarrow'" in text:
            return 503, "SQL introspection needs the packages datafusion and pyarrow; install holdfast with its extra `runtime`"
        if code == -signal.SIGKILL:
            return 500, "the engine's process was killed while it worked on the statement, by somebody or for want of memory; ask again"
        return 500, "the statement needed more memory than one may, or broke the engine; make its conditions more selective"
