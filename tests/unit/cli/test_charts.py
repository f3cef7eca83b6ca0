"""A canary drawn from its points: heights are shares of one scale, nothing is lost between columns."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.cli.support import printed
from tidegate.cli import charts
from tidegate.web import schemas

ROLLOUT = {"release": 2, "previous_release": 1}
BOUND = math.log(100)


def side(requests: int = 0, errors: int = 0, p99_ms: float | None = None) -> schemas.Side:
    return schemas.Side(requests=requests, errors=errors, p50_ms=p99_ms, p99_ms=p99_ms)


def point(at: float, *, canary: schemas.Side, stable: schemas.Side, **changes: Any) -> dict[str, Any]:
    """As the API answers it."""
    fields = {"exposure_bps": 500, "combined": 0.0} | changes
    made = schemas.Point(
        at=at,
        canary=canary,
        stable=stable,
        abort_bound=BOUND,
        no_worse=0.0,
        promote_bound=3.0,
        **fields,
    )
    return made.model_dump(mode="json")


def each_second(*canaries: schemas.Side, **changes: list[Any]) -> list[dict[str, Any]]:
    """One point a second; `changes`: a value of each."""
    return [
        point(
            1_000.0 + second,
            canary=canary,
            stable=side(100, 0, 10.0),
            **{name: values[second] for name, values in changes.items()},
        )
        for second, canary in enumerate(canaries)
    ]


def chart(points: list[dict[str, Any]], label: str) -> str:
    """The columns of one chart."""
    lines = [line.plain for line in charts.drawn(points, ROLLOUT)]
    head = lines[0]
    start = len(head) - len(head.lstrip())
    line = next(line for line in lines if line.split("  ")[0].strip() == label or line.startswith(label))
    return line[start : start + min(len(points), charts.COLUMNS_MAX)]


def test_without_points_nothing_is_drawn() -> None:
    """A rollout of before there were points has no charts, and no frame without content."""
    assert charts.drawn([], ROLLOUT) == []


def test_exposure_is_drawn_over_everybody() -> None:
    """Full height is everybody, and the smallest share is still seen."""
    points = each_second(*[side(1)] * 4, exposure_bps=[1, 2_500, 5_000, 10_000])
    assert chart(points, "exposure") == "▁▂▄█"


def test_both_releases_share_a_scale() -> None:
    """A canary with a tenth of the requests is drawn with a tenth of the height."""
    points = each_second(*[side(100), side(50), side(1), side(0)])
    assert chart(points, "requests/s r2") == "█▄▁ "
    assert chart(points, "requests/s r1") == "████"


def test_errors_are_drawn_as_shares() -> None:
    """One failed request of ten is as high for a small share of the traffic as for a large one."""
    points = each_second(side(10, 1), side(1_000, 100), side(10, 0), side(0, 0))
    assert chart(points, "errors     r2") == "██  "


def test_what_was_not_measured_is_blank() -> None:
    """No latency is no column, not one of zero."""
    points = each_second(side(1), side(1, p99_ms=20.0), side(1, p99_ms=10.0))
    assert chart(points, "p99        r2") == " █▄"
    assert chart(points, "p99        r1") == "▄▄▄"
    said = [line.plain for line in charts.drawn(each_second(side(1), side(1)), ROLLOUT)]
    assert any(line.startswith("p99        r2") and line.endswith("not measured") for line in said)


def test_evidence_is_drawn_against_its_bound() -> None:
    """Full height aborts, half of the nats are half of the height, and evidence for the canary is blank."""
    points = each_second(*[side(1)] * 4, combined=[-2.0, BOUND / 2, BOUND, 2 * BOUND])
    assert chart(points, "evidence") == " ▄██"


def test_noise_of_the_arithmetic_is_no_evidence() -> None:
    """Stakes that sum to 1 but for the last digit have won nothing."""
    assert chart(each_second(*[side(1)] * 2, combined=[1e-15, 0.01]), "evidence") == " ▁"


def test_an_aborting_column_is_told_from_one_below() -> None:
    """Only what reaches the bound is full."""
    points = each_second(*[side(1)] * 2, combined=[BOUND * 0.999, BOUND])
    assert chart(points, "evidence") == "▇█"


SIDES = st.builds(side, st.integers(0, 10**6), st.integers(0, 10**5), st.none() | st.floats(0.1, 120_000.0))
POINTS = st.lists(
    st.tuples(st.integers(1, 600), SIDES, SIDES, st.integers(0, 10_000), st.floats(-50.0, 5_000.0)),
    min_size=1,
    max_size=150,
)


def timeline(rows: list[Any]) -> list[dict[str, Any]]:
    """Points of any lengths, one after the other."""
    at, points = 1_000.0, []
    for length_s, canary, stable, exposure_bps, combined in rows:
        points.append(point(at, canary=canary, stable=stable, exposure_bps=exposure_bps, combined=combined))
        at += length_s
    return points


@given(POINTS, st.integers(40, 200))
def test_no_line_is_wider_than_asked_for(rows: list[Any], width: int) -> None:
    """Whatever happened, the charts fit and hold as many lines as there are charts."""
    lines = charts.drawn(timeline(rows), ROLLOUT, width=width)
    assert len(lines) == 9
    assert max(len(line.plain) for line in lines) <= width
    assert len(printed(*lines, width=width)) == 9


@given(POINTS, st.integers(1, 60))
def test_columns_add_up_to_the_points(rows: list[Any], columns: int) -> None:
    """However long the points are, no request is lost between two columns and none is drawn twice."""
    points = timeline(rows)
    scene = charts.Scene(tuple(points), columns)
    for name in ("canary", "stable"):
        for key in ("requests", "errors"):
            assert sum(scene.counts(name, key)) == pytest.approx(sum(p[name][key] for p in points))


@given(POINTS, st.integers(1, 60))
def test_the_last_column_is_the_last_point(rows: list[Any], columns: int) -> None:
    """A level that was reached is the one that is drawn last, and a peak is not thinned away."""
    points = timeline(rows)
    scene = charts.Scene(tuple(points), columns)
    assert scene.last("combined")[-1] == points[-1]["combined"]
    speeds = [p["canary"]["p99_ms"] for p in points if p["canary"]["p99_ms"] is not None]
    drawn = [value for value in scene.most("canary", "p99_ms") if value is not None]
    assert max(drawn, default=None) == max(speeds, default=None)


def test_a_pipe_gets_no_colours() -> None:
    """What is not a terminal gets letters only, and so does one whose user wants no colours."""
    lines = charts.drawn(each_second(side(1, 1), side(2)), ROLLOUT)
    assert not any("\x1b" in line for line in printed(*lines))
    assert "\x1b[36m" in "".join(printed(*lines, terminal=True))
    assert "\x1b[36m" not in "".join(printed(*lines, terminal=True, no_color=True))
