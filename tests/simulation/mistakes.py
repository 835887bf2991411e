"""Deliberate mistakes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

NAMES: list[str] = []


@contextlib.contextmanager
def made(name: str | None) -> Iterator[None]:
    yield
