"""An event loop with virtual time, played from outside: what is ready runs when `play` is called, and time moves when it is told to.

Rules: nothing here touches a file descriptor, so everything that can happen without time moving on has happened when `play` returns;
callbacks of one instant run in the order they were asked for; a dead loop runs nothing any more, not even a `finally`.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import Context, copy_context
from random import Random
from typing import Any, Final

MAX_STEPS: Final = 2_000_000  # of one `play`; more are a livelock, and an error is better than a test that never ends


class VirtualClock:
    """`Clock` of the coordinator: stands still until somebody sets `now_ms` (milliseconds since the Unix epoch)."""

    def __init__(self, start_ms: int) -> None:
        self._start_ms = start_ms
        self.at_ms = start_ms

    def now_ms(self) -> int:
        return self.at_ms

    def monotonic(self) -> float:
        """Seconds since the start."""
        return (self.at_ms - self._start_ms) / 1000

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class SeededEntropy:
    """`Entropy` of the coordinator: the same test gets the same ids and jitter in every run."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def fraction(self) -> float:
        return self._random.random()


class _Timer:
    __slots__ = ("args", "callback", "context", "stopped")

    def __init__(self, callback: Callable[..., Any], args: tuple[Any, ...], context: Context) -> None:
        self.callback = callback
        self.args = args
        self.context = context
        self.stopped = False

    def cancel(self) -> None:
        self.stopped = True


class VirtualLoop(asyncio.AbstractEventLoop):
    """One coordinator process lives in one; its death is the death of the loop."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._ready: deque[tuple[Callable[..., Any], tuple[Any, ...], Context]] = deque()
        self._timers: list[tuple[float, int, _Timer]] = []
        self._sequence = 0
        self._dead = False
        self._tasks: set[asyncio.Task[Any]] = set()

    # ---- What asyncio asks of a loop

    def time(self) -> float:
        return self._clock.monotonic()

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return self._dead

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        return

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> Any:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        if not self._dead:
            self._ready.append((callback, args, context if context is not None else copy_context()))

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        timer = _Timer(callback, args, context if context is not None else copy_context())
        self._sequence += 1
        heapq.heappush(self._timers, (when, self._sequence, timer))
        return timer

    # ---- Playing

    def play(self) -> None:
        """Run everything that can run while time stands still."""
        steps = 0
        with _running(self):
            while self._ready or self._fire():
                callback, args, context = self._ready.popleft()
                context.run(callback, *args)
                steps += 1
                if steps > MAX_STEPS:
                    raise RuntimeError(f"{steps} steps of the coordinator and no end, while time stands still; this is a bug of Holdfast")

    def next_timer(self) -> float | None:
        """When (in `time`) the first timer of this process is due, housekeeping included."""
        while self._timers and self._timers[0][2].stopped:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def _fire(self) -> bool:
        """Make ready what is due by now."""
        limit = self.time() + 1e-6
        while (when := self.next_timer()) is not None and when <= limit:
            timer = heapq.heappop(self._timers)[2]
            self._ready.append((timer.callback, timer.args, timer.context))
        return bool(self._ready)

    # ---- Ending

    def die(self) -> None:
        """As by SIGKILL: nothing of this process runs again."""
        self._dead = True
        self._ready.clear()
        self._timers.clear()

    def close(self) -> None:
        """End every task that still waits, quietly."""
        if not self._dead:
            for task in list(self._tasks):
                task.cancel()
            with contextlib.suppress(RuntimeError):
                self.play()
        self.die()
        with _running(self):
            for task in list(self._tasks):
                _close(task)
        self._tasks.clear()


def _close(task: asyncio.Task[Any]) -> None:
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    coroutine: Any = task.get_coro()
    for _ in range(8):  # a `finally` that awaits ignores the first close
        with contextlib.suppress(BaseException):
            coroutine.close()
            return


@contextlib.contextmanager
def _running(loop: VirtualLoop) -> Iterator[None]:
    """Make `loop` the running loop of this thread for a moment; another one may be running around it."""
    around = events._get_running_loop()
    events._set_running_loop(loop)
    try:
        yield
    finally:
        events._set_running_loop(around)
