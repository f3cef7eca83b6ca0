"""Router: CPU per request and throughput of Tidegate's generated configuration, beside its rivals.

Rounds are short and many: on a shared machine what disturbs one proxy shall disturb its neighbours in time.

All proxies stand before the same origin, run on processor 0 with one thread, and are asked in turns by the
same load from processor 1, where the origin runs too. What a proxy costs is the CPU time of its processes by
request; the rate of requests depends on processor 1 as well. Neighbours: `proxies`, `wrk`, `load`;
`telemetry` borrows its rounds.
"""

from __future__ import annotations

import contextlib
import random
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import figures, load, machine, proxies, report, wrk

PROXY_CORE: Final = 0
OTHER_CORE: Final = 1
CONNECTIONS: Final = 64
AIM_CPU: Final = 1.25
AIM_RATE: Final = 0.90

SMALLEST: Final = "HAProxy, smallest configuration"
CLOSED: Final = "Tidegate, no canary open"
OPEN: Final = "Tidegate, canary at 25 %"

Pids = AbstractContextManager[tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One proxy in one round."""

    cpu_us: float
    """Of the proxy, per request."""
    rate: float
    """Requests per second."""
    failed: int
    p50_s: float = 0.0
    p99_s: float = 0.0


def contenders(root: Path, origin: int) -> dict[str, Callable[[int], Pids]]:
    """Every proxy by name, as what starts it on a port."""
    return {
        SMALLEST: lambda port: proxies.bare_haproxy(root / "small", proxies.smallest(port, origin), port),
        CLOSED: lambda port: proxies.tidegate(root / "closed", port, origin, proxies.STABLE),
        OPEN: lambda port: proxies.tidegate(root / "open", port, origin, proxies.CANARY),
        "nginx": lambda port: proxies.nginx(root / "nginx", port, origin),
        "Caddy": lambda port: proxies.caddy(root / "caddy", port, origin),
    }


def measure(*, quick: bool) -> report.Section:
    """Run the part."""
    rounds, seconds = (10, 1.0) if quick else (20, 1.0)
    skipped: list[str] = []
    with machine.folder() as root, contextlib.ExitStack() as stack:
        origin_port, *ports = machine.free_ports(6)
        machine.pin(stack.enter_context(proxies.origin(root / "origin", origin_port)), OTHER_CORE)
        standing: dict[str, tuple[int, tuple[int, ...]]] = {}
        for port, (name, start) in zip(ports, contenders(root, origin_port).items(), strict=True):
            try:
                pids = stack.enter_context(start(port))
            except machine.BenchError as error:
                skipped.append(str(error))
                continue
            machine.pin(pids, PROXY_CORE)
            standing[name] = (port, pids)
        found: dict[str, list[Round]] = {name: [] for name in standing}
        chance = random.Random(1)
        for _ in range(rounds):
            # Shuffled: in a fixed cycle one proxy would always follow the same neighbour.
            for name in chance.sample(list(standing), len(standing)):
                found[name].append(one_round(*standing[name], seconds, root))
    return _section(found, rounds, seconds, tuple(skipped))


def one_round(port: int, pids: tuple[int, ...], seconds: float, root: Path) -> Round:
    """Ask one proxy as fast as it goes."""
    before_s = machine.cpu_s(pids)
    if machine.program("wrk"):
        result = wrk.run(port, folder=root, seconds=seconds, connections=CONNECTIONS, core=OTHER_CORE)
        cpu_us = (machine.cpu_s(pids) - before_s) / result.requests * 1e6
        return Round(
            cpu_us=cpu_us,
            rate=result.requests_per_second,
            failed=result.failed,
            p50_s=result.p50_s,
            p99_s=result.p99_s,
        )
    with load.Load(load.Plan(port=port, keeping=CONNECTIONS, closing=0, core=OTHER_CORE)) as clients:
        time.sleep(seconds)
        seen = clients.stop()
    cpu_us = (machine.cpu_s(pids) - before_s) / max(1, seen.answered) * 1e6
    return Round(cpu_us=cpu_us, rate=seen.answered / seen.seconds, failed=len(seen.failures))


def _section(
    found: dict[str, list[Round]], rounds: int, seconds: float, skipped: tuple[str, ...]
) -> report.Section:
    base = found[SMALLEST]
    rows = []
    ratios: dict[str, tuple[float, float]] = {}
    for name, results in found.items():
        cpu = [one.cpu_us for one in results]
        rate = [one.rate for one in results]
        ratios[name] = (
            figures.median_ratio(cpu, [one.cpu_us for one in base]),
            figures.median_ratio(rate, [one.rate for one in base]),
        )
        rows.append(
            (
                name,
                f"{statistics.median(cpu):.1f}",
                figures.times(ratios[name][0]),
                f"{figures.spread(cpu) * 100:.0f} %",
                figures.thousands(statistics.median(rate)),
                figures.times(ratios[name][1]),
                f"{figures.spread(rate) * 100:.0f} %",
                figures.milliseconds(statistics.median(one.p50_s for one in results)),
                figures.milliseconds(statistics.median(one.p99_s for one in results)),
                str(sum(one.failed for one in results)),
            )
        )
    heading = ("", "CPU us/request", "ratio", "±", "requests/s", "ratio", "±", "p50 ms", "p99 ms", "failed")
    cpu_ratio, rate_ratio = ratios[CLOSED]
    met = "met" if cpu_ratio <= AIM_CPU and rate_ratio >= AIM_RATE else "missed"
    return report.Section(
        name="router",
        title="What the router costs",
        method=(
            f"{rounds} rounds of {seconds:g} s, each in another order; medians, ratios within each round. "
            f"One proxy on one processor with one thread; {CONNECTIONS} connections, and the origin, on "
            f"another, which limits the rates. Users have a cookie. The load is "
            f"{'wrk' if machine.program('wrk') else 'our own, in Python (wrk is not installed)'}."
        ),
        tables=(report.Table(heading=heading, rows=tuple(rows)),),
        findings=(
            f"Aim for {CLOSED}, at most {AIM_CPU:.2f}x the CPU and at least {AIM_RATE:.2f}x the rate: {met}.",
        ),
        skipped=skipped,
    )
