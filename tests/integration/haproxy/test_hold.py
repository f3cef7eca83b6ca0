"""Requests that wait in the router while nobody can answer them, and then are answered."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from dataclasses import replace

import pytest

from tests.integration.haproxy.world import HOST, KEY, TOKEN, World, backend, eventually
from tests.support.http_load import Load, Plan, ask
from tests.support.web_app import WebApp
from tidegate.core import model, sequential
from tidegate.errors import RouterError

pytestmark = pytest.mark.real


def held(table: model.RouteTable, seconds: int = 15) -> model.RouteTable:
    """The table with new requests held."""
    return replace(table, route=replace(table.route, hold_s=seconds))


def busy(world: World, slot: int) -> int:
    """Requests that a slot is at."""
    return sum(one.sessions or 0 for one in world.router.observe(KEY).servers if one.slot == slot)


def is_back(world: World) -> bool:
    """The router answers again."""
    try:
        return world.router.observe(KEY).route is not None
    except RouterError:
        return False


class Asking(threading.Thread):
    """One request, that may take its time."""

    def __init__(self, world: World, *headers: str) -> None:
        super().__init__(daemon=True)
        self._world = world
        self._headers = headers
        self.app: str | None = None
        self.status = 0
        self.took_s = 0.0
        self.start()

    def run(self) -> None:
        begun = time.monotonic()
        answer = ask(self._world.port, HOST, headers=self._headers)
        self.app, self.status, self.took_s = answer.app, answer.status, time.monotonic() - begun


def test_held_requests_are_answered_by_who_comes_next(world: World, blue: WebApp, green: WebApp) -> None:
    """Under load: the old release comes to rest, nobody is refused, the new one answers all who waited."""
    both = (backend(0, [blue]), backend(1, [green]))
    world.apply(world.table(*both))
    with Load(Plan(port=world.port, host=HOST, users=8)) as load:
        for round_ in range(4):
            load.wait_for(50)
            old, new = round_ % 2, 1 - round_ % 2
            world.apply(held(world.table(*both, stable=old)))
            eventually(lambda old=old: busy(world, old) == 0)  # type: ignore[misc]
            before = load.tally.by_app[("blue", "green")[old]]
            world.apply(held(world.table(*both, stable=old)))
            world.apply(world.table(*both, stable=new))
            load.wait_for(50)
            assert load.tally.by_app[("blue", "green")[old]] == before
    assert load.tally.failed == Counter()


def test_bearer_of_the_preview_does_not_wait(world: World, blue: WebApp, green: WebApp) -> None:
    """The release that is to come is tried while everybody else waits."""
    both = (backend(0, [blue]), backend(1, [green]))
    world.apply(held(world.table(*both, canary=1)))
    other = Asking(world)
    assert ask(world.port, HOST, headers=(f"X-Tidegate-Preview: {TOKEN}",)).app == "green"
    wrong = Asking(world, "X-Tidegate-Preview: something-else")
    assert (other.is_alive(), wrong.is_alive()) == (True, True)
    world.apply(world.table(*both))
    other.join(5)
    wrong.join(5)
    assert [(one.status, one.app) for one in (other, wrong)] == [(200, "blue")] * 2


def test_who_waits_too_long_is_told_when_to_come_back(world: World, blue: WebApp) -> None:
    """503 with Retry-After, and no release has failed."""
    world.apply(held(world.table(backend(0, [blue])), 1))
    answer = ask(world.port, HOST)
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert [(one.requests, one.errors) for one in world.router.observe(KEY).traffic if one.requests] == []


def test_time_of_waiting_is_nobodys_latency(world: World, blue: WebApp) -> None:
    """What a release needed begins when the request reaches it."""
    world.apply(held(world.table(backend(0, [blue]))))
    waits = Asking(world)
    time_is_up = time.monotonic() + 1.0
    eventually(lambda: time.monotonic() > time_is_up)
    world.apply(world.table(backend(0, [blue])))
    waits.join(5)
    (traffic,) = [one for one in world.router.observe(KEY).traffic if one.requests]
    ((bucket, count),) = traffic.latencies
    assert waits.took_s > 1
    assert (count, sequential.bucket_edge_s(bucket) < 0.5) == (1, True)


def test_reload_and_death_of_the_router_keep_holding(world: World, blue: WebApp, green: WebApp) -> None:
    """A reload loses nobody who waits; who comes after a crash waits as well."""
    check = model.Check(kind=model.CheckKind.HTTP, path="/healthz?2")
    world.apply(held(world.table(backend(0, [blue]))))
    first = Asking(world)
    eventually(first.is_alive)
    worker = world.processes().worker
    world.apply(held(world.table(backend(0, [blue], check=check), backend(1, [green]))))
    assert world.processes().worker != worker
    world.apply(world.table(backend(0, [blue], check=check), backend(1, [green]), stable=1))
    first.join(5)
    assert (first.status, first.app) == (200, "green")
    world.apply(held(world.table(backend(0, [blue], check=check), backend(1, [green]))))
    os.kill(world.processes().master, signal.SIGKILL)
    eventually(lambda: is_back(world))
    second = Asking(world)
    assert second.is_alive()
    world.apply(world.table(backend(0, [blue], check=check), backend(1, [green])))
    second.join(5)
    assert (second.status, second.app) == (200, "blue")
