"""Where the coordinator's CPU goes: `holdfast serve` with its stacks sampled by CPU time, not by the clock.

    .venv/bin/python -m bench.profile_serve <out file> serve --store /tmp/p.sqlite --ingress 127.0.0.1:8080 ...
    .venv/bin/python -m bench.profile_serve <out file> in-process <store> <ingress port> <admin port>
    .venv/bin/python -m bench.profile_serve --show <out file> [rows]

Rules
- The kernel sends SIGPROF for every millisecond of CPU the process has used, so other processes on the machine
  do not change the picture. A sample weighs what the event loop's thread has used since the last one: time of
  the store's thread is reported as one line.
- Time inside C code (sockets, protobuf, msgpack) counts for the Python function that called it.
- Samples are taken between the first SIGUSR1 and SIGUSR2, so that start and warm-up are not in it.
"""

from __future__ import annotations

import collections
import json
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Final

INTERVAL_S: Final = 0.001
ROOT: Final = str(Path(__file__).resolve().parents[1])


class Sampler:
    """CPU seconds by stack, innermost function last."""

    def __init__(self) -> None:
        self.stacks: collections.Counter[tuple[str, ...]] = collections.Counter()
        self.thread = self.process = 0.0
        self.names: dict[tuple[str, str, int], str] = {}

    def begin(self, *_: object) -> None:
        self.stacks.clear()
        self.last = self.first = time.thread_time()
        self.first_process = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)

    def end(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        self.thread = time.thread_time() - self.first
        self.process = time.process_time() - self.first_process

    def sample(self, _number: int, frame: FrameType | None) -> None:
        now = time.thread_time()
        weight, self.last = now - self.last, now
        stack: list[str] = []
        while frame is not None:
            code = frame.f_code
            key = (code.co_filename, code.co_qualname if sys.version_info >= (3, 11) else code.co_name, code.co_firstlineno)
            stack.append(self.names.get(key) or self.names.setdefault(key, f"{key[1]} ({_short(key[0])}:{key[2]})"))
            frame = frame.f_back
        self.stacks[tuple(reversed(stack))] += weight  # type: ignore[assignment]


def _short(path: str) -> str:
    for prefix in (ROOT + "/runtime/holdfast_runtime/", ROOT + "/sdk/", ROOT + "/"):
        if path.startswith(prefix):
            path = path.removeprefix(prefix)
            break
    return path.rpartition("site-packages/")[2]


def show(path: Path, rows: int) -> None:
    """The functions by their own CPU, and by that of everything they called."""
    found = json.loads(path.read_text())
    own: collections.Counter[str] = collections.Counter()
    under: collections.Counter[str] = collections.Counter()
    for line, seconds in found["stacks"]:
        stack = line.split(";")
        own[stack[-1]] += seconds
        for name in set(stack):
            under[name] += seconds
    process, thread = found["process_s"], found["loop_s"]
    share = 100 * thread / process
    print(f"{process:.2f} s of CPU, {share:.0f} % in the event loop, {100 - share:.0f} % in the store's thread")
    for title, counted in (("own", own), ("with callees", under)):
        print(f"-- {title}, per cent of the process")
        for name, seconds in counted.most_common(rows):
            print(f"{100 * seconds / process:5.1f}  {name}")


def _run_command(arguments: list[str]) -> None:
    from holdfast_runtime.app.cli import app

    app(arguments, standalone_mode=False)


def _run_in_process(arguments: list[str]) -> None:
    import uvloop

    from bench import in_process

    uvloop.run(in_process.run(Path(arguments[0]), int(arguments[1]), int(arguments[2])))


def main() -> None:
    if sys.argv[1] == "--show":
        show(Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 40)
        return
    out, sampler = Path(sys.argv[1]), Sampler()
    signal.signal(signal.SIGPROF, sampler.sample)
    signal.signal(signal.SIGUSR1, sampler.begin)
    signal.signal(signal.SIGUSR2, sampler.end)
    try:
        if sys.argv[2] == "in-process":
            _run_in_process(sys.argv[3:])
        else:
            _run_command(sys.argv[2:])
    finally:
        stacks = [[";".join(stack), seconds] for stack, seconds in sampler.stacks.items()]
        out.write_text(json.dumps({"process_s": sampler.process, "loop_s": sampler.thread, "stacks": stacks}))


if __name__ == "__main__":
    main()
