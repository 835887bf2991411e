"""ASGI's shapes, and waiting for something while watching whether the caller is still there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, Final, TypeVar

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
RawHeaders = list[tuple[bytes, bytes]]

T = TypeVar("T")

# Most calls are answered before this, and watching costs a task: start it only for those that take longer.
WATCH_AFTER_S: Final = 0.5


class CallerGone(Exception):
    """The caller closed its connection; nobody is left to answer."""


async def while_connected(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """The result of `work`; raises CallerGone, and cancels `work`, once the caller disconnects.

    `work` only waits: what it waits for goes on without it.
    """
    loop = asyncio.get_running_loop()
    watch = _Watch(receive, asyncio.current_task())
    timer = loop.call_later(WATCH_AFTER_S, watch.start)
    try:
        return await work
    except asyncio.CancelledError:
        if watch.gone and watch.waiter is not None:
            watch.waiter.uncancel()
            raise CallerGone from None
        raise
    finally:
        timer.cancel()
        watch.stop()


class _Watch:
    __slots__ = ("_receive", "_task", "gone", "waiter")

    def __init__(self, receive: Receive, waiter: asyncio.Task[Any] | None) -> None:
        self._receive = receive
        self._task: asyncio.Task[None] | None = None
        self.waiter = waiter
        self.gone = False

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._until_gone())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        if self.waiter is not None:
            self.waiter.cancel()
