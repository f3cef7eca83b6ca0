"""Odds and percentages say what they are, in as few digits as say something."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core import words


@pytest.mark.parametrize(
    ("log_evidence", "said"),
    [
        (0.0, "1 to 1"),
        (math.log(3.14), "3.1 to 1"),
        (math.log(312.4), "312 to 1"),
        (math.log(0.02), "0.02 to 1"),
        (-50.0, "less than 0.01 to 1"),
        (50.0, "more than 1000000 to 1"),
        (5_000.0, "more than 1000000 to 1"),
        (-5_000.0, "less than 0.01 to 1"),
    ],
)
def test_odds_are_a_bet_in_words(log_evidence: float, said: str) -> None:
    """Nats become odds, and what nobody could tell apart is said so."""
    assert words.odds(log_evidence) == said


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0.0, "0 %"),
        (1.0, "100 %"),
        (0.996, "99.6 %"),
        (0.99, "99 %"),
        (0.02419, "2.4 %"),
        (0.0000037, "0.00037 %"),
        (4.3e-19, "0 %"),
    ],
)
def test_percentages(share: float, said: str) -> None:
    """All and nothing are round, small shares keep two digits, and noise of the arithmetic is nothing."""
    assert words.percent(share) == said


def test_an_interval_has_its_unit_once() -> None:
    """Both ends of an interval are read with one unit."""
    assert words.interval(0.0083, 0.069) == "0.83 to 6.9 %"


@given(st.floats(0.0, 1.0))
def test_no_percentage_needs_a_mathematician(share: float) -> None:
    """Whatever the share, it is written without an exponent and is near the truth."""
    said = words.percent(share).removesuffix(" %")
    assert set(said) <= set("0123456789.")
    assert float(said) == pytest.approx(100 * share, rel=0.05, abs=1e-6)


def test_one_thing_is_not_several() -> None:
    """Nothing is several, too."""
    assert [words.number(count, "request") for count in (0, 1, 2)] == [
        "0 requests",
        "1 request",
        "2 requests",
    ]
