"""Being woken: a far timer puts a message on the inbox queue shortly before it falls due, even when no process is alive then."""

from __future__ import annotations

from typing import Protocol

from holdfast_runtime.ports.inbox import Wake


class WakeupsUnavailable(Exception):
    """It could not be arranged; try again later. The timer is in its page and fires anyway while a process is alive."""


class Wakeups(Protocol):
    async def arrange(self, wake: Wake, at_ms: int, *, replace: bool) -> None:
        """Have `wake` put on the queue at about `at_ms`: up to a minute late, perhaps twice, perhaps early. One per page of timers.

        replace: move one that is arranged for the same page; otherwise it stays. Raises WakeupsUnavailable.
        """
        ...
