"""Ports for processes that must be told theirs, and keep it when they are started again.

Rules: they are outside of the range from which the system takes ports for outgoing connections (32768 and up on Linux), or any
connection of another test could take one between its choice and its use, or while a killed server is down.
"""

from __future__ import annotations

import contextlib
import random
import socket
from typing import Final

LOW: Final = 20_000
HIGH: Final = 32_000
_RANDOM: Final = random.SystemRandom()  # test processes that run beside each other must not choose alike


def free_port() -> int:
    """One on which nobody listens."""
    while True:
        port = _RANDOM.randrange(LOW, HIGH)
        with contextlib.closing(socket.socket()) as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
