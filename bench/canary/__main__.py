"""`python -m bench.canary [--quick] [--part NAME]`: simulate, and print the tables.

Neighbours: `trials` simulates. Exit status 1 if a line of the acceptance list is missed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Final

from bench import report
from bench.canary import trials
from bench.report import Section, Table

Part = Callable[[trials.Size, int], tuple[Table, tuple[str, ...]]]

#: Limits of the acceptance list.
SCORE_MAX: Final = 1.35


def _nulls(size: trials.Size, processes: int) -> tuple[Table, tuple[str, ...]]:
    table, fine = trials.nulls(size, processes)
    return table, () if fine else ("false aborts above 1 %",)


def _regressions(size: trials.Size, processes: int) -> tuple[Table, tuple[str, ...]]:
    table, score, missed = trials.regressions(size, processes)
    lost = (f"geometric mean {score:.2f} above {SCORE_MAX}",) if score > SCORE_MAX else ()
    return table, (*lost, *((f"{missed} regressions missed",) if missed else ()))


def _plain(trial: Callable[[trials.Size, int], Table]) -> Part:
    """A part that has no limit of its own."""
    return lambda size, processes: (trial(size, processes), ())


def _needed(_size: trials.Size, _processes: int) -> tuple[Table, tuple[str, ...]]:
    return trials.needed(), ()


PARTS: Final[dict[str, Part]] = {
    "needed": _needed,
    "regressions": _regressions,
    "latency": _plain(trials.latencies),
    "promotions": _plain(trials.promotions),
    "rivals": _plain(trials.beside),
    "whole": _plain(trials.whole),
    "nulls": _nulls,
}


def main(arguments: list[str]) -> int:
    """Exit status 1 if a limit is missed; only a full run is long enough to tell."""
    parser = argparse.ArgumentParser(prog="python -m bench.canary", description="Simulate the judge.")
    parser.add_argument("--quick", action="store_true", help="a sample of everything, under a minute")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this part; may be repeated")
    parser.add_argument("--processes", type=int, default=2, help="how many at once (2)")
    options = parser.parse_args(arguments)
    size = trials.QUICK if options.quick else trials.FULL
    missed: list[str] = []
    for name in options.part or PARTS:
        begun_s = time.monotonic()
        table, lost = PARTS[name](size, options.processes)
        missed += lost
        section = Section(name=name, title=name, method="", tables=(table,))
        print(report.text(section).strip())
        print(f"({name}: {time.monotonic() - begun_s:.0f} s)\n", flush=True)
    if options.quick:
        print("a sample: too few runs to hold anything against the limits")
        return 0
    for line in missed:
        print(f"! {line}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
