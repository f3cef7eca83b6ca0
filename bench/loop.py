"""Loop: what a quiet control plane costs, and how many simulated universes run in a second.

CPU time of the real processes from /proc, over seconds in which nothing happens. An empty control plane is
the limit: whatever looks at the world must at least be there. Neighbours: `plane`, tests.simulation.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from typing import Final

from bench import machine, plane, report

MANY: Final = 10


def measure(*, quick: bool) -> report.Section:
    """Run the part."""
    seconds = 8.0 if quick else 15.0
    rows = [_quiet(count, seconds) for count in (0, 1, MANY)]
    skipped: tuple[str, ...] = ()
    tables = [
        report.Table(
            heading=("environments", "control plane ms/s", "HAProxy ms/s", "ms per look", "share of a core"),
            rows=tuple(_row(*row, empty=rows[0]) for row in rows),
        )
    ]
    if importlib.util.find_spec("tests.simulation.__main__") is None:
        skipped = ("simulated universes per second: tests.simulation cannot be run yet",)
    else:
        tables.append(_simulation(20 if quick else 100))
    return report.Section(
        name="loop",
        title="What a quiet control plane costs",
        method=(
            f"CPU time of the processes over {seconds:g} s of quiet. Every environment has one service with "
            "one instance, and is looked at once a second: processes, router, files, state."
        ),
        tables=tuple(tables),
        skipped=skipped,
    )


def _quiet(environments: int, seconds: float) -> tuple[int, float, float]:
    """Environments; CPU seconds per second of the control plane, and of HAProxy."""
    sites = tuple(plane.Site(name=f"quiet-{number}", instances=1) for number in range(environments))
    with plane.running(*sites) as running:
        time.sleep(2.0)
        ours, router = (running.pid,), running.haproxy()
        begun_s, ours_s, router_s = time.monotonic(), machine.cpu_s(ours), machine.cpu_s(router)
        time.sleep(seconds)
        took_s = time.monotonic() - begun_s
        return (
            environments,
            (machine.cpu_s(ours) - ours_s) / took_s,
            (machine.cpu_s(router) - router_s) / took_s,
        )


def _row(
    environments: int, ours: float, router: float, *, empty: tuple[int, float, float]
) -> tuple[str, ...]:
    per_look = f"{(ours - empty[1]) / environments * 1000:.1f}" if environments else ""
    return (
        str(environments),
        f"{ours * 1000:.1f}",
        f"{router * 1000:.1f}",
        per_look,
        f"{(ours + router) * 100:.1f} %",
    )


def _simulation(seeds: int) -> report.Table:
    begun_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--seeds", str(seeds)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    took_s = time.monotonic() - begun_s
    if done.returncode != 0:
        raise machine.BenchError(f"tests.simulation ended with {done.returncode}: {done.stderr[-300:]}")
    return report.Table(
        heading=("simulated universes", "seconds", "per second"),
        rows=((str(seeds), f"{took_s:.1f}", f"{seeds / took_s:.1f}"),),
    )
