"""What looks show to be new reaches the series: all of it, once, whatever fails in between."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import KEY, WEB_WITH_API, Scene, environment, perfect, placed, spec
from tidegate import errors, ports
from tidegate.core import judge, model, series
from tidegate.core.counters import USER_SHARDS
from tidegate.core.sequential import NOTHING, PLAIN, Counted
from tidegate.engine.loop import View
from tidegate.engine.noise import Noise
from tidegate.engine.series import ENDED_S, PAST_REQUESTS, RETRY_S, WAITING_ROWS, Recorder
from tidegate.testing.clock import ManualClock
from tidegate.testing.series import MemorySeries

FULL = errors.StorageError("The disk is full.")
FOR_EVER = {"since": 0, "until": 2**40}


class Street:
    """A recorder before a series in memory, and a router whose counters grow as told."""

    def __init__(self, scene: Scene | None = None, kept: MemorySeries | None = None) -> None:
        self.clock = ManualClock(now=1_700_002_800.0)
        self.kept = kept or MemorySeries()
        self.state = (scene or environment().live("r1")).state
        self.counters: dict[tuple[str, str, int], model.Traffic] = {}
        self.processes: tuple[str, ...] = ("1@1",)
        self.recorder = self.another()

    def another(self) -> Recorder:
        """A recorder of a control plane that has just started."""
        return Recorder(self.kept, self.clock, Noise(self.kept, self.clock))

    def answers(
        self,
        requests: int,
        failed: int = 0,
        *,
        release: str = "r1",
        service: str = "web",
        process: str = "1@1",
        latencies: Counted = (),
    ) -> None:
        """The router has answered so many more."""
        slot = placed(self.state, release).slot
        mark = (process, service, slot)
        before = self.counters.get(mark, model.Traffic(service=service, slot=slot, process=process))
        self.counters[mark] = replace(
            before,
            requests=before.requests + requests,
            errors=before.errors + failed,
            latencies=series.counted(before.latencies, latencies),
        )

    def look(self) -> None:
        """A step of the loop."""
        seen = perfect(self.state)
        assert seen.routes is not None
        traffic = tuple(each for each in self.counters.values() if each.process in self.processes)
        routes = replace(seen.routes, traffic=traffic, processes=self.processes)
        self.recorder.look(View(state=self.state, observed=replace(seen, routes=routes), at=self.clock.now()))

    def second(self) -> None:
        """A look, a transaction, and the next second begins."""
        self.look()
        self.recorder.write()
        self.clock.advance(1.0)

    def begin(self) -> None:
        """The first look has shown what was counted before."""
        self.second()
        self.second()

    def rows(self, step_s: int = 1) -> tuple[series.Row, ...]:
        return self.kept.rows(KEY, step_s=step_s, **FOR_EVER)

    @property
    def requests(self) -> int:
        return sum(row.served.requests for row in self.rows())


@pytest.fixture(autouse=True)
def quiet_log() -> Iterator[None]:
    """A failing disk is told again and again over all examples of a property."""
    with structlog.testing.capture_logs():
        yield


def judged(scene: Scene) -> Scene:
    """With an analysis under way."""
    rollout = scene.state.rollout
    assert rollout is not None
    analysis = model.Analysis(judge=judge.started(rollout.request.spec.analysis, PLAIN, NOTHING))
    return scene.having(rollout=replace(rollout, analysis=analysis))


def test_each_second_has_what_was_answered_in_it() -> None:
    """Counts, latencies and the release, by the second of the look."""
    street = Street()
    street.begin()
    start = int(street.clock.now())
    street.answers(5, 1, latencies=((30, 5),))
    street.second()
    street.second()
    street.answers(2)
    street.look()
    street.answers(4)
    street.second()
    first, second = street.rows()
    assert (first.at, first.release, first.service, first.placement) == (start, 1, "web", 1)
    assert first.served == series.Served(requests=5, errors=1, latencies=((30, 5),))
    assert (second.at, second.served.requests) == (start + 2, 6)


def test_first_look_ever_is_only_a_beginning() -> None:
    """What a router had counted before Tidegate kept anything belongs to no second."""
    street = Street()
    street.answers(1_000_000)
    street.begin()
    street.answers(3)
    street.second()
    assert street.requests == 3


def test_quiet_seconds_cost_nothing() -> None:
    """Without an answer there is no transaction, also while connections come and go."""
    street = Street()
    street.begin()
    street.answers(1)
    street.second()
    written = len(street.kept.added)
    for active in range(5):
        mark, traffic = next(iter(street.counters.items()))
        street.counters[mark] = replace(traffic, active=active)
        street.second()
    assert len(street.kept.added) == written


def test_only_public_services_are_recorded() -> None:
    """Users' requests count once: at the service that they reach, not at those behind it."""
    street = Street(environment().live("r1", spec(*WEB_WITH_API)))
    street.begin()
    street.answers(3)
    street.answers(9, service="api")
    street.second()
    assert {(row.service, row.served.requests) for row in street.rows()} == {("web", 3)}


