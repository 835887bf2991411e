"""The real clock and entropy."""

from __future__ import annotations

import os
import time

from holdfast_runtime.adapters.system import BUFFER_BYTES, SystemClock, SystemEntropy


async def test_the_clock_is_the_systems() -> None:
    clock = SystemClock()
    before, began = time.time() * 1000, time.monotonic()
    now = clock.now_ms()
    await clock.sleep(0)
    assert before - 1 <= now <= time.time() * 1000
    assert began <= clock.monotonic() <= time.monotonic()


def test_bytes_have_the_asked_length_and_never_repeat() -> None:
    entropy = SystemEntropy()
    ids = [entropy.bytes(16) for _ in range(BUFFER_BYTES // 16 * 3 + 1)]
    assert {len(one) for one in ids} == {16}
    assert len(set(ids)) == len(ids)
    assert entropy.bytes(0) == b""
    assert len(entropy.bytes(BUFFER_BYTES * 2 + 1)) == BUFFER_BYTES * 2 + 1
    assert len(entropy.bytes(16)) == 16


def test_fractions_fill_the_unit_interval() -> None:
    entropy = SystemEntropy()
    fractions = [entropy.fraction() for _ in range(2_000)]
    assert all(0 <= one < 1 for one in fractions)
    assert {int(one * 10) for one in fractions} == set(range(10))  # fails once in 10^90 runs


def test_a_forked_child_draws_other_bytes() -> None:
    entropy = SystemEntropy()
    entropy.bytes(1)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write_end, entropy.bytes(16))
        os._exit(0)
    os.close(write_end)
    theirs = os.read(read_end, 16)
    os.close(read_end)
    os.waitpid(child, 0)
    assert len(theirs) == 16
    assert entropy.bytes(16) != theirs
