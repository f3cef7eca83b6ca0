"""Telemetry: what it costs that the router measures every answer, and what a look at it costs.

Both routers have the configuration that Tidegate generates, one without the lines that measure. They stand
side by side and are asked in turns, as in `router`, whose rounds these are. A look is `observe` of an
environment of twelve backends, as during a canary, before any of them was asked and after all were.
Neighbours: `router`, `proxies`, `wrk`.
"""

from __future__ import annotations

import contextlib
import random
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from bench import figures, load, machine, plane, proxies, report, router
from tidegate.core import model
from tidegate.haproxy import config
from tidegate.haproxy.runtime import HAProxyRouter
from tidegate.haproxy.settings import RouterSettings

#: At most this much of the router's requests per second.
AIM_SHARE: Final = 0.05
SERVICES: Final = ("api", "shop", "web")
LOOKS: Final = 200
#: How the lines begin that measure an answer; what they count in is not touched without them.
MEASURING: Final = (
    "http-request set-var(txn.begun)",
    "http-response track-sc0",
    "http-response sc-inc-gpc",
)
ROUTES: Final = {"no canary open": proxies.STABLE, "canary at 25 %": proxies.CANARY}


def measure(*, quick: bool) -> report.Section:
    """Run the part."""
    rounds, seconds = (10, 1.0) if quick else (40, 1.0)
    with machine.folder() as root, contextlib.ExitStack() as stack:
        origin_port, *ports = machine.free_ports(1 + 2 * len(ROUTES))
        machine.pin(stack.enter_context(proxies.origin(root / "origin", origin_port)), router.OTHER_CORE)
        standing: dict[tuple[str, bool], tuple[int, tuple[int, ...]]] = {}
        for port, (name, measuring) in zip(ports, _contenders(), strict=True):
            folder = root / str(port)
            text = _text(port, origin_port, ROUTES[name], measuring=measuring)
            _write_maps(folder, proxies.table(ROUTES[name], origin_port))
            pids = stack.enter_context(proxies.bare_haproxy(folder, text, port))
            machine.pin(pids, router.PROXY_CORE)
            standing[name, measuring] = (port, pids)
        found: dict[tuple[str, bool], list[router.Round]] = {each: [] for each in standing}
        chance = random.Random(1)
        for _ in range(rounds):
            for each in chance.sample(list(standing), len(standing)):
                found[each].append(router.one_round(*standing[each], seconds, root))
    with machine.folder() as root:
        looks = _looks(root)
    return _section(found, looks, rounds, seconds)


def _contenders() -> list[tuple[str, bool]]:
    return [(name, measuring) for name in ROUTES for measuring in (False, True)]


def _text(port: int, origin_port: int, route: model.Route, *, measuring: bool) -> str:
    """The configuration of one HAProxy, as Tidegate generates it."""
    table = proxies.table(route, origin_port)
    settings = RouterSettings(port=port, link_ports=machine.free_ports(2), threads=1)
    text = config.base_text(settings) + config.environment_text(table, config.structure(table, ()))
    if measuring:
        return text
    lines = text.splitlines()
    kept = [line for line in lines if not line.strip().startswith(MEASURING)]
    if len(lines) - len(kept) != 1 + 2 * model.SLOTS:  # once, and for each slot of the one service
        raise machine.BenchError("the lines that measure are not where the bench looks for them")
    return "\n".join(kept) + "\n"


def _write_maps(folder: Path, table: model.RouteTable) -> None:
    folder.mkdir()
    for name, entries in config.map_entries(table).items():
        (folder / name).write_text(config.map_text(entries))
    (folder / config.BUCKETS).write_text(config.buckets_text())