def test_what_was_answered_while_nobody_looked_is_added_once() -> None:
    """A control plane that starts again goes on from the counters that its series covers."""
    street = Street()
    street.begin()
    street.answers(7)
    street.second()
    street.answers(20, 2)
    street.look()  # killed before it was written
    street.answers(100)
    street.recorder = street.another()
    street.begin()
    assert street.requests == 127
    street.second()
    assert street.requests == 127


def test_process_that_is_hidden_for_a_while_is_not_counted_twice() -> None:
    """Its counters go on where they were; after an hour without it they are forgotten."""
    street = Street()
    street.begin()
    street.answers(5)
    street.answers(8, process="2@2")
    street.processes = ("1@1", "2@2")
    street.second()
    street.processes = ("2@2",)
    street.second()
    street.processes = ("1@1", "2@2")
    street.answers(1)
    street.second()
    assert street.requests == 14
    street.processes = ("2@2",)
    street.second()
    street.clock.advance(ENDED_S)
    street.second()
    assert {each.process for each in street.kept.marks(KEY) or ()} == {"2@2"}


def test_last_answers_of_a_placement_that_is_gone_are_its_own() -> None:
    """The look that sees a slot free again may show what its placement answered last."""
    street = Street(environment().live("r1").standby("r2"))
    street.begin()
    gone = placed(street.state, "r2")
    street.answers(4, release="r2")
    kept = tuple(each for each in street.state.placements if each != gone)
    street.state = replace(street.state, placements=kept)
    street.second()
    assert [(row.placement, row.served.requests) for row in street.rows()] == [(gone.id, 4)]


# --- points ----------------------------------------------------------------------------------------


def test_canary_has_a_point_in_each_second() -> None:
    """Exposure, both sides, and the evidence with its bounds."""
    street = Street(judged(environment().live("r1").incoming("r2")))
    street.begin()
    start = int(street.clock.now())
    street.answers(95, 1, latencies=((20, 95),))
    street.answers(5, 2, release="r2", latencies=((60, 5),))
    street.second()
    rollout = street.state.rollout
    assert rollout is not None
    _, point = street.kept.points(KEY, rollout.id)
    assert point.at == start
    assert point.exposure_bps == 500
    assert point.canary == series.Side(requests=5, errors=2, latencies=((60, 5),))
    assert point.stable == series.Side(requests=95, errors=1, latencies=((20, 95),))
    bounds = rollout.request.spec.analysis
    assert (point.abort_bound, point.promote_bound) == (bounds.abort_bound, bounds.promote_bound)
    assert point.combined == pytest.approx(0.0)


def test_points_stay_those_of_the_two_releases_when_the_canary_is_live() -> None:
    """At the end the canary answers everybody, and the former release is still the stable one."""
    street = Street(judged(environment().live("r1").incoming("r2")))
    street.begin()
    old, new = placed(street.state, "r1"), placed(street.state, "r2")
    state = street.state.with_placement(replace(old, role=model.Role.STANDBY))
    state = state.with_placement(replace(new, role=model.Role.LIVE))
    street.state = replace(state, route=replace(state.route, stable=new.slot, canary=None, exposure_bps=0))
    street.answers(3, release="r1")
    street.answers(50, release="r2")
    street.second()
    rollout = street.state.rollout
    assert rollout is not None
    last = street.kept.points(KEY, rollout.id)[-1]
    assert (last.exposure_bps, last.canary.requests, last.stable.requests) == (10_000, 50, 3)


