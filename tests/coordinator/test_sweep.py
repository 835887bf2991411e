"""A sweep over what a real coordinator writes finds every large value that it still needs: in its log, then in its pages."""

from __future__ import annotations

import asyncio
from typing import Any

from holdfast.protocol import messages
from holdfast.protocol.messages import MessageType as M
from holdfast_runtime.adapters.memory import MemoryBlobs, MemoryLog, MemoryPages
from holdfast_runtime.coordinator.blob_sweep import BlobSweep
from holdfast_runtime.coordinator.front import NewInvocation, Success, Target
from holdfast_runtime.ports.store import Store

from .virtual import Attempt, World, done, in_virtual_time, serves

LARGE = bytes(range(256)) * 200


def _answer(attempt: Attempt) -> Any:
    match attempt.path.rpartition("/")[2]:
        case "keep":
            value = messages.Value(content=LARGE)
            return [(M.SET_STATE_COMMAND, messages.SetStateCommand(key=b"value", value=value)), *done(LARGE + b"result")]
        case _:
            return done()


def swept(store: Store) -> tuple[MemoryBlobs, BlobSweep]:
    log, pages, blobs = store.log, store.pages, store.blobs
    assert isinstance(log, MemoryLog)
    assert isinstance(pages, MemoryPages)
    assert isinstance(blobs, MemoryBlobs)
    clock = _LongAfter()
    return blobs, BlobSweep(store, blobs.swept(log, pages), clock)


class _LongAfter:
    """Everything was put long ago: the memory store files it under the epoch."""

    def now_ms(self) -> int:
        return 1_800_000_000_000

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("a sweep of memory waits for nothing")


@in_virtual_time
async def test_what_an_object_and_its_callers_need_is_never_swept() -> None:
    world = await World.start(serves({"name": "keep"}, {"name": "look"}, name="Box", ty="VIRTUAL_OBJECT"), _answer)
    blobs, sweep = swept(world.node.store)
    request = NewInvocation(Target("Box", "keep", "k"), LARGE + b"input", [], "once")
    invocation = world.front.mint(request)
    assert await world.front.call(invocation, request) == Success(LARGE + b"result", None)
    await blobs.put("inv_nobody/0", LARGE)
    assert (await sweep.run(delete=True)).condemned == 1  # all else is in the log
    await asyncio.sleep(400)  # and now in pages, too
    assert world.node.metrics.append_bytes > 0
    again = await swept(world.node.store)[1].run(delete=True)
    assert (again.orphans, again.candidates) == (0, 4)
    assert await world.front.state("Box", "k") == {"value": LARGE}
    found = await world.front.call(invocation, request)
    assert isinstance(found, Success)
    assert found.value == LARGE + b"result"
    page_only = MemoryLog()  # what the log says is gone after two weeks
    last = BlobSweep(world.node.store, blobs.swept(page_only, world.node.store.pages), _LongAfter())  # type: ignore[arg-type]
    assert (await last.run(delete=False)).orphans == 0
