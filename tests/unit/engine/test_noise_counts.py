"""What instances answered, tick by tick: only what belongs to a tick, and only of the live release."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from tests.support.builders import WEB_WITH_API, Scene, environment, perfect, placed, service, spec
from tidegate import ports
from tidegate.core import model, series
from tidegate.core.counters import USER_SHARDS
from tidegate.core.sequential import Counted
from tidegate.engine.noise_counts import GAP_S, WAITING_TICKS, InstanceMeter, UserMeter

#: The beginning of a tick.
START = 1_700_002_800.0
TWO = spec(service("web", hosts=("shop.example.com",), instances=2))


class Shop:
    """A meter, and a router whose servers have counted as told."""

    def __init__(self, scene: Scene | None = None) -> None:
        self.state = (scene or environment().live("r1", TWO)).state
        self.meter = InstanceMeter()
        self.at = START
        self.processes: tuple[str, ...] = ("1@1",)
        self.counted: dict[tuple[int, int], tuple[int, int]] = {}
        """Requests and errors by placement and instance."""

    def answers(self, instance: int, requests: int, failed: int = 0, *, release: str = "r1") -> None:
        place = (placed(self.state, release).id, instance)
        before = self.counted.get(place, (0, 0))
        self.counted[place] = (before[0] + requests, before[1] + failed)

    def look(self, after_s: float = 1.0) -> None:
        self.at += after_s
        seen = perfect(self.state).routes
        assert seen is not None
        servers = tuple(map(self._server, seen.servers))
        routes = replace(seen, servers=servers, processes=self.processes)
        self.meter.look(self.state.live, routes, self.at)

    def _server(self, server: model.ServerStatus) -> model.ServerStatus:
        placement, index, _ = server.name.removeprefix("p").split("-")
        requests, failed = self.counted.get((int(placement), int(index)), (0, 0))
        return replace(server, requests=requests, errors=failed)

    def taken(self) -> dict[tuple[str, int], tuple[list[int], list[int]]]:
        """Counts of the ticks since the start, by place."""
        first = int(START) // ports.TICK_S
        return {
            (each.service, each.instance): (
                [dict(each.requests).get(first + tick, 0) for tick in range(4)],
                [dict(each.errors).get(first + tick, 0) for tick in range(4)],
            )
            for each in self.meter.taken(self.at)
        }


def test_counts_are_kept_by_tick_and_instance() -> None:
    """Each instance has its own, in ticks of five seconds; the tick that runs waits."""
    shop = Shop()
    shop.look(0.0)
    for _ in range(11):
        shop.answers(0, 10, 1)
        shop.answers(1, 3)
        shop.look()
    assert shop.taken() == {
        ("web", 0): ([40, 50, 0, 0], [4, 5, 0, 0]),
        ("web", 1): ([12, 15, 0, 0], [0, 0, 0, 0]),
    }
    shop.look(5.0)
    assert shop.taken() == {
        ("web", 0): ([0, 0, 20, 0], [0, 0, 2, 0]),
        ("web", 1): ([0, 0, 6, 0], [0, 0, 0, 0]),
    }
    assert shop.taken() == {}


def test_what_was_answered_while_nobody_looked_is_no_ticks() -> None:
    """A lump of an hour in one tick would look like a burst."""
    shop = Shop()
    shop.answers(0, 1000)
    shop.look()
    shop.answers(0, 5000)
    shop.look(GAP_S + 1)
    shop.answers(0, 7)
    shop.look()
    shop.at += 60
    assert sum(shop.taken()["web", 0][0]) == 7


def test_new_process_of_the_router_counts_from_zero() -> None:
    """After a reload nothing is below zero, and nothing is counted twice when the old one is seen again."""
    shop = Shop()
    shop.look()
    shop.answers(0, 100)
    shop.look()
    shop.counted.clear()
    shop.processes = ("1@1", "2@2")
    shop.answers(0, 104)
    shop.look()
    shop.processes = ("2@2",)
    shop.look()
    shop.processes = ("1@1", "2@2")
    shop.look()
    shop.at += 60
    assert sum(shop.taken()["web", 0][0]) == 204


def test_canary_is_no_noise_until_it_is_live() -> None:
    """What it answered on its way does not count when it has become live, nor does a standby."""
    shop = Shop(environment().live("r1", TWO).incoming("r2", TWO))
    shop.look()
    shop.answers(0, 50, release="r2")
    shop.look()
    state = shop.state.with_placement(replace(placed(shop.state, "r1"), role=model.Role.STANDBY))
    shop.state = state.with_placement(replace(placed(state, "r2"), role=model.Role.LIVE))
    shop.answers(0, 3, release="r2")
    shop.answers(0, 4, release="r1")
    shop.look()
    shop.at += 60
    assert {place: sum(counts[0]) for place, counts in shop.taken().items()} == {("web", 0): 3}


def test_services_behind_others_are_left_out() -> None:
    """Users' requests are judged at the services with a host name."""
    shop = Shop(environment().live("r1", spec(*WEB_WITH_API)))
    shop.look()
    shop.answers(0, 5)
    shop.look()
    shop.at += 60
    assert set(shop.taken()) == {("web", 0)}


