"""Flip: from a decision to the moment from which every new request is answered by the other release.

Measured at the clients: many connections ask in turns, on an idle machine, and every answer says its release
and when it was asked for. A flip has ended with the first request after the last one that the old release
answered. Beside it, in the same run, the limit: one entry of a map, set by hand in an idle HAProxy.
Then the same flips once more with a clock at every call of the loop, to see where the time goes.
Neighbours: `load` asks, `plane` runs the control plane, `anatomy` holds the clocks.
"""

from __future__ import annotations

import bisect
import contextlib
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bench import anatomy, figures, load, machine, plane, proxies, report
from tidegate import client
from tidegate.core.model import FULL_EXPOSURE

AIM_P99_S: Final = 0.050
#: So many probes, each with so long a pause, are a question every third of a millisecond.
PROBES: Final = 64
PAUSE_S: Final = 0.02
#: Time for a flip to show at the clients before the next one begins.
SETTLE_S: Final = 0.15
SWITCHED: Final = plane.Site(name="flip", strategy="switch")
MANUAL: Final = plane.Site(
    name="manual", strategy="{canary: {steps: [{share: 1%, hold: manual}]}}", keep_warm="10m"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A flip, by monotonic seconds."""

    rollout: int
    decided_at_s: float
    until_s: float
    """Samples from here on belong to the next flip."""
    old: int
    called_s: float = 0.0
    """How long the call took that decided."""


def flip_s(sent: Sequence[float], release: Sequence[int], decision: Decision) -> float:
    """From the decision to the first request after the last one that the old release answered.

    `sent` and `release`: a row per answer, in the order of sending. Without such a request it took at least
    until the end of what was looked at, and counts as that.
    """
    place = bisect.bisect_left(sent, decision.decided_at_s)
    end = bisect.bisect_left(sent, decision.until_s)
    last_old = max((row for row in range(place, end) if release[row] == decision.old), default=place - 1)
    flipped_at_s = sent[last_old + 1] if last_old + 1 < end else decision.until_s
    return flipped_at_s - decision.decided_at_s


def flips_s(seen: load.Seen, decisions: Sequence[Decision]) -> list[float]:
    """Of every flip."""
    rows = sorted(zip(seen.sent_at_s, seen.release, strict=True))
    sent, release = [at for at, _ in rows], [number for _, number in rows]
    return [flip_s(sent, release, decision) for decision in decisions]


@contextlib.contextmanager
def probing(port: int, host: str) -> Iterator[load.Load]:
    """Clients that ask often enough to see a flip, and seldom enough to leave the machine idle."""
    plan = load.Plan(
        port=port, host=host, keeping=PROBES * 3 // 4, closing=PROBES // 4, pause_s=PAUSE_S, record=True
    )
    with load.Load(plan) as clients:
        yield clients


def measure(*, quick: bool) -> report.Section:
    """Run the part."""
    count, bare_count, inside_count = (40, 100, 20) if quick else (200, 100, 30)
    with machine.folder() as root:
        bare, seen_bare = _bare(root, bare_count)
    with plane.running(SWITCHED, MANUAL) as running, running.connect() as connection:
        deploys, seen_deploys = _probed(
            running.port, SWITCHED.host, lambda: _deploys(connection, running.releases, count // 2)
        )
        committed = flips_s(seen_deploys, _from_commit(connection, SWITCHED, deploys.decisions))
        promotions, seen_promotions = _probed(
            running.port, MANUAL.host, lambda: _promotions(connection, running.releases, count // 2)
        )
        inside = anatomy.measure(running, SWITCHED, inside_count)
    rows = (
        figures.timing("limit: `set map` by hand, idle HAProxy", bare.asked_s),
        figures.timing("promote to everybody: from the request", promotions.asked_s),
        figures.timing("promote to everybody: from the answer", promotions.answered_s),
        figures.timing("deploy of a warm release: from the request", deploys.asked_s),
        figures.timing("deploy of a warm release: from the exposing commit", committed),
    )
    failed = sum(len(seen.failures) for seen in (seen_bare, seen_deploys, seen_promotions))
    return _section(rows, inside, failed, {"promote": promotions.asked_s, "deploy": deploys.asked_s})


@dataclass(frozen=True, slots=True, kw_only=True)
class Flips:
    """What was decided, and how long it took to reach every client: from the request, from its answer."""

    decisions: list[Decision]
    asked_s: list[float]
    answered_s: list[float]


def _probed(port: int, host: str, flips: Callable[[], list[Decision]]) -> tuple[Flips, load.Seen]:
    with probing(port, host) as clients:
        time.sleep(0.5)
        decisions = flips()
        seen = clients.stop()
    asked = flips_s(seen, decisions)
    answered = [flip - decision.called_s for flip, decision in zip(asked, decisions, strict=True)]
    return Flips(decisions=decisions, asked_s=asked, answered_s=[max(0.0, one) for one in answered]), seen


def _from_commit(
    connection: client.Client, site: plane.Site, decisions: Sequence[Decision]
) -> list[Decision]:
    """The same flips, decided when their full exposure was committed."""
    since_boot_s = time.monotonic() - time.time()
    exposed_at: dict[int, float] = {}
    after = 0
    while events := connection.events(site.place, after=after):
        after = events[-1]["sequence"]
        for event in events:
            if event["phase"] == "shifting" and event["exposure_bps"] == FULL_EXPOSURE:
                exposed_at[event["rollout"]] = event["at"] + since_boot_s
    return [replace(decision, decided_at_s=exposed_at[decision.rollout]) for decision in decisions]


def _bare(root: Path, count: int) -> tuple[Flips, load.Seen]:
    (port,) = machine.free_ports(1)
    with proxies.two_releases(root / "bare", port):

        def flips() -> list[Decision]:
            decisions = []
            for number in range(count):
                decided_at_s = time.monotonic()
                old = 1 + number % 2
                _say(root / "bare" / "admin.sock", f"set map route.map site r{3 - old}")
                called_s = time.monotonic() - decided_at_s
                time.sleep(SETTLE_S)
                decisions.append(
                    Decision(
                        rollout=number,
                        decided_at_s=decided_at_s,
                        until_s=time.monotonic(),
                        old=old,
                        called_s=called_s,
                    )
                )
            return decisions

        return _probed(port, "127.0.0.1", flips)


def _say(path: Path, command: str) -> None:
    with socket.socket(socket.AF_UNIX) as admin:
        admin.connect(str(path))
        admin.sendall(f"{command}\n".encode())
        while admin.recv(4096):
            pass


def _deploys(connection: client.Client, releases: tuple[int, ...], count: int) -> list[Decision]:
    decisions = []
    for number in range(count):
        old, new = releases[number % 2], releases[(number + 1) % 2]
        begun_s = time.monotonic()
        rollout = connection.act(SWITCHED.place, "deploy", release=new)["rollout"]
        called_s = time.monotonic() - begun_s
        plane.wait_for_end(connection, SWITCHED, rollout)
        time.sleep(SETTLE_S)
        decisions.append(
            Decision(
                rollout=rollout,
                decided_at_s=begun_s,
                until_s=time.monotonic(),
                old=old,
                called_s=called_s,
            )
        )
    return decisions


def _promotions(connection: client.Client, releases: tuple[int, ...], count: int) -> list[Decision]:
    decisions = []
    for number in range(count):
        old, new = releases[number % 2], releases[(number + 1) % 2]
        rollout = connection.act(MANUAL.place, "deploy", release=new)["rollout"]
        machine.wait_for("the canary", lambda: _is_holding(connection), limit_s=plane.END_LIMIT_S)
        begun_s = time.monotonic()
        connection.act(MANUAL.place, "promote", full=True)
        called_s = time.monotonic() - begun_s
        plane.wait_for_end(connection, MANUAL, rollout)
        time.sleep(SETTLE_S)
        decisions.append(
            Decision(
                rollout=rollout,
                decided_at_s=begun_s,
                until_s=time.monotonic(),
                old=old,
                called_s=called_s,
            )
        )
    return decisions


def _is_holding(connection: client.Client) -> bool:
    rollout = connection.environment(MANUAL.place)["rollout"]
    return rollout is not None and rollout["phase"] == "holding"


def _section(
    rows: tuple[tuple[str, ...], ...], inside: report.Table, failed: int, flips: dict[str, list[float]]
) -> report.Section:
    aim = f"Aim: p99 below {AIM_P99_S * 1000:.0f} ms on an idle machine"
    verdicts = ", ".join(f"{_verdict(seconds)} by a {name}" for name, seconds in flips.items())
    findings = (f"{aim}: {verdicts}.", f"Requests that failed: {failed}.")
    return report.Section(
        name="flip",
        title="How long a flip takes",
        method=(
            f"{PROBES} clients, most of them on kept connections, ask every {PAUSE_S * 1000:.0f} ms, and "
            "every answer names its release. A flip has ended with the first request sent after the last "
            "one that the old release answered. Deploys and promotions go through the API of a real control "
            "plane, with SQLite on disk. The limit is HAProxy itself, asked in the same way in the same run."
        ),
        tables=(report.Table(heading=figures.TIMING, rows=rows), inside),
        findings=findings,
    )


def _verdict(seconds: list[float]) -> str:
    p99_s = figures.percentile(seconds, 99)
    median = figures.milliseconds(statistics.median(seconds))
    word = "met" if p99_s < AIM_P99_S else "missed"
    return f"{word} (p99 {figures.milliseconds(p99_s)} ms, median {median} ms)"
