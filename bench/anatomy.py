"""Where the time of a flip goes: a clock at every call that the loop makes.

Composes a control plane in this process from the same parts as `tidegate.daemon`, with `Clocked` around each
adapter, and deploys through its operations. Neighbour: `flip`, which shows the table.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

from bench import figures, machine, plane, report
from tidegate import daemon, ports
from tidegate.artifacts.content import ContentStore
from tidegate.clock import SystemClock
from tidegate.core.model import EnvironmentKey
from tidegate.demo import processes
from tidegate.engine import gates, loop, noise, operations, series, watch
from tidegate.haproxy.runtime import HAProxyRouter
from tidegate.haproxy.settings import RouterSettings
from tidegate.runtimes.process import ProcessRuntime, ProcessSettings
from tidegate.store.pipelines import SqlitePipelines
from tidegate.store.secrets import SqliteSecrets
from tidegate.store.series import SqliteSeries
from tidegate.store.sqlite import SqliteStore
from tidegate.testing.fake_migrator import FakeMigrator
from tidegate.vault.opened import Vault
from tidegate.vault.redaction import Redactor

#: The call that moves the users.
FLIPPING: Final = "router.apply"
#: Long enough for the loop to become quiet after a flip.
QUIET_S: Final = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of an adapter. Monotonic seconds."""

    name: str
    begun_s: float
    ended_s: float

    @property
    def took_s(self) -> float:
        return self.ended_s - self.begun_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """From the request to the end of the call that moved the users."""

    begun_s: float
    calls: tuple[Call, ...]

    @property
    def took_s(self) -> float:
        return self.calls[-1].ended_s - self.begun_s

    def of(self, name: str) -> tuple[Call, ...]:
        return tuple(call for call in self.calls if call.name == name)


class Clocked:
    """An adapter whose every call is written down."""

    def __init__(self, inner: object, name: str, calls: list[Call]) -> None:
        self._inner, self._name, self._calls = inner, name, calls

    def __getattr__(self, method: str) -> Any:
        called = getattr(self._inner, method)

        def clocked(*arguments: Any, **named: Any) -> Any:
            begun_s = time.monotonic()
            try:
                return called(*arguments, **named)
            finally:
                ended_s = time.monotonic()
                self._calls.append(Call(name=f"{self._name}.{method}", begun_s=begun_s, ended_s=ended_s))

        return clocked


def measure(running: plane.Plane, site: plane.Site, count: int) -> report.Table:
    """Flips of a plane whose own control plane rests meanwhile; where their time went."""
    with running.connect() as connection:
        connection.shutdown(apps=False)
    machine.wait_for("the control plane's end", lambda: processes.has_ended(running.pid), limit_s=30.0)
    calls: list[Call] = []
    try:
        with _composed(running, calls) as (watched, asked):
            flips = [_flip(running, site, watched, asked, calls) for _ in range(count)]
    finally:
        running.start()
    return table(flips)


def _clocked(
    store: ports.Store,
    runtime: ProcessRuntime,
    router: HAProxyRouter,
    clock: ports.Clock,
    calls: list[Call],
) -> loop.Adapters:
    return loop.Adapters(
        store=store,
        runtime=cast("ports.Runtime", Clocked(runtime, "runtime", calls)),
        router=cast("ports.Router", Clocked(router, "router", calls)),
        migrator=FakeMigrator(),
        clock=clock,
    )


