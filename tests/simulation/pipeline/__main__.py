"""Runs universes on all processors and prints what was reached, or how to replay what went wrong."""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Sequence

from tests.simulation.__main__ import summary
from tests.simulation.pipeline import mutants
from tests.simulation.pipeline.runner import run_one

#: Universes of one piece of work.
CHUNK = 20


def replay_hint(seed: int) -> str:
    """The command that shows the same universe again."""
    return f"python -m tests.simulation.pipeline --seed {seed}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 if anything happened that must not."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.pipeline", description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, help="how many universes (default: 300)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: 0)")
    parser.add_argument("--seed", type=int, help="replay one universe and print its trace")
    names = [mutant.name for mutant in mutants.MUTANTS]
    parser.add_argument("--mutant", choices=names, default="", help="switch one rule off")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    options = parser.parse_args(arguments)
    if options.seed is not None:
        result = run_one(options.seed, options.mutant)
        _say("\n".join([*result.trace, result.violation or "nothing went wrong"]))
        return 1 if result.violation else 0
    return _report(options)


def _report(options: argparse.Namespace) -> int:
    began, reached, failed, simulated_s = time.monotonic(), Counter[str](), 0, 0.0
    seeds = range(options.first, options.first + options.seeds)
    run = functools.partial(run_one, mutant=options.mutant)
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for result in pool.imap_unordered(run, seeds, chunksize=CHUNK):
            reached.update(result.reached)
            simulated_s += result.seconds
            if result.violation:
                failed += 1
                _say(f"{result.violation}\n  {replay_hint(result.seed)}")
    wall_s = time.monotonic() - began
    _say("\n".join(summary(reached)))
    _say(
        f"{options.seeds:,} universes, {simulated_s / 86_400:.1f} simulated days in {wall_s:.0f} s: "
        f"{options.seeds / wall_s:.1f} universes per second on {options.processes} processes, "
        f"{failed} violations"
    )
    return 1 if failed else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
