"""`holdfast demo`: see durable execution survive a kill."""

from __future__ import annotations


def demo() -> None:
    """Run the demonstration."""
