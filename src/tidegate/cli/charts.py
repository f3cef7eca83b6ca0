"""How a canary went, drawn from its stored points with letters: exposure, requests, errors, speed, evidence.

Pure: points of the API in, lines out. One column of a chart is a stretch of time, the same in all charts, so
that what stands above each other happened together. Both releases share a scale, so that heights compare.

Invariants: no line is wider than asked for; the columns of a count add up to its points; what is not nothing
is seen, and nothing is blank.

Neighbours: `evidence` says the same in words; `look` asks the control plane for the points.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from tidegate.cli import evidence
from tidegate.client import Json
from tidegate.core import words

LEVELS: Final = " ▁▂▃▄▅▆▇█"
#: What a screen shows that nobody has made wider, and what a pipe gets.
WIDTH: Final = 80
COLUMNS_MAX: Final = 60
_COLUMNS_MIN: Final = 8
_GAP: Final = 2
_DIGITS: Final = 6  # of evidence: what is less is noise of the arithmetic, and nothing

CANARY, STABLE, HARM = "cyan", "green", "red"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One chart: a label, a height from 0 to 1 for each column (None: unknown), and what to say beside it."""

    label: str
    heights: tuple[float | None, ...]
    said: str
    style: str


def drawn(points: Sequence[Json], rollout: Json, *, width: int = WIDTH) -> list[Text]:
    """The charts of a rollout, oldest column first; nothing without points."""
    if not points:
        return []
    names = (f"r{rollout['release']}", f"r{rollout['previous_release']}")
    label_width = len("requests/s ") + max(len(name) for name in names)
    said_width = len("more than 1000000 to 1 of 1000")
    columns = min(max(width - label_width - said_width - 2 * _GAP, _COLUMNS_MIN), COLUMNS_MAX, len(points))
    scene = Scene(tuple(points), columns)
    head = Text(" " * (label_width + _GAP) + _times(scene, columns), style="bright_black")
    rows = _rows(scene, names)
    return [_cut(line, width) for line in (head, *(_line(row, label_width) for row in rows))]


def _times(scene: Scene, columns: int) -> str:
    """When the first column begins and, if there is room, the last one ends."""
    first, last = (time.strftime("%H:%M:%S", time.localtime(at)) for at in (scene.start, scene.end))
    return f"{first}{last:>{columns - len(first)}}" if columns > len(first) + len(last) else first


def _line(row: Row, label_width: int) -> Text:
    bar = "".join(LEVELS[level(height)] for height in row.heights)
    return Text.assemble(
        (f"{row.label:<{label_width + _GAP}}", "bright_black"), (bar, row.style), f"{'':{_GAP}}{row.said}"
    )


def _cut(line: Text, width: int) -> Text:
    line.truncate(width)
    line.no_wrap = True
    return line


def level(height: float | None) -> int:
    """Index into LEVELS: the smallest that is not nothing is still seen, and only the full one is full."""
    if not height or height <= 0:
        return 0
    return min(max(1, int(height * (len(LEVELS) - 1))), len(LEVELS) - 1)


