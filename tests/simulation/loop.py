"""An event loop with virtual time that holds several simulated processes.

Rules: time jumps to the next timer; callbacks of one instant run in the order they were asked for. Whatever runs carries its process in a
context variable, and the loop looks before each step: the step of a crashed process is dropped for ever (no `finally`, no clean-up: a
SIGKILL),
that of a paused one is held until it resumes. So a crash or a pause can fall between any two steps, and the code under test cannot notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import sys
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context, ContextVar, copy_context
from typing import Any, Final

MAX_STEPS_PER_INSTANT: Final = 50_000  # so many steps without time moving on are a livelock

Step = tuple[Callable[..., Any], tuple[Any, ...], Context]


class SimProcess:
    """What the loop has to know of a process. fuse: steps until `blow` is called; negative: none."""

    __slots__ = ("alive", "blow", "fuse", "held", "name", "paused")

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        self.held: deque[Step] = deque()
        self.fuse = -1
        self.blow: Callable[[], None] | None = None


PROCESS: ContextVar[SimProcess | None] = ContextVar("process", default=None)


class SimTimer:
    __slots__ = ("args", "callback", "cancelled", "context", "when")

    def __init__(self, when: float, callback: Callable[..., Any], args: tuple[Any, ...], context: Context) -> None:
        self.when = when
        self.callback = callback
        self.args = args
        self.context = context
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def fire(self) -> None:
        if not self.cancelled:  # it may have been cancelled while a pause held it
            self.callback(*self.args)


class SimTask(asyncio.Task[Any]):
    """Numbered, so that a set of tasks has the same order in every run of a seed."""

    number = 0
    next_number = 0

    def __new__(cls, *args: Any, **more: Any) -> SimTask:
        task = super().__new__(cls)
        task.number = cls.next_number  # before the registry of all tasks asks for the hash
        return task

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class Livelock(AssertionError):
    """Steps follow steps and time stands still."""


class SimLoop(asyncio.AbstractEventLoop):
    def __init__(self) -> None:
        self._now = 0.0
        self._ready: deque[Step] = deque()
        self._timers: list[tuple[float, int, SimTimer]] = []
        self._sequence = 0
        self._closed = False
        self.steps = 0
        self.tasks: list[SimTask] = []
        self.finished: list[SimTask] = []  # tasks that ended with an exception
        self.stopped = False

    # -- what asyncio asks of a loop

    def time(self) -> float:
        return self._now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return self._closed

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        return

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> Any:
        self._sequence += 1
        SimTask.next_number = self._sequence
        task = SimTask(coro, loop=self, name=name or "t", context=context)
        asyncio.tasks._unregister_task(task)  # nobody asks for all tasks, and the registry would outlive the world
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        self.tasks.append(task)
        if len(self.tasks) > 4_000:
            self._compact()
        return task

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        if not self._closed:
            self._ready.append((callback, args, context if context is not None else copy_context()))

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        timer = SimTimer(when, callback, args, context if context is not None else copy_context())
        self._sequence += 1
        heapq.heappush(self._timers, (when, self._sequence, timer))
        return timer

    # -- running

    def run_until(self, until: float) -> None:
        """Run everything up to virtual second `until`, or until `stopped` is set."""
        ready, timers = self._ready, self._timers
        in_instant = 0
        while not self.stopped:
            while ready:
                callback, args, context = ready.popleft()
                process = context.get(PROCESS)
                if process is not None and not self._may_run(process, (callback, args, context)):
                    continue
                self.steps += 1
                in_instant += 1
                context.run(callback, *args)
                if self.stopped:
                    return
                if in_instant > MAX_STEPS_PER_INSTANT:
                    raise Livelock(f"{in_instant} steps at second {self._now:.3f} and no end")
            while timers and timers[0][2].cancelled:
                heapq.heappop(timers)
            if not timers or timers[0][0] > until:
                self._now = max(self._now, until)
                return
            when, _, timer = heapq.heappop(timers)
            if when > self._now:
                self._now = when
                in_instant = 0
            ready.append((timer.fire, (), timer.context))

    def _may_run(self, process: SimProcess, step: Step) -> bool:
        if not process.alive:
            return False
        if process.paused:
            process.held.append(step)
            return False
        if process.fuse >= 0:
            process.fuse -= 1
            if process.fuse < 0 and process.blow is not None:
                process.blow()
                return self._may_run(process, step)
        return True

    def resume(self, process: SimProcess) -> None:
        process.paused = False
        self._ready.extend(process.held)
        process.held.clear()

    def _compact(self) -> None:
        keep = []
        for task in self.tasks:
            if not task.done():
                keep.append(task)
            elif not task.cancelled() and task.exception() is not None:
                self.finished.append(task)
        self.tasks = keep

    def failed(self) -> list[SimTask]:
        """Every task that has ended with an exception."""
        self._compact()
        return self.finished

    def close(self) -> None:
        """End every coroutine that is still waiting, quietly: what its `finally` does now touches nothing any more."""
        self._closed = True
        self._ready.clear()
        self._timers.clear()
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        try:
            for task in self.tasks:
                if not task.done():
                    _close(task)
            self.tasks.clear()
            self.finished.clear()
        finally:
            sys.unraisablehook = hook


def _close(task: SimTask) -> None:
    coroutine: Coroutine[Any, Any, Any] = task.get_coro()  # type: ignore[assignment]
    for _ in range(8):  # a `finally` that awaits ignores the first close
        with contextlib.suppress(BaseException):
            coroutine.close()
            return


@contextlib.contextmanager
def running(loop: SimLoop) -> Iterator[None]:
    """Make `loop` the running loop of this thread."""
    events._set_running_loop(loop)
    try:
        yield
    finally:
        loop.close()
        events._set_running_loop(None)
