"""From the series to what the API answers: which stretch is meant, in which steps, and how it is shown. Pure.

Invariants: no answer has more than `STRETCHES_MAX` stretches for each service of each placement; stretches
are whole, from a multiple of their length on; what is no longer kept that finely is refused, because an
empty answer would say that nobody came. Neighbours: `api` asks, `core.series` adds up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tidegate import errors, ports
from tidegate.core import series
from tidegate.web import schemas

#: A screen has no more columns that can be told apart.
STRETCHES_MAX: Final = 1500
#: As many as are made when nobody says how long they shall be.
STRETCHES: Final = 300
#: Rows of one answer, over all placements and services.
ROWS_MAX: Final = 20_000
#: How far back it goes when nobody says.
SINCE_S: Final = 600
#: Steps to choose from.
STEPS_S: Final = (1, 5, 10, 30, 60, 300, 900, 1800, 3600, 6 * 3600, 24 * 3600)
#: Who asks for the last hour sent that a moment ago.
LENIENCE_S: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A stretch of time, checked."""

    since: int
    until: int
    step_s: int

    @property
    def tier_s(self) -> int:
        """Length of the kept rows that the steps are made of."""
        return max(tier_s for tier_s in ports.KEPT_S if self.step_s % tier_s == 0)


def asked(now: float, since: int | None, until: int | None, step: int | None) -> Asked:
    """What is meant. Raises RequestError for what cannot be answered."""
    end = int(now) + 1 if until is None else until
    begin = end - SINCE_S if since is None else since
    if begin >= end:
        raise errors.RequestError("`since` must be before `until`.", hint="Both are Unix seconds.")
    step_s = _step_s(now, begin, end) if step is None else step
    found = Asked(since=series.begun(begin, step_s), until=end, step_s=step_s)
    if (end - begin) > STRETCHES_MAX * step_s:
        raise errors.RequestError(
            f"{end - begin} seconds in steps of {step_s} s are too many: {STRETCHES_MAX} steps are the most.",
            hint="Leave `step` out, or ask for a shorter time.",
        )
    kept_s = ports.KEPT_S[found.tier_s]
    if begin < now - kept_s - LENIENCE_S:
        raise errors.RequestError(
            f"Steps of {step_s} s are kept for {_long(kept_s)}.",
            hint="Leave `step` out, or ask for a later time.",
        )
    return found


def _step_s(now: float, begin: int, end: int) -> int:
    fitting = (
        step_s
        for step_s in STEPS_S
        if end - begin <= STRETCHES * step_s
        and begin >= now - ports.KEPT_S[max(tier_s for tier_s in ports.KEPT_S if step_s % tier_s == 0)]
    )
    return next(fitting, STEPS_S[-1])


def _long(seconds: int) -> str:
    hours = seconds // 3600
    return "an hour" if hours == 1 else f"{hours // 24} days"


def row(value: series.Row, step_s: int) -> schemas.SeriesRow:
    """What a service answered in a stretch."""
    served = value.served
    return schemas.SeriesRow(
        at=value.at,
        step_s=step_s,
        placement=value.placement,
        release=value.release,
        service=value.service,
        requests=served.requests,
        errors=served.errors,
        classes=list(served.classes),
        connect_failures=served.connect_failures,
        unanswered=served.unanswered,
        bytes_in=served.bytes_in,
        bytes_out=served.bytes_out,
        active=served.active,
        p50_ms=series.quantile_ms(served.latencies, 0.5),
        p90_ms=series.quantile_ms(served.latencies, 0.9),
        p99_ms=series.quantile_ms(served.latencies, 0.99),
    )


def point(value: series.Point) -> schemas.Point:
    """A moment of a canary."""
    return schemas.Point(
        at=value.at,
        exposure_bps=value.exposure_bps,
        canary=_side(value.canary),
        stable=_side(value.stable),
        combined=value.combined,
        abort_bound=value.abort_bound,
        no_worse=value.no_worse,
        promote_bound=value.promote_bound,
    )


def _side(value: series.Side) -> schemas.Side:
    return schemas.Side(
        requests=value.requests,
        errors=value.errors,
        p50_ms=series.quantile_ms(value.latencies, 0.5),
        p99_ms=series.quantile_ms(value.latencies, 0.99),
    )
