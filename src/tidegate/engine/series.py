"""From looks to memory: what each look shows to be new goes to the series, and each second of a canary.

Hides batches, the writing thread and what to do while the disk fails. Invariants:

- a look costs the loop memory work only: a thread of its own writes, one transaction a second at most, and
  none when nothing was answered;
- the router's counters go to the series together with the rows that they cover, so that what was answered
  while this control plane was down is added on the next look, to the second of that look;
- an environment's first look ever is only a beginning: what was counted before it is nobody's;
- what could not be written is kept, put together ever more coarsely, and written later: counts are exact,
  memory is bounded. Nothing here ever stops a step.

Neighbours: `watch` hands in each look, `traffic` has the rates of the moment, `operations` asks for a
deploy's past and plan, `noise` replays the last day, `store.series` keeps it all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from tidegate import errors, ports
from tidegate.core import analysis, model, series
from tidegate.core.model import EnvironmentKey
from tidegate.core.sequential import NOTHING, Counted, Histogram, Plan
from tidegate.engine import execute, loop, noise, traffic
from tidegate.engine.noise_counts import InstanceMeter, UserMeter

#: Between two transactions.
PAUSE_S: Final = 1.0
#: After a failure; so long it is shown at least.
RETRY_S: Final = 15.0
#: How often old rows are removed.
FORGET_S: Final = 60.0
#: A process of the router that was not seen for so long has ended.
ENDED_S: Final = 3600.0
#: Rows that wait for a disk; more are put together.
WAITING_ROWS: Final = 5000
#: What a new release's latencies are compared with first.
PAST_S: Final = 600
PAST_REQUESTS: Final = 100_000

_Mark = tuple[str, str, int]  # process, service, slot


@dataclass(slots=True, kw_only=True)
class _Moment:
    """A second of a canary, while it lasts."""

    rollout: model.Rollout
    exposure_bps: int
    canary: series.Side = series.NOBODY
    stable: series.Side = series.NOBODY


@dataclass(slots=True)
class _Book:
    """What is known of one environment, and what waits to be written."""

    key: EnvironmentKey
    live: model.Placement | None = None
    seen: dict[_Mark, model.Traffic] | None = None
    """None: not asked of the series yet."""
    begins: bool = False
    """The next look is the first one ever."""
    unknown: bool = False
    """The series has nothing of it yet: that the beginning was seen is news, even if it was empty."""
    alive: tuple[str, ...] = ()
    missing: dict[str, float] = field(default_factory=dict)
    """Since when a process of the router is not seen, in monotonic seconds."""
    places: dict[int, model.Placement] = field(default_factory=dict)
    """By slot: also the last one of a slot that is free again, whose last answers may come late."""
    stable: int | None = None
    """Placement that the canary is compared with, also when the canary has become live."""
    last: tuple[int, series.Point] | None = None
    meter: InstanceMeter = field(default_factory=InstanceMeter)
    users: UserMeter = field(default_factory=UserMeter)
    grown: dict[_Mark, model.Traffic] = field(default_factory=dict)
    ended: tuple[str, ...] = ()
    rows: dict[tuple[int, int, str], series.Row] = field(default_factory=dict)
    moments: dict[tuple[int, int], _Moment] = field(default_factory=dict)
    """By rollout and second."""
    points: tuple[tuple[int, series.Point], ...] = ()
    """That could not be written yet."""

    # --- looking ---

    def look(self, state: model.EnvironmentState, routes: model.RouteState, at: int) -> None:
        """Take in what is new."""
        seen = self.seen if self.seen is not None else {}
        self.alive = routes.processes
        self.places |= {placement.slot: placement for placement in state.placements}
        moment = self._moment(state, at)
        for each in routes.traffic:
            counted = replace(each, user_errors=())  # those are kept by tick, as the noise needs them
            mark = (counted.process, counted.service, counted.slot)
            before = seen.get(mark)
            if before is not None and replace(before, active=counted.active) == counted:
                continue
            seen[mark] = self.grown[mark] = counted
            place = self.places.get(counted.slot)
            served = series.since(before, counted)
            if not self.begins and place is not None and traffic.is_public(place, counted.service):
                self._add(at, place, counted.service, served)
                if moment is not None:
                    _compare(moment, place.id, self.stable, served)
        self.seen, self.begins = seen, False

    def _moment(self, state: model.EnvironmentState, at: int) -> _Moment | None:
        rollout = state.rollout
        if rollout is None or rollout.analysis is None:
            self.stable = None
            return None
        if state.live is not None and state.live.id != rollout.placement:
            self.stable = state.live.id
        known = self.moments.get((rollout.id, at))
        exposure_bps = _exposure_bps(state, rollout)
        if known is None:
            known = self.moments[rollout.id, at] = _Moment(rollout=rollout, exposure_bps=exposure_bps)
        known.rollout, known.exposure_bps = rollout, exposure_bps
        return known

    def _add(self, at: int, place: model.Placement, service: str, served: series.Served) -> None:
        if not series.is_quiet(served):
            row = series.Row(at=at, placement=place.id, release=place.release, service=service, served=served)
            self._put(row)

    def _put(self, row: series.Row) -> None:
        where = (row.at, row.placement, row.service)
        known = self.rows.get(where)
        self.rows[where] = replace(row, served=series.joined(known.served, row.served)) if known else row

    # --- writing ---

    def taken(self, now: float, now_s: float) -> ports.Recorded | None:
        """All that waits, which waits no longer; None: nothing does. `now_s`: monotonic seconds."""
        self._note_ended(now_s)
        recorded = ports.Recorded(
            key=self.key,
            marks=tuple(self.grown[mark] for mark in sorted(self.grown)),
            ended=self.ended,
            rows=tuple(self.rows[where] for where in sorted(self.rows)),
            points=self.points + tuple(self._new_points()),
            instances=self.meter.taken(now),
            users=self.users.taken(now),
        )
        self.grown, self.ended, self.rows, self.points = {}, (), {}, ()
        news = recorded != ports.Recorded(key=self.key) or (self.unknown and not self.begins)
        self.unknown = self.unknown and not news
        return recorded if news else None

    def put_back(self, recorded: ports.Recorded) -> None:
        """It was not written: let it wait, before what came since."""
        self.unknown = True
        self.grown = {(mark.process, mark.service, mark.slot): mark for mark in recorded.marks} | self.grown
        self.ended = recorded.ended + self.ended
        for row in recorded.rows:
            self._put(row)
        for step_s in (60, 3600):
            if len(self.rows) > WAITING_ROWS:
                coarse = series.rolled_up(self.rows.values(), step_s)
                self.rows = {(row.at, row.placement, row.service): row for row in coarse}
        self.points = _thinned(recorded.points + self.points)
        self.meter.put_back(recorded.instances)
        self.users.put_back(recorded.users)

    def _note_ended(self, now_s: float) -> None:
        known = sorted({mark[0] for mark in self.seen or {}})
        self.missing = {each: self.missing.get(each, now_s) for each in known if each not in self.alive}
        ended = tuple(each for each, since_s in self.missing.items() if now_s - since_s > ENDED_S)
        if ended and self.seen is not None:
            self.seen = {mark: each for mark, each in self.seen.items() if mark[0] not in ended}
            self.ended += ended

    def _new_points(self) -> Iterable[tuple[int, series.Point]]:
        moments, self.moments = self.moments, {}
        for (rollout, at), moment in sorted(moments.items(), key=lambda item: item[0]):
            point = _point(at, moment)
            before = self.last[1] if self.last is not None and self.last[0] == rollout else None
            if point is not None and (before is None or not series.is_still(before, point)):
                self.last = (rollout, point)
                yield rollout, point


def _compare(moment: _Moment, placement: int, stable: int | None, served: series.Served) -> None:
    side = series.Side(requests=served.requests, errors=served.errors, latencies=served.latencies)
    if placement == moment.rollout.placement:
        moment.canary = series.together(moment.canary, side)
    elif placement == stable:
        moment.stable = series.together(moment.stable, side)


def _exposure_bps(state: model.EnvironmentState, rollout: model.Rollout) -> int:
    """Share of users that the route gives the canary."""
    canary = state.placement(rollout.placement)
    if canary is None:
        return 0
    if canary.slot == state.route.stable:
        return model.FULL_EXPOSURE
    return state.route.exposure_bps if canary.slot == state.route.canary else 0


def _point(at: int, moment: _Moment) -> series.Point | None:
    verdict = analysis.verdict(moment.rollout)
    if verdict is None:
        return None
    return series.Point(
        at=at,
        exposure_bps=moment.exposure_bps,
        canary=moment.canary,
        stable=moment.stable,
        combined=verdict.combined,
        abort_bound=verdict.abort_bound,
        no_worse=verdict.no_worse,
        promote_bound=verdict.promote_bound,
    )


def _thinned(points: tuple[tuple[int, series.Point], ...]) -> tuple[tuple[int, series.Point], ...]:
    """No more than the series keeps of each rollout."""
    by_rollout: dict[int, dict[int, series.Point]] = {}
    for rollout, point in points:
        chart = by_rollout.setdefault(rollout, {})
        chart[point.at] = series.followed(chart[point.at], point) if point.at in chart else point
    return tuple(
        (rollout, point)
        for rollout, chart in by_rollout.items()
        for point in series.thinned(tuple(chart.values()))
    )


class Recorder:
    """Feeds the series of all environments, and answers what a deploy wants to know of the past."""

    def __init__(self, kept: ports.Series, clock: ports.Clock, replays: noise.Noise) -> None:
        """Nothing is read or written before the first `write`."""
        self._kept, self._clock, self._noise = kept, clock, replays
        self._turn = threading.Lock()
        self._books: dict[EnvironmentKey, _Book] = {}
        self._failure: execute.Failure | None = None
        self._again_s = 0.0
        self._forgot_s = -FORGET_S
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger(part="series")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="series", daemon=True)

    # --- of the loop ---

    def look(self, view: loop.View) -> None:
        """Take in what a step saw; memory only."""
        routes, state = view.observed.routes, view.state
        if routes is None:
            return
        with self._turn:
            book = self._books.setdefault(state.key, _Book(state.key))
            book.live = state.live
            if book.seen is not None:
                book.look(state, routes, int(view.at))
                book.meter.look(state.live, routes, view.at)
                book.users.look(state.live, routes, view.at)

    @property
    def failures(self) -> tuple[execute.Failure, ...]:
        """Why nothing is recorded now, once for all environments."""
        return (self._failure,) if self._failure is not None else ()

    # --- of a deploy ---

    def past(self, key: EnvironmentKey, live: model.Placement) -> Histogram:
        """Latencies of the live placement in the last minutes; empty if they are not known."""
        now = int(self._clock.now())
        try:
            rows = self._kept.rows(key, since=series.begun(now - PAST_S, 60), until=now + 1, step_s=60)
        except errors.TidegateError:
            return NOTHING
        cells: Counted = ()
        for row in rows:
            if row.placement == live.id:
                cells = series.counted(cells, row.served.latencies)
        return series.sample(cells, PAST_REQUESTS)

    def plan(self, key: EnvironmentKey) -> Plan:
        """What the newest replay of its last day asks for; the plain one if there is none."""
        return self._noise.plan(key)

    # --- of its own thread ---

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, and end."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._again_s = 0.0
        self._guarded(self.write)
        self._noise.close()

    def write(self) -> None:
        """One transaction with all that waits."""
        now_s = self._clock.monotonic()
        if now_s < self._again_s:
            return
        try:
            self._write(now_s)
        except errors.TidegateError as error:
            self._again_s = now_s + RETRY_S
            if self._failure is None or str(self._failure.error) != str(error):
                self._log.warning("cannot be recorded", detail=str(error))
            self._failure = execute.Failure(key="series", error=error)
        else:
            self._failure = None

    def _write(self, now_s: float) -> None:
        with self._turn:
            new = [key for key, book in self._books.items() if book.seen is None]
        for key in new:
            marks = self._kept.marks(key)
            with self._turn:
                book = self._books[key]
                book.begins = book.unknown = marks is None
                book.seen = {(each.process, each.service, each.slot): each for each in marks or ()}
        with self._turn:
            now = self._clock.now()
            taken = [book.taken(now, now_s) for book in self._books.values()]
        recorded = tuple(one for one in taken if one is not None)
        try:
            if recorded:
                self._kept.add(recorded)
        except BaseException:
            with self._turn:
                for one in recorded:
                    self._books[one.key].put_back(one)
            raise
        if now_s - self._forgot_s >= FORGET_S:
            self._kept.forget(now)
            self._forgot_s = now_s

    def _run(self) -> None:
        while not self._stop.wait(PAUSE_S):
            self._guarded(self.write)
            self._guarded(self._replay)

    def _replay(self) -> None:
        with self._turn:
            lives = {book.key: book.live for book in self._books.values() if book.live is not None}
        self._noise.step(lives)

    def _guarded(self, action: Callable[[], None]) -> None:
        """The last line of defence: the apps need their control plane, with or without its memory."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 - the last line of defence, as in `watch`
            self._log.exception("unexpected error")
            told = errors.TidegateError(f"The past cannot be recorded: {type(error).__name__}.")
            self._failure = execute.Failure(key="series", error=told)
            self._again_s = self._clock.monotonic() + RETRY_S
