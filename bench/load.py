"""A closed-loop load generator for HTTP/1.1: a fixed number of requests is always under way.

Rules
- One connection per request under way, kept alive; a new request leaves when the answer to the last is complete.
- Nothing is parsed but the status, the content length and, on a failure, the body: 10 to 15 us of CPU per
  request, so that one process is never what limits a server.
- What the servers spend is read by this process at the two ends of the measured window, so that warm-up and
  start are not in it.

Run as a process of its own: `python -m bench.load '<Load as JSON>'` prints a `Measured` as JSON.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import subprocess
import sys
import time
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast

GRACE_S: Final = 30.0  # for the answers under way when the window ends
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
CONTENT_LENGTH: Final = b"content-length:"


@dataclasses.dataclass(frozen=True)
class Load:
    """`path` may contain `{key}`, which becomes k0 .. k<keys - 1> in turn; `watch`: process ids by name.

    `limit`: when not 0, exactly so many requests and no warm-up; the window ends with the last answer.
    """

    port: int
    path: str
    body: str = ""
    keys: int = 1
    concurrency: int = 1
    warm_up_s: float = 1.0
    seconds: float = 3.0
    limit: int = 0
    watch: Mapping[str, list[int]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Measured:
    """Of the window alone. `cpu_s`: user and system time by the names of `Load.watch`; `self_cpu_s`: the generator's."""

    completed: int
    failed: int
    window_s: float
    p50_ms: float
    p99_ms: float
    cpu_s: Mapping[str, float]
    self_cpu_s: float
    failure: str

    @property
    def per_second(self) -> float:
        return self.completed / self.window_s

    def cpu_ms(self, name: str) -> float:
        """Milliseconds of CPU of one of the watched per completed request."""
        return self.cpu_s[name] * 1000 / max(1, self.completed)


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of processes and all that descend from them; what is gone counts nothing."""
    total, left = 0, list(pids)
    while left:
        pid = left.pop()
        try:
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            for task in os.listdir(f"/proc/{pid}/task"):
                left += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICKS_PER_S


class Generator:
    """What the connections share."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.requests = [self._request(f"k{number}") for number in range(load.keys)]
        self.sent = 0
        self.latencies = array("d")
        self.failed = 0
        self.failure = ""
        self.measuring = False
        self.ended = False
        self.open = 0
        self.idle = asyncio.Event()

    def _request(self, key: str) -> bytes:
        load, body = self.load, self.load.body.encode()
        content = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n" if body else "content-length: 0\r\n"
        return f"POST {load.path.replace('{key}', key)} HTTP/1.1\r\nhost: 127.0.0.1:{load.port}\r\n{content}\r\n".encode() + body

    def has_ended(self) -> bool:
        """No more requests are to be sent."""
        return self.ended or 0 < self.load.limit <= self.sent

    def next(self) -> bytes:
        self.sent += 1
        return self.requests[self.sent % len(self.requests)]

    def done(self, seconds: float, answer: bytes) -> None:
        if not self.measuring:
            return
        if answer.startswith(b"HTTP/1.1 20"):
            self.latencies.append(seconds)
        else:
            self.failed += 1
            self.failure = self.failure or answer[:600].decode(errors="replace")


class Connection(asyncio.Protocol):
    """One request after the other."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator
        self.received = b""
        self.expected = 0  # bytes of the whole answer, 0 until its head is there

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.generator.open += 1
        self.send()

    def send(self) -> None:
        self.begin = time.perf_counter()
        self.transport.write(self.generator.next())

    def data_received(self, data: bytes) -> None:
        received = self.received = self.received + data if self.received else data
        if not self.expected:
            head = received.find(b"\r\n\r\n")
            if head < 0:
                return
            self.expected = head + 4 + content_length(received[:head].lower())
        if len(received) < self.expected:
            return
        self.received, self.expected = b"", 0
        self.generator.done(time.perf_counter() - self.begin, received)
        if self.generator.has_ended():
            self.transport.close()
        else:
            self.send()

    def connection_lost(self, error: Exception | None) -> None:
        generator = self.generator
        generator.open -= 1
        if not generator.has_ended():
            generator.failed += generator.measuring
            generator.failure = generator.failure or f"connection lost: {error or 'closed by the server'}"
            asyncio.get_running_loop().create_task(connect(generator))
        elif generator.open == 0:
            generator.idle.set()


def content_length(head: bytes) -> int:
    """Of a head in lower case."""
    at = head.find(CONTENT_LENGTH)
    if at < 0:
        raise ValueError(f"an answer with a content length expected, found the head {head!r}")
    end = head.find(b"\r\n", at)
    return int(head[at + len(CONTENT_LENGTH) : end if end > 0 else len(head)])


async def connect(generator: Generator) -> None:
    await asyncio.get_running_loop().create_connection(lambda: Connection(generator), "127.0.0.1", generator.load.port)


async def generate(load: Load) -> Measured:
    generator = Generator(load)
    generator.measuring = load.limit > 0
    before, own, begin = _spent(load), time.process_time(), time.perf_counter()
    for _ in range(load.concurrency):
        await connect(generator)
    if load.limit:
        await asyncio.wait_for(generator.idle.wait(), load.seconds)
    else:
        await asyncio.sleep(load.warm_up_s)
        before, own, begin = _spent(load), time.process_time(), time.perf_counter()
        generator.measuring = True
        await asyncio.sleep(load.seconds)
        generator.measuring = False
    window = time.perf_counter() - begin
    cpu = {name: after - before[name] for name, after in _spent(load).items()}
    own = time.process_time() - own
    if not load.limit:
        generator.ended = True
        await asyncio.wait_for(generator.idle.wait(), GRACE_S)
    latencies = sorted(generator.latencies)
    middle, high = (latencies[int(len(latencies) * share)] * 1000 if latencies else float("nan") for share in (0.5, 0.99))
    return Measured(len(latencies), generator.failed, window, middle, high, cpu, own, generator.failure)


def _spent(load: Load) -> dict[str, float]:
    return {name: cpu_seconds(pids) for name, pids in load.watch.items()}


def measure(load: Load) -> Measured:
    """Runs the generator as a process of its own."""
    command = [sys.executable, "-m", "bench.load", json.dumps(dataclasses.asdict(load))]
    limit = load.warm_up_s + load.seconds + GRACE_S + 30
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=limit)
    return Measured(**json.loads(answer.stdout))


def main() -> None:
    import uvloop

    measured = uvloop.run(generate(Load(**json.loads(sys.argv[1]))))
    print(json.dumps(dataclasses.asdict(measured)))


if __name__ == "__main__":
    main()
