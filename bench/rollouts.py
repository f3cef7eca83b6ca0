"""Rollouts: switches and canaries in a row, under as much load as the machine bears, with WebSockets open.

Counts what must be zero: requests that failed, and WebSockets cut before the time that their release had to
let them end. Warm rollouts alternate between two releases whose instances are kept; cold ones start new
instances and end old ones each time. Clients look at every answer, with and without kept connections, at the
same time. Neighbours: `load` and `sockets` are the users, `plane` runs the control plane.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench import figures, load, machine, plane, report, sockets
from tidegate import client

DRAIN_S: Final = 5
CLIENTS: Final = 32
HELD: Final = 20
#: Clocks of two processes and the loop's own pace: a cut this much before the limit is not counted.
TOLERANCE_S: Final = 0.25

_STEPS: Final = "steps: [5%, 25%, 50%], every: 200ms"
SWITCH: Final = plane.Site(name="switch")
CANARY: Final = plane.Site(name="canary", strategy=f"{{canary: {{{_STEPS}}}}}")
COLD_SWITCH: Final = plane.Site(name="cold-switch", keep_warm="0s")
COLD_CANARY: Final = plane.Site(name="cold-canary", strategy=CANARY.strategy, keep_warm="0s")
#: Site and how many rollouts, quick and full.
RUNS: Final = ((SWITCH, 10, 50), (CANARY, 6, 50), (COLD_SWITCH, 4, 12), (COLD_CANARY, 3, 8))


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """So many rollouts of one site."""

    site: plane.Site
    rollouts: int
    seconds: float
    seen: load.Seen
    lives: tuple[sockets.Life, ...]
    refused: tuple[str, ...]
    """WebSockets that could not be opened."""
    early: tuple[sockets.Life, ...]
    started: int
    """Instances that the rollouts have started."""
    router_share: float
    """Of a processor, that HAProxy was busy."""


def measure(*, quick: bool) -> report.Section:
    """Run the part."""
    sites = (site for site, _, _ in RUNS)
    with plane.running(*sites, drain=f"{DRAIN_S}s") as running, running.connect() as connection:
        runs = [_run(running, connection, site, few if quick else many) for site, few, many in RUNS]
    return _section(runs)


def _run(running: plane.Plane, connection: client.Client, site: plane.Site, count: int) -> Run:
    pids = running.haproxy()
    plan = load.Plan(port=running.port, host=site.host, keeping=CLIENTS // 2, closing=CLIENTS // 2)
    with (
        sockets.Sockets(port=running.port, host=site.host, count=HELD) as held,
        load.Load(plan) as clients,
    ):
        time.sleep(1.0)
        begun_s, busy_s = time.monotonic(), machine.cpu_s(pids)
        before, placements = connection.environment(site.place)["last"]["placement"], set()
        for number in range(count):
            other = running.releases[(number + 1) % 2]
            placements.add(plane.act_and_wait(connection, site, "deploy", release=other)["placement"])
        seconds = time.monotonic() - begun_s
        share = (machine.cpu_s(pids) - busy_s) / seconds
        seen = clients.stop()
        lives = held.stop()
    return Run(
        site=site,
        rollouts=count,
        seconds=seconds,
        seen=seen,
        lives=lives,
        refused=tuple(held.refused),
        early=early(lives, connection.history(site.place, limit=count + 5)),
        started=site.instances * len(placements - {before}),
        router_share=share,
    )


def early(
    lives: Sequence[sockets.Life], history: Sequence[dict[str, Any]], drain_s: float = DRAIN_S
) -> tuple[sockets.Life, ...]:
    """WebSockets that ended before their release had been replaced for `drain_s`.

    `history`: rollouts with `previous_release` and `ended_at`. A WebSocket belongs to the release that
    answered it; its time runs from the end of the first rollout that replaced this release after the
    WebSocket was opened.
    """
    found = []
    for life in lives:
        if life.how == "stopped":
            continue
        replaced = [
            rollout["ended_at"]
            for rollout in history
            if rollout["previous_release"] == life.release
            and rollout["ended_at"] is not None
            and rollout["ended_at"] > life.opened_at
        ]
        if not replaced or life.ended_at < min(replaced) + drain_s - TOLERANCE_S:
            found.append(life)
    return tuple(found)


def _section(runs: Sequence[Run]) -> report.Section:
    heading = (
        "", "rollouts", "per minute", "instances started", "requests, kept", "requests, closed", "failed",
        "WebSockets", "ended after drain", "cut early", "HAProxy busy",
    )  # fmt: skip
    failures = Counter(failure.kind for run in runs for failure in run.seen.failures)
    cuts = Counter(life.how for run in runs for life in run.early)
    refused = Counter(text for run in runs for text in run.refused)
    failed, early_cuts = failures.total() + refused.total(), cuts.total()
    sent = figures.thousands(sum(run.seen.sent for run in runs))
    seconds = sum(run.seconds for run in runs)
    return report.Section(
        name="rollouts",
        title="Rollouts under load",
        method=(
            f"{CLIENTS} clients ask as fast as they can, half of them on kept connections, half with a new "
            f"one for each request, and look at every answer; {HELD} WebSockets say a word every second. "
            "All, with two instances of the app, share the processors, which are busy throughout. Warm: the "
            "replaced release's instances stay. Cold: they are ended at once; their WebSockets have "
            f"{DRAIN_S} s. Canaries pass {_STEPS}."
        ),
        tables=(report.Table(heading=heading, rows=tuple(_row(run) for run in runs)),),
        findings=(
            f"Requests that failed: {failed}. WebSockets cut before their time: {early_cuts}.",
            *(f"{kind}: {count}" for kind, count in (failures + cuts + refused).most_common(5)),
            f"{sum(run.rollouts for run in runs)} rollouts, {sent} requests, {seconds:.0f} s.",
        ),
    )


def _row(run: Run) -> tuple[str, ...]:
    ended = sum(1 for life in run.lives if life.how != "stopped") - len(run.early)
    warm = "cold" if run.site.name.startswith("cold") else "warm"
    kind = "canary" if "canary" in run.site.strategy else "switch"
    return (
        f"{kind}, {warm}",
        str(run.rollouts),
        f"{run.rollouts / run.seconds * 60:.0f}",
        str(run.started),
        figures.thousands(run.seen.kept),
        figures.thousands(run.seen.closed),
        str(len(run.seen.failures) + len(run.refused)),
        str(len(run.lives)),
        str(ended),
        str(len(run.early)),
        f"{run.router_share * 100:.0f} %",
    )
