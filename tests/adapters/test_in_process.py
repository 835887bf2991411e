"""Handlers in our own process: their answers, their exceptions, their time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from holdfast_runtime.adapters.endpoints import Endpoints
from holdfast_runtime.adapters.in_process import InProcess
from holdfast_runtime.adapters.system import SystemClock
from holdfast_runtime.ports.endpoint import EndpointFailure, EndpointRequest, InProcessAddress

REQUEST = EndpointRequest("POST", "/invoke/Demo/echo", {"content-type": "x/y"}, b"frames")

Answer = tuple[int, Mapping[str, str], bytes]


async def echo(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
    return 200, {"Content-Type": headers["content-type"], "x-line": f"{method} {path}"}, body


async def test_a_registered_handler_answers() -> None:
    endpoints = Endpoints(SystemClock())
    address = endpoints.in_process.register("dev", echo)
    response = await endpoints.request(address, REQUEST, timeout_s=60)
    assert (response.status, response.body, response.broken) == (200, b"frames", None)
    assert response.headers == {"content-type": "x/y", "x-line": "POST /invoke/Demo/echo"}
    await endpoints.close()


async def test_registering_again_replaces_the_handler() -> None:
    async def reloaded(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        return 200, {}, b"new"

    endpoint = InProcess()
    endpoint.register("dev", echo)
    address = endpoint.register("dev", reloaded)
    assert (await endpoint.request(address, REQUEST, timeout_s=60)).body == b"new"


async def test_an_unknown_name_lists_the_known() -> None:
    endpoint = InProcess()
    endpoint.register("dev", echo)
    with pytest.raises(EndpointFailure, match=r"'other' \(loaded: dev\)"):
        await endpoint.request(InProcessAddress("other"), REQUEST, timeout_s=60)


@pytest.mark.parametrize("exception", [ValueError("boom"), TimeoutError("boom"), asyncio.CancelledError("boom")])
async def test_what_a_handler_raises_is_a_failed_attempt(exception: BaseException) -> None:
    async def failing(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        raise exception

    endpoint = InProcess()
    with pytest.raises(EndpointFailure, match=r"raised .*Error: boom|was cancelled") as failure:
        await endpoint.request(endpoint.register("dev", failing), REQUEST, timeout_s=60)
    assert failure.value.error_code == "RT0006"


async def test_time_over_cancels_the_handler() -> None:
    ended = asyncio.Event()

    async def hanging(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return 200, {}, b""

    endpoint = InProcess()
    address = endpoint.register("dev", hanging)
    with pytest.raises(EndpointFailure, match="abort timeout") as failure:
        await endpoint.request(address, REQUEST, timeout_s=0.02)
    assert failure.value.error_code == "RT0001"
    await asyncio.wait_for(ended.wait(), 60)


async def test_cancelling_and_closing_end_the_handler() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hanging(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return 200, {}, b""

    endpoint = InProcess()
    address = endpoint.register("dev", hanging)
    cancelled = asyncio.create_task(endpoint.request(address, REQUEST, timeout_s=60))
    await begun.wait()
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    await asyncio.wait_for(ended.wait(), 60)

    begun.clear()
    closed = asyncio.create_task(endpoint.request(address, REQUEST, timeout_s=60))
    await begun.wait()
    await endpoint.close()
    with pytest.raises(EndpointFailure, match="was cancelled"):
        await closed
