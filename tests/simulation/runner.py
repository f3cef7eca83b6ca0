"""Runs universes, in this process or on all processors.

Apart from `__main__`, so that worker processes can import it.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import replace

from tests.simulation import mutants, profiles
from tests.simulation.universe import Result, Universe

#: Universes of one piece of work: small enough to share, large enough to be worth a message.
CHUNK = 10
#: Seeds are dealt out to the profiles in turn; the mixed ones come more often.
ROTATION = ("swarm", "swarm", "swarm", *profiles.PROFILES)


def work(first: int, count: int, profile: str) -> list[tuple[int, str]]:
    """Seeds and profiles to run; without a profile, all in turn."""
    return [(seed, profile or ROTATION[seed % len(ROTATION)]) for seed in range(first, first + count)]


def run_one(item: tuple[int, str, str], *, keep_trace: bool = False) -> Result:
    """One universe: seed, profile, mutant. Its trace comes along when asked for or something went wrong."""
    seed, profile, mutant = item
    if not mutant:
        result = Universe(seed, profile).run()
    else:
        with mutants.switched_off(mutants.by_name(mutant)):
            result = Universe(seed, profile).run()
    return result if result.violation or keep_trace else replace(result, trace=())


def results(items: Sequence[tuple[int, str]], *, mutant: str = "", processes: int = 1) -> Iterator[Result]:
    """Run them, in any order."""
    full = [(seed, profile, mutant) for seed, profile in items]
    if processes == 1:
        yield from map(run_one, full)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(run_one, full, chunksize=CHUNK)
