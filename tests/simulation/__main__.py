"""`python -m tests.simulation --seed N --trace` replays one seed; `--seeds N --jobs J` is the soak."""

from __future__ import annotations

import argparse
import gc
import logging
import multiprocessing
import sys
import time
import traceback
from collections import Counter

from . import mistakes
from .world import World


def play(task: tuple[int, str | None]) -> tuple[int, str, Counter[str]]:
    """(seed, what went wrong or nothing, what happened)."""
    seed, mistake = task
    world = World(seed)
    try:
        with mistakes.made(mistake):
            world.play()
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return seed, f"{type(error).__name__}: {str(error)[:600]} ({where.filename.rsplit('/', 1)[-1]}:{where.lineno})", world.counts
    return seed, "", world.counts


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay this one")
    parser.add_argument("--seeds", type=int, default=1_000, help="how many")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--mistake", help="play with one of the deliberate mistakes: " + ", ".join(mistakes.NAMES))
    parser.add_argument("--trace", action="store_true", help="print all that happens, not only the tail of a failure")
    parser.add_argument("--counts", action="store_true", help="print how often each kind of event happened")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if options.seed is not None:
        return one(options.seed, options.mistake, everything=options.trace)
    started, failed, counts = time.monotonic(), 0, Counter[str]()
    tasks = ((seed, options.mistake) for seed in range(options.first, options.first + options.seeds))
    gc.freeze()
    with multiprocessing.Pool(options.jobs) as pool:
        for seed, error, happened in pool.imap_unordered(play, tasks, chunksize=4):
            counts += happened
            if error:
                failed += 1
                print(f"seed {seed}: {error}", flush=True)
    seconds = time.monotonic() - started
    print(f"{options.seeds} seeds, {failed} failed, {seconds:.0f} s, {seconds * options.jobs / options.seeds * 1000:.0f} ms a seed")
    if options.counts:
        for what, number in sorted(counts.items()):
            print(f"{number:10} {what}")
    return 1 if failed else 0


def one(seed: int, mistake: str | None, *, everything: bool) -> int:
    world = World(seed, tracing=True)
    try:
        with mistakes.made(mistake):
            world.play()
    except BaseException:
        print("\n".join(line[:1500] for line in (world.lines if everything else world.lines[-60:])))
        traceback.print_exc()
        print(
            f"seed {seed} failed; replay: python -m tests.simulation --seed {seed} --trace" + (f" --mistake {mistake}" if mistake else "")
        )
        return 1
    print("\n".join(line[:1500] for line in world.lines) if everything else f"seed {seed}: nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