def _looks(root: Path) -> dict[str, list[float]]:
    """Seconds of each look: before anything was asked, and after every slot was."""
    origin_port, port, *links = machine.free_ports(2 + len(SERVICES))
    key = proxies.KEY
    found: dict[str, list[float]] = {}
    with proxies.origin(root / "origin", origin_port), _started(root / "router", port, tuple(links)) as here:
        fences = iter(range(1, 100))
        here.apply(_wide(origin_port, 0, next(fences)), key="bench")
        found["nothing answered yet"] = _timed(lambda: here.observe(key))
        for slot in range(model.SLOTS):
            here.apply(_wide(origin_port, slot, next(fences)), key="bench")
            for service in SERVICES:
                plan = load.Plan(
                    port=port, keeping=32, closing=0, core=router.OTHER_CORE, host=_host(service)
                )
                with load.Load(plan) as clients:
                    time.sleep(1.0)
                    clients.stop()
        cells = sum(len(one.latencies) for one in here.observe(key).traffic)
        found[f"all have answered, {cells} cells"] = _timed(lambda: here.observe(key))
    return found


@contextlib.contextmanager
def _started(folder: Path, port: int, links: tuple[int, ...]) -> Iterator[HAProxyRouter]:
    here = HAProxyRouter(folder, RouterSettings(port=port, link_ports=links, threads=1))
    try:
        here.start()
        machine.pin(plane.haproxy_of(folder), router.PROXY_CORE)
        yield here
    finally:
        here.stop(drain_s=0)


def _wide(origin_port: int, stable: int, fence: int) -> model.RouteTable:
    """Three public services in all slots; users meet the stable one."""
    return model.RouteTable(
        key=proxies.KEY,
        route=model.Route(stable=stable, fence=fence),
        services=tuple(
            model.PublicService(service=service, hosts=(_host(service),), identity=model.UserIdentity.COOKIE)
            for service in SERVICES
        ),
        backends=tuple(
            model.Backend(
                service=service,
                slot=slot,
                check=proxies.CHECK,
                servers=(model.Server(name=f"p{slot}-0", host="127.0.0.1", port=origin_port),),
            )
            for service in SERVICES
            for slot in range(model.SLOTS)
        ),
    )


def _host(service: str) -> str:
    return f"{service}.example.com"


def _timed(look: Callable[[], object]) -> list[float]:
    times = []
    for _ in range(LOOKS):
        begun_s = time.perf_counter()
        look()
        times.append(time.perf_counter() - begun_s)
    return times


def _section(
    found: dict[tuple[str, bool], list[router.Round]],
    looks: dict[str, list[float]],
    rounds: int,
    seconds: float,
) -> report.Section:
    rows, shares = [], []
    for name in ROUTES:
        without, with_it = found[name, False], found[name, True]
        rate = figures.median_ratio([one.rate for one in with_it], [one.rate for one in without])
        cpu = figures.median_ratio([one.cpu_us for one in with_it], [one.cpu_us for one in without])
        shares.append(1 - rate)
        for label, results in ((f"{name}, not measured", without), (f"{name}, measured", with_it)):
            rows.append(
                (
                    label,
                    figures.thousands(statistics.median(one.rate for one in results)),
                    f"{rate:.3f}x" if results is with_it else "",
                    f"{statistics.median(one.cpu_us for one in results):.1f}",
                    f"{cpu:.3f}x" if results is with_it else "",
                    str(sum(one.failed for one in results)),
                )
            )
    met = "met" if max(shares) <= AIM_SHARE else "missed"
    worst = f"{max(shares) * 100:.1f} %"
    return report.Section(
        name="telemetry",
        title="What it costs to measure every answer",
        method=(
            f"{rounds} rounds of {seconds:g} s, each in another order; medians, ratios within each round. "
            f"The generated configuration with and without the lines that count latencies, on one processor "
            f"with one thread; {router.CONNECTIONS} connections, and the origin, on another. A look is one "
            f"of {LOOKS} at an environment of {len(SERVICES)} services in {model.SLOTS} slots."
        ),
        tables=(
            report.Table(
                heading=("", "requests/s", "ratio", "CPU us/request", "ratio", "failed"), rows=tuple(rows)
            ),
            report.Table(
                heading=figures.TIMING,
                rows=tuple(figures.timing(f"look: {name}", times) for name, times in looks.items()),
            ),
        ),
        findings=(f"Aim, at most {AIM_SHARE:.0%} of the requests per second: {met} ({worst}).",),
    )
