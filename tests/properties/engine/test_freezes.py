"""A freeze window holds as long as the clock on the wall says so, also where the clock is changed."""

from __future__ import annotations

import datetime as dt
import functools
from zoneinfo import ZoneInfo

from hypothesis import example, given, note, settings
from hypothesis import strategies as st

from tidegate.core.model import Freeze
from tidegate.engine import freezes

MINUTE = 60.0
DAY = dt.timedelta(days=1)
WEEK_MINUTES = 7 * 24 * 60

#: Both hemispheres; changes at midnight, of half an hour and of two, at odd minutes' offsets; a day left out.
ZONES = (
    "UTC",
    "Europe/Berlin",
    "Europe/Dublin",
    "America/New_York",
    "America/St_Johns",
    "America/Santiago",
    "Australia/Sydney",
    "Australia/Lord_Howe",
    "Antarctica/Troll",
    "Africa/Cairo",
    "Africa/Casablanca",
    "Asia/Kathmandu",
    "Pacific/Apia",
)
YEARS = (2010, 2011, 2024, 2026)


@functools.cache
def changes(name: str) -> tuple[float, ...]:
    """The moments at which the clock of the zone was changed in those years, to the hour."""
    zone, found = ZoneInfo(name), []
    for year in YEARS:
        begin = int(dt.datetime(year, 1, 1, tzinfo=dt.UTC).timestamp())
        hours = range(begin, begin + 366 * 86_400, 3_600)
        offsets = [dt.datetime.fromtimestamp(hour, zone).utcoffset() for hour in hours]
        found += [float(hours[i]) for i in range(1, len(hours)) if offsets[i] != offsets[i - 1]]
    return tuple(found) or (1.77e9,)


@st.composite
def moments(draw: st.DrawFn, name: str) -> float:
    """A whole minute near a change of the clock."""
    change = draw(st.sampled_from(changes(name)))
    return change // MINUTE * MINUTE + MINUTE * draw(st.integers(-1_600, 1_600))


def wall(moment: float, name: str) -> dt.datetime:
    return dt.datetime.fromtimestamp(moment, ZoneInfo(name)).replace(tzinfo=None)


def shown(local: dt.datetime, name: str) -> list[tuple[float, dt.datetime]]:
    """All minutes around a local time, with what the clock showed."""
    middle = local.replace(tzinfo=ZoneInfo(name)).timestamp() // MINUTE * MINUTE
    minutes = [middle + MINUTE * step for step in range(-1_600, 1_601)]  # more than a day that is left out
    return [(moment, wall(moment, name)) for moment in minutes]


def holds(begin: dt.datetime, end: dt.datetime, now: float, name: str) -> float | None:
    """The end of the window that the clock says, if it holds now: every minute of it is looked at."""
    since = min(moment for moment, clock in shown(begin, name) if clock >= begin)
    until = max(moment for moment, clock in shown(end, name) if clock < end) + MINUTE
    return until if since <= now < until else None


def dated(name: str, begin: dt.datetime, end: dt.datetime) -> Freeze:
    return Freeze(zone=name, dates=(begin.isoformat(timespec="minutes"), end.isoformat(timespec="minutes")))


@given(
    data=st.data(), name=st.sampled_from(ZONES), minutes=st.integers(1, 3_000), late=st.integers(-60, 3_060)
)
def test_dates_hold_from_the_first_to_the_last_moment_that_the_clock_shows(
    data: st.DataObject, name: str, minutes: int, late: int
) -> None:
    """The answer is that of somebody who looks at the clock each minute, also where it jumps or repeats."""
    # Counted on the clock from the moment before the change: so it can be a time that is left out.
    before = wall(data.draw(st.sampled_from(changes(name))) // MINUTE * MINUTE - 120 * MINUTE, name)
    begin = before + dt.timedelta(minutes=data.draw(st.integers(0, 240) | st.integers(-1_600, 1_600)))
    end = begin + dt.timedelta(minutes=minutes)
    now = begin.replace(tzinfo=ZoneInfo(name)).timestamp() + MINUTE * late
    freeze = dated(name, begin, end)
    note(f"{freeze} at {now}: {wall(now, name)}")
    expected = holds(begin, end, now, name)
    assert freezes.in_force([freeze], now) == (None if expected is None else (freeze, expected))


@settings(max_examples=50)  # each looks at the clock 26 000 times
@given(
    data=st.data(),
    name=st.sampled_from(ZONES),
    since=st.integers(0, WEEK_MINUTES - 1),
    length=st.integers(1, WEEK_MINUTES),
)
def test_weekly_windows_hold_in_each_week_by_the_clock(
    data: st.DataObject, name: str, since: int, length: int
) -> None:
    """Some week's window holds, over the week's end too, and the one that ends last is told."""
    now = data.draw(moments(name))
    freeze = Freeze(zone=name, weekly=(since, (since + length) % WEEK_MINUTES))
    day = wall(now, name).replace(hour=0, minute=0, second=0)
    monday = day - day.weekday() * DAY
    ends = []
    for week in (-2, -1, 0, 1):
        begin = monday + dt.timedelta(weeks=week, minutes=since)
        ends.append(holds(begin, begin + dt.timedelta(minutes=length), now, name))
    expected = max((end for end in ends if end is not None), default=None)
    note(f"{freeze} at {now}: {wall(now, name)}")
    assert freezes.in_force([freeze], now) == (None if expected is None else (freeze, expected))


@given(data=st.data(), name=st.sampled_from(ZONES), since=st.integers(0, WEEK_MINUTES - 1))
def test_window_that_is_told_to_end_ends_then(data: st.DataObject, name: str, since: int) -> None:
    """It holds until the told moment and not at it: whoever waits for it waits once."""
    freeze = Freeze(zone=name, weekly=(since, (since + 600) % WEEK_MINUTES))
    now = data.draw(moments(name))
    found = freezes.in_force([freeze], now)
    if found is None:
        return
    assert freezes.in_force([freeze], found[1] - 0.001) == found
    assert freezes.in_force([freeze], found[1]) is None


@given(now=st.floats(0, 4e9), since=st.integers(0, WEEK_MINUTES - 1), length=st.integers(1, WEEK_MINUTES - 1))
@example(now=1_767_225_600.0, since=0, length=1)
def test_in_utc_a_week_is_a_week(now: float, since: int, length: int) -> None:
    """Where the clock is never changed it is arithmetic of minutes since Monday."""
    freeze = Freeze(zone="UTC", weekly=(since, (since + length) % WEEK_MINUTES))
    into_week = (now - 4 * 86_400) % (WEEK_MINUTES * MINUTE)  # 1 January 1970 was a Thursday
    into_window = (into_week - since * MINUTE) % (WEEK_MINUTES * MINUTE)
    assert (freezes.in_force([freeze], now) is not None) is (into_window < length * MINUTE)