# --- columns ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scene:
    """Points laid over columns of equal time."""

    points: tuple[Json, ...]
    columns: int

    @property
    def start(self) -> float:
        return float(self.points[0]["at"])

    @property
    def end(self) -> float:
        """The last point is taken to be as long as the one before it, else a second."""
        ats = [point["at"] for point in self.points[-2:]]
        return float(ats[-1]) + (max(ats[-1] - ats[0], 1.0) if len(ats) > 1 else 1.0)

    @property
    def step_s(self) -> float:
        return (self.end - self.start) / self.columns

    def _parts(self) -> Iterator[tuple[int, Json, float]]:
        """Each point with the columns that it lies in, and which part of it lies there."""
        ends = [*(point["at"] for point in self.points[1:]), self.end]
        for point, end in zip(self.points, ends, strict=True):
            length = end - point["at"]
            first = int((point["at"] - self.start) / self.step_s)
            last = int((end - self.start) / self.step_s)
            for column in range(first, min(last + 1, self.columns)):
                left = self.start + column * self.step_s
                inside = min(end, left + self.step_s) - max(point["at"], left)
                if inside > 0:
                    yield column, point, inside / length

    def counts(self, side: str, key: str) -> tuple[float, ...]:
        """How many there were in each column."""
        found = [0.0] * self.columns
        for column, point, part in self._parts():
            found[column] += point[side][key] * part
        return tuple(found)

    def most(self, side: str, key: str) -> tuple[float | None, ...]:
        """Largest value of each column; None: nothing was measured."""
        found: list[float | None] = [None] * self.columns
        for column, point, _ in self._parts():
            value = point[side][key]
            if value is not None:
                found[column] = max(value, found[column] or 0.0)
        return tuple(found)

    def last(self, key: str) -> tuple[float, ...]:
        """What it was at the end of each column."""
        found = [0.0] * self.columns
        for column, point, _ in self._parts():
            found[column] = point[key]
        return tuple(found)


# --- charts ----------------------------------------------------------------------------------------


def _rows(scene: Scene, names: tuple[str, str]) -> Iterator[Row]:
    exposure = scene.last("exposure_bps")
    yield Row(
        label="exposure",
        heights=tuple(value / 10_000 for value in exposure),
        said=f"up to {max(point['exposure_bps'] for point in scene.points) / 100:g} % of users",
        style=CANARY,
    )
    yield from _pair("requests/s", names, _rates(scene))
    yield from _pair("errors", names, _shares(scene))
    yield from _pair("p99", names, _speeds(scene))
    bound = scene.points[-1]["abort_bound"]
    yield Row(
        label="evidence",
        heights=tuple(round(value / bound, _DIGITS) for value in scene.last("combined")),
        said=f"{words.odds(scene.points[-1]['combined'])} of {math.exp(bound):.0f}",
        style=HARM,
    )


_Values = tuple[float | None, ...]
_Side = tuple[_Values, str]


def _pair(label: str, names: tuple[str, str], sides: tuple[_Side, _Side]) -> Iterator[Row]:
    """Both releases on one scale."""
    top = max((value for values, _ in sides for value in values if value is not None), default=0.0) or 1.0
    for name, style, (values, said) in zip(names, (CANARY, STABLE), sides, strict=True):
        heights = tuple(None if value is None else value / top for value in values)
        yield Row(label=f"{label:<10} {name}", heights=heights, said=said, style=style)


def _rates(scene: Scene) -> tuple[_Side, _Side]:
    def side(name: str) -> _Side:
        rates = tuple(count / scene.step_s for count in scene.counts(name, "requests"))
        total = sum(point[name]["requests"] for point in scene.points)
        return rates, f"up to {max(rates):.3g}, {total} in all"

    return side("canary"), side("stable")


def _shares(scene: Scene) -> tuple[_Side, _Side]:
    """Of the requests of each column: with a hundredth of the traffic one has a hundredth of the errors."""

    def side(name: str) -> _Side:
        requests, errors = (scene.counts(name, key) for key in ("requests", "errors"))
        pairs = zip(errors, requests, strict=True)
        shares = tuple(failed / count if count else None for failed, count in pairs)
        total = sum(point[name]["errors"] for point in scene.points)
        return shares, f"up to {words.percent(max((s or 0.0) for s in shares))}, {total} in all"

    return side("canary"), side("stable")


def _speeds(scene: Scene) -> tuple[_Side, _Side]:
    def side(name: str) -> _Side:
        speeds = scene.most(name, "p99_ms")
        most = max((value for value in speeds if value is not None), default=None)
        return speeds, "not measured" if most is None else f"up to {evidence.milliseconds(most)}"

    return side("canary"), side("stable")
