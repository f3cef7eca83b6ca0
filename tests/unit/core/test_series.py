"""Counts over time: differences of running counters, sums, thinning, quantiles."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tidegate.core import sequential, series
from tidegate.core.model import Traffic
from tidegate.testing.series_checks import START, point, row, served

NOW = Traffic(
    service="web",
    slot=1,
    process="7@7",
    requests=100,
    errors=10,
    classes=(1, 80, 5, 4, 10),
    connect_failures=2,
    unanswered=3,
    bytes_in=1000,
    bytes_out=2**40,
    active=4,
    latencies=((3, 50), (9, 40)),
)


def test_what_is_new_of_a_running_counter() -> None:
    """Counts are what was added since, and nothing that was counted before."""
    later = replace(NOW, requests=103, errors=11, classes=(1, 82, 5, 4, 11), latencies=((3, 50), (9, 43)))
    found = series.since(NOW, later)
    assert found == series.Served(
        requests=3, errors=1, classes=(0, 2, 0, 0, 1), active=4, latencies=((9, 3),)
    )


@pytest.mark.parametrize("before", [None, replace(NOW, requests=101), replace(NOW, errors=11)])
def test_counters_that_fell_were_reset(before: Traffic | None) -> None:
    """A process that was not seen before, or whose counters fell, counts from its start."""
    found = series.since(before, NOW)
    assert (found.requests, found.errors, found.classes) == (100, 10, (1, 80, 5, 4, 10))
    assert (found.bytes_out, found.latencies) == (2**40, ((3, 50), (9, 40)))


def test_a_single_part_that_fell_does_not_count_below_zero() -> None:
    """A table of latencies that was emptied under a running process adds what it holds now."""
    later = replace(NOW, requests=101, latencies=((3, 1), (9, 41)))
    assert series.since(NOW, later).latencies == ((3, 1), (9, 1))


def test_quiet_is_when_nothing_was_counted() -> None:
    """What is only under way is not worth a row; a byte is."""
    assert series.is_quiet(series.Served(active=3))
    assert not series.is_quiet(series.Served(bytes_out=1))


def test_joined_counts_add_up_and_active_does_not() -> None:
    """All counts of both, and the most that was under way at once."""
    one, other = served(6), served(5)
    both = series.joined(one, other)
    assert both.requests == 11
    assert both.classes == (0, 8, 0, 0, 3)
    assert both.bytes_out == 2**34
    assert both.active == 6
    assert both.latencies == ((3, 2), (200, 11))


def test_rows_are_rolled_up_by_place() -> None:
    """Stretches begin at whole multiples of their length, and each place has its own."""
    rows = (row(START + 59, 1), row(START, 2), row(START + 60, 4), row(START, 8, service="api"))
    found = series.rolled_up(rows, 60)
    assert [(each.at - START, each.service, each.served.requests) for each in found] == [
        (0, "api", 8),
        (0, "web", 3),
        (60, "web", 4),
    ]


def test_point_without_news_is_still() -> None:
    """A second in which nobody asked and nothing moved needs no point; evidence that moved does."""
    before = point(START, 5)
    assert series.is_still(before, point(START + 9, 0, combined=0.5)) is False, "the stable side had an error"
    still = replace(before, at=START + 9, canary=series.Side(), stable=series.Side())
    assert series.is_still(before, still)
    assert not series.is_still(before, replace(still, combined=0.6))
    assert not series.is_still(before, replace(still, exposure_bps=2500))


def test_thinned_points_keep_their_counts_and_their_last_evidence() -> None:
    """Neighbours are put together in stretches of one length, from the first point on."""
    points = tuple(point(START + at, combined=float(at)) for at in (0, 1, 2, 3, 9))
    assert series.thinned(points, 5) == points
    thinned = series.thinned(points[::-1], 4)
    assert [(each.at - START, each.combined, each.canary.requests) for each in thinned] == [
        (0, 1.0, 2),
        (2, 3.0, 2),
        (9, 9.0, 1),
    ]
    assert len(series.thinned(points, 1)) == 1


def test_quantile_is_the_lower_edge_of_its_bucket() -> None:
    """As in the analysis, so that the same figure is shown everywhere; nothing measured is no figure."""
    cells = ((10, 98), (90, 2))
    assert series.quantile_ms(cells, 0.5) == sequential.bucket_edge_s(10) * 1000
    assert series.quantile_ms(cells, 0.99) == sequential.bucket_edge_s(90) * 1000
    assert series.quantile_ms((), 0.5) is None


def test_sample_is_scaled_down_to_its_limit() -> None:
    """Proportions stay; a bucket of which nothing is left goes."""
    cells = ((1, 750_000), (2, 250_000), (3, 1))
    assert series.sample(cells, 1000).cells == ((1, 750), (2, 250))
    assert series.sample(cells, 2_000_000).cells == cells