def test_aborted_canary_has_no_exposure() -> None:
    """The way home is a part of the story."""
    street = Street(judged(environment().live("r1").incoming("r2", phase=model.Phase.ABORTING)))
    street.begin()
    rollout = street.state.rollout
    assert rollout is not None
    assert [point.exposure_bps for point in street.kept.points(KEY, rollout.id)] == [0]
    street.state = replace(street.state, placements=(placed(street.state, "r1"),))
    street.answers(1)
    street.second()
    assert [point.exposure_bps for point in street.kept.points(KEY, rollout.id)] == [0, 0]


def test_still_canary_costs_nothing() -> None:
    """A canary that waits for somebody over a quiet night has the point at which it became quiet."""
    street = Street(judged(environment().live("r1").incoming("r2")))
    street.begin()
    written = len(street.kept.added)
    for _ in range(100):
        street.second()
    assert len(street.kept.added) == written


# --- what fails ------------------------------------------------------------------------------------


def test_full_disk_is_told_once_and_loses_nothing() -> None:
    """What could not be written waits, and is written when there is room again."""
    street = Street(judged(environment().live("r1").incoming("r2")))
    street.begin()
    street.kept.failing = FULL
    for _ in range(40):
        street.answers(3)
        street.answers(1, release="r2")
        street.second()
    (failure,) = street.recorder.failures
    assert (failure.key, failure.error) == ("series", FULL)
    street.kept.failing = None
    street.clock.advance(RETRY_S)
    street.second()
    assert street.recorder.failures == ()
    assert street.requests == 160
    rollout = street.state.rollout
    assert rollout is not None
    points = street.kept.points(KEY, rollout.id)
    assert sum(point.canary.requests for point in points) == 40
    assert sum(point.stable.requests for point in points) == 120
    assert len(points) > 30, "each second is kept while it can be"


def test_long_failure_needs_bounded_memory_and_loses_no_count() -> None:
    """Rows that wait are put together: minutes, then hours, of the same sums."""
    street = Street()
    street.begin()
    street.kept.failing = FULL
    for _ in range(WAITING_ROWS + 100):
        street.answers(1)
        street.look()
        street.clock.advance(1.0)
    street.recorder.write()
    (book,) = street.recorder._books.values()
    assert len(book.rows) <= WAITING_ROWS / 10
    street.kept.failing = None
    street.clock.advance(RETRY_S)
    street.second()
    assert sum(row.served.requests for row in street.rows(60)) == WAITING_ROWS + 100


def test_series_that_cannot_be_read_at_first_is_asked_again() -> None:
    """Nothing is recorded before it is known up to where it was recorded."""
    street = Street()
    street.begin()
    street.answers(5)
    street.second()
    street.recorder = street.another()
    street.kept.failing = FULL
    street.second()
    street.answers(6)
    street.second()
    street.kept.failing = None
    street.clock.advance(RETRY_S)
    street.begin()
    assert street.requests == 11


def test_unexpected_error_is_contained() -> None:
    """A defect is logged and shown by its type, and the thread goes on."""
    street = Street()
    street.begin()
    street.answers(1)
    street.look()
    street.kept.failing = RuntimeError("a defect")  # type: ignore[assignment]  # as a defect would
    street.recorder._guarded(street.recorder.write)
    (failure,) = street.recorder.failures
    assert "RuntimeError" in str(failure.error)
    street.kept.failing = None
    street.clock.advance(RETRY_S)
    street.second()
    assert (street.requests, street.recorder.failures) == (1, ())


