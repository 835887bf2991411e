"""The simulation notices: every deliberate mistake makes a seed fail that the code as it is passes."""

from __future__ import annotations

import pytest

from . import mistakes
from .world import World

# Where a mistake shows only in few seeds, the search starts at one that shows it.
FIRST_SEED: dict[str, int] = {}
SEEDS = 40


@pytest.mark.parametrize("name", mistakes.NAMES)
def test_a_mistake_is_noticed(name: str) -> None:
    first = FIRST_SEED.get(name, 0)
    for seed in range(first, first + SEEDS):
        try:
            with mistakes.made(name):
                World(seed).play()
        except mistakes.Outdated:
            raise
        except BaseException:
            World(seed).play()  # it is the mistake that fails, not the seed
            return
    pytest.fail(f"{name}: nothing noticed in seeds {first} to {first + SEEDS - 1}")


def test_there_are_many() -> None:
    assert len(mistakes.NAMES) >= 30
