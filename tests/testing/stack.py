"""A server with its surfaces on loopback, in a thread: what tests call a deployed stack."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from holdfast.endpoint import Endpoint
from holdfast.service import ServiceBase
from holdfast_runtime.app.runtime import Runtime, RuntimeConfig
from holdfast_runtime.surfaces.server import Listener

T = TypeVar("T")
PATIENCE_S = 60.0


def eventually(look: Callable[[], T], enough: Callable[[T], bool]) -> T:
    """What `look` gives once it is `enough`."""
    until = time.monotonic() + PATIENCE_S
    while True:
        found = look()
        if enough(found):
            return found
        assert time.monotonic() < until, f"after {PATIENCE_S:g} s it is still {found}"


@contextmanager
def running(*services: ServiceBase) -> Iterator[tuple[str, str]]:
    """URLs of ingress and admin API."""
    started = threading.Event()
    where: list[tuple[str, str]] = []
    stop: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        runtime = Runtime(RuntimeConfig(None, Listener(port=0), Listener(port=0)))
        await runtime.start({"services": Endpoint(services).handle})
        ended = asyncio.Event()
        where.append((runtime.ingress_url, runtime.admin_url))
        stop.append((asyncio.get_running_loop(), ended))
        started.set()
        await ended.wait()
        await runtime.stop()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert started.wait(60), "the server did not start"
        yield where[0]
    finally:
        if stop:
            stop[0][0].call_soon_threadsafe(stop[0][1].set)
        thread.join(60)
