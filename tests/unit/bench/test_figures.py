"""The bench's statistics say what they claim to say."""

from __future__ import annotations

import pytest

from bench import figures


@pytest.mark.parametrize(("percent", "wanted"), [(0, 1), (50, 50), (98.5, 99), (99, 99), (100, 100)], ids=str)
def test_a_percentile_is_a_value_that_was_measured(percent: float, wanted: int) -> None:
    """Of 1 to 100 in any order, the percentile is the smallest value that so many percent do not exceed."""
    assert figures.percentile(reversed(range(1, 101)), percent) == wanted


def test_there_is_no_percentile_of_nothing() -> None:
    """Without values there is an error instead of a number."""
    with pytest.raises(ValueError, match="nothing"):
        figures.percentile([], 50)


def test_a_ratio_is_taken_within_each_round() -> None:
    """A round in which the whole machine was slow does not change the ratio."""
    assert figures.median_ratio([20, 200, 22], [10, 100, 10]) == 2.0


def test_a_ratio_needs_as_many_rounds_of_both() -> None:
    """Rounds that have no partner are an error."""
    with pytest.raises(ValueError, match="shorter"):
        figures.median_ratio([1, 2], [1])


def test_the_spread_is_half_the_range_by_the_median() -> None:
    """From 8 to 12 around 10 is a fifth to either side."""
    assert figures.spread([10, 8, 12]) == 0.2


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.00123, "1.23"), (0.0123, "12.3"), (0.5, "500")], ids=["few", "tens", "hundreds"]
)
def test_milliseconds_keep_three_digits(seconds: float, text: str) -> None:
    """Small and large times are readable in one column."""
    assert figures.milliseconds(seconds) == text


def test_a_row_of_times_has_a_cell_for_each_heading() -> None:
    """Count, median, p99 and the largest stand below their headings."""
    row = figures.timing("flip", [0.001] * 98 + [0.05, 0.2])
    assert dict(zip(figures.TIMING, row, strict=True)) == {
        "": "flip",
        "count": "100",
        "median ms": "1.00",
        "p99 ms": "50.0",
        "max ms": "200",
    }