def test_nothing_live_is_nothing_to_learn_from() -> None:
    """Before the first release there is nobody."""
    shop = Shop(environment().incoming("r1", TWO))
    shop.look()
    shop.answers(0, 5)
    shop.look()
    shop.at += 60
    assert shop.taken() == {}


def test_counts_that_were_not_written_wait_for_a_day() -> None:
    """They are added to what came since; what is older than a day goes."""
    shop = Shop()
    shop.look(0.0)
    shop.answers(0, 5, 5)
    shop.look()
    shop.at += 10
    shop.meter.put_back(shop.meter.taken(shop.at))
    assert shop.taken() == {("web", 0): ([5, 0, 0, 0], [5, 0, 0, 0])}
    ticks = tuple((tick, 1) for tick in range(WAITING_TICKS + 7))
    shop.meter.put_back((ports.InstanceCounts(service="web", instance=0, requests=ticks, errors=()),))
    (kept,) = shop.meter.taken(shop.at)
    assert kept.requests == ticks[7:]


# --- users -----------------------------------------------------------------------------------------


class Street:
    """A meter of users, and a router whose counters grow as told."""

    def __init__(self, scene: Scene | None = None) -> None:
        self.state = (scene or environment().live("r1", TWO)).state
        self.meter = UserMeter()
        self.at = START
        self.processes: tuple[str, ...] = ("1@1",)
        self.counted: dict[tuple[str, str, int], model.Traffic] = {}

    def answers(
        self,
        requests: int,
        errors: Counted = (),
        *,
        release: str = "r1",
        service: str = "web",
        process: str = "1@1",
    ) -> None:
        slot = placed(self.state, release).slot
        mark = (process, service, slot)
        before = self.counted.get(mark, model.Traffic(service=service, slot=slot, process=process))
        self.counted[mark] = replace(
            before,
            requests=before.requests + requests,
            errors=before.errors + sum(count for _, count in errors),
            user_errors=series.counted(before.user_errors, errors),
        )

    def look(self, after_s: float = 1.0) -> None:
        self.at += after_s
        seen = perfect(self.state).routes
        assert seen is not None
        marks = product(self.processes, ("api", "web"), range(model.SLOTS))
        traffic = tuple(
            self.counted.get(mark) or model.Traffic(process=mark[0], service=mark[1], slot=mark[2])
            for mark in marks
        )
        self.meter.look(self.state.live, replace(seen, traffic=traffic, processes=self.processes), self.at)

    def taken(self) -> tuple[dict[int, int], dict[tuple[int, int], int]]:
        """Requests by tick, errors by tick and part; ticks since the start."""
        first = int(START) // ports.TICK_S
        found = self.meter.taken(self.at)
        return (
            {tick - first: count for tick, count in found.requests},
            {(cell // USER_SHARDS - first, cell % USER_SHARDS): count for cell, count in found.errors},
        )


def test_errors_of_users_are_kept_by_tick_and_part() -> None:
    """All requests in one number, errors by part of the users; the tick that runs waits."""
    street = Street()
    street.look(0.0)
    for _ in range(11):
        street.answers(10, ((0, 1), (19, 2)))
        street.look()
    assert street.taken() == (
        {0: 40, 1: 50},
        {(0, 0): 4, (0, 19): 8, (1, 0): 5, (1, 19): 10},
    )
    street.look(5.0)
    assert street.taken() == ({2: 20}, {(2, 0): 2, (2, 19): 4})
    assert street.meter.taken(street.at) == ports.UserCounts()


def test_users_requests_of_a_long_time_are_no_ticks() -> None:
    """Neither what was counted before the first look, nor between two that were far apart, is a burst."""
    street = Street()
    street.answers(1000, ((3, 500),))
    street.look()
    street.answers(5000, ((3, 700),))
    street.look(GAP_S + 1)
    street.answers(7, ((3, 2),))
    street.look()
    street.at += 60
    requests, errors = street.taken()
    assert (sum(requests.values()), sum(errors.values())) == (7, 2)


def test_users_are_counted_in_every_process_of_the_router() -> None:
    """A new one begins at zero, an old one goes on; one that was hidden brings what belongs to no tick."""
    street = Street()
    street.look()
    street.answers(100, ((1, 1),))
    street.look()
    street.processes = ("1@1", "2@2")
    street.answers(10, ((1, 2),))
    street.answers(5, ((1, 4),), process="2@2")
    street.look()
    street.processes = ("2@2",)
    street.look()
    street.answers(1000, ((1, 900),))
    street.processes = ("1@1", "2@2")
    street.look()
    street.answers(20, ((1, 8),))
    street.look()
    street.at += 60
    requests, errors = street.taken()
    assert (sum(requests.values()), sum(errors.values())) == (135, 15)


def test_counters_that_fell_are_nobodys() -> None:
    """What was reset under the same name is not counted below zero."""
    street = Street()
    street.answers(100, ((1, 50),))
    street.look()
    street.counted.clear()
    street.answers(3, ((1, 2),))
    street.look()
    street.answers(4, ((1, 1),))
    street.look()
    street.at += 60
    assert street.taken() == ({0: 4}, {(0, 1): 1})


def test_only_users_of_the_live_release_are_counted() -> None:
    """A canary, and services behind others, are no noise; a canary that is live is."""
    street = Street(environment().live("r1", spec(*WEB_WITH_API)).incoming("r2", spec(*WEB_WITH_API)))
    street.look()
    street.answers(5, ((1, 1),))
    street.answers(50, ((2, 10),), release="r2")
    street.answers(500, ((3, 100),), service="api")
    street.look()
    state = street.state.with_placement(replace(placed(street.state, "r1"), role=model.Role.STANDBY))
    street.state = state.with_placement(replace(placed(state, "r2"), role=model.Role.LIVE))
    street.answers(6, ((4, 1),), release="r2")
    street.answers(7, ((5, 1),), release="r1")
    street.look()
    street.at += 60
    assert street.taken() == ({0: 11}, {(0, 1): 1, (0, 4): 1})


def test_nothing_live_has_no_users() -> None:
    """Before the first release there is nobody."""
    street = Street(environment().incoming("r1", TWO))
    street.look()
    street.answers(5, ((1, 1),))
    street.look()
    street.at += 60
    assert street.taken() == ({}, {})


def test_users_that_were_not_written_wait_for_a_day() -> None:
    """They are added to what came since; what is older than a day goes, errors too."""
    street = Street()
    street.look(0.0)
    street.answers(5, ((1, 5),))
    street.look()
    street.at += 10
    street.meter.put_back(street.meter.taken(street.at))
    street.meter.put_back(ports.UserCounts())
    assert street.taken() == ({0: 5}, {(0, 1): 5})
    ticks = tuple((tick, 1) for tick in range(WAITING_TICKS + 7))
    failed = tuple((USER_SHARDS * tick + 3, 1) for tick in range(WAITING_TICKS + 7))
    street.meter.put_back(ports.UserCounts(requests=ticks, errors=failed))
    kept = street.meter.taken(street.at)
    assert (kept.requests, kept.errors) == (ticks[7:], failed[7:])
