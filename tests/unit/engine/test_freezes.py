"""Freeze windows by example: weekends, dates, and nights on which the clock is changed."""

from __future__ import annotations

import datetime as dt

import pytest

from tidegate import errors
from tidegate.core.model import Freeze
from tidegate.engine import freezes

#: Friday 16:00 to Monday 08:00.
WEEKEND = Freeze(zone="Europe/Berlin", weekly=(4 * 1440 + 960, 480), why="weekend")
HOLIDAYS = Freeze(zone="Europe/Berlin", dates=("2026-12-20T16:00", "2027-01-02T00:00"))


def at(text: str) -> float:
    return dt.datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("now", "end"),
    [
        ("2026-07-03T15:59:59+02:00", None),
        ("2026-07-03T16:00:00+02:00", "2026-07-06T08:00+02:00"),
        ("2026-07-05T23:59:59+02:00", "2026-07-06T08:00+02:00"),
        ("2026-07-06T07:59:59+02:00", "2026-07-06T08:00+02:00"),
        ("2026-07-06T08:00:00+02:00", None),
        ("2026-07-08T12:00:00+02:00", None),
    ],
)
def test_window_over_the_end_of_the_week(now: str, end: str | None) -> None:
    """From Friday to Monday it is one window, with its first moment and without its last."""
    assert freezes.in_force([WEEKEND], at(now)) == (None if end is None else (WEEKEND, at(end)))


def test_weekend_in_which_the_clock_is_changed_ends_by_the_new_time() -> None:
    """The weekend of the end of March is an hour shorter, and Monday's 8 o'clock is summer's."""
    assert freezes.in_force([WEEKEND], at("2026-03-28T12:00+01:00")) == (
        WEEKEND,
        at("2026-03-30T08:00+02:00"),
    )


@pytest.mark.parametrize(
    ("window", "first", "last"),
    [
        # The clock goes from 02:00 to 03:00 at 01:00 UTC: 02:15 is when it jumps, 02:45 too.
        (("2026-03-29T01:30", "2026-03-29T02:45"), "2026-03-29T00:30+00:00", "2026-03-29T01:00+00:00"),
        (("2026-03-29T02:15", "2026-03-29T03:30"), "2026-03-29T01:00+00:00", "2026-03-29T01:30+00:00"),
        # It goes from 03:00 back to 02:00 at 01:00 UTC: from the first 02:30 to the second 02:45.
        (("2026-10-25T02:30", "2026-10-25T02:45"), "2026-10-25T00:30+00:00", "2026-10-25T01:45+00:00"),
        # Until the time that it is put back to: nothing before it comes again.
        (("2026-10-25T01:30", "2026-10-25T02:00"), "2026-10-24T23:30+00:00", "2026-10-25T00:00+00:00"),
    ],
    ids=["ends in the hour left out", "begins in it", "in the hour that comes twice", "just before it"],
)
def test_nights_on_which_the_clock_is_changed(window: tuple[str, str], first: str, last: str) -> None:
    """An hour that is left out ends or begins where the clock jumps; one that comes twice is all frozen."""
    freeze = Freeze(zone="Europe/Berlin", dates=window)
    assert freezes.in_force([freeze], at(first) - 1) is None
    assert freezes.in_force([freeze], at(first)) == (freeze, at(last))
    assert freezes.in_force([freeze], at(last) - 1) == (freeze, at(last))
    assert freezes.in_force([freeze], at(last)) is None


def test_window_within_an_hour_that_is_left_out_never_comes() -> None:
    """The clock never showed it."""
    freeze = Freeze(zone="Europe/Berlin", dates=("2026-03-29T02:15", "2026-03-29T02:45"))
    change = int(at("2026-03-29T01:00+00:00"))
    assert not any(freezes.in_force([freeze], moment) for moment in range(change - 7_200, change + 7_200, 60))


def test_window_from_a_minute_to_the_same_minute_is_the_whole_week() -> None:
    """It is over the week's end, and the next one begins as it ends."""
    always = Freeze(zone="UTC", weekly=(480, 480))
    assert freezes.in_force([always], at("2026-07-06T07:59+00:00")) == (always, at("2026-07-06T08:00+00:00"))
    assert freezes.in_force([always], at("2026-07-06T08:00+00:00")) == (always, at("2026-07-13T08:00+00:00"))


def test_of_several_windows_the_one_that_ends_last_is_told() -> None:
    """A Saturday in the holidays is frozen until the holidays end."""
    assert freezes.in_force([WEEKEND, HOLIDAYS], at("2026-12-26T12:00+01:00")) == (
        HOLIDAYS,
        at("2027-01-02T00:00+01:00"),
    )


def test_nothing_is_frozen_without_windows() -> None:
    """No window, no freeze."""
    assert freezes.in_force([], at("2026-07-04T12:00+02:00")) is None


@pytest.mark.parametrize("zone", ["Europe/Atlantis", "../etc/passwd", "Europe"])
def test_zone_that_this_machine_does_not_know_is_an_error(zone: str) -> None:
    """What cannot be judged is no permission."""
    with pytest.raises(errors.MachineError, match="does not know the time zone"):
        freezes.in_force([Freeze(zone=zone, weekly=(0, 1))], 0.0)
