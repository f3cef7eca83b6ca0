"""Medians, percentiles and how they are written. Pure.

Neighbours: every part of the bench uses these; `report` prints the words.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest value that so many percent of all do not exceed. Raises ValueError without values."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("a percentile of nothing")
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def median_ratio(values: Sequence[float], base: Sequence[float]) -> float:
    """Median of the ratios within each round: what disturbs a whole round falls out."""
    return statistics.median(value / other for value, other in zip(values, base, strict=True))


def spread(values: Sequence[float]) -> float:
    """Half the distance from the smallest to the largest value, as a share of the median."""
    return (max(values) - min(values)) / 2 / statistics.median(values)


def milliseconds(seconds: float) -> str:
    """For a table: three digits that matter."""
    value = seconds * 1000
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f}"


def times(value: float) -> str:
    """A ratio."""
    return f"{value:.2f}x"


def thousands(number: float) -> str:
    """A whole number that one can read."""
    return f"{number:,.0f}"


def timing(name: str, seconds: Sequence[float]) -> tuple[str, ...]:
    """A row: name, count, median, p99, largest; milliseconds."""
    return (
        name,
        thousands(len(seconds)),
        milliseconds(statistics.median(seconds)),
        milliseconds(percentile(seconds, 99)),
        milliseconds(max(seconds)),
    )


#: The heading of `timing` rows.
TIMING = ("", "count", "median ms", "p99 ms", "max ms")
