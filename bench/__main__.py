"""`python -m bench [PART ...] [--quick] [--write]`: measure, print the tables, keep them.

Neighbours: each part is a module with `measure`; `report` writes what they return.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib
import sys
import time
from typing import Final

from bench import machine, report
from tidegate import errors

#: In the order in which they run, and stand on the page.
PARTS: Final = ("rollouts", "flip", "router", "telemetry", "kills", "store", "loop", "locks")


def main(arguments: list[str]) -> int:
    """Exit status 1 if a part could not be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure Tidegate against rivals and limits in the same run."
    )
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="less of everything: under two minutes a part")
    parser.add_argument("--write", action="store_true", help=f"keep the tables in {report.PAGE.name}")
    options = parser.parse_args(arguments)
    described = machine.described()
    print(f"machine: {described}")
    if machine.missing():
        print(f"! for all comparisons: apt-get install {' '.join(machine.missing())} (Debian's packages)")
    sections, failed = [], []
    for name in options.parts or PARTS:
        print(f"... {name}", file=sys.stderr, flush=True)
        begun_s = time.monotonic()
        try:
            section: report.Section = importlib.import_module(f"bench.{name}").measure(quick=options.quick)
        except (machine.BenchError, errors.TidegateError) as error:
            failed.append(name)
            print(f"! {name} could not be measured: {error}")
            continue
        sections.append(section)
        print(report.text(section))
        print(f"\n({name}: {time.monotonic() - begun_s:.0f} s)", flush=True)
    if options.write:
        today = dt.datetime.now(tz=dt.UTC).date()
        kind = ", --quick" if options.quick else ""
        written = report.write(sections, measured=f"{today}{kind}; {described}", order=PARTS)
        print(f"written: {written}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
