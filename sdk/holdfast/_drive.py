"""Driving handlers: `async def` ones in the running event loop, plain ones in the calling thread.

Rules: a wait happens in the handler's own task and thread, so that the order of waits is the order of the code;
closures execute concurrently, async ones in the loop, plain ones in threads; `Suspended` ends the handler and is
swallowed here and nowhere else.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Final, TypeVar

from holdfast._attempt import LONGEST_WAVE_S, Attempt, Gate, misuse
from holdfast.protocol.machine import Suspended
from holdfast.protocol.outcomes import Leaf, Node

T = TypeVar("T")
MAX_THREADS: Final = 64  # asyncio's own pool is sized for processors, and plain functions here mostly wait
_threads: list[ThreadPoolExecutor] = []  # one, made when it is first needed


async def drive(attempt: Attempt) -> bytes:
    """Runs an `async def` handler to the end of the attempt and gives the response body."""
    task = asyncio.current_task()
    assert task is not None
    attempt.adopt_thread()
    attempt.task = task
    try:
        attempt.returned(await attempt.invoke())
    except asyncio.CancelledError:
        raise  # the server stops: no response at all
    except (Exception, Suspended, BaseExceptionGroup) as error:  # groups: a task group wraps Suspended
        attempt.raised(error)
    attempt.ended = True
    return attempt.machine.response()


async def in_thread(function: Callable[[], T]) -> T:
    """A plain function's result, without blocking the loop; context variables are passed on."""
    if not _threads:
        _threads.append(ThreadPoolExecutor(MAX_THREADS, "holdfast"))
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_threads[0], copy_context().run, function)


async def settle(attempt: Attempt, node: Node) -> None:
    """Returns once the node is resolved; executes the runs it needs."""
    if asyncio.current_task() is not attempt.task:
        misuse(
            "a durable future was awaited in another asyncio task, where replay cannot repeat the order; await it "
            "in the handler itself, and use ctx.gather, ctx.select or ctx.timeout instead of asyncio's"
        )
    complete = True
    while runs := attempt.step(node, may_run=complete):
        complete = await _execute(attempt, runs)


async def _execute(attempt: Attempt, runs: tuple[Leaf, ...]) -> bool:
    """Executes and concludes the runs; False when some were left for the next attempt."""
    gates: dict[Gate, asyncio.Semaphore] = {}
    results: dict[Leaf, Any] = {}
    failures: dict[Leaf, BaseException] = {}
    stop_at = time.monotonic() + LONGEST_WAVE_S

    async def one(leaf: Leaf) -> None:
        gate = attempt.closure(leaf).gate
        if gate is None:
            return await guarded(leaf)
        async with gates.setdefault(gate, asyncio.Semaphore(gate.limit)):
            if time.monotonic() < stop_at:
                await guarded(leaf)
        return None

    async def guarded(leaf: Leaf) -> None:
        try:
            results[leaf] = await _call(attempt, leaf)
        except Exception as error:  # the handler's own code: it is recorded or retried
            failures[leaf] = error

    if len(runs) == 1:
        await one(runs[0])
    else:
        await asyncio.gather(*(one(leaf) for leaf in runs))
    attempt.conclude(_in_order(runs, results), _in_order(runs, failures))
    return len(results) + len(failures) == len(runs)


async def _call(attempt: Attempt, leaf: Leaf) -> Any:
    function = attempt.closure(leaf).function
    with attempt.executing():
        if attempt.closure(leaf).is_async:
            return await function()
        value = await in_thread(function)
        # a lambda around a coroutine function looks plain until it is called
        return await value if inspect.isawaitable(value) else value


def _in_order(runs: tuple[Leaf, ...], found: dict[Leaf, Any]) -> dict[Leaf, Any]:
    """By command, not by who finished first."""
    return {leaf: found[leaf] for leaf in runs if leaf in found}
