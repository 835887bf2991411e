"""Running a coordinator as this process: configured, started, announced, stopped by a signal.

Rules: SIGTERM and SIGINT hand over and exit with 0, also while it starts; a second one exits at once, which loses nothing either; what
keeps the coordinator from starting becomes one sentence. A table that throttles or does not answer keeps it from starting after a minute
only: whoever starts processes anew would ask it again as well, and faster.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn

from holdfast_runtime.app.errors import CliError

if TYPE_CHECKING:
    from holdfast_runtime.adapters.in_process import Handle
    from holdfast_runtime.app.runtime import Runtime, RuntimeConfig

log = logging.getLogger("holdfast.runtime")

START_PATIENCE_S: Final = 60.0  # as long as a process that takes its shards waits for them
START_DELAY_S: Final = 1.0

# Called when everything is served; the awaited future, when it resolves, stops the process as a signal does.
Announce = Callable[["Runtime"], None]


def run(
    config: RuntimeConfig, announce: Announce, handlers: Mapping[str, Handle] | None = None, *, stop_at_eof: int | None = None
) -> NoReturn:
    """Serve until a signal, or until file descriptor `stop_at_eof` is closed by whoever started us. Raises CliError; never returns."""
    import uvloop

    uvloop.run(_run(config, announce, handlers, stop_at_eof))
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # All is handed over and closed. A plain handler that still works in its thread would hold up the interpreter's exit, and
    # nobody will look at its result: the attempt is made again by the next process.
    os._exit(0)


async def _run(config: RuntimeConfig, announce: Announce, handlers: Mapping[str, Handle] | None, stop_at_eof: int | None) -> None:
    stopping = asyncio.Event()
    _on_signals(stopping)
    if stop_at_eof is not None:
        asyncio.get_running_loop().add_reader(stop_at_eof, _read_to_end, stop_at_eof, stopping)
    starting = asyncio.ensure_future(_patiently(config, handlers))
    runtime = await _unless(stopping, starting)
    if runtime is None:
        return
    announce(runtime)
    await stopping.wait()
    began = time.monotonic()
    log.info("stopping")
    await runtime.stop()
    log.info("stopped", extra={"seconds": round(time.monotonic() - began, 3)})


async def _unless(stopping: asyncio.Event, starting: asyncio.Future[Runtime]) -> Runtime | None:
    """What was started; None when a signal came before. Raises CliError."""
    signalled = asyncio.ensure_future(stopping.wait())
    both: set[asyncio.Future[Any]] = {starting, signalled}
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    signalled.cancel()
    if starting.done():
        return starting.result()
    log.info("stopping")
    starting.cancel()  # takes back what it had done, as after any failure
    with suppress(asyncio.CancelledError, CliError):
        await starting
    return None


async def _patiently(config: RuntimeConfig, handlers: Mapping[str, Handle] | None) -> Runtime:
    from holdfast_runtime.adapters.dynamodb_table import DynamoDbTable
    from holdfast_runtime.app.runtime import Runtime
    from holdfast_runtime.ports.store import StoreUnavailable

    over = time.monotonic() + START_PATIENCE_S
    while True:
        runtime = Runtime(config)
        try:
            await _start(runtime, handlers)
        except CliError as error:
            if not isinstance(error.__cause__, StoreUnavailable) or not isinstance(config.store, DynamoDbTable) or time.monotonic() > over:
                raise
            log.warning("start.retry", extra={"error": str(error), "seconds_left": round(over - time.monotonic(), 1)})
            await asyncio.sleep(START_DELAY_S)
        else:
            return runtime


async def _start(runtime: Runtime, handlers: Mapping[str, Handle] | None) -> None:
    from holdfast_runtime.app.aws_parts import PartMissing
    from holdfast_runtime.app.runtime import IdentityKeyUnusable, TokensUnusable
    from holdfast_runtime.coordinator.front import RegistrationError
    from holdfast_runtime.ports.inbox import InboxUnavailable
    from holdfast_runtime.ports.store import StoreBroken, StoreUnavailable
    from holdfast_runtime.ports.wakeups import WakeupsUnavailable
    from holdfast_runtime.surfaces.server import AddressUnavailable

    expected = (
        AddressUnavailable,
        IdentityKeyUnusable,
        InboxUnavailable,
        PartMissing,
        RegistrationError,
        StoreBroken,
        StoreUnavailable,
        TokensUnusable,
        WakeupsUnavailable,
    )
    try:
        await runtime.start(handlers)
    except expected as error:
        raise CliError(str(error)) from error
    except TimeoutError as error:  # an OSError, too, so it comes first
        raise CliError("the store did not let this process take a shard within a minute; see the log, then start again") from error
    except OSError as error:
        raise CliError(
            f"the store cannot be opened ({error.strerror or error}); free some space, or choose another path with --store"
        ) from error
    except ValueError as error:  # a registry document of a newer version
        raise CliError(f"the store cannot be used: {error}") from error


def _on_signals(stopping: asyncio.Event) -> None:
    def handle(number: int) -> None:
        if stopping.is_set():
            os._exit(128 + number)
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, handle, number)


def _read_to_end(descriptor: int, stopping: asyncio.Event) -> None:
    if not os.read(descriptor, 4096):
        asyncio.get_running_loop().remove_reader(descriptor)
        stopping.set()
