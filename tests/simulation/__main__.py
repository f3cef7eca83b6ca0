"""Runs universes on all processors and prints what was reached, or how to replay what went wrong."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from tests.simulation import mutants, profiles
from tests.simulation.runner import results, run_one, work
from tests.simulation.universe import Result


def replay_hint(result: Result) -> str:
    """The command that shows the same universe again."""
    return f"make sim SEED={result.seed} PROFILE={result.profile}"


def summary(reached: Counter[str]) -> Iterator[str]:
    """What was reached, one line each; minimums are checked by test_simulation."""
    width = max((len(name) for name in reached), default=0)
    for name, count in sorted(reached.items()):
        yield f"  {name:{width}}  {count:>9,}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 if anything happened that must not."""
    options = _parser().parse_args(arguments)
    if options.seed is not None:
        return _replay(options.seed, options.profile or "swarm", options.mutant)
    if options.rollouts:
        batches: Iterable[Result] = _until(options)
    else:
        items = work(options.first, options.seeds, options.profile)
        batches = results(items, mutant=options.mutant, processes=options.processes)
    if options.digests:
        _say("\n".join(f"{result.seed} {result.profile} {result.digest}" for result in batches))
        return 0
    return _report(batches, options.processes)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many universes (default: 200)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: 0)")
    parser.add_argument("--rollouts", type=int, default=0, help="go on until so many rollouts were made")
    parser.add_argument("--seed", type=int, help="replay one universe and print its trace")
    parser.add_argument("--profile", choices=profiles.PROFILES, default="", help="default: all in turn")
    names = [mutant.name for mutant in mutants.MUTANTS]
    parser.add_argument("--mutant", choices=names, default="", help="switch one rule off")
    parser.add_argument("--digests", action="store_true", help="print only the fingerprint of each universe")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    return parser


def _until(options: argparse.Namespace) -> Iterator[Result]:
    first, made, batch = options.first, 0, 200 * options.processes
    while made < options.rollouts:
        for result in results(work(first, batch, options.profile), processes=options.processes):
            made += result.rollouts
            yield result
        first += batch
        sys.stderr.write(f"\r{made:,} rollouts in {first - options.first:,} universes ")
    sys.stderr.write("\n")


def _replay(seed: int, profile: str, mutant: str) -> int:
    result = run_one((seed, profile, mutant), keep_trace=True)
    _say("\n".join(result.trace))
    _say(result.detail or f"seed {seed} of profile {profile}: nothing went wrong, digest {result.digest}")
    return 1 if result.violation else 0


def _report(batches: Iterable[Result], processes: int) -> int:
    began, reached, failed = time.monotonic(), Counter[str](), list[Result]()
    count = rollouts = 0
    simulated_s = 0.0
    for result in batches:
        count += 1
        rollouts += result.rollouts
        simulated_s += result.seconds
        reached.update(result.reached)
        if result.violation:
            failed.append(result)
            _say(f"{result.detail}\n  {replay_hint(result)}")
    wall_s = time.monotonic() - began
    _say("\n".join(summary(reached)))
    days = simulated_s / 86_400
    _say(
        f"{count:,} universes, {rollouts:,} rollouts, {days:.1f} simulated days in {wall_s:.0f} s: "
        f"{count / wall_s:.1f} universes per second on {processes} processes, {len(failed)} violations"
    )
    return 1 if failed else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
