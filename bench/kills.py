"""Kills: kill -9 of HAProxy and of the control plane under load; what is lost, and how long nobody answers.

The rival is the same HAProxy with the smallest configuration, started again by a loop as soon as it has
ended. A gap ends with the first answer to a request that was sent after the kill. Clients ask again 5 ms
after a failure, as often as it takes. Neighbours: `load`, `proxies`, `plane`.
"""

from __future__ import annotations

import bisect
import contextlib
import os
import signal
import statistics
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import figures, load, machine, plane, proxies, report
from tidegate.demo import processes

CLIENTS: Final = 32
PAUSE_S: Final = 0.005
#: Between two kills: long enough for the supervisor to take the next one for a first one.
BETWEEN_S: Final = 1.5
SITE: Final = plane.Site(name="kills")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kills:
    """What so many kills of one kind did."""

    name: str
    seen: load.Seen
    killed_at_s: tuple[float, ...]

    @property
    def gaps_s(self) -> list[float]:
        """Of each kill: until the first answer to a request that was sent after it."""
        rows = sorted(zip(self.seen.ended_at_s, self.seen.sent_at_s, strict=True))
        return [gap_s(rows, at_s) for at_s in self.killed_at_s]


def gap_s(rows: Sequence[tuple[float, float]], killed_at_s: float) -> float:
    """`rows`: end and begin of every answered request, in the order of their ends.

    Raises ValueError if nothing was answered any more.
    """
    for place in range(bisect.bisect_left(rows, (killed_at_s, 0.0)), len(rows)):
        ended_s, sent_s = rows[place]
        if sent_s >= killed_at_s:
            return ended_s - killed_at_s
    raise ValueError("nothing was answered after a kill")


def measure(*, quick: bool) -> report.Section:
    """Run the part."""
    count, planes = (5, 3) if quick else (20, 10)
    with machine.folder() as root:
        origin_port, rival_port, ours_port = machine.free_ports(3)
        with proxies.origin(root / "origin", origin_port):
            found = [_rival(root / "rival", rival_port, origin_port, count)]
            with proxies.tidegate(root / "router", ours_port, origin_port, proxies.STABLE):
                found += [
                    _kill(f"Tidegate's HAProxy: {part}", ours_port, count, _killer(root / "router", place))
                    for part, place in (("worker", 1), ("master", 0))
                ]
    found.append(_control_plane(planes))
    return _section(found)


def _kill(name: str, port: int, count: int, kill: Callable[[], None], host: str = "127.0.0.1") -> Kills:
    plan = load.Plan(
        port=port, host=host, keeping=CLIENTS // 2, closing=CLIENTS // 2, pause_s=PAUSE_S, record=True
    )
    killed = []
    with load.Load(plan) as clients:
        for _ in range(count):
            time.sleep(BETWEEN_S)
            killed.append(time.monotonic())
            kill()
        time.sleep(BETWEEN_S)
        seen = clients.stop()
    return Kills(name=name, seen=seen, killed_at_s=tuple(killed))


def _killer(folder: Path, place: int) -> Callable[[], None]:
    """Kills HAProxy's master (0) or the worker that it has started last (1)."""

    def kill() -> None:
        machine.wait_for("two processes of HAProxy", lambda: len(plane.haproxy_of(folder)) > 1)
        found = plane.haproxy_of(folder)
        master = next(pid for pid in found if set(machine.children_of(pid)) & set(found))
        os.kill(machine.children_of(master)[-1] if place else master, signal.SIGKILL)

    return kill


def _rival(folder: Path, port: int, origin_port: int, count: int) -> Kills:
    folder.mkdir()
    (folder / "haproxy.cfg").write_text(proxies.smallest(port, origin_port))
    with _restarting([proxies.haproxy(), "-db", "-f", "haproxy.cfg"], folder) as current:
        machine.wait_for("HAProxy's start", lambda: machine.answers(port))
        return _kill(
            "rival: HAProxy in a loop", port, count, lambda: os.kill(current[-1].pid, signal.SIGKILL)
        )


@contextlib.contextmanager
def _restarting(arguments: Sequence[str], folder: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A program that a loop starts again whenever it has ended; the last one of the list runs."""
    stop = threading.Event()
    started: list[subprocess.Popen[bytes]] = []

    def loop() -> None:
        while not stop.is_set():
            with (folder / "output.log").open("ab") as log:
                started.append(
                    subprocess.Popen(arguments, cwd=folder, stdout=log, stderr=log, start_new_session=True)
                )
            started[-1].wait()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    machine.wait_for("the loop's start", lambda: bool(started))
    try:
        yield started
    finally:
        stop.set()
        while thread.is_alive():
            started[-1].kill()
            thread.join(0.1)


def _control_plane(count: int) -> Kills:
    with plane.running(SITE) as running:

        def kill() -> None:
            os.kill(running.pid, signal.SIGKILL)
            machine.wait_for("the control plane's end", lambda: processes.has_ended(running.pid))
            running.start()

        return _kill("Tidegate's control plane", running.port, count, kill, SITE.host)


def _section(found: Sequence[Kills]) -> report.Section:
    rows = []
    for kills in found:
        gaps, count = kills.gaps_s, len(kills.killed_at_s)
        per_kill = [
            sum(1 for failure in kills.seen.failures if at_s <= failure.ended_at_s < at_s + BETWEEN_S)
            for at_s in kills.killed_at_s
        ]
        rows.append(
            (
                kills.name,
                str(count),
                figures.thousands(kills.seen.sent),
                str(len(kills.seen.failures)),
                f"{len(kills.seen.failures) / count:.1f}",
                str(max(per_kill)),
                figures.milliseconds(statistics.median(gaps)),
                figures.milliseconds(max(gaps)),
            )
        )
    kinds = Counter(failure.kind for kills in found[1:] for failure in kills.seen.failures)
    return report.Section(
        name="kills",
        title="kill -9",
        method=(
            f"{CLIENTS} clients, half of them on kept connections, each asking {PAUSE_S * 1000:.0f} ms "
            f"after its last answer; a kill every {BETWEEN_S:g} s. Lost: requests that were not "
            "answered, whatever the reason. Gap: from the kill to the first answer to a later request."
        ),
        tables=(
            report.Table(
                heading=(
                    "killed",
                    "times",
                    "requests",
                    "lost",
                    "per kill",
                    "most in one",
                    "median gap ms",
                    "max ms",
                ),
                rows=tuple(rows),
            ),
        ),
        findings=(
            "Lost are requests under way in the HAProxy that is killed; later ones wait for the next.",
            *(f"Lost behind Tidegate, {kind}: {count}" for kind, count in kinds.most_common(4)),
        ),
    )
