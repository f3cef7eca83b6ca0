"""The series in memory: the same promises as the one on SQLite, kept by plain dictionaries.

Invariants: adds all or nothing; what is kept is what `ports.Series` names, after `forget`. Neighbours:
`series_checks` holds both to one suite; `store.series` is the real one.
"""

from __future__ import annotations

from typing import Final

from tidegate import errors, ports
from tidegate.core import model, series
from tidegate.core.counters import USER_SHARDS
from tidegate.core.sequential import Counted
from tidegate.store.series import CHUNK_S, KEPT_INSTANCES_S, KEPT_ROLLOUTS, KEPT_S

_ALWAYS: Final = 2**62

_Mark = tuple[str, str, int]  # process, service, slot


class MemorySeries:
    """`ports.Series` without a disk."""

    def __init__(self) -> None:
        self.failing: errors.TidegateError | None = None
        """What every call raises, as a full or damaged disk would."""
        self.added: Final[list[tuple[ports.Recorded, ...]]] = []
        """Every call of `add` that came through."""
        self._marks: dict[model.EnvironmentKey, dict[_Mark, model.Traffic]] = {}
        self._rows: dict[tuple[model.EnvironmentKey, int], tuple[series.Row, ...]] = {}
        self._points: dict[model.EnvironmentKey, dict[int, dict[int, series.Point]]] = {}
        self._instances: dict[model.EnvironmentKey, dict[tuple[str, int], tuple[Counted, Counted]]] = {}
        self._users: dict[model.EnvironmentKey, ports.UserCounts] = {}
        self._noise: dict[model.EnvironmentKey, ports.Noise] = {}

    def marks(self, key: model.EnvironmentKey) -> tuple[model.Traffic, ...] | None:
        self._refuse()
        marks = self._marks.get(key)
        return None if marks is None else tuple(marks[mark] for mark in sorted(marks))

    def add(self, recorded: tuple[ports.Recorded, ...]) -> None:
        self._refuse()
        self.added.append(recorded)
        for one in recorded:
            self._add_marks(one)
            for step_s in KEPT_S:
                kept = self._rows.get((one.key, step_s), ())
                self._rows[one.key, step_s] = series.rolled_up((*kept, *one.rows), step_s)
            for rollout, point in one.points:
                self._add_point(one.key, rollout, point)
            places = self._instances.setdefault(one.key, {})
            for counts in one.instances:
                requests, failed = places.get((counts.service, counts.instance), ((), ()))
                places[counts.service, counts.instance] = (
                    series.counted(requests, counts.requests),
                    series.counted(failed, counts.errors),
                )
            users = self._users.get(one.key, ports.UserCounts())
            self._users[one.key] = ports.UserCounts(
                requests=series.counted(users.requests, one.users.requests),
                errors=series.counted(users.errors, one.users.errors),
            )

    def rows(
        self, key: model.EnvironmentKey, *, since: int, until: int, step_s: int, limit: int = 20_000
    ) -> tuple[series.Row, ...]:
        self._refuse()
        if step_s not in KEPT_S:
            raise ValueError(f"there are no rows of {step_s} seconds")
        kept = self._rows.get((key, step_s), ())
        return tuple(row for row in kept if since <= row.at < until)[: max(limit, 0)]

    def points(self, key: model.EnvironmentKey, rollout: int) -> tuple[series.Point, ...]:
        self._refuse()
        chart = self._points.get(key, {}).get(rollout, {})
        return tuple(chart[at] for at in sorted(chart))

    def instances(
        self, key: model.EnvironmentKey, *, since: int, until: int
    ) -> tuple[ports.InstanceCounts, ...]:
        self._refuse()

        def asked(cells: Counted) -> Counted:
            return tuple(cell for cell in cells if since <= cell[0] * ports.TICK_S < until)

        counts = (
            ports.InstanceCounts(
                service=service, instance=instance, requests=asked(requests), errors=asked(failed)
            )
            for (service, instance), (requests, failed) in sorted(self._instances.get(key, {}).items())
        )
        return tuple(each for each in counts if each.requests or each.errors)

    def users(self, key: model.EnvironmentKey, *, since: int, until: int) -> ports.UserCounts:
        self._refuse()
        return _users_between(self._users.get(key, ports.UserCounts()), since, until)

    def keep_noise(self, key: model.EnvironmentKey, noise: ports.Noise) -> None:
        self._refuse()
        self._noise[key] = noise

    def noise(self, key: model.EnvironmentKey) -> ports.Noise | None:
        self._refuse()
        return self._noise.get(key)

    def forget(self, now: float) -> None:
        self._refuse()
        for (key, step_s), rows in self._rows.items():
            oldest = int(now) - KEPT_S[step_s]
            self._rows[key, step_s] = tuple(row for row in rows if row.at >= oldest)
        for charts in self._points.values():
            for rollout in sorted(charts)[:-KEPT_ROLLOUTS]:
                del charts[rollout]
        oldest = (int(now) - KEPT_INSTANCES_S - CHUNK_S) // CHUNK_S * CHUNK_S + CHUNK_S
        for places in self._instances.values():
            for place, both in places.items():
                requests, failed = (
                    tuple(cell for cell in cells if cell[0] * ports.TICK_S >= oldest) for cells in both
                )
                places[place] = (requests, failed)
        for key, users in self._users.items():
            self._users[key] = _users_between(users, oldest, _ALWAYS)

    def _refuse(self) -> None:
        if self.failing is not None:
            raise self.failing

    def _add_marks(self, one: ports.Recorded) -> None:
        marks = self._marks.setdefault(one.key, {})
        marks |= {(mark.process, mark.service, mark.slot): mark for mark in one.marks}
        self._marks[one.key] = {mark: each for mark, each in marks.items() if mark[0] not in one.ended}

    def _add_point(self, key: model.EnvironmentKey, rollout: int, point: series.Point) -> None:
        charts = self._points.setdefault(key, {})
        chart = charts.setdefault(rollout, {})
        known = chart.get(point.at)
        chart[point.at] = series.followed(known, point) if known else point
        charts[rollout] = {each.at: each for each in series.thinned(tuple(chart.values()))}


def _users_between(users: ports.UserCounts, since: int, until: int) -> ports.UserCounts:
    def asked(cells: Counted, per_tick: int) -> Counted:
        return tuple(cell for cell in cells if since <= cell[0] // per_tick * ports.TICK_S < until)

    return ports.UserCounts(requests=asked(users.requests, 1), errors=asked(users.errors, USER_SHARDS))
