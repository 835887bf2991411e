"""Several `holdfast serve` processes on one table, each behind a network that can be cut between it and its peers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import aiohttp
from tests.conformance.servers import AWS_DUMMIES
from tests.support.dynamodb import ENVIRONMENT
from tests.support.ports import free_port

from bench.processes import BIN
from holdfast_runtime.adapters.dynamodb import open_dynamodb_store
from holdfast_runtime.adapters.dynamodb_table import DynamoDbTable
from holdfast_runtime.adapters.system import SystemClock

TABLE: Final = "replicas"
START_LIMIT_S: Final = 120.0
STOP_LIMIT_S: Final = 120.0
LOOK_S: Final = 3.0  # two heartbeats fall into it
Network = Literal["whole", "cut", "swallowing"]


class Wire:
    """What the others know as the address of a replica.

    cut: connections break and new ones are refused. swallowing: bytes are taken and dropped.
    """

    def __init__(self, target_port: int) -> None:
        self._target = target_port
        self._network: Network = "whole"
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]

    def become(self, network: Network) -> None:
        """Connections that have lost bytes end when the network is whole again: TCP would have given them up."""
        if network == "cut" or self._network == "swallowing":
            self._break_all()
        self._network = network

    async def close(self) -> None:
        self._server.close()
        self._break_all()
        for task in list(self._tasks):
            task.cancel()

    def _break_all(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._network == "cut":
            writer.transport.abort()
            return
        try:
            onward = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        both = (writer, onward[1])
        self._open.update(both)
        pumps = [asyncio.create_task(self._pump(reader, onward[1])), asyncio.create_task(self._pump(onward[0], writer))]
        self._tasks.update(pumps)
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for end in both:
            end.transport.abort()
        self._open.difference_update(both)
        self._tasks.difference_update(pumps)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if self._network == "whole":
                    writer.write(data)
                    await writer.drain()


class Replica:
    """One process; it keeps its ports, so its place behind the load balancer, over restarts. `up` as that one sees it."""

    def __init__(self, number: int, folder: Path, dynamodb_url: str, variables: Mapping[str, str]) -> None:
        self.number = number
        self.log = folder / f"replica-{number}.log"
        self.ports = free_port(), free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.ports[0]}"
        self.admin_url = f"http://127.0.0.1:{self.ports[1]}"
        self.wire = Wire(self.ports[2])
        self.process: asyncio.subprocess.Process | None = None
        self.paused = False
        self.wanted = False  # a process is running or being started; the last word of the driver
        self._variables = {**ENVIRONMENT, **AWS_DUMMIES, "AWS_ENDPOINT_URL_DYNAMODB": dynamodb_url, **variables}

    async def start(self) -> None:
        """Started, not ready yet."""
        if not hasattr(self.wire, "port"):
            await self.wire.start()
        self.wanted = True
        ingress, admin, peers = (f"127.0.0.1:{port}" for port in self.ports)
        command = [str(BIN / "holdfast"), "serve", "--store", f"dynamodb://{TABLE}", "--ingress", ingress, "--admin", admin]
        command += ["--peers", peers, "--peers-advertised-address", self.address, "--log-format", "json"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "HOLDFAST_"))}
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(*command, env={**environment, **self._variables}, stdout=log, stderr=log)

    async def until_ready(self, session: aiohttp.ClientSession) -> None:
        """Raises RuntimeError when it ends, or is not ready within START_LIMIT_S."""
        deadline = time.monotonic() + START_LIMIT_S
        while not await self.healthy(session):
            assert self.process is not None
            if self.process.returncode is not None or time.monotonic() > deadline:
                tail = self.log.read_text()[-3000:]
                raise RuntimeError(f"replica {self.number} did not start (exit status {self.process.returncode}); its log ends:\n{tail}")
            await asyncio.sleep(0.1)

    async def healthy(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"{self.url}/restate/health", timeout=aiohttp.ClientTimeout(total=5)) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    @property
    def address(self) -> str:
        """What the others are told."""
        return f"127.0.0.1:{self.wire.port}"

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    async def kill(self) -> None:
        self.wanted = self.paused = False
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
            await self.process.wait()

    async def stop(self) -> int | None:
        """SIGTERM; the exit status, None when it took too long and was killed."""
        assert self.process is not None
        self.wanted = False
        if self.process.returncode is None:
            self.process.terminate()
        try:
            async with asyncio.timeout(STOP_LIMIT_S):
                return await self.process.wait()
        except TimeoutError:
            await self.kill()
            return None

    def pause(self) -> None:
        assert self.process is not None
        self.paused = True
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        if self.running and self.paused:
            assert self.process is not None
            self.process.send_signal(signal.SIGCONT)
        self.paused = False

    def faults(self) -> list[str]:
        """Lines of its log that tell of a fault of ours: stack traces, and what it calls an error or worse."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [line for line in lines if re.search(r'Traceback|"level": ?"(critical|error)"|^\w+Error:', line)]

    async def close(self) -> None:
        await self.kill()
        if hasattr(self.wire, "port"):
            await self.wire.close()


async def owners() -> dict[int, str]:
    """Shard -> address of its owner, of those whose counter moves. The table is looked for where AWS clients look."""
    opened = await open_dynamodb_store(DynamoDbTable(TABLE), clock=SystemClock())
    try:
        _, before = await opened.store.leases.read()
        await asyncio.sleep(LOOK_S)
        records, members = await opened.store.leases.read()
    finally:
        await opened.close()
    living = {name: member for name, member in members.items() if name not in before or before[name].counter != member.counter}
    return {number: living[record.owner].address for number, record in records.items() if record.owner in living}
