# ruff: noqa: E501 - edits of source lines and lists of event names read best unbroken
"""Seeds of every kind of world, and that together they have seen every kind of event.

The soak is `python -m tests.simulation --seeds 100000 --jobs 2`; a failure there prints its seed, which replays with `--seed N --trace`.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

from .world import World

SEEDS = int(os.environ.get("SIMULATION_SEEDS", "150"))  # behind the COVERED ones
CHUNK = 25

# What must have happened at least once in the first COVERED seeds, or the simulation has lost a part of the world.
COVERED = 200
EVENTS = (
    "crash, pause, pause of minutes, woken from a pause, graceful stop, handed over, take-over, take-over lost to another, store outage, "
    "cut off from the store, cut off from its peers, client answer lost, "
    "log put failed, log put succeeded unseen, log put landed late, log put was slow, log put met its own first try, log put met another owner, "
    "log read failed, page put failed, page put succeeded unseen, page put landed late, page put refused, page get failed, page get was slow, "
    "blob put failed, blob get failed, acquire failed, acquire succeeded unseen, acquire landed late, checkpoint landed late, leases read failed, "
    "heartbeat landed late, seal, torn batch, batch in parts, checkpoint, page stored, tombstone stored, log item expired, "
    "peer request lost, peer request late, peer request doubled, peer answer lost, peer answered, messages applied, "
    "endpoint refused, endpoint answered 500, handler failed, response was cut, response was lost, response was late, "
    "call answered, send acknowledged, send joined, workflow already invoked, attach answered, output: Success, output: NotReady, listed, described, "
    "awakeable resolved from outside, cancel: ACCEPTED, kill: APPLIED, purge: APPLIED, pause: APPLIED, resume: APPLIED, "
    "operator: pause: accepted, operator: pause: applied, operator: resume: applied, operator: resume: pinned, operator: resume: no version, "
    "operator: cancel: accepted, operator: kill: applied, operator: purge: applied, operator: purge journal: applied, "
    "operator's request delivered again, moved to another deployment, restart: applied, restart: no journal, restarted from the input, "
    "restarted from the middle, state edited, edit applied, edit queued, edit dropped for its version, signal from outside, registry changed, "
    "clock jumped, journal forgotten, blob swept, wake-up arranged, wake-up moved, wake-up refused, paused, "
    "looked for what is over: output, looked for what is over: attach, looked for what is over: describe, looked for what is over: list, "
    "looked for what is over: scan, looked for what is over: named scan, looked for what is over: operate, "
    "invocation created, id used again, invocation succeeded, invocation failed, key passed on, key taken, queue overflowed, state spilled, blob used, "
    "pack of level 0 stored, pack of level 1 stored, pack of level 2 stored, pack stored again, pack read, pack put failed, pack put landed late, "
    "pack put succeeded unseen, packed invocation kept, packed invocation over, packed invocation purged, looked for what is purged, "
    "status SCHEDULED, status QUEUED, status RUNNING, status SUSPENDED, status PAUSED, status DONE, owner compared with its log, "
    "command RUN_COMMAND, command SLEEP_COMMAND, command CALL_COMMAND, command ONE_WAY_CALL_COMMAND, command OUTPUT_COMMAND, "
    "command SET_STATE_COMMAND, command CLEAR_STATE_COMMAND, command CLEAR_ALL_STATE_COMMAND, command GET_EAGER_STATE_COMMAND, "
    "command GET_LAZY_STATE_COMMAND, command GET_LAZY_STATE_KEYS_COMMAND, command GET_PROMISE_COMMAND, command PEEK_PROMISE_COMMAND, "
    "command COMPLETE_PROMISE_COMMAND, command SEND_SIGNAL_COMMAND, command COMPLETE_AWAKEABLE_COMMAND, command ATTACH_INVOCATION_COMMAND, "
    "command GET_INVOCATION_OUTPUT_COMMAND, notification SIGNAL_NOTIFICATION, notification GET_PROMISE_COMPLETION, notification CALL_COMPLETION, "
    "notification ATTACH_INVOCATION_COMPLETION, notification SLEEP_COMPLETION, notification RUN_COMPLETION"
)


@pytest.mark.parametrize("first", range(COVERED, COVERED + SEEDS, CHUNK))
def test_invariants_hold_whatever_fails(first: int) -> None:
    for seed in range(first, min(first + CHUNK, COVERED + SEEDS)):
        try:
            World(seed).play()
        except BaseException as error:
            raise AssertionError(f"seed {seed}: {error}\nreplay: python -m tests.simulation --seed {seed} --trace") from error


def test_every_kind_of_event_has_happened() -> None:
    """In so many seeds; where a rare one is missing, in some more."""
    counts, missing = Counter[str](), EVENTS.split(", ")
    for seed in range(2 * COVERED):
        if seed >= COVERED and not missing:
            break
        counts += World(seed).play().counts
        missing = [event for event in missing if not counts[event]]
    assert missing == []


def test_the_same_seed_takes_the_same_course() -> None:
    one, two = World(3, tracing=True).play(), World(3, tracing=True).play()
    assert one.lines == two.lines
