"""Driving plain `def` handlers in the calling thread; no event loop is involved.

Rules: as in the async driver; closures of one wait execute concurrently in threads, a single one in the handler's.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, TypeVar

from holdfast._attempt import LONGEST_WAVE_S, Attempt, Gate
from holdfast._pending import Pending
from holdfast.protocol.machine import Suspended
from holdfast.protocol.outcomes import Leaf, Node

T = TypeVar("T")
MAX_THREADS = 64  # of one wait; more only wait for each other


def drive(attempt: Attempt) -> bytes:
    """Runs a plain handler to the end of the attempt and gives the response body."""
    attempt.adopt_thread()
    try:
        attempt.returned(attempt.invoke())
    except (Exception, Suspended, BaseExceptionGroup) as error:  # groups: a task group wraps Suspended
        attempt.raised(error)
    attempt.ended = True
    return attempt.machine.response()


def wait(attempt: Attempt, pending: Pending[T]) -> T:
    """Blocks until the result is there; executes the runs it needs."""
    settle(attempt, pending.node)
    return pending.value()


def settle(attempt: Attempt, node: Node) -> None:
    """Returns once the node is resolved."""
    complete = True
    while runs := attempt.step(node, may_run=complete):
        complete = _execute(attempt, runs)


def _execute(attempt: Attempt, runs: tuple[Leaf, ...]) -> bool:
    """Executes and concludes the runs; False when some were left for the next attempt."""
    results: dict[Leaf, Any] = {}
    failures: dict[Leaf, BaseException] = {}

    def guarded(leaf: Leaf) -> None:
        try:
            results[leaf] = _call(attempt, leaf)
        except Exception as error:  # the handler's own code: it is recorded or retried
            failures[leaf] = error

    if len(runs) == 1:
        guarded(runs[0])
    else:
        _in_threads(attempt, runs, guarded)
    attempt.conclude(_in_order(runs, results), _in_order(runs, failures))
    return len(results) + len(failures) == len(runs)


def _in_threads(attempt: Attempt, runs: tuple[Leaf, ...], execute: Callable[[Leaf], None]) -> None:
    """At most a gate's limit of its runs at once; the rest is not started once the wave lasts too long."""
    import threading
    from concurrent.futures import ThreadPoolExecutor

    gates: dict[Gate, threading.Semaphore] = {}
    for leaf in runs:
        gate = attempt.closure(leaf).gate
        if gate is not None and gate not in gates:
            gates[gate] = threading.Semaphore(gate.limit)
    stop_at = time.monotonic() + LONGEST_WAVE_S

    def one(leaf: Leaf) -> None:
        gate = attempt.closure(leaf).gate
        if gate is None:
            execute(leaf)
            return
        with gates[gate]:
            if time.monotonic() < stop_at:
                execute(leaf)

    with ThreadPoolExecutor(min(len(runs), MAX_THREADS)) as pool:
        for future in [pool.submit(copy_context().run, one, leaf) for leaf in runs]:
            future.result()


def _call(attempt: Attempt, leaf: Leaf) -> Any:
    with attempt.executing():
        value = attempt.closure(leaf).function()
    if inspect.isawaitable(value):
        if inspect.iscoroutine(value):
            value.close()
        raise TypeError(
            f"run '{leaf.name}' is an async function, and this handler is a plain def; make the handler "
            "`async def` with holdfast.Context, or give ctx.run a plain function"
        )
    return value


def _in_order(runs: tuple[Leaf, ...], found: dict[Leaf, Any]) -> dict[Leaf, Any]:
    """By command, not by who finished first."""
    return {leaf: found[leaf] for leaf in runs if leaf in found}
