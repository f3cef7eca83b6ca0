"""Which freeze window is in force at a moment.

Hides what a wall clock does where daylight-saving time begins and ends. A window is written in local time and
holds from the first moment at which the clock shows its beginning (or has jumped over it) to the last moment
before the clock shows its end for good: where an hour comes twice the window is the longer one, since a
freeze is there to be on the safe side.

Kept out of the core because time zones are files that change. No clock is read: the moment is given.
Neighbours: manifest (checks the names of zones), `model.Freeze` (the value).
"""

from __future__ import annotations

import datetime as dt
import zoneinfo
from collections.abc import Iterable, Iterator

from tidegate import errors
from tidegate.core import model

#: Weeks whose weekly window may hold now, counted from the one that the clock shows: a window over the week's
#: end began in the week before, and where the clock is put back over Monday 00:00 it shows the week before.
_WEEKS = (-2, -1, 0, 1)

_WEEK = dt.timedelta(weeks=1)


def in_force(freezes: Iterable[model.Freeze], now: float) -> tuple[model.Freeze, float] | None:
    """The window in force at this Unix time, and the Unix time when it ends; None: nothing is frozen.

    Of several that which ends last. What begins after it is not looked at: ask again then. Raises
    MachineError where this machine does not know a zone: what cannot be judged is no permission.
    """
    found = [
        (freeze, end)
        for freeze in freezes
        for begin, end in _windows(freeze, now, zone(freeze.zone))
        if begin <= now < end
    ]
    return max(found, key=lambda one: one[1], default=None)


def zone(name: str) -> zoneinfo.ZoneInfo:
    """A time zone by its name. Raises MachineError."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise errors.MachineError(
            f"This machine does not know the time zone {name} of a freeze window.",
            hint="Install Tidegate's dependency tzdata again.",
        ) from None


def _windows(freeze: model.Freeze, now: float, zone: zoneinfo.ZoneInfo) -> Iterator[tuple[float, float]]:
    """Windows that may hold `now`, as Unix times."""
    if freeze.dates is not None:
        begin, end = (dt.datetime.fromisoformat(text) for text in freeze.dates)
        yield _first(begin, zone), _last(end, zone)
    if freeze.weekly is not None:
        day = dt.datetime.fromtimestamp(now, zone).date()
        monday = dt.datetime.combine(day - dt.timedelta(days=day.weekday()), dt.time())
        since, until = (dt.timedelta(minutes=minutes) for minutes in freeze.weekly)
        if until <= since:
            until += _WEEK
        for week in _WEEKS:
            yield _first(monday + week * _WEEK + since, zone), _last(monday + week * _WEEK + until, zone)


def _first(wall: dt.datetime, zone: zoneinfo.ZoneInfo) -> float:
    """The first moment at which the clock shows this or later."""
    earlier, later = _both(wall, zone)
    return earlier if earlier <= later else _jump(wall, zone, later, earlier)


def _last(wall: dt.datetime, zone: zoneinfo.ZoneInfo) -> float:
    """The end of the last moment at which the clock shows less than this."""
    earlier, later = _both(wall, zone)
    if earlier > later:
        return _jump(wall, zone, later, earlier)
    # Put back to this very time, the clock shows no less before it comes again.
    shown = dt.datetime.fromtimestamp(later - 1, zone).replace(tzinfo=None)
    return later if shown < wall else earlier


def _both(wall: dt.datetime, zone: zoneinfo.ZoneInfo) -> tuple[float, float]:
    """The moment by the offset before a change of the clock, and by that after it; mostly they are one."""
    local = wall.replace(tzinfo=zone)
    return local.replace(fold=0).timestamp(), local.replace(fold=1).timestamp()


def _jump(wall: dt.datetime, zone: zoneinfo.ZoneInfo, before: float, after: float) -> float:
    """When the clock jumped over `wall`, which it never showed: a whole second in between."""
    low, high = int(before), int(after)  # the clock shows less at `low`, and as much or more at `high`
    while high - low > 1:
        middle = (low + high) // 2
        if dt.datetime.fromtimestamp(middle, zone).replace(tzinfo=None) >= wall:
            high = middle
        else:
            low = middle
    return float(high)