@contextlib.contextmanager
def _composed(running: plane.Plane, calls: list[Call]) -> Iterator[tuple[watch.Watch, operations.Operations]]:
    home, settings, clock = running.home, running.settings, SystemClock()
    links = tuple(range(*settings.link_ports))
    with contextlib.ExitStack() as stack:
        store = SqliteStore(home.database)
        stack.callback(store.close)
        renewed_at = clock.monotonic()
        lease = store.acquire("bench", ttl_s=daemon.LEASE_S)
        stack.callback(store.release_lease, lease)
        content = ContentStore(home.packages)
        router = HAProxyRouter(
            home.router, RouterSettings(host=settings.host, port=settings.port, link_ports=links)
        )
        router.start()
        runtime = ProcessRuntime(
            home.instances,
            content=lambda group: content.path(group.digest),
            settings=ProcessSettings(run_as=settings.run_as),
        )
        stack.callback(runtime.close)
        clocked_store = cast("ports.Store", Clocked(store, "store", calls))
        adapters = _clocked(clocked_store, runtime, router, clock, calls)
        controller = loop.Controller(adapters, lease, renewed_at=renewed_at)
        kept = SqliteSeries(home.series)
        stack.callback(kept.close)
        recorder = series.Recorder(kept, clock, noise.Noise(kept, clock))
        watched = watch.Watch(controller, clocked_store, clock, recorder)
        stack.callback(recorder.stop)
        recorder.start()
        watched.start()
        stack.callback(watched.stop)
        rows = SqliteSecrets(store, lease)
        vault = Vault.open(home.keys, rows, Redactor(), now=clock.now, version="bench")
        yield (
            watched,
            operations.Operations(
                controller=controller,
                store=clocked_store,
                lease=lease,
                clock=clock,
                content=content,
                link_ports=links,
                memory=recorder,
                secrets=vault.secrets,
                origins=vault.origins,
                gates=gates.Gates(
                    store=clocked_store,
                    kept=SqlitePipelines(store),
                    seals=vault.seals,
                    content=content,
                    clock=clock,
                    found=lambda *_: None,
                ),
                wake=watched.wake,
            ),
        )


def _flip(
    running: plane.Plane,
    site: plane.Site,
    watched: watch.Watch,
    asked: operations.Operations,
    calls: list[Call],
) -> Flip:
    key = EnvironmentKey(app=plane.APP, environment=site.name)
    live = watched.view(key).state.live
    other = next(one for one in running.releases if live is None or one != live.release)
    time.sleep(QUIET_S)
    calls.clear()
    begun_s = time.monotonic()
    entry = operations.Entry(grounds="bench")
    asked.enter(key, other, operations.Asked(by="bench", why="flip"), entry, supersede=False)
    machine.wait_for("a flip", lambda: watched.view(key).state.rollout is None, limit_s=30.0, every_s=0.05)
    within = sorted(calls, key=lambda call: call.ended_s)
    last = next(place for place, call in enumerate(within) if call.name == FLIPPING)
    return Flip(begun_s=begun_s, calls=tuple(within[: last + 1]))


def table(flips: list[Flip]) -> report.Table:
    """Per call: how often in a flip, and how long; what is left is waiting, and deciding."""
    total_s = statistics.median(flip.took_s for flip in flips)
    rows = []
    for name in sorted({call.name for flip in flips for call in flip.calls}):
        per_flip_s = statistics.median(sum(call.took_s for call in flip.of(name)) for flip in flips)
        each_s = [call.took_s for flip in flips for call in flip.of(name)]
        rows.append((name, statistics.mean(len(flip.of(name)) for flip in flips), each_s, per_flip_s))
    left_s = statistics.median(flip.took_s - sum(call.took_s for call in flip.calls) for flip in flips)
    return report.Table(
        heading=(
            "a deploy of a warm release, inside",
            "calls",
            "median ms each",
            "p99 ms each",
            "ms per flip",
        ),
        rows=(
            *(
                (
                    name,
                    f"{count:.1f}",
                    figures.milliseconds(statistics.median(each_s)),
                    figures.milliseconds(figures.percentile(each_s, 99)),
                    figures.milliseconds(per_flip_s),
                )
                for name, count, each_s, per_flip_s in sorted(rows, key=lambda row: -row[3])
            ),
            ("pauses of the loop, deciding", "", "", "", figures.milliseconds(left_s)),
            ("from the request to the end of router.apply", "", "", "", figures.milliseconds(total_s)),
        ),
    )
