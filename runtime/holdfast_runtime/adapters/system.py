"""The real clock and the real entropy. Nothing else in the runtime touches either (architecture §2)."""

from __future__ import annotations

import asyncio
import builtins
import os
import time
from typing import Final

# One read of the kernel's generator serves about 250 ids: a system call per id would cost more than the id.
BUFFER_BYTES: Final = 4096


class SystemClock:
    def now_ms(self) -> int:
        """Wall clock, milliseconds since the Unix epoch."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds on a clock that never jumps."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class SystemEntropy:
    """Bytes of `os.urandom`, read ahead. For one thread; a forked child throws the parent's buffer away."""

    def __init__(self) -> None:
        self._buffer = b""
        self._next = 0
        self._process = os.getpid()

    def bytes(self, count: int) -> builtins.bytes:
        """`count` unpredictable bytes, never handed out twice."""
        start, end = self._next, self._next + count
        if end > len(self._buffer) or self._process != os.getpid():
            self._buffer = os.urandom(max(count, BUFFER_BYTES))
            self._process = os.getpid()
            start, end = 0, count
        self._next = end
        return self._buffer[start:end]

    def fraction(self) -> float:
        """Uniform in [0, 1): 53 bits, all that a float between them can tell apart."""
        return (int.from_bytes(self.bytes(7), "big") >> 3) * 2.0**-53