@given(st.lists(st.tuples(st.sampled_from(["1@1", "2@2"]), st.integers(0, 50), st.booleans(), st.booleans())))
def test_sum_recorded_is_the_sum_answered(
    steps: list[tuple[str, int, bool, bool]],
) -> None:
    """Whatever fails, restarts and hides: each request is in each tier once."""
    street = Street()
    street.processes = ("1@1", "2@2")
    street.begin()
    for process, requests, fails, restarts in steps:
        street.answers(requests, requests // 2, process=process, latencies=((requests, 1),))
        street.kept.failing = FULL if fails else None
        street.second()
        if restarts:
            street.recorder = street.another()
    street.kept.failing = None
    street.clock.advance(2 * RETRY_S)
    street.begin()
    for step_s in ports.KEPT_S:
        assert sum(row.served.requests for row in street.rows(step_s)) == sum(each[1] for each in steps)
        assert sum(row.served.errors for row in street.rows(step_s)) == sum(each[1] // 2 for each in steps)
        measured = sum(count for row in street.rows(step_s) for _, count in row.served.latencies)
        assert measured == len(steps)


# --- what a deploy asks ----------------------------------------------------------------------------


def test_past_of_the_live_release_is_its_last_minutes() -> None:
    """Latencies of the live placement, not of others, and not of an hour ago."""
    street = Street(environment().live("r1").standby("r2"))
    street.begin()
    street.answers(9, latencies=((90, 9),))
    street.second()
    street.clock.advance(3600.0)
    street.answers(3, latencies=((20, 3),))
    street.answers(5, release="r2", latencies=((40, 5),))
    street.second()
    live = placed(street.state, "r1")
    assert street.recorder.past(KEY, live).cells == ((20, 3),)
    street.answers(2 * PAST_REQUESTS, latencies=((20, 2 * PAST_REQUESTS),))
    street.second()
    assert street.recorder.past(KEY, live).total == PAST_REQUESTS


def test_past_that_cannot_be_read_is_empty() -> None:
    """A deploy never waits for the series, and never fails with it."""
    street = Street()
    street.begin()
    street.kept.failing = FULL
    assert street.recorder.past(KEY, placed(street.state, "r1")) == NOTHING
    assert street.recorder.plan(KEY) == PLAIN


def test_old_rows_are_forgotten_as_time_goes_by() -> None:
    """Seconds are gone after an hour, whether anything happens or not."""
    street = Street()
    street.begin()
    street.answers(1)
    street.second()
    assert len(street.rows()) == 1
    street.clock.advance(4000.0)
    street.second()
    assert street.rows() == ()
    assert [row.served.requests for row in street.rows(60)] == [1]


def test_thread_writes_by_itself_and_what_is_left_at_the_end() -> None:
    """Started, it needs nobody; stopped, nothing waits any more."""
    street = Street()
    street.begin()
    wrote = threading.Event()
    add = street.kept.add

    def noting(recorded: tuple[ports.Recorded, ...]) -> None:
        add(recorded)
        wrote.set()

    street.kept.add = noting  # type: ignore[method-assign]  # to wait without polling
    street.answers(2)
    street.look()
    street.recorder.start()
    assert wrote.wait(10.0)
    street.answers(3)
    street.look()
    began = time.monotonic()
    street.recorder.stop()
    assert time.monotonic() - began < 5.0
    assert street.requests == 5


def test_blind_look_is_no_news() -> None:
    """A router that could not be looked at has not answered nothing."""
    street = Street()
    street.begin()
    street.recorder.look(
        View(state=street.state, observed=model.Observation(runtime=None, routes=None), at=street.clock.now())
    )
    street.answers(2)
    street.second()
    assert street.requests == 2


def test_users_are_kept_by_tick() -> None:
    """Requests and errors by part of the users are there when their tick is over, also after a bad disk."""
    street = Street()
    street.answers(0)
    street.begin()
    street.answers(9, 3)
    ((mark, counted),) = street.counters.items()
    street.counters[mark] = replace(counted, user_errors=((0, 1), (19, 2)))
    tick = int(street.clock.now()) // ports.TICK_S
    street.second()
    street.clock.advance(5.0)
    street.kept.failing = FULL
    street.second()
    assert street.recorder.failures
    street.kept.failing = None
    street.clock.advance(RETRY_S)
    street.second()
    errors_ = ((USER_SHARDS * tick, 1), (USER_SHARDS * tick + 19, 2))
    assert street.kept.users(KEY, **FOR_EVER) == ports.UserCounts(requests=((tick, 9),), errors=errors_)
    assert [known.user_errors for known in street.kept.marks(KEY) or ()] == [()]
