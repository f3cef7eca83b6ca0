"""The other process of the series' tests: `python -m tests.integration.store.series_worker DATABASE`.

Adds batches as fast as possible, and says the number of each one that was acknowledged, one a line.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from tidegate import ports
from tidegate.core import model, series
from tidegate.store.series import SqliteSeries
from tidegate.testing.series_checks import KEY, START, point, row

ROLLOUT: Final = 3
#: Each batch has a row of so many requests in so many seconds, and the counter grows by all of them.
REQUESTS: Final = 3
SECONDS: Final = 20


def batch(number: int) -> ports.Recorded:
    """The batch of that number, from 1 on."""
    first = START + SECONDS * number
    mark = model.Traffic(
        service="web", slot=0, process="1@1", requests=number * SECONDS * REQUESTS, latencies=((7, number),)
    )
    return ports.Recorded(
        key=KEY,
        marks=(mark,),
        rows=tuple(row(first + second, REQUESTS) for second in range(SECONDS)),
        points=tuple((ROLLOUT, point(first + second, REQUESTS)) for second in range(SECONDS)),
    )


def requests(rows: tuple[series.Row, ...]) -> int:
    """Of all rows."""
    return sum(each.served.requests for each in rows)


def _add(path: Path) -> None:
    kept = SqliteSeries(path)
    marks = kept.marks(KEY) or ()
    number = sum(mark.requests for mark in marks) // (SECONDS * REQUESTS)
    while True:
        number += 1
        kept.add((batch(number),))
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _add(Path(sys.argv[1]))
