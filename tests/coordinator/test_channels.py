"""Sending the outboxes, where the shard is lost under it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from holdfast_runtime.adapters.memory import memory_store
from holdfast_runtime.coordinator.channels import Unreachable
from holdfast_runtime.engine import model
from holdfast_runtime.engine.events import Message
from tests.coordinator.replica import BOUND_S, SHARDS, Replica


async def test_a_shard_found_lost_while_it_sends_to_itself_ends_the_sender_without_a_fault(caplog: pytest.LogCaptureFixture) -> None:
    replica = Replica(memory_store(SHARDS))
    await replica.start()
    try:
        shard = next(iter(replica.node.shards.values()))
        tried = asyncio.Event()

        async def deliver(destination: int, source: int, messages: Sequence[tuple[int, Message]]) -> int:
            tried.set()
            shard.fence("a stale lease, say")  # in the sender's own task, which this does not cancel
            raise Unreachable("nobody owns it just now")

        shard.environment = replace(shard.environment, deliver=deliver, settings=replace(shard.environment.settings, resend_s=0.0))
        shard.pages[model.outbox_page(shard.number, shard.number)].document = {"n": 1}
        await shard.load([model.messages_page(shard.number, shard.number, 1)])
        shard.pages[model.messages_page(shard.number, shard.number, 1)].document = {1: {"m": "s"}}
        shard.channels.send(shard.number, 1)
        (sender,) = [task for task in shard._tasks if "_send" in repr(task.get_coro())]
        await asyncio.wait_for(tried.wait(), BOUND_S)
        await asyncio.wait([sender], timeout=BOUND_S)
        assert sender.done()
    finally:
        await replica.stop()
    assert "shard.failed" not in caplog.text
