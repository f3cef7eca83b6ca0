"""What each instance of the live release answers, in ticks of five seconds: what the noise is learned from.

Hides servers' names and running counters. Invariants: only what was answered between two looks that follow
one another soon is counted, so that no tick ever holds the requests of a longer time; counts of a newest
process of the router begin at zero.

Not here: parts of users instead of instances. The router would have to count errors by hash of the user,
which costs it a table entry per user and request; instances are counted anyway.
Neighbours: `series` feeds it, `noise` replays what it counted.
"""

from __future__ import annotations

from typing import Final

from tidegate import ports
from tidegate.core import model, routing, series
from tidegate.core.sequential import Counted
from tidegate.engine import traffic

#: Between two looks: after a longer time what was answered belongs to no tick.
GAP_S: Final = 2.0 * ports.TICK_S
#: Ticks that wait for a disk: a day of them.
WAITING_TICKS: Final = 24 * 3600 // ports.TICK_S

_Place = tuple[str, int]  # service, index of the instance
_Server = tuple[str, int, str]  # service, slot, name
_Counts = dict[int, int]


class InstanceMeter:
    """Counts of one environment's live instances since they were last taken."""

    def __init__(self) -> None:
        self._seen: dict[_Server, tuple[int, int]] = {}
        """Requests and errors of every server, also of those that are not live yet."""
        self._processes: set[str] = set()
        """Of the router: all that were ever seen, because one may be hidden for a while."""
        self._looked_at: float | None = None
        self._counts: dict[_Place, tuple[_Counts, _Counts]] = {}

    def look(self, live: model.Placement | None, routes: model.RouteState, at: float) -> None:
        """Add what is new; `at`: Unix seconds."""
        if not self._processes.issuperset(routes.processes):
            self._seen = {}  # servers are counted by the newest process, and that one has just begun
        soon = self._looked_at is not None and 0 <= at - self._looked_at <= GAP_S
        tick = int(at) // ports.TICK_S
        names = _names(live)
        seen: dict[_Server, tuple[int, int]] = {}
        for server in routes.servers:
            name = (server.service, server.slot, server.name)
            seen[name] = (server.requests, server.errors)
            requests, failed = self._seen.get(name, (0, 0))
            place = names.get(name)
            if soon and place is not None and server.requests >= requests and server.errors >= failed:
                self._count(place, tick, server.requests - requests, server.errors - failed)
        self._seen, self._looked_at = seen, at
        self._processes.update(routes.processes)

    def _count(self, place: _Place, tick: int, requests: int, failed: int) -> None:
        for counts, more in zip(self._counts.setdefault(place, ({}, {})), (requests, failed), strict=True):
            if more:
                counts[tick] = counts.get(tick, 0) + more

    def taken(self, now: float) -> tuple[ports.InstanceCounts, ...]:
        """Those of the ticks that are over, which wait no longer."""
        tick = int(now) // ports.TICK_S
        found = []
        for (service, instance), both in sorted(self._counts.items()):
            requests, failed = (_sorted(counts, before=tick) for counts in both)
            if requests or failed:
                found.append(
                    ports.InstanceCounts(service=service, instance=instance, requests=requests, errors=failed)
                )
        for both in self._counts.values():
            for counts in both:
                for old in [each for each in counts if each < tick]:
                    del counts[old]
        return tuple(found)

    def put_back(self, counts: tuple[ports.InstanceCounts, ...]) -> None:
        """They were not written: let them wait, for a day at most."""
        for each in counts:
            place = (each.service, each.instance)
            waiting = self._counts.get(place, ({}, {}))
            requests, failed = (
                dict(series.counted(old, _sorted(new))[-WAITING_TICKS:])
                for old, new in zip((each.requests, each.errors), waiting, strict=True)
            )
            self._counts[place] = (requests, failed)


def _names(live: model.Placement | None) -> dict[_Server, _Place]:
    if live is None:
        return {}
    return {
        (each.service, live.slot, routing.server_name(live, each)): (each.service, each.index)
        for each in live.endpoints
        if traffic.is_public(live, each.service)
    }


def _sorted(counts: _Counts, before: int | None = None) -> Counted:
    return tuple(sorted(cell for cell in counts.items() if before is None or cell[0] < before))
