"""Time and chance come in through the door."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    def now_ms(self) -> int:
        """Wall clock, milliseconds since the Unix epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never jumps."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class Entropy(Protocol):
    def bytes(self, count: int) -> bytes: ...

    def fraction(self) -> float:
        """Uniform in [0, 1)."""
        ...
