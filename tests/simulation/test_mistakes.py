"""The simulation notices: every deliberate mistake makes a seed fail that the code as it is passes."""

from __future__ import annotations

import os
from typing import Final

import pytest

from . import mistakes
from .world import World

# Where a mistake shows only in few seeds, the search starts at one that shows it.
FIRST_SEED: Final = {
    "a page is loaded twice and the later answer wins": 9,
    "whoever is at our position counts as us": 151,
    "a page is flushed with half a batch": 31,
    "a torn batch counts": 74,
    "a higher epoch in the log does not stop a take-over": 250,
    "the epoch is not looked at again after the seal": 210,
    "an invocation that runs is moved to another deployment": 25,
    "a restart from the middle forgets results that came late": 75,
    "outboxes are not sent by the next owner": 144,
    "messages are applied without looking at their numbers": 13,
    "the queue of a key is served from its end": 11,
    "results that are not kept are not remembered": 125,
    "an arrival is still called fresh when it is sent again": 10,
    "an output without its end counts for nothing": 60,
    "a lost shard that belongs elsewhere is not released": 52,
    "an end does not overtake the attempt in flight": 444,
    "an edit of state is done as often as it is delivered": 93,
    "a take-over that a checkpoint has passed goes on": 140,
    "a load does not look into packs": 3,
    "a take-over does not look into packs": 21,
    "a pack goes with the first of its entries": 3,
    "a pack is written before its batch is durable": 15,
}
# The search ends at the first seed that shows it; it may go on for so long that a change of the coordinator's pace does not matter.
SEEDS: Final = 200

# These need a rare course of events: looked for in many more seeds, in the long form of this suite.
RARE: Final = frozenset(
    {
        "the answer of an overtaken attempt counts",
        "an end does not overtake the attempt in flight",
        "a second completion of a promise replaces the first",
        "an arrival that comes over the network is trusted to be fresh",
        "a request is forgotten while it may still be delivered again",
        "a take-over that a checkpoint has passed goes on",
        "the store deletes a finished invocation while the log still holds it",
    }
)
MANY_SEEDS: Final = 1_000


@pytest.mark.parametrize("name", [name for name in mistakes.NAMES if name not in RARE])
def test_a_mistake_is_noticed(name: str) -> None:
    _noticed(name, SEEDS)


@pytest.mark.slow
@pytest.mark.skipif("SIMULATION_SEEDS" not in os.environ, reason="takes minutes; set SIMULATION_SEEDS to run it")
@pytest.mark.parametrize("name", sorted(RARE))
def test_a_rare_mistake_is_noticed(name: str) -> None:
    _noticed(name, MANY_SEEDS)


def test_every_mistake_still_applies_to_the_code() -> None:
    for name in mistakes.NAMES:
        with mistakes.made(name):
            pass


def _noticed(name: str, seeds: int) -> None:
    first = FIRST_SEED.get(name, 0)
    operated = name in mistakes.OPERATED  # what needs operators shows in odd seeds only
    for seed in range(first | 1, first + seeds, 2) if operated else range(first, first + seeds):
        try:
            with mistakes.made(name):
                World(seed).play()
        except mistakes.Outdated:
            raise
        except BaseException:
            World(seed).play()  # it is the mistake that fails, not the seed
            return
    pytest.fail(f"{name}: nothing noticed in seeds {first} to {first + seeds - 1}")


def test_there_are_many() -> None:
    assert len(mistakes.NAMES) >= 30
