"""What was answered when: the values of the series, how they add up, and how a canary's points are thinned.

Hides nothing; pure. Invariants:

- whatever is put together keeps its counts: seconds to minutes, minutes to hours, points to longer points;
- of what is under way at a moment (`active`) the most is kept: it is no count, and does not add up;
- a running counter that fell was reset to zero, so all that it shows is new.

Neighbours: `engine.series` turns looks into these values, `store.series` keeps them, views show them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from tidegate.core import sequential
from tidegate.core.model import Traffic
from tidegate.core.sequential import Counted, Histogram

#: Most points of one rollout: about one per column of a wide screen.
POINTS_MAX: Final = 1200


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What one public service of one placement answered in a stretch of time."""

    requests: int = 0
    errors: int = 0
    classes: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)
    """Answers 1xx to 5xx."""
    connect_failures: int = 0
    unanswered: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    active: int = 0
    """Most that were seen under way at once."""
    latencies: Counted = ()


NOTHING: Final = Served()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The same with its time and its place."""

    at: int
    """Unix seconds at which the stretch begins."""
    placement: int
    release: int
    service: str
    served: Served


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two compared releases, in the time of a point."""

    requests: int = 0
    errors: int = 0
    latencies: Counted = ()


NOBODY: Final = Side()


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A moment of a canary: what was answered from `at` on, and what the evidence said at the end."""

    at: int
    """Unix seconds."""
    exposure_bps: int
    canary: Side
    stable: Side
    combined: float
    abort_bound: float
    no_worse: float
    promote_bound: float


# --- adding ----------------------------------------------------------------------------------------


def since(before: Traffic | None, now: Traffic) -> Served:
    """What was answered between two readings of one process of the router; None: it has just started."""
    if before is None or now.requests < before.requests or now.errors < before.errors:
        before = Traffic(service=now.service, slot=now.slot)
    first, second, third, fourth, fifth = map(_more, before.classes, now.classes)
    known = dict(before.latencies)
    grown = ((bucket, _more(known.get(bucket, 0), count)) for bucket, count in now.latencies)
    return Served(
        requests=now.requests - before.requests,
        errors=now.errors - before.errors,
        classes=(first, second, third, fourth, fifth),
        connect_failures=_more(before.connect_failures, now.connect_failures),
        unanswered=_more(before.unanswered, now.unanswered),
        bytes_in=_more(before.bytes_in, now.bytes_in),
        bytes_out=_more(before.bytes_out, now.bytes_out),
        active=now.active,
        latencies=tuple(cell for cell in grown if cell[1]),
    )


def _more(before: int, now: int) -> int:
    return now - before if now >= before else now


def is_quiet(served: Served) -> bool:
    """Nothing happened: not worth a row. What is under way will be answered one day."""
    return replace(served, active=0) == NOTHING


def joined(one: Served, other: Served) -> Served:
    """Both together."""
    first, second, third, fourth, fifth = map(int.__add__, one.classes, other.classes)
    return Served(
        requests=one.requests + other.requests,
        errors=one.errors + other.errors,
        classes=(first, second, third, fourth, fifth),
        connect_failures=one.connect_failures + other.connect_failures,
        unanswered=one.unanswered + other.unanswered,
        bytes_in=one.bytes_in + other.bytes_in,
        bytes_out=one.bytes_out + other.bytes_out,
        active=max(one.active, other.active),
        latencies=counted(one.latencies, other.latencies),
    )


def counted(one: Counted, other: Counted) -> Counted:
    """The cells of both."""
    if not one or not other:
        return one or other
    cells = dict(one)
    for bucket, count in other:
        cells[bucket] = cells.get(bucket, 0) + count
    return tuple(sorted(cells.items()))


def begun(at: int, step_s: int) -> int:
    """When the stretch of this length began that holds the moment."""
    return at - at % step_s


def rolled_up(rows: Iterable[Row], step_s: int) -> tuple[Row, ...]:
    """The rows in stretches of `step_s`, by time, placement and service."""
    found: dict[tuple[int, int, str], Row] = {}
    for row in rows:
        at = begun(row.at, step_s)
        place = (at, row.placement, row.service)
        known = found.get(place)
        served = joined(known.served, row.served) if known else row.served
        found[place] = replace(row, at=at, served=served)
    return tuple(found[place] for place in sorted(found))


# --- points ----------------------------------------------------------------------------------------


def followed(one: Point, other: Point) -> Point:
    """One point of both; `other` came later, so its evidence stands."""
    return replace(
        other, at=one.at, canary=together(one.canary, other.canary), stable=together(one.stable, other.stable)
    )


def together(one: Side, other: Side) -> Side:
    """What a release answered in both."""
    return Side(
        requests=one.requests + other.requests,
        errors=one.errors + other.errors,
        latencies=counted(one.latencies, other.latencies),
    )


def is_still(before: Point, point: Point) -> bool:
    """Nothing was answered, and nothing else has changed: not worth a point."""
    return replace(before, at=point.at, canary=NOBODY, stable=NOBODY) == point


def thinned(points: tuple[Point, ...], limit: int = POINTS_MAX) -> tuple[Point, ...]:
    """At most `limit` points, sorted by time: neighbours are put together, all in stretches of one length."""
    kept = tuple(sorted(points, key=lambda point: point.at))
    width_s = 1
    while len(kept) > limit:
        width_s *= 2
        start = kept[0].at
        stretches: dict[int, Point] = {}
        for point in kept:
            stretch = (point.at - start) // width_s
            known = stretches.get(stretch)
            stretches[stretch] = followed(known, point) if known else point
        kept = tuple(stretches.values())
    return kept


# --- latencies -------------------------------------------------------------------------------------


def quantile_ms(latencies: Counted, part: float) -> float | None:
    """Lower edge of the bucket that holds it, as everywhere in the analysis; None: nothing was measured."""
    if not latencies:
        return None
    return sequential.bucket_edge_s(sequential.quantile(latencies, part)) * 1000


def sample(latencies: Counted, limit: int) -> Histogram:
    """The latencies, scaled down to about `limit` requests if there are more."""
    total = sum(count for _, count in latencies)
    if total <= limit:
        return Histogram(cells=latencies)
    scaled = ((bucket, round(count * limit / total)) for bucket, count in latencies)
    return Histogram(cells=tuple(cell for cell in scaled if cell[1]))
