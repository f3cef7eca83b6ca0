"""Counts over time, for all rows and points: nothing is lost or doubled, whatever is put together."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tidegate.core import series
from tidegate.core.model import Traffic
from tidegate.core.sequential import Counted
from tidegate.testing.series_checks import START

COUNTS = st.integers(0, 2**40)
CELLS = st.dictionaries(st.integers(0, 255), st.integers(1, 2**40), max_size=6).map(
    lambda cells: tuple(sorted(cells.items()))
)
SERVED = st.builds(
    series.Served,
    requests=COUNTS,
    errors=COUNTS,
    classes=st.tuples(COUNTS, COUNTS, COUNTS, COUNTS, COUNTS),
    connect_failures=COUNTS,
    unanswered=COUNTS,
    bytes_in=COUNTS,
    bytes_out=COUNTS,
    active=COUNTS,
    latencies=CELLS,
)
ROWS = st.lists(
    st.builds(
        series.Row,
        at=st.integers(START, START + 3 * 86_400),
        placement=st.integers(1, 3),
        release=st.just(1),
        service=st.sampled_from(["api", "web"]),
        served=SERVED,
    ),
    max_size=30,
)
SIDES = st.builds(series.Side, requests=COUNTS, errors=COUNTS, latencies=CELLS)
POINTS = st.lists(
    st.builds(
        series.Point,
        at=st.integers(START, START + 5000),
        exposure_bps=st.integers(0, 10_000),
        canary=SIDES,
        stable=SIDES,
        combined=st.floats(-50, 50),
        abort_bound=st.just(4.6),
        no_worse=st.floats(-50, 50),
        promote_bound=st.just(3.2),
    ),
    unique_by=lambda point: point.at,
    max_size=60,
)


def whole(served: list[series.Served]) -> tuple[Counter[object], int]:
    """Every count, added up; and the most that was under way."""
    total: Counter[object] = Counter()
    for one in served:
        names = ("requests", "errors", "connect_failures", "unanswered", "bytes_in", "bytes_out")
        total.update({name: getattr(one, name) for name in names})
        total.update(dict(enumerate(one.classes)))
        total.update({("latency", bucket): count for bucket, count in one.latencies})
    return +total, max((one.active for one in served), default=0)


@given(ROWS, st.sampled_from([1, 60, 300, 3600, 86_400]))
def test_sum_over_any_tier_is_the_sum_that_was_fed(rows: list[series.Row], step_s: int) -> None:
    """Rolling up, also of what was rolled up before, neither loses nor doubles a count."""
    fed = whole([row.served for row in rows])
    seconds = series.rolled_up(rows, 1)
    assert whole([row.served for row in series.rolled_up(seconds, step_s)]) == fed
    assert whole([row.served for row in series.rolled_up(rows, step_s)]) == fed
    stretches = [(row.at, row.placement, row.service) for row in series.rolled_up(rows, step_s)]
    assert len(set(stretches)) == len(stretches)
    assert all(at % step_s == 0 for at, _, _ in stretches)


def sides(points: tuple[series.Point, ...]) -> tuple[Counter[object], Counter[object]]:
    """Counts of the canary and of the stable release, added up."""
    totals: tuple[Counter[object], Counter[object]] = (Counter(), Counter())
    for point in points:
        for total, side in zip(totals, (point.canary, point.stable), strict=True):
            total.update({"requests": side.requests, "errors": side.errors} | dict(side.latencies))
    return +totals[0], +totals[1]


@given(POINTS, st.integers(1, 20))
def test_thinning_keeps_every_count_and_the_limit(points: list[series.Point], limit: int) -> None:
    """However often a rollout is thinned: counts add up, time grows, the last evidence stands."""
    thinned: tuple[series.Point, ...] = ()
    for point in sorted(points, key=lambda each: each.at):
        thinned = series.thinned((*thinned, point), limit)
        assert len(thinned) <= limit
    assert sides(thinned) == sides(tuple(points))
    assert [point.at for point in thinned] == sorted({point.at for point in thinned})
    if points:
        last = max(points, key=lambda each: each.at)
        assert (thinned[-1].combined, thinned[-1].exposure_bps) == (last.combined, last.exposure_bps)


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100), CELLS), max_size=10), st.data())
def test_looks_at_a_running_counter_add_up(
    steps: list[tuple[int, int, Counted]], data: st.DataObject
) -> None:
    """Whichever looks are missed: the differences are the whole, once."""
    traffic = Traffic(service="web", slot=0, process="1@1")
    seen: Traffic | None = None
    found: list[series.Served] = []
    for requests, failed, latencies in steps:
        traffic = Traffic(
            service="web",
            slot=0,
            process="1@1",
            requests=traffic.requests + requests,
            errors=traffic.errors + failed,
            latencies=series.counted(traffic.latencies, latencies),
        )
        if data.draw(st.booleans()):
            found.append(series.since(seen, traffic))
            seen = traffic
    found.append(series.since(seen, traffic))
    assert whole(found) == whole([series.since(None, traffic)])
