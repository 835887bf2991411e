"""Both event loops the coordinator may run on; a transport must behave the same on each."""

from __future__ import annotations

import asyncio

import pytest
import uvloop


@pytest.fixture(scope="module", params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy], ids=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    """Import it into a test module to run that module on each loop."""
    policy: asyncio.AbstractEventLoopPolicy = request.param()
    return policy
