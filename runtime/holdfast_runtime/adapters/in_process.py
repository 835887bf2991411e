"""Handlers in the coordinator's own process (`holdfast dev`, tests): same request and response, no transport.

A handler is registered under a name: `handle(method, path, headers, body) -> (status, headers, body)`. It
runs in a task of its own, which is cancelled when the time is over; whatever it raises is a failed attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from holdfast_runtime.ports.endpoint import (
    Address,
    EndpointFailure,
    EndpointRequest,
    EndpointResponse,
    InProcessAddress,
)

Handle = Callable[[str, str, Mapping[str, str], bytes], Awaitable[tuple[int, Mapping[str, str], bytes]]]


class InProcess:
    """`Endpoint` for InProcessAddress."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handle] = {}
        self._running: set[asyncio.Task[tuple[int, Mapping[str, str], bytes]]] = set()

    def register(self, name: str, handler: Handle) -> InProcessAddress:
        """Make `handler` reachable; the same name again replaces it (reloaded code)."""
        self._handlers[name] = handler
        return InProcessAddress(name)

    async def request(self, address: Address, request: EndpointRequest, *, timeout_s: float) -> EndpointResponse:
        assert isinstance(address, InProcessAddress)
        handler = self._handlers.get(address.name)
        if handler is None:
            known = ", ".join(sorted(self._handlers)) or "none"
            raise EndpointFailure(
                f"no handlers are loaded under the name '{address.name}' (loaded: {known}); "
                "start this process with the module that defines them",
                error_code="RT0010",
            )
        task = asyncio.ensure_future(_run(handler, request))
        self._running.add(task)
        task.add_done_callback(self._ended)
        try:
            async with asyncio.timeout(timeout_s):
                status, headers, body = await asyncio.shield(task)
        except TimeoutError as exc:
            if task.done() and not task.cancelled():  # the handler's own TimeoutError
                raise _raised(address, exc) from exc
            raise EndpointFailure(
                f"error when calling '{address.name}': no complete response within {timeout_s:g} s (abort timeout); "
                "the handler was cancelled",
                error_code="RT0001",
            ) from None
        except asyncio.CancelledError:
            if task.cancelled():  # not we but the handler, or `close`
                raise EndpointFailure(f"the handler of '{address.name}' was cancelled", error_code="RT0006") from None
            raise
        except Exception as exc:
            raise _raised(address, exc) from exc
        finally:
            task.cancel()
        return EndpointResponse(status, {name.lower(): value for name, value in headers.items()}, bytes(body))

    def _ended(self, task: asyncio.Task[tuple[int, Mapping[str, str], bytes]]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # of a handler that raised after it was given up: nobody asks any more

    async def close(self) -> None:
        """Cancel what runs and wait for its end."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


async def _run(handler: Handle, request: EndpointRequest) -> tuple[int, Mapping[str, str], bytes]:
    return await handler(request.method, request.path, request.headers, request.body)


def _raised(address: InProcessAddress, exc: Exception) -> EndpointFailure:
    return EndpointFailure(f"the handler of '{address.name}' raised {type(exc).__name__}: {exc}", error_code="RT0006")
