"""What the live release answers, in ticks of five seconds, by instance and by part of its users.

What the noise is learned from: an instance's incidents and a user's bursts are not seen in the counts of
the other kind. Hides servers' names and running counters. Invariants: only what was answered between two
looks that follow one another soon is counted, so that no tick ever holds the requests of a longer time;
counts of a newest process of the router begin at zero.

Not here: requests by part of the users. The router would have to find the part of each request, and not
only of the failed ones; `noise` takes an equal share.
Neighbours: `series` feeds it, `noise` replays what it counted.
"""

from __future__ import annotations

from typing import Final

from tidegate import ports
from tidegate.core import model, routing, series
from tidegate.core.counters import USER_SHARDS
from tidegate.core.sequential import Counted
from tidegate.engine import traffic

#: Between two looks: after a longer time what was answered belongs to no tick.
GAP_S: Final = 2.0 * ports.TICK_S
#: Ticks that wait for a disk: a day of them.
WAITING_TICKS: Final = 24 * 3600 // ports.TICK_S

_Place = tuple[str, int]  # service, index of the instance
_Server = tuple[str, int, str]  # service, slot, name
_Mark = tuple[str, str, int]  # process, service, slot
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
                _remove(counts, before=tick)
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


class UserMeter:
    """Counts of one environment's users of the live release since they were last taken."""

    def __init__(self) -> None:
        self._seen: dict[_Mark, model.Traffic] = {}
        """As at the last look, also of slots that are not live yet."""
        self._processes: set[str] = set()
        """Of the router: all that were ever seen."""
        self._looked_at: float | None = None
        self._requests: _Counts = {}
        self._errors: _Counts = {}

    def look(self, live: model.Placement | None, routes: model.RouteState, at: float) -> None:
        """Add what is new; `at`: Unix seconds."""
        soon = self._looked_at is not None and 0 <= at - self._looked_at <= GAP_S
        tick = int(at) // ports.TICK_S
        seen: dict[_Mark, model.Traffic] = {}
        for counted in routes.traffic:
            mark = (counted.process, counted.service, counted.slot)
            seen[mark] = counted
            before = self._seen.get(mark)
            if before is None and counted.process not in self._processes:
                before = model.Traffic(service=counted.service, slot=counted.slot)
            # A process that was hidden for a while comes back with what belongs to no tick.
            public = (
                live is not None and live.slot == counted.slot and traffic.is_public(live, counted.service)
            )
            if soon and public and before is not None and counted.requests >= before.requests:
                self._count(tick, before, counted)
        self._seen, self._looked_at = seen, at
        self._processes.update(routes.processes)

    def _count(self, tick: int, before: model.Traffic, now: model.Traffic) -> None:
        if now.requests > before.requests:
            self._requests[tick] = self._requests.get(tick, 0) + now.requests - before.requests
        known = dict(before.user_errors)
        for part, failed in now.user_errors:
            if failed > known.get(part, 0):
                cell = USER_SHARDS * tick + part
                self._errors[cell] = self._errors.get(cell, 0) + failed - known.get(part, 0)

    def taken(self, now: float) -> ports.UserCounts:
        """Those of the ticks that are over, which wait no longer."""
        tick = int(now) // ports.TICK_S
        found = ports.UserCounts(
            requests=_sorted(self._requests, before=tick),
            errors=_sorted(self._errors, before=USER_SHARDS * tick),
        )
        _remove(self._requests, before=tick)
        _remove(self._errors, before=USER_SHARDS * tick)
        return found

    def put_back(self, counts: ports.UserCounts) -> None:
        """They were not written: let them wait, for a day at most."""
        requests = series.counted(counts.requests, _sorted(self._requests))[-WAITING_TICKS:]
        oldest = USER_SHARDS * requests[0][0] if requests else 0
        failed = series.counted(counts.errors, _sorted(self._errors))
        self._requests = dict(requests)
        self._errors = {cell: count for cell, count in failed if cell >= oldest}


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


def _remove(counts: _Counts, *, before: int) -> None:
    for old in [each for each in counts if each < before]:
        del counts[old]
