"""The conformance suite of the series: what every implementation promises, one check per promise.

A test gives each check a factory that makes an empty series:

    @pytest.mark.parametrize("check", series_checks.CHECKS, ids=lambda check: check.__name__)
    def test_series(check, factory): check(factory)

Nothing here knows SQLite or a file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from tidegate import ports
from tidegate.core import model, series
from tidegate.core.counters import USER_SHARDS
from tidegate.core.replay import Replay
from tidegate.core.sequential import Plan

KEY: Final = model.EnvironmentKey(app="shop", environment="production")
OTHER: Final = model.EnvironmentKey(app="shop", environment="staging")
#: The beginning of an hour.
START: Final = 1_700_002_800
HOUR_S: Final = 3600
DAY_S: Final = 24 * HOUR_S
FOR_EVER: Final = {"since": 0, "until": 2**40}

Factory = Callable[[], ports.Series]
SeriesCheck = Callable[[Factory], None]


def check_series(factory: Factory) -> None:
    """Every check, each on a series of its own. Raises AssertionError."""
    for check in CHECKS:
        check(factory)


def served(requests: int, **changes: object) -> series.Served:
    """An answer for each; `changes`: fields of Served."""
    full = series.Served(
        requests=requests,
        errors=requests // 3,
        classes=(0, requests - requests // 3, 0, 0, requests // 3),
        bytes_in=100 * requests,
        bytes_out=2**33,
        active=requests % 7,
        latencies=((3, 1), (200, requests)),
    )
    return replace(full, **changes)  # type: ignore[arg-type]  # callers name fields of Served


def row(at: int, requests: int = 1, *, placement: int = 1, service: str = "web") -> series.Row:
    """A row of a second."""
    return series.Row(
        at=at, placement=placement, release=placement + 10, service=service, served=served(requests)
    )


def point(at: int, requests: int = 1, combined: float = 0.5) -> series.Point:
    """A point of a second."""
    return series.Point(
        at=at,
        exposure_bps=500,
        canary=series.Side(requests=requests, errors=0, latencies=((5, requests),)),
        stable=series.Side(requests=19 * requests, errors=1, latencies=((4, 19 * requests),)),
        combined=combined,
        abort_bound=4.6,
        no_worse=-1.5,
        promote_bound=3.2,
    )


def check_nothing_is_known_of_an_environment_at_first(factory: Factory) -> None:
    """An environment that was never recorded has no marks, which is not the same as marks of zero."""
    kept = factory()
    _equal(kept.marks(KEY), None)
    _equal(kept.rows(KEY, step_s=1, **FOR_EVER), ())
    _equal(kept.points(KEY, 1), ())
    _equal(kept.instances(KEY, **FOR_EVER), ())
    _equal(kept.noise(KEY), None)
    kept.add((ports.Recorded(key=KEY),))
    _equal(kept.marks(KEY), ())
    _equal(kept.marks(OTHER), None)


def check_rows_are_added_up_in_every_tier(factory: Factory) -> None:
    """A row counts in its second, its minute and its hour; what comes later to the same second is added."""
    kept = factory()
    for rows in ((row(START, 5), row(START + 1, 7)), (row(START + 1, 2), row(START + 61, 11))):
        kept.add((ports.Recorded(key=KEY, rows=rows),))
    seconds = kept.rows(KEY, step_s=1, **FOR_EVER)
    _equal(
        [(each.at, each.served.requests) for each in seconds], [(START, 5), (START + 1, 9), (START + 61, 11)]
    )
    _equal(seconds[1].served, series.joined(served(7), served(2)))
    minutes = kept.rows(KEY, step_s=60, **FOR_EVER)
    _equal([(each.at, each.served.requests) for each in minutes], [(START, 14), (START + 60, 11)])
    (hour,) = kept.rows(KEY, step_s=HOUR_S, **FOR_EVER)
    _equal((hour.at, hour.release, hour.served.requests, hour.served.active), (START, 11, 25, 5))


def check_rows_are_kept_apart_by_place(factory: Factory) -> None:
    """Placements, services and environments do not mix, and come in the order of time."""
    kept = factory()
    places = (row(START + 1, 1), row(START, 2, placement=2), row(START, 4), row(START, 8, service="api"))
    kept.add((ports.Recorded(key=KEY, rows=places), ports.Recorded(key=OTHER, rows=(row(START, 16),))))
    found = kept.rows(KEY, step_s=1, **FOR_EVER)
    _equal([each.served.requests for each in found], [8, 4, 2, 1])
    _equal([each.served.requests for each in kept.rows(OTHER, step_s=60, **FOR_EVER)], [16])


def check_rows_of_a_stretch(factory: Factory) -> None:
    """From `since`, before `until`, no more than `limit`; lengths that are not kept are refused."""
    kept = factory()
    kept.add((ports.Recorded(key=KEY, rows=tuple(row(START + at) for at in range(10))),))
    found = kept.rows(KEY, since=START + 2, until=START + 5, step_s=1)
    _equal([each.at - START for each in found], [2, 3, 4])
    _equal(len(kept.rows(KEY, step_s=1, limit=4, **FOR_EVER)), 4)
    _equal(kept.rows(KEY, step_s=1, limit=0, **FOR_EVER), ())
    try:
        kept.rows(KEY, step_s=2, **FOR_EVER)
    except ValueError:
        return
    raise AssertionError("rows of two seconds are not kept")


def check_marks_are_replaced_and_ended(factory: Factory) -> None:
    """The newest counters of a process stand, until it has ended."""
    kept = factory()
    first = model.Traffic(service="web", slot=0, process="1@1", requests=5, latencies=((0, 2), (255, 3)))
    second = replace(first, process="2@2", classes=(1, 2, 3, 4, 5), bytes_out=2**40, unanswered=1)
    kept.add((ports.Recorded(key=KEY, marks=(first, second)),))
    _equal(kept.marks(KEY), (first, second))
    grown = replace(first, requests=9, active=3, connect_failures=2)
    kept.add((ports.Recorded(key=KEY, marks=(grown,), ended=("2@2",)),))
    _equal(kept.marks(KEY), (grown,))


def check_points_of_a_rollout(factory: Factory) -> None:
    """Points are kept by rollout and in order; what comes later to the same second joins it."""
    kept = factory()
    kept.add(
        (ports.Recorded(key=KEY, points=((7, point(START + 1)), (8, point(START, 5)), (7, point(START)))),)
    )
    kept.add((ports.Recorded(key=KEY, points=((7, point(START + 1, 2, combined=0.75)),)),))
    first, second = kept.points(KEY, 7)
    _equal(first, point(START))
    _equal(second, series.followed(point(START + 1), point(START + 1, 2, combined=0.75)))
    _equal((second.canary.requests, second.combined), (3, 0.75))
    _equal(kept.points(KEY, 8), (point(START, 5),))


def check_long_rollouts_are_thinned(factory: Factory) -> None:
    """A rollout has no more points than the limit, and no request is lost by it."""
    kept = factory()
    seconds = 3 * series.POINTS_MAX + 17
    for begin in range(0, seconds, 400):
        batch = tuple((7, point(START + at)) for at in range(begin, min(begin + 400, seconds)))
        kept.add((ports.Recorded(key=KEY, points=batch),))
        _expect(len(kept.points(KEY, 7)) <= series.POINTS_MAX, "there are more points than the limit")
    points = kept.points(KEY, 7)
    _expect(len(points) > series.POINTS_MAX // 2, f"only {len(points)} points are left")
    _equal(sum(each.canary.requests for each in points), seconds)
    _equal(sum(each.stable.requests for each in points), 19 * seconds)
    _equal([each.at for each in points], sorted(each.at for each in points))


def check_instances_are_kept_by_tick(factory: Factory) -> None:
    """Counts of an instance add up per tick, over the borders of whatever they are stored in."""
    kept = factory()
    first = START // ports.TICK_S
    counts = ports.InstanceCounts(
        service="web", instance=0, requests=((first, 5), (first + 500, 7)), errors=((first + 500, 1),)
    )
    more = replace(counts, requests=((first, 1), (first + 1, 2)), errors=())
    other = replace(counts, instance=1, requests=(), errors=((first + 2, 1),))
    kept.add((ports.Recorded(key=KEY, instances=(counts, other)),))
    kept.add((ports.Recorded(key=KEY, instances=(more,)),))
    whole = replace(counts, requests=((first, 6), (first + 1, 2), (first + 500, 7)))
    _equal(kept.instances(KEY, **FOR_EVER), (whole, other))
    since, until = START + ports.TICK_S, START + 500 * ports.TICK_S
    part = replace(whole, requests=((first + 1, 2),), errors=())
    _equal(kept.instances(KEY, since=since, until=until), (part, other))


def check_users_are_kept_by_tick_and_part(factory: Factory) -> None:
    """Counts add up per tick and part, over the borders of whatever they are stored in."""
    kept = factory()
    _equal(kept.users(KEY, **FOR_EVER), ports.UserCounts())
    first = START // ports.TICK_S
    counts = ports.UserCounts(
        requests=((first, 5), (first + 500, 7)),
        errors=(
            (USER_SHARDS * first, 2),
            (USER_SHARDS * first + 19, 1),
            (USER_SHARDS * (first + 500) + 3, 4),
        ),
    )
    more = ports.UserCounts(
        requests=((first, 1), (first + 1, 2)),
        errors=((USER_SHARDS * first + 7, 1), (USER_SHARDS * first + 19, 1)),
    )
    kept.add((ports.Recorded(key=KEY, users=counts), ports.Recorded(key=OTHER, users=more)))
    kept.add((ports.Recorded(key=KEY, users=more),))
    errors = ((0, 2), (7, 1), (19, 2), (USER_SHARDS * 500 + 3, 4))
    whole = ports.UserCounts(
        requests=((first, 6), (first + 1, 2), (first + 500, 7)),
        errors=tuple((USER_SHARDS * first + place, count) for place, count in errors),
    )
    _equal(kept.users(KEY, **FOR_EVER), whole)
    _equal(kept.users(OTHER, **FOR_EVER), more)
    until = START + 500 * ports.TICK_S
    part = ports.UserCounts(requests=whole.requests[:2], errors=whole.errors[:3])
    _equal(kept.users(KEY, since=START, until=until), part)
    _equal(
        kept.users(KEY, since=START + 1, until=until), replace(part, requests=part.requests[1:], errors=())
    )


def check_noise_is_replaced(factory: Factory) -> None:
    """The newest replay stands."""
    kept = factory()
    kept.add((ports.Recorded(key=KEY),))
    for phi, block_s in ((1.0, 20.0), (2.5, None)):
        replay = Replay(
            plan=Plan(phi=phi, block_s=block_s),
            fakes=480,
            aborted_plain=9,
            aborted=1,
            sentence="Nine of 480.",
        )
        kept.keep_noise(KEY, ports.Noise(at=START + phi, replay=replay))
        _equal(kept.noise(KEY), ports.Noise(at=START + phi, replay=replay))


def check_old_rows_are_forgotten(factory: Factory) -> None:
    """Seconds go after an hour, minutes after a week, hours after 400 days: none sooner."""
    kept = factory()
    kept.add((ports.Recorded(key=KEY, rows=(row(START),)),))
    for age_s, tiers in (
        (HOUR_S, (1, 60, HOUR_S)),
        (2 * HOUR_S, (60, HOUR_S)),
        (7 * DAY_S, (60, HOUR_S)),
        (8 * DAY_S, (HOUR_S,)),
        (400 * DAY_S, (HOUR_S,)),
        (401 * DAY_S, ()),
    ):
        kept.forget(START + age_s)
        known = tuple(step_s for step_s in (1, 60, HOUR_S) if kept.rows(KEY, step_s=step_s, **FOR_EVER))
        _equal(known, tiers)


def check_old_instances_are_forgotten(factory: Factory) -> None:
    """Counts of instances and of users are kept for a day."""
    kept = factory()
    counts = ports.InstanceCounts(
        service="web", instance=0, requests=((START // ports.TICK_S, 5),), errors=()
    )
    users = ports.UserCounts(requests=counts.requests, errors=((USER_SHARDS * START // ports.TICK_S, 1),))
    kept.add((ports.Recorded(key=KEY, instances=(counts,), users=users),))
    kept.forget(START + DAY_S)
    _equal((kept.instances(KEY, **FOR_EVER), kept.users(KEY, **FOR_EVER)), ((counts,), users))
    kept.forget(START + DAY_S + HOUR_S)
    _equal((kept.instances(KEY, **FOR_EVER), kept.users(KEY, **FOR_EVER)), ((), ports.UserCounts()))


def check_old_rollouts_are_forgotten(factory: Factory) -> None:
    """The points of the last 500 rollouts of an environment are kept."""
    kept = factory()
    points = tuple((rollout, point(START + rollout)) for rollout in range(2, 2 * 503, 2))
    kept.add((ports.Recorded(key=KEY, points=points), ports.Recorded(key=OTHER, points=points[:1])))
    kept.forget(START)
    known = [rollout for rollout, _ in points if kept.points(KEY, rollout)]
    _equal(known, [rollout for rollout, _ in points][-500:])
    _expect(bool(kept.points(OTHER, 2)), "another environment's rollout was forgotten")


CHECKS: Final[tuple[SeriesCheck, ...]] = (
    check_nothing_is_known_of_an_environment_at_first,
    check_rows_are_added_up_in_every_tier,
    check_rows_are_kept_apart_by_place,
    check_rows_of_a_stretch,
    check_marks_are_replaced_and_ended,
    check_points_of_a_rollout,
    check_long_rollouts_are_thinned,
    check_instances_are_kept_by_tick,
    check_users_are_kept_by_tick_and_part,
    check_noise_is_replaced,
    check_old_rows_are_forgotten,
    check_old_instances_are_forgotten,
    check_old_rollouts_are_forgotten,
)


def _equal(found: object, wanted: object) -> None:
    _expect(found == wanted, f"found {found!r}, wanted {wanted!r}")


def _expect(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - the condition is what is said
    if not holds:
        raise AssertionError(otherwise)
