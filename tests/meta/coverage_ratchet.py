"""Coverage can only rise: compares what `make test` measured with the least allowed for each part.

A part is a module or folder directly under src/tidegate. Run as a script after the tests. It prints
nothing when all is well, so that the tests' own summary stays the last line. With `--update` it raises the
minimums to today's figures and adds new parts; it never lowers one.
"""

from __future__ import annotations

import json
import math
import pathlib
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import coverage

from tests.meta import ratchet

# What a new part of the package must reach before it has a minimum of its own.
NEWCOMER_PERCENT_MIN = 90.0
PACKAGE = "src/tidegate/"


def percentages(report: Mapping[str, Any]) -> dict[str, float]:
    """Percent of lines and branches per part, from coverage's JSON report."""
    covered: dict[str, int] = {}
    total: dict[str, int] = {}
    for path, file in report["files"].items():
        part = part_of(path)
        summary = file["summary"]
        covered[part] = covered.get(part, 0) + summary["covered_lines"] + summary.get("covered_branches", 0)
        total[part] = total.get(part, 0) + summary["num_statements"] + summary.get("num_branches", 0)
    return {part: 100.0 * covered[part] / total[part] for part in sorted(total) if total[part]}


def part_of(path: str) -> str:
    """Which part a measured file belongs to: `src/tidegate/core/model.py` -> `core`."""
    inside = path.replace("\\", "/").rpartition(PACKAGE)[2]
    return inside.split("/", 1)[0].removesuffix(".py")


def problems(measured: Mapping[str, float], minimums: Mapping[str, float]) -> Iterator[str]:
    """What fell, what is new and too low, what is listed but gone; one line each."""
    for part in sorted(measured.keys() | minimums.keys()):
        if part not in measured:
            yield f"{part}: listed, but nothing of it was measured; remove it from {ratchet.RATCHET.name}"
        elif part not in minimums and measured[part] < NEWCOMER_PERCENT_MIN:
            yield f"{part}: {measured[part]:.1f} %, a new part needs {NEWCOMER_PERCENT_MIN:.1f} %"
        elif measured[part] < minimums.get(part, 0.0):
            yield f"{part}: {measured[part]:.1f} % of lines and branches, it was {minimums[part]:.1f} %"


def raised(measured: Mapping[str, float], minimums: Mapping[str, float]) -> dict[str, float]:
    """Minimums after this run: rounded down, as timing moves a line or two; never lower than before."""
    return {
        part: max(minimums.get(part, 0.0), float(math.floor(percent))) for part, percent in measured.items()
    }


def measure(root: pathlib.Path) -> dict[str, float]:
    """Percentages from the data file of the last run. Raises coverage.CoverageException if there is none."""
    measurement = coverage.Coverage(
        data_file=str(root / ".coverage"), config_file=str(root / "pyproject.toml")
    )
    measurement.load()
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder, "coverage.json")
        measurement.json_report(outfile=str(report))
        return percentages(json.loads(report.read_text("utf-8")))


def main(arguments: Sequence[str]) -> int:
    """Exit status 0 if no part fell."""
    measured = measure(pathlib.Path.cwd())
    current = ratchet.load()
    if "--update" in arguments:
        updated = ratchet.Ratchet(tidy=current.tidy, coverage=raised(measured, current.coverage))
        ratchet.save(updated)
        current = updated
    found = list(problems(measured, current.coverage))
    for line in found:
        print(f"coverage: {line}", file=sys.stderr)
    if found:
        print("coverage: the lines: .venv/bin/coverage report -m --include='*/PART*'", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
